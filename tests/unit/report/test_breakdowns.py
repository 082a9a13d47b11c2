"""Breakdowns of a run that goes on have the intervals of one that goes on."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from smoothcert.report.breakdowns import breakdown_questions
from smoothcert.report.headline import headlines
from smoothcert.sql import Query
from smoothcert.statistics import share_interval
from smoothcert.store import RunDirectory

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "store" / "builders.py")))


@pytest.mark.parametrize("committed", [3, 2])
def test_intervals_are_those_of_the_state_of_the_run(tmp_path: Path, committed: int) -> None:
    units = make.units(3)
    run = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), units)
    for unit in units[:committed]:
        rows = [row | {"label": "cat"} for row in make.unit_rows(unit)]
        assert run.commits.commit(make.attempt_unit(run, unit.unit_id, rows))
    with Query([run]) as query:
        questions = breakdown_questions([run.info], headlines(query, run.info)[0])
        (found,) = [each.ask(query) for each in questions if each.key == "by-label"]
    assert found is not None
    (row,) = [dict(zip(found.columns, cells, strict=True)) for cells in found.rows]
    low, high = share_interval(row["certified"], row["pairs"], anytime=committed < 3)
    assert (row["share_low"], row["share_high"]) == pytest.approx((low, high))
