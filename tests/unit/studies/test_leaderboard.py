"""Differences to a baseline have an interval only where the number of pairs was fixed beforehand."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from smoothcert.store import RunDirectory
from smoothcert.studies.leaderboard import Leaderboard, Line, make_leaderboard
from smoothcert.studies.tables import difference_table, from_csv, table, to_csv
from smoothcert.studies.tracked import leading_figures, middle_radius

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "store" / "builders.py")))


@pytest.mark.parametrize("committed", [3, 2])
def test_no_interval_while_a_run_goes_on(tmp_path: Path, committed: int) -> None:
    runs = {}
    units = make.units(3)
    for label, seed, count in (("first", 0, 3), ("second", 1, committed)):
        run = RunDirectory.create_or_open(str(tmp_path / label), make.identity(f"certify.seed={seed}"), units)
        assert all(make.commit_unit(run, unit) for unit in units[:count])
        runs[label] = run
    found = [line.difference for line in make_leaderboard(runs).lines if line.label == "second"]
    compared = [each for each in found if each is not None and each.difference is not None]
    assert compared and all(each.difference == 0.0 for each in compared)
    known = {(each.low, each.high, each.p_value) == (-1.0, 1.0, None) for each in compared}
    assert known == {committed < 3}


def test_a_leaderboard_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    units = make.units(2)
    runs = {}
    for label, seed in (("first, of two", 0), ("second", 1)):
        run = RunDirectory.create_or_open(str(tmp_path / label), make.identity(f"certify.seed={seed}"), units)
        assert all(make.commit_unit(run, unit) for unit in units)
        runs[label] = run
    board = make_leaderboard(runs)
    read = from_csv(to_csv(board), board.baseline)
    assert to_csv(read) == to_csv(board) and table(read) == table(board)
    assert difference_table(read) == difference_table(board) != ([], [])
    without_counts = [
        line
        if line.difference is None
        else replace(line, difference=replace(line.difference, gained=None, lost=None))
        for line in board.lines
    ]
    assert list(read.lines) == without_counts


def certified(label: str, certificate: str, radius: float, value: float, figure: str = "") -> Line:
    at = (certificate, "mean", radius, None, None, None, None)
    return Line(label, "run", "smoothed", figure or "certified_accuracy", *at, value, 0.0, 1.0, 10)


@pytest.mark.parametrize(
    ("radii", "holding", "shown"),
    [
        ((0.1, 0.2, 0.3, 0.4), 0.4, ("0.1", "0.3", "0.4")),
        ((0.1, 0.2, 0.3, 0.4, 0.5), 0.3, ("0.1", "0.2", "0.3")),
        ((0.1, 0.2), 0.0, ("0.1", "0.2")),
    ],
)
def test_few_radii_are_shown_up_to_where_anything_is_certified(
    radii: tuple[float, ...], holding: float, shown: tuple[str, ...]
) -> None:
    names = [row[0] for row in table(two_runs(radii, holding))[1]]
    told = [f"certified by {way} r {radius}" for way in ("distribution", "vote") for radius in shown]
    assert names == [*told, "target class r 9"]


def two_runs(radii: tuple[float, ...], holding: float) -> Leaderboard:
    """Certified up to the radius ``holding``."""
    lines = [
        certified(label, certificate, radius, float(radius <= holding))
        for label in ("FS", "FS + PSM")
        for certificate in ("class", "class_distribution", "vote")
        for radius in radii
    ]
    lines.append(certified("FS", "class", 9.0, 0.5, figure="target_certified"))
    return Leaderboard(tuple(lines), "FS")


@pytest.mark.parametrize(
    ("settings", "middle"),
    [
        (["certify.radii=[0.1,0.2,0.3,0.4,0.5]"], "0.3"),
        (["certify.radii=[0.1,0.2,0.3,0.5]"], "0.2"),
        (["certify.radii=[0.1,0.2,0.3,0.4]", "certify.radii=[0.3,0.4,0.5]"], "0.3"),
        (["certify.radii=[0.1,0.2]", "certify.radii=[0.4]"], "0.2"),
        # by default 0.1, 0.2, 0.4, 0.6 and 0.2, 0.4, 0.8, 1.2
        (["certify.radii=null certify.sigma=0.4", "certify.radii=null certify.sigma=0.8"], "0.2"),
    ],
)
def test_the_radius_of_metrics_is_of_the_jobs_and_no_result_moves_it(
    settings: list[str], middle: str
) -> None:
    jobs = [make.job(*each.split()) for each in settings]
    radii = tuple(sorted({radius for job in jobs for radius in job.certify.radii}))
    for holding in (0.0, 0.15, 0.35, 2.0):  # as the runs of a study end, session by session
        assert set(leading_figures(two_runs(radii, holding), middle_radius(jobs))) == {
            *(
                f"certified by {way} r {middle}/{run}"
                for way in ("distribution", "vote")
                for run in ("FS", "FS plus PSM")
            ),
            "target class r 9/FS",
        }
