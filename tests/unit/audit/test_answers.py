"""Answers that claim more than their votes, and answers that were changed within their radius, are found."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from smoothcert.audit.audit import audit_run
from smoothcert.certificates import vote_radius
from smoothcert.store import Commit, RunDirectory, TableSchema, new_attempt
from smoothcert.store.tables.answers import ANSWERS
from smoothcert.store.tables.attacked_answers import ATTACKED_ANSWERS
from smoothcert.store.units import unit_under

_AUDITED = runpy.run_path(str(Path(__file__).with_name("test_audit.py")))
certificate, make_run, PAIRS, SIGMA = (
    _AUDITED[name] for name in ("certificate", "make_run", "PAIRS", "SIGMA")
)
RADIUS = float(vote_radius(0.8, SIGMA))
HONEST: dict[TableSchema, dict[str, Any]] = {
    ANSWERS: {"votes": 90, "draws": 100, "vote_share_lcb": 0.8, "vote_radius": RADIUS, "sigma": SIGMA}
    | {"score": 0.7, "score_lcb": 0.6, "score_bounds": (0.5, None)},
    ATTACKED_ANSWERS: {"norm": "l2", "budget": 0.05, "perturbation_l2": 0.05, "perturbation_linf": 0.01}
    | {"vote_radius": RADIUS, "certified_share_ucb": 0.9, "violation": False, "objective": "answer"},
}


def row(table: TableSchema, pair: int, **changes: Any) -> dict[str, Any]:
    """A row with something in each column that needs it."""
    some = {
        column.name: None
        if column.nullable
        else (0 if pa.types.is_integer(column.type) else 0.5 if pa.types.is_floating(column.type) else "x")
        for column in table.columns
        if column.name not in ("run_id", "attempt")
    }
    pair_id = f"a.parquet#{pair}"
    return some | {"pair_id": pair_id, "status": "ok", "subject": "vote"} | HONEST[table] | changes


def run_with(url: Path, table: TableSchema, **changes: Any) -> RunDirectory:
    """A run of which the row of the last pair was changed."""
    run: RunDirectory = make_run(url, [certificate(i) for i in range(PAIRS)])
    unit, attempt = unit_under(run.plan()[0], "5a6b7c8d").unit_id, new_attempt()
    rows = [row(table, pair, **(changes if pair == PAIRS - 1 else {})) for pair in range(PAIRS)]
    rows = [each | {"unit_id": unit} for each in rows]
    part = run.write_rows(table, unit, attempt, rows)
    run.commits.commit(Commit(unit_id=unit, attempt=attempt, parts=(part,), ok=PAIRS))
    return run


def found(run: RunDirectory) -> dict[str, set[str]]:
    """Pairs by rule."""
    return {each.rule: {pair for pair, _ in each.listed} for each in audit_run(run).findings}


@pytest.mark.parametrize("table", [ANSWERS, ATTACKED_ANSWERS])
def test_honest_answers_are_not_named(tmp_path: Path, table: TableSchema) -> None:
    assert found(run_with(tmp_path / "run", table)) == {}


@pytest.mark.parametrize(
    ("table", "changes", "rule"),
    [
        (ANSWERS, {"vote_radius": RADIUS + 0.01}, "rounded-up"),
        (ANSWERS, {"vote_share_lcb": None}, "rounded-up"),
        (ANSWERS, {"vote_share_lcb": 0.4}, "rounded-up"),
        (ANSWERS, {"score_bounds": (0.61, None)}, "rounded-up"),
        (ANSWERS, {"vote_share_lcb": 0.95}, "above-estimate"),
        (ANSWERS, {"score_lcb": 0.75}, "above-estimate"),
        (ATTACKED_ANSWERS, {"perturbation_l2": 0.06}, "over-budget"),
        (ATTACKED_ANSWERS, {"violation": True, "certified_share_ucb": 0.4}, "violation"),
        (ATTACKED_ANSWERS, {"violation": None, "certified_share_ucb": 0.4}, "violation"),
    ],
)
def test_a_dishonest_answer_is_named_with_its_pair(
    tmp_path: Path, table: TableSchema, changes: dict[str, Any], rule: str
) -> None:
    assert found(run_with(tmp_path / "run", table, **changes)) == {rule: {f"a.parquet#{PAIRS - 1}"}}
