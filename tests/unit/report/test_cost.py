"""What a certification took of its workers, and in money: units held at once count once, breaks do not count."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from smoothcert.report.breakdowns import breakdown_questions
from smoothcert.report.report import make_report, say_cost
from smoothcert.sql import Query
from smoothcert.store import Commit, RunDirectory, new_attempt
from smoothcert.store.tables.attacks import ATTACKS
from smoothcert.store.units import unit_under

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "store" / "builders.py")))
SPANS = {"w1": [(1000, 1030), (1010, 1050), (1020, 1025), (5000, 5010)], "w2": [(1000, 1007)]}
"""When workers held units, in seconds: w1 held up to three at once, then rested."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    held = [(worker, *span) for worker, spans in SPANS.items() for span in spans]
    units = make.units(len(held))
    run = RunDirectory.create_or_open(
        str(tmp_path_factory.mktemp("cost") / "run"),
        make.identity("executor.price_per_worker_hour=37"),
        units,
    )
    for unit, (worker, began, ended) in zip(units, held, strict=True):
        facts = {"worker": worker, "seconds": float(ended - began), "committed_at": float(ended)}
        assert run.commits.commit(make.attempt_unit(run, unit.unit_id, make.unit_rows(unit), **facts))
    return run


def seconds_of(spans: list[tuple[int, int]]) -> int:
    """Seconds in at least one span, one by one."""
    return len({second for began, ended in spans for second in range(began, ended)})


def test_time_of_workers_is_that_of_the_union_of_their_units(run: RunDirectory) -> None:
    with Query([run]) as query:
        rows = query.sql("SELECT worker, units, seconds, wall_seconds FROM worker_time").to_pylist()
        (found,) = [
            each.ask(query) for each in breakdown_questions([run.info], None) if each.key == "workers"
        ]
    assert [(row["worker"], row["units"], row["seconds"]) for row in rows] == [
        (worker, len(spans), seconds_of(spans)) for worker, spans in SPANS.items()
    ]
    assert [row["wall_seconds"] for row in rows] == [4010, 7]
    assert found is not None
    first = dict(zip(found.columns, found.rows[0], strict=True))
    assert (first["pairs"], first["draws"]) == (16, 16 * 116) and first["busy"] == pytest.approx(60 / 4010)


def test_the_page_says_what_a_pair_cost(run: RunDirectory) -> None:
    """67 s of workers for 20 pairs, at 37 an hour."""
    assert "67.0 s (3.35 s a pair)" in (page := make_report([run], pairs=0))
    assert "0.69 (0.034 a pair) at 37 an hour of a worker" in page
    head = page.partition('"brief":"')[2].partition('"')[0]
    assert head.startswith("20 pairs; sigma 0.5; 2,320 draws; time of workers, certification: 67.0 s"), head
    assert "0.69 (0.034 a pair)" in head
    assert "1.34 (0.067 a pair) at 72 an hour" in make_report([run], pairs=0, price=72.0)


def test_without_a_price_nothing_is_said_of_money() -> None:
    assert say_cost({"certificates": 10.0}, 4, None) == {
        "time of workers, certification": "10.0 s (2.5 s a pair)"
    }
    assert say_cost({"certificates": 0.0}, 0, 3.0) == {"time of workers, certification": "-"}
    assert "cost of the certification" in say_cost({"certificates": 10.0}, 4, 0.0)


def test_attacks_have_a_price_of_their_own(run: RunDirectory, tmp_path: Path) -> None:
    """Two attacks on one worker: 100 s in which it had both, one or the other, 10 of them both."""
    shutil.copytree(run.url, tmp_path / "run")
    attacked = RunDirectory.open(str(tmp_path / "run"))
    (unit, *_) = make.units(len(SPANS["w1"]) + 1)
    for task, began, ended in (("aa", 6000, 6060), ("bb", 6050, 6100)):
        one = unit_under(unit, task)
        parts = (attacked.write_rows(ATTACKS, one.unit_id, new_attempt(), []),)
        times = {"seconds": float(ended - began), "committed_at": float(ended)}
        done = Commit(unit_id=one.unit_id, attempt=new_attempt(), parts=parts, draws=5, worker="w1", **times)
        assert attacked.commits.commit(done)
    page = make_report([attacked], pairs=0)
    assert "67.0 s (3.35 s a pair)" in page, "that of the certification is as before"
    assert "100.0 s (5 s a pair)" in page and "1.03 (0.051 a pair) at 37 an hour" in page
    with Query([attacked]) as query:
        rows = query.sql("SELECT worker, units FROM worker_time").to_pylist()
        found = query.sql(
            "SELECT units, draws, seconds FROM task_time WHERE table_name = 'attacks'"
        ).to_pylist()
    assert rows == [{"worker": "w1", "units": 4}, {"worker": "w2", "units": 1}]
    assert found == [{"units": 2, "draws": 10, "seconds": 100.0}]
