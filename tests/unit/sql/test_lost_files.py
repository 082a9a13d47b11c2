"""Committed files that are lost, cut or overwritten: named, with what brings their rows back; never 'check the SQL'."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smoothcert.errors import QueryError, StoreError
from smoothcert.sql import open_query
from smoothcert.store import RunDirectory

SMOOTHCERT = str(Path(sys.executable).parent / "smoothcert")
SQL = "SELECT avg(draws), min(caption), max(source_uri), count(error_message) FROM certificates"


@pytest.fixture
def run(tmp_path: Path, make: Any) -> RunDirectory:
    run = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(3, 400))
    for unit in run.plan():
        make.commit_unit(run, unit)
    return run


def damage(run: RunDirectory, how: str) -> tuple[str, str]:
    """Damage the file of the second unit; the unit and the file."""
    unit = run.plan()[1].unit_id
    (file,) = (name for name in run.commits.load().files("certificates") if unit in name)
    path = Path(run.url) / file
    data = path.read_bytes()
    if how == "lost":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[:-100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "overwritten":
        path.write_bytes(b"x" * len(data))
    else:  # pages, not the footer
        path.write_bytes(data[:100] + b"\xff" * 3000 + data[3100:])
    return unit, file


@pytest.mark.parametrize("how", ["lost", "cut", "empty", "overwritten", "pages"])
def test_the_file_and_its_unit_are_named(run: RunDirectory, how: str) -> None:
    unit, file = damage(run, how)
    with open_query([run.url]) as query:
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                query.sql(SQL)
            assert file in caught.value.message and "1 units lack their rows" in caught.value.message
            assert caught.value.remedy.endswith(unit) and "restore" in caught.value.remedy
            assert "Traceback" not in str(caught.value) and "SQL" not in str(caught.value)
        # a mistake in the SQL is still one
        with pytest.raises(QueryError, match="did you mean"):
            query.sql("SELECT drws FROM certificates")


def test_what_the_remedy_says_brings_the_rows_back(run: RunDirectory, make: Any) -> None:
    damage(run, "cut")
    with open_query([run.url]) as query, pytest.raises(StoreError) as caught:
        query.sql(SQL)
    unit = caught.value.remedy.rpartition(": ")[2]
    assert f"'{run.url}/commits'" in caught.value.remedy
    (Path(run.url) / "commits" / f"{unit}.json").unlink()
    again = RunDirectory.open(run.url)
    (pending,) = again.pending()
    assert pending.unit_id == unit
    make.commit_unit(again, pending)
    with open_query([run.url]) as query:
        assert query.sql("SELECT count(*) AS n FROM certificates").to_pylist() == [{"n": 1200}]


def test_a_store_that_comes_back_is_not_called_damaged(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading failed for a moment: nothing is lost, and nobody is told to delete a commit."""
    from smoothcert.sql.failed_reading import explain_failed_reading

    committed = run.commits.load()
    file = run.storage.path(committed.files("certificates")[0])
    found = explain_failed_reading(run, committed, ConnectionResetError(f"reset while reading {file}"))
    assert isinstance(found, StoreError)
    assert "connection" in found.message and "delete" not in found.remedy


def test_the_command_says_it_too(run: RunDirectory) -> None:
    unit, file = damage(run, "lost")
    done = subprocess.run(
        [SMOOTHCERT, "query", run.url, SQL],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 3 and file in done.stderr and unit in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 2
