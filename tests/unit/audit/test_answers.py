"""Answers that claim more than their votes, and answers that were changed within their radius, are found."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import beta, binom, norm

from smoothcert.audit.audit import audit_run
from smoothcert.certificates import score_bound, vote_radius
from smoothcert.statistics import lower_bound
from smoothcert.store import Commit, RunDirectory, TableSchema, new_attempt
from smoothcert.store.asked import AskedTask, note_asked
from smoothcert.store.tables.answers import ANSWERS
from smoothcert.store.tables.attacked_answers import ATTACKED_ANSWERS
from smoothcert.store.units import unit_under

_AUDITED = runpy.run_path(str(Path(__file__).with_name("test_audit.py")))
certificate, make_run, PAIRS, SIGMA, RADII = (
    _AUDITED[name] for name in ("certificate", "make_run", "PAIRS", "SIGMA", "RADII")
)
LAST = f"a.parquet#{PAIRS - 1}"
VOTES, DRAWS, ALPHA = 90, 100, 0.05
SHARE = float(beta.ppf(ALPHA, VOTES, DRAWS - VOTES + 1)) - 1e-12
RADIUS = float(vote_radius(SHARE, SIGMA))
AT_ONCE, STOPPING = "5a6b7c8d", "6b7c8d9e"
ASKED: dict[str, Any] = {"alpha": ALPHA, "vote": {"radius": None, "max_draws": DRAWS}}
ASKED_STOPPING: dict[str, Any] = {"alpha": None, "vote": {"radius": 0.05, "max_draws": DRAWS}}
"""Of sections as they are noted, what the audit looks at."""
SCORES = (0.25,) * 10 + (0.5,) * 30 + (1.0,) * 60


def quantile(share: float) -> float:
    """The draw that bounds a quantile from below (Chiang et al. 2020)."""
    ranks = [k for k in range(1, DRAWS) if binom.cdf(k - 1, DRAWS, share) <= ALPHA]
    return sorted(SCORES)[max(ranks) - 1] if ranks else 0.0


MEAN = float(lower_bound(SCORES, ALPHA, "betting"))
QUANTILES = tuple(quantile(float(norm.cdf(-shift / 8))) for shift in range(25))
HONEST: dict[TableSchema, dict[str, Any]] = {
    ANSWERS: {"votes": VOTES, "draws": DRAWS, "vote_share_lcb": SHARE, "vote_radius": RADIUS, "sigma": SIGMA}
    | {"alpha": ALPHA, "method": "clopper_pearson", "score_draws": SCORES, "score": float(np.mean(SCORES))}
    | {"score_lcb": MEAN, "score_bounds": (float(score_bound(MEAN, RADII[0], SIGMA)), None)}
    | {"score_quantile_lcb": QUANTILES, "score_percentile_bounds": (QUANTILES[4], QUANTILES[8])},
    ATTACKED_ANSWERS: {"norm": "l2", "budget": 0.05, "perturbation_l2": 0.05, "perturbation_linf": 0.01}
    | {"vote_radius": RADIUS, "certified_share_ucb": 0.9, "violation": False, "objective": "answer"},
}

CLAIMS = {
    ANSWERS: (
        "votes",
        "vote_share_lcb",
        "vote_radius",
        "alpha",
        "method",
        "score_draws",
        "score",
        "score_lcb",
    )
    + ("score_bounds", "score_quantile_lcb", "score_percentile_bounds"),
    ATTACKED_ANSWERS: ("vote_radius", "certified_share_ucb", "violation"),
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
    return (
        some
        | {"pair_id": pair_id, "status": "ok", "subject": "vote", "answer_id": AT_ONCE}
        | HONEST[table]
        | changes
    )


def run_with(url: Path, table: TableSchema, cases: Sequence[dict[str, Any]]) -> RunDirectory:
    """A run whose last pair has an honest question, and one for each case."""
    run: RunDirectory = make_run(url, [certificate(i) for i in range(PAIRS)])
    rows = [row(table, pair, question_id="honest") for pair in range(PAIRS)]
    # of another subject, that claims nothing
    rows.append(row(table, 0, question_id="bare", subject="bare", **dict.fromkeys(CLAIMS[table])))
    rows += [row(table, PAIRS - 1, question_id=f"q{number}", **case) for number, case in enumerate(cases)]
    if table is ANSWERS:
        rows += [row(table, pair, question_id="honest", **STOPPED) for pair in range(PAIRS)]
        note_asked(run, AskedTask(AT_ONCE, "questions", ASKED))
        note_asked(run, AskedTask(STOPPING, "questions", ASKED_STOPPING))
    for answer_id in dict.fromkeys(each["answer_id"] for each in rows):
        unit, attempt = unit_under(run.plan()[0], answer_id).unit_id, new_attempt()
        mine = [each | {"unit_id": unit} for each in rows if each["answer_id"] == answer_id]
        part = run.write_rows(table, unit, attempt, mine)
        run.commits.commit(Commit(unit_id=unit, attempt=attempt, parts=(part,), ok=len(mine)))
    return run


NO_SCORES: dict[str, Any] = dict.fromkeys(name for name in CLAIMS[ANSWERS] if name.startswith("score"))
STOPPED = NO_SCORES | {"answer_id": STOPPING, "alpha": 0.001, "method": "betting"}
FEW = NO_SCORES | {"votes": 3, "draws": 3, "vote_radius": None}
RAISED: list[tuple[dict[str, Any], str]] = [
    ({"vote_radius": RADIUS + 0.01}, "rounded-up"),
    ({"vote_share_lcb": None}, "rounded-up"),
    ({"vote_share_lcb": 0.4}, "rounded-up"),
    ({"vote_share_lcb": SHARE + 0.05}, "rounded-up"),
    ({"score_bounds": (HONEST[ANSWERS]["score_bounds"][0] + 0.05, None)}, "rounded-up"),
    ({"score_lcb": MEAN + 0.05}, "rounded-up"),
    ({"score_draws": None}, "rounded-up above-estimate"),
    ({"score_draws": (*SCORES[1:], 1.5)}, "rounded-up above-estimate"),
    ({"score_quantile_lcb": (QUANTILES[0] + 0.05, *QUANTILES[1:])}, "rounded-up"),
    ({"score_quantile_lcb": (*QUANTILES[:24], 0.05)}, "rounded-up"),
    ({"score_percentile_bounds": (QUANTILES[4] + 0.05, QUANTILES[8])}, "rounded-up"),
    # fewer order statistics hold at any time
    ({"method": "betting", "vote_share_lcb": 0.95}, "rounded-up above-estimate other-question"),
    ({"score": 0.9}, "above-estimate"),
]
SELECTED: list[tuple[dict[str, Any], str]] = [
    # the best draws alone, and more draws than there were
    ({"score_draws": SCORES[40:], "score": 1.0}, "rounded-up above-estimate"),
    ({"score_draws": SCORES * 2}, "rounded-up above-estimate"),
    ({"score_draws": (*SCORES[:99], None)}, "rounded-up above-estimate"),
    # three votes for it and none against show a share of ALPHA^(1/3) at most
    (FEW | STOPPED | {"vote_share_lcb": 0.001 ** (1 / 3) - 1e-6}, ""),
    (FEW | STOPPED | {"vote_share_lcb": 0.001 ** (1 / 3) + 1e-6}, "rounded-up"),
    (FEW | {"vote_share_lcb": ALPHA ** (1 / 3) - 1e-6}, "other-question"),
    (NO_SCORES | {"alpha": 0.2}, "other-question"),
    ({"sigma": 2 * SIGMA}, "other-question"),
    ({"certify_seed": 1}, "other-question"),
    ({"decision": "certified"}, "target-without-evidence"),
    (STOPPED | {"decision": "certified", "vote_radius": 0.05}, ""),
    (STOPPED | {"decision": "certified", "vote_radius": 0.04}, "target-without-evidence"),
]
BEATEN: list[tuple[dict[str, Any], str]] = [
    ({"perturbation_l2": 0.06}, "over-budget"),
    ({"violation": True, "certified_share_ucb": 0.4}, "violation"),
    ({"violation": None, "certified_share_ucb": 0.4}, "violation"),
]


@pytest.mark.parametrize(
    ("table", "cases"), [(ANSWERS, RAISED), (ANSWERS, SELECTED), (ATTACKED_ANSWERS, BEATEN)]
)
def test_exactly_the_dishonest_answers_are_named(
    tmp_path: Path, table: TableSchema, cases: list[tuple[dict[str, Any], str]]
) -> None:
    run = run_with(tmp_path / "run", table, [changes for changes, _ in cases])
    audit = audit_run(run)
    named: dict[str, set[str]] = {}
    for finding in audit.findings:
        assert finding.count == len(finding.listed) and {pair for pair, _ in finding.listed} == {LAST}
        for _, detail in finding.listed:
            named.setdefault(detail.partition(" by ")[0].rpartition(" ")[2], set()).add(finding.rule)
    assert named == {f"q{number}": set(rules.split()) for number, (_, rules) in enumerate(cases) if rules}


def test_a_row_is_not_named_twice_for_one_fault(tmp_path: Path) -> None:
    """So that findings can be counted; and an honest run has none."""
    run = run_with(tmp_path / "run", ANSWERS, [{"score_percentile_bounds": (QUANTILES[4] + 0.05, None)}])
    (finding,) = audit_run(run).findings
    ((pair, detail),) = finding.listed
    assert (pair, finding.count) == (LAST, 1) and "score_percentile_bounds[1] is" in detail
