"""certified_share: right and certified, against a count by hand; and remedies that name what is meant."""

from pathlib import Path
from typing import Any

import pytest

from smoothcert.errors import QueryError
from smoothcert.sql import Query
from smoothcert.store import CERTIFICATES, Commit, RunDirectory, new_attempt

ROWS = [
    # label, prediction, radius, decision of the class target at 0.5
    ("cat", "cat", 0.6, "certified"),
    ("cat", "cat", 0.3, "budget"),
    ("cat", "dog", 0.9, "certified"),
    ("dog", "dog", None, "refuted"),
    ("cow", "cat", 0.7, "certified"),
    (None, "dog", 0.8, "certified"),
]


@pytest.fixture
def run(tmp_path: Path, make: Any) -> RunDirectory:
    opened = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(1, len(ROWS)))
    attempt = new_attempt()
    rows = [
        make.ok_row("u00000-0", f"a#{i}", label=label, predicted_label=predicted, certified_radius=radius)
        | {"target_decision": ("budget", decision)}
        for i, (label, predicted, radius, decision) in enumerate(ROWS)
    ]
    part = opened.write_rows(CERTIFICATES, "u00000-0", attempt, rows)
    opened.commits.commit(Commit(unit_id="u00000-0", attempt=attempt, parts=(part,), ok=len(ROWS)))
    return opened


def test_claims_about_a_prediction_count_the_right_ones_too(run: RunDirectory) -> None:
    # four labels are classes: 'cow' is none, and None is none
    assert _by_kind(run) == {
        ("target", 0.5): (4, 1, 4, 0.25),
        ("grid", 0.25): (5, 2, 4, 0.5),
        ("grid", 0.5): (4, 1, 4, 0.25),
    }


def _by_kind(run: RunDirectory) -> dict[tuple[str, float], tuple[Any, ...]]:
    with Query([run]) as query:
        rows = query.sql("SELECT * FROM certified_share WHERE certificate = 'class'").to_pylist()
    names = ("certified", "right_and_certified", "labelled", "certified_accuracy")
    return {(row["kind"], row["radius"]): tuple(row[name] for name in names) for row in rows}


def test_the_vote_is_right_by_its_own_class(run: RunDirectory) -> None:
    with Query([run]) as query:
        (expected,) = query.sql(
            "SELECT count_if(vote_label = label AND vote_radius >= 0.25) AS n FROM certificates"
        ).to_pylist()
        (found,) = query.sql(
            "SELECT right_and_certified AS n FROM certified_share WHERE certificate = 'vote' AND radius = 0.25"
        ).to_pylist()
    assert found == expected


def test_other_claims_have_none(run: RunDirectory) -> None:
    with Query([run]) as query:
        found = query.sql(
            "SELECT DISTINCT right_and_certified, labelled, certified_accuracy FROM certified_share "
            "WHERE certificate NOT IN ('class', 'class_distribution', 'vote')"
        ).to_pylist()
    assert [tuple(row.values()) for row in found] == [(None, None, None)]


def test_the_leaderboard_has_it_for_every_rule(run: RunDirectory) -> None:
    with Query([run]) as query:
        shares, board = (
            query.sql(f"SELECT certificate, radius, {figure} ORDER BY ALL").to_pylist()
            for figure in (
                "right_and_certified AS n FROM certified_share WHERE kind = 'grid' AND labelled > 0",
                "round(value * pairs)::BIGINT AS n FROM leaderboard WHERE figure = 'certified_accuracy'",
            )
        )
    assert board == shares
    assert {row["certificate"] for row in board} == {"class", "class_distribution", "vote"}


def test_what_the_job_did_not_ask_for_is_not_counted_as_vacuous(run: RunDirectory) -> None:
    with Query([run]) as query:
        counted = {
            row["certificate"]
            for view in ("certified_share", "leaderboard")
            for row in query.sql(f"SELECT DISTINCT certificate FROM {view}").to_pylist()
        }
    assert "angular" in counted and "second_moment" not in counted
    assert not run.info.job.certify.second_moment


def test_an_ambiguous_column_is_not_called_missing(run: RunDirectory) -> None:
    with Query([run]) as query, pytest.raises(QueryError) as caught:
        query.sql("SELECT pair_id FROM certificates a JOIN certificates b ON a.pair_id = b.pair_id")
    assert "write which is meant, e.g. a.pair_id" in str(caught.value) and "exists" not in str(caught.value)
