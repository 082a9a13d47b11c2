"""`smoothcert compare` on the digits under two sigmas, against figures counted in numpy from the part files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import binomtest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.datasets import write_demo_data
from smoothcert.errors import QueryError
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.statistics import mean_interval
from smoothcert.store import RunDirectory
from smoothcert.summary.comparison import ComparedFigure, PairedComparison, changed_pairs, compare_runs

JOB = """
name: digits
data: {format: parquet, uri: nowhere, limit: 40}
encoder: {model: "bundled:digits-clip", slots: 8, chunk: 16, threads: 1}
certify: {sigma: 0.25, alpha: 0.1, pilot_draws: 16, max_draws: 128, radii: [0.0625, 0.125, 0.25], cosines: [0.5, 0.8]}
zero_shot: {labels: [zero, one, two, three, four, five, six, seven, eight, nine]}
tracking: {enabled: false}
"""
PAIRS = 40


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunDirectory]]:
    """The first file of the digits under two sigmas, and other radii under the second in a third run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    where = tmp_path_factory.mktemp("compare")
    write_demo_data(where / "data", "parquet")
    [first, *others] = sorted((where / "data").glob("*.parquet"))
    for other in others:
        other.unlink()
    wanted = {
        "a": ["certify.sigma=0.25"],
        "b": ["certify.sigma=0.5", "certify.radii=[0.03, 0.0625, 0.125]"],
        "elsewhere": ["data.uri=" + str(where / "renamed.parquet"), "data.limit=2"],
    }
    first.rename(where / "data.parquet")
    (where / "renamed.parquet").write_bytes((where / "data.parquet").read_bytes())
    found = {}
    for name, changes in wanted.items():
        job = parse_job(
            JOB,
            [
                f"data.uri={where / 'data.parquet'}",
                f"output.runs={where / 'runs'}",
                f"output.run={name}",
                *changes,
            ],
        )
        driver = Driver(job)
        assert driver.work("certification", Monitor(lambda result: None)).missing == 0
        found[name] = RunDirectory.open(driver.url)
    yield found
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def compared(runs: dict[str, RunDirectory]) -> PairedComparison:
    return compare_runs(runs["a"], runs["b"])


def rows(run: RunDirectory) -> dict[str, dict[str, Any]]:
    found = {}
    for file in Path(run.url, "certificates").glob("*.parquet"):
        for row in pq.read_table(file).to_pylist():
            found[row["pair_id"]] = row
    return found


def column(run: RunDirectory, number: Any) -> np.ndarray:
    """A number of every ok pair, in the order of names; NaN where there is none."""
    return np.array(
        [math.nan if (x := number(row)) is None else x for _, row in sorted(rows(run).items())], dtype=float
    )


def figure(compared: PairedComparison, name: str) -> ComparedFigure:
    (found,) = [each for each in compared.figures if each.figure == name]
    return found


def test_every_pair_is_in_both(compared: PairedComparison) -> None:
    assert (compared.both, compared.quarantined_in_one, compared.in_one, compared.finished) == (
        PAIRS,
        0,
        0,
        True,
    )
    assert ("certify.sigma", "0.25", "0.5") in compared.changed
    assert {name for name, _, _ in compared.changed} == {"certify.sigma", "certify.radii"}
    names = [each.figure for each in compared.figures]
    assert len(names) == len(set(names)) and "certified_share angular>=0.8@0.25" not in names, (
        "a radius that only one run has"
    )


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("certified_share angular>=0.8@0.125", lambda row, r: (row["angular"][r.index(0.125)] or 0) >= 0.8),
        ("certified_share fcsb>=0.5@0.0625", lambda row, r: (row["fcsb"][r.index(0.0625)] or 0) >= 0.5),
        ("certified_share class@0.0625", lambda row, r: (row["certified_radius"] or 0) >= 0.0625),
        (
            "certified_accuracy class@0.0625",
            lambda row, r: (
                row["label"] == row["predicted_label"] and (row["certified_radius"] or 0) >= 0.0625
            ),
        ),
        ("accuracy", lambda row, r: row["label"] == row["predicted_label"]),
    ],
)
def test_shares_are_those_counted_directly(
    runs: dict[str, RunDirectory], compared: PairedComparison, name: str, holds: Any
) -> None:
    one, two = (
        column(runs[each], lambda row, each=each: holds(row, list(runs[each].info.job.certify.radii))) == 1
        for each in "ab"
    )
    found = figure(compared, name)
    assert (found.kind, found.pairs) == ("share", PAIRS)
    assert (found.gained, found.lost) == ((two & ~one).sum(), (one & ~two).sum())
    assert (found.first, found.second) == (pytest.approx(one.mean()), pytest.approx(two.mean()))
    assert found.difference == pytest.approx(two.mean() - one.mean())
    discordant = int((one != two).sum())
    expected = binomtest(found.gained or 0, discordant).pvalue if discordant else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-6)
    assert found.low is not None and found.high is not None and found.difference is not None
    assert -1 <= found.low <= found.difference <= found.high <= 1


def test_something_differs(compared: PairedComparison) -> None:
    """Else the test above could not fail."""
    assert any((each.gained or 0) + (each.lost or 0) > 5 for each in compared.figures)
    assert figure(compared, "certified_accuracy class@0.0625").first != 0


def test_means_are_over_all_pairs_and_where_nothing_is_certified_zero_counts(
    runs: dict[str, RunDirectory], compared: PairedComparison
) -> None:
    one = column(runs["a"], lambda row: row["fcsb"][1] or 0.0)
    two = column(runs["b"], lambda row: row["fcsb"][2] or 0.0)
    found = figure(compared, "certified_cosine fcsb@0.125")
    assert (found.kind, found.pairs, found.p_value, found.gained) == ("mean", PAIRS, None, None)
    assert (found.first, found.second) == (pytest.approx(one.mean()), pytest.approx(two.mean()))
    low, high = mean_interval((two - one + 1) / 2, anytime=True)
    assert (found.difference, found.low, found.high) == (
        pytest.approx((two - one).mean()),
        pytest.approx(2 * low - 1, abs=1e-7),
        pytest.approx(2 * high - 1, abs=1e-7),
    )
    norm = figure(compared, "smooth_norm")
    assert norm.first == pytest.approx(column(runs["a"], lambda row: row["smooth_norm_lcb"] or 0.0).mean())


def test_pairs_that_changed_are_named(runs: dict[str, RunDirectory], compared: PairedComparison) -> None:
    changed = max(
        (each for each in compared.figures if each.kind == "share"), key=lambda each: each.lost or 0
    )
    found = changed_pairs(runs["a"], runs["b"], changed.figure, 1000)
    assert sum(each.change == "lost" for each in found) == changed.lost
    assert sum(each.change == "gained" for each in found) == changed.gained
    assert {each.pair_id for each in found} <= set(rows(runs["a"]))
    with pytest.raises(
        QueryError, match="(?s)no common share 'certified_share angular>=0.8@0.126' .did you mean"
    ):
        changed_pairs(runs["a"], runs["b"], "certified_share angular>=0.8@0.126", 3)


def test_runs_that_have_no_pair_in_common_or_are_one_are_refused(runs: dict[str, RunDirectory]) -> None:
    with pytest.raises(QueryError, match="(?s)no pair in common.*same data"):
        compare_runs(runs["a"], runs["elsewhere"])
    with pytest.raises(QueryError, match="given twice"):
        compare_runs(runs["a"], runs["a"])


def test_the_command_shows_it(
    runs: dict[str, RunDirectory], compared: PairedComparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    both = [runs["a"].url, runs["b"].url]
    plain = CliRunner().invoke(
        app, ["compare", *both, "--claim", "certified_share angular>=0.8@0.125", "--pairs", "3"]
    )
    assert plain.exit_code == 0, plain.output
    assert "certify.sigma: 0.25 in A, 0.5 in B" in plain.output and "40 pairs are in both" in plain.output
    changed = figure(compared, "certified_share angular>=0.8@0.125")
    assert plain.output.count("\nlost ") == min(3, changed.lost or 0)
    told = json.loads(CliRunner().invoke(app, ["compare", *both, "--json"]).output)
    assert told["figures"][0]["figure"] == compared.figures[0].figure
    assert told["both"] == PAIRS and "changed_pairs" not in told
