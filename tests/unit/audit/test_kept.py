"""A kept audit rests on all of the code, and on the commits that it saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smoothcert.audit.kept import digest_of_code, keep_audit, kept_audit
from smoothcert.sql import Query
from smoothcert.store import RunDirectory


@pytest.mark.parametrize("changed", ["audit/rules.py", "datasets/records.py", "errors.py"])
def test_any_module_and_any_version_counts(tmp_path: Path, changed: str) -> None:
    for name in ("audit/rules.py", "datasets/records.py", "errors.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a = 1\n")
    before = digest_of_code(tmp_path, "1")
    assert before == digest_of_code(tmp_path, "1") != digest_of_code(tmp_path, "2")
    (tmp_path / changed).write_text("a = 2\n")
    assert before != digest_of_code(tmp_path, "1")


def test_an_audit_of_an_open_query_does_not_rest_on_what_is_committed_later(
    tmp_path: Path, make: Any
) -> None:
    run = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(2))
    first, second = run.plan()
    make.commit_unit(run, first)
    with Query([run], many=True) as query:
        make.commit_unit(run, second)
        assert keep_audit(run, query).pairs == 4, "as of the moment at which the query was opened"
        assert kept_audit(run) is None
    assert keep_audit(run).pairs == 8
    assert kept_audit(run) is not None
