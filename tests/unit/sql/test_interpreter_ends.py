"""A query on a store that is written in Python ends well: Arrow's threads may still read from it when all is shown.

Only an interpreter that ends can show this: forks, which other tests run commands in, leave without taking it down.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from smoothcert.store import RunDirectory

SLOW_STORE = """
import os, sys, time
import fsspec
from fsspec.implementations.local import LocalFileSystem

class Slow(LocalFileSystem):
    "Local files behind slow://, of which each request takes a moment."
    protocol = "slow"

    @classmethod
    def _strip_protocol(cls, path):
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return LocalFileSystem._strip_protocol(os.fspath(path).removeprefix("slow://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        time.sleep(0.02)
        return super().cat_file(path, start, end, **kwargs)

fsspec.register_implementation("slow", Slow)
from smoothcert.cli.main import main
main()
"""


def test_a_query_that_needs_no_more_rows_ends_with_its_exit_code(tmp_path: Path, make: Any) -> None:
    """Of eight files Arrow reads some ahead, for which nobody waits."""
    run = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(8, 4))
    for unit in run.plan():
        make.commit_unit(run, unit)
    sql = "SELECT status FROM certificates LIMIT 1"
    done = subprocess.run(
        [sys.executable, "-c", SLOW_STORE, "query", f"slow://{tmp_path}/run", sql],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "") and "ok" in done.stdout, done
