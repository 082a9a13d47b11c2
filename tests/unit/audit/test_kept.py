"""A kept audit rests on all of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoothcert.audit.kept import digest_of_code


@pytest.mark.parametrize("changed", ["audit/rules.py", "datasets/records.py", "errors.py"])
def test_any_module_and_any_version_counts(tmp_path: Path, changed: str) -> None:
    for name in ("audit/rules.py", "datasets/records.py", "errors.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a = 1\n")
    before = digest_of_code(tmp_path, "1")
    assert before == digest_of_code(tmp_path, "1") != digest_of_code(tmp_path, "2")
    (tmp_path / changed).write_text("a = 2\n")
    assert before != digest_of_code(tmp_path, "1")
