"""Two runs compared pair by pair in SQL, against the same counted in plain Python."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from smoothcert.sql import Query, open_query
from smoothcert.sql.measures import Measure, measures
from smoothcert.sql.paired import paired_figures
from smoothcert.statistics import mean_difference, share_difference
from smoothcert.store import RunDirectory

PAIRS = 40


def rows(make: Any, unit: str, seed: int) -> list[dict[str, Any]]:
    """Rows of the same pairs; pair 3 is quarantined in every run, pair 5 has no label."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(PAIRS):
        radius, cosine = random.choice([0.1, 0.3, 0.6]), round(float(random.uniform(0.2, 0.9)), 3)
        made.append(
            make.quarantined_row(unit, f"a#{i}")
            if i == 3
            else make.ok_row(
                unit,
                f"a#{i}",
                label=None if i == 5 else "cat",
                predicted_label=str(random.choice(["cat", "dog"])),
                certified_radius=float(radius),
                angular=(cosine, None),
            )
        )
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, make: Any) -> list[RunDirectory]:
    made = []
    for seed in (1, 2):
        url = tmp_path_factory.mktemp("runs") / "run"
        run = RunDirectory.create_or_open(url, make.identity(f"certify.seed={seed}"), make.units(1, PAIRS))
        unit = run.plan()[0].unit_id
        assert run.commits.commit(make.attempt_unit(run, unit, rows(make, unit, seed)))
        made.append(run)
    return made


@pytest.fixture(scope="module")
def query(runs: list[RunDirectory]) -> Iterator[Query]:
    with open_query([run.url for run in runs]) as opened:
        yield opened


def measure(run: RunDirectory, figure: str, **at: object) -> Measure:
    found = [
        each
        for each in measures(run.info)
        if each.figure == figure and all(getattr(each, name) == value for name, value in at.items())
    ]
    assert len(found) == 1, found
    return found[0]


def test_shares_and_means_are_those_of_the_rows(runs: list[RunDirectory], query: Query, make: Any) -> None:
    ours, theirs = rows(make, "u", 2), rows(make, "u", 1)
    asked = [
        dict(figure="certified_accuracy", certificate="class", radius=0.25),
        dict(figure="certified_share", certificate="class", radius=0.5),
        dict(figure="certified_cosine", certificate="angular", radius=0.25),
        dict(figure="accuracy", subject="smoothed"),
    ]
    pairs = [(measure(runs[1], **at), measure(runs[0], **at)) for at in asked]  # type: ignore[arg-type]
    figures = paired_figures(query, runs[1].run_id, runs[0].run_id, pairs)
    found = [each.difference for each in figures]

    def right(row: dict[str, Any], radius: float = 0.0) -> bool:
        return row["predicted_label"] == "cat" and (row["certified_radius"] or 0) >= radius

    def share(holds: Any) -> Any:
        both = [(a, b) for a, b in zip(ours, theirs, strict=True)]
        gained = sum(holds(a) and not holds(b) for a, b in both)
        lost = sum(holds(b) and not holds(a) for a, b in both)
        return gained, lost

    labelled = PAIRS - 2  # a quarantined row of these builders has no label
    assert found[0] == share_difference(
        *share(lambda row: row["label"] == "cat" and right(row, 0.25)), labelled
    )
    assert found[1] == share_difference(*share(lambda row: (row["certified_radius"] or 0) >= 0.5), PAIRS)
    assert found[3] == share_difference(*share(lambda row: row["label"] == "cat" and right(row)), labelled)
    order = sorted(range(PAIRS), key=lambda i: f"a#{i}")
    cosines = [[(row["angular"] or (0, 0))[0] for row in side] for side in (ours, theirs)]
    expected = mean_difference([cosines[0][i] - cosines[1][i] for i in order])
    assert found[2].difference == pytest.approx(expected.difference, abs=1e-12)
    assert (found[2].low, found[2].high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found[2].pairs == PAIRS and found[2].p_value is None
    means = [sum(side) / PAIRS for side in cosines]
    assert (figures[2].ours, figures[2].theirs) == pytest.approx(means, abs=1e-12)
    held = [sum((row["certified_radius"] or 0) >= 0.5 for row in side) / PAIRS for side in (ours, theirs)]
    assert (figures[1].ours, figures[1].theirs) == pytest.approx(held, abs=1e-12)


def test_a_run_does_not_differ_from_itself(runs: list[RunDirectory], query: Query) -> None:
    each = measures(runs[0].info)
    figures = paired_figures(query, runs[0].run_id, runs[0].run_id, [(one, one) for one in each])
    found = [figure.difference for figure in figures]
    assert all(figure.ours == figure.theirs for figure in figures)
    assert {difference.difference for difference in found} <= {0.0, None}
    assert all(difference.low <= 0.0 <= difference.high for difference in found)
    assert len({one.key for one in each}) == len(each), "every measure is another one"


def test_shares_are_not_compared_with_means(runs: list[RunDirectory], query: Query) -> None:
    share = measure(runs[0], "certified_share", certificate="class", radius=0.5)
    mean = measure(runs[0], "certified_cosine", certificate="angular", radius=0.5)
    with pytest.raises(ValueError, match="'certified_share' is a share"):
        paired_figures(query, runs[0].run_id, runs[1].run_id, [(share, mean)])
    assert paired_figures(query, runs[0].run_id, runs[1].run_id, []) == []
