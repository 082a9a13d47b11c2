"""The figures of a run, against the same figures counted in plain Python from the rows that were written."""

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.datasets import UnitSpec
from smoothcert.job import parse_job
from smoothcert.statistics import mean_interval, share_interval
from smoothcert.store import CERTIFICATES, Commit, RunDirectory, RunIdentity, new_attempt
from smoothcert.summary.shares import Mean, Share, make_mean, make_share
from smoothcert.summary.summary import Summary, summarise

RADII, COSINES, LABELS = (0.1, 0.30000000000000004, 1.0), (0.5, 0.8), ("one", "two", "it's")
JOB = """
name: sample
data: {format: parquet, uri: somewhere}
encoder: {model: bundled:digits-clip}
certify:
  sigma: 0.5
  second_moment: true
  alpha: 0.01
  radii: [0.1, 0.30000000000000004, 1.0]
  cosines: [0.5, 0.8]
  targets:
    - {certificate: angular, radius: 0.1, cosine: 0.8}
    - {certificate: retrieval, radius: 1}
zero_shot: {labels: [one, two, "it's"]}
retrieval: {candidates: 10, k: 3}
"""
Row = dict[str, Any]


def rows(unit: str, count: int, seed: int) -> list[Row]:
    """Rows of all kinds: vacuous, infinite, exactly at a radius, unlabelled, quarantined."""
    draw = random.Random(seed)

    def maybe(value: Any, chance: float = 0.7) -> Any:
        return value if draw.random() < chance else None

    def radius() -> float | None:
        # 0.3 is just below the second radius, which prints as 0.3
        return maybe(draw.choice([*RADII, 0.3, draw.random(), math.inf]))

    found = []
    for number in range(count):
        row: Row = dict.fromkeys((column.name for column in CERTIFICATES.columns[3:]), None)
        row |= {
            "unit_id": unit,
            "pair_id": f"{unit}#{number}",
            "source_uri": unit,
            "captions": (),
            "kept": None,
            "image_digest": None,
            "label": maybe(draw.choice(LABELS)),
            "sigma": 0.5,
            "alpha": 0.01,
            "input_height": 8,
            "input_width": 8,
            "draws": draw.randrange(2, 500),
            "pilot_draws": 64,
            "encoder_digest": "e",
            "seed": 0,
            "noise": "philox",
            "device": "cpu",
            "dtype": "float32",
        }
        row |= {
            "status": "ok",
            "smooth_norm_lcb": maybe(draw.uniform(0.0, 1.0)),
            "robustness_score_lcb": maybe(draw.random()),
            "fcsb": tuple(maybe(draw.random()) for _ in RADII),
            "angular": tuple(maybe(draw.random()) for _ in RADII),
            "clean_reference": tuple(maybe(draw.random()) for _ in RADII),
            "large_radius": tuple(maybe(draw.choice([*COSINES, draw.random()]), 0.4) for _ in RADII),
            "second_moment": tuple(maybe(draw.random()) for _ in RADII),
            "clean_distribution": tuple(maybe(draw.random()) for _ in RADII),
            "class_distribution": tuple(maybe(draw.uniform(-0.1, 0.5)) for _ in RADII),
            "retrieval_distribution": tuple(maybe(draw.random()) for _ in RADII),
            "fcsb_radius": tuple(radius() for _ in COSINES),
            "angular_radius": tuple(radius() for _ in COSINES),
            "second_moment_radius": tuple(radius() for _ in COSINES),
            "clean_label": draw.choice(LABELS),
            "predicted_label": draw.choice(LABELS),
            "certified_radius": radius(),
            "retrieval_rank": draw.randrange(1, 10),
            "retrieval_radius": radius(),
            "vote_label": draw.choice(LABELS),
            "vote_radius": radius(),
            "retrieval_vote_radius": radius(),
            "clean_percentile": tuple(maybe(draw.random()) for _ in RADII),
            "clean_percentile_radius": tuple(radius() for _ in COSINES),
            "pilot_percentile": tuple(maybe(draw.random()) for _ in RADII),
            "pilot_percentile_radius": tuple(radius() for _ in COSINES),
            "target_decision": tuple(draw.choice(["certified", "refuted", "budget"]) for _ in range(2)),
        }
        if draw.random() < 0.2:
            # its other columns stay filled: what a quarantined row says must not be counted
            error = draw.choice(["DecodeError", "CaptionError", "ReadError"])
            row |= {"status": "quarantined", "error_class": error}
        found.append(row)
    return found


def write(directory: Path, units: Iterable[list[Row]], *, planned: int, text: str = JOB) -> str:
    job = parse_job(text)
    specs = [UnitSpec(f"u{i}", f"u{i}", 0, planned) for i in range(2)]
    run = RunDirectory.create_or_open(directory, RunIdentity(job, "d", "e", "0.1.0"), specs)
    for spec, content in zip(specs, units, strict=False):
        attempt = new_attempt()
        part = run.write_rows(CERTIFICATES, spec.unit_id, attempt, content)
        ok = sum(row["status"] == "ok" for row in content)
        commit = Commit(
            unit_id=spec.unit_id, attempt=attempt, parts=(part,), ok=ok, quarantined=len(content) - ok
        )
        assert run.commits.commit(commit)
    return run.url


@pytest.fixture(scope="module")
def written() -> list[Row]:
    return [*rows("u0", 150, seed=1), *rows("u1", 150, seed=2)]


@pytest.fixture(scope="module")
def summary(written: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarise(write(tmp_path_factory.mktemp("run") / "a", (written[:150], written[150:]), planned=150))


CLAIMS = tuple(form.column for each in CATALOGUE for form in each.forms)


def holds(rows: list[Row], condition: Callable[[Row], bool]) -> int:
    return sum(condition(row) for row in rows)


def at_least(value: float | None, bound: float) -> bool:
    return value is not None and value >= bound


def check_mean(figure: Mean, values: Iterable[float | None]) -> None:
    known = [value for value in values if value is not None]
    low, high = mean_interval(known)
    assert figure.count == len(known)
    assert figure.mean == pytest.approx(np.mean(known), rel=1e-12)
    assert (figure.low, figure.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_counts_and_quarantine(summary: Summary, written: list[Row]) -> None:
    ok = [row for row in written if row["status"] == "ok"]
    assert 0 < len(ok) < len(written) == summary.pairs
    assert summary.finished and summary.ok == len(ok)
    assert (summary.quarantined.count, summary.quarantined.of) == (len(written) - len(ok), len(written))
    counted = Counter(row["error_class"] for row in written if row["status"] != "ok")
    assert dict(summary.quarantine) == counted
    assert [count for _, count in summary.quarantine] == sorted(counted.values(), reverse=True)
    assert summary.draws == sum(row["draws"] + 64 for row in ok) and summary.pilot_draws == 64 * len(ok)
    assert summary.draws_per_pair == summary.draws / len(ok)
    assert summary.expected_false_certificates == pytest.approx(0.01 * len(ok))
    assert (summary.sigma, summary.alpha, summary.job) == (0.5, 0.01, "sample")


def test_accuracies_are_out_of_labelled_pairs(summary: Summary, written: list[Row]) -> None:
    ok = [row for row in written if row["status"] == "ok"]
    labelled = [row for row in ok if row["label"] is not None]
    assert summary.metrics["class_accuracy"] is not None and summary.metrics["clean_accuracy"] is not None
    assert (
        summary.metrics["class_accuracy"].of
        == summary.metrics["clean_accuracy"].of
        == len(labelled)
        < len(ok)
    )
    assert summary.metrics["class_accuracy"].count == holds(
        labelled, lambda row: row["predicted_label"] == row["label"]
    )
    assert summary.metrics["clean_accuracy"].count == holds(
        labelled, lambda row: row["clean_label"] == row["label"]
    )
    assert summary.metrics["retrieval_accuracy"] is not None
    assert summary.metrics["retrieval_accuracy"].count == holds(ok, lambda row: row["retrieval_rank"] <= 3)
    # what is not known to be positive is still known not to be negative
    check_mean(summary.metrics["smooth_norm"], (row["smooth_norm_lcb"] or 0.0 for row in ok))
    check_mean(summary.metrics["robustness_score"], (row["robustness_score_lcb"] for row in ok))


def test_labels_that_no_class_has_are_in_no_accuracy(tmp_path: Path) -> None:
    content = rows("u0", 60, seed=3)
    for row in content[::4]:
        row |= {"label": "face"}
    found = summarise(write(tmp_path / "run", [content], planned=60))
    ok = [row for row in content if row["status"] == "ok"]
    known = [row for row in ok if row["label"] in LABELS]
    assert found.unknown_labels == holds(ok, lambda row: row["label"] == "face") > 0
    assert found.metrics["class_accuracy"] is not None
    assert (
        found.metrics["class_accuracy"].of == found.radii[0].unchanged["certified_accuracy"].of == len(known)
    )
    assert found.metrics["class_accuracy"].count == holds(
        known, lambda row: row["predicted_label"] == row["label"]
    )


@pytest.mark.parametrize("i", range(len(RADII)))
def test_figures_at_each_radius(summary: Summary, written: list[Row], i: int) -> None:
    ok = [row for row in written if row["status"] == "ok"]
    at, radius = summary.radii[i], RADII[i]
    assert at.radius == radius
    of_means, of_draws = (
        ("fcsb", "angular", "second_moment", "clean_reference", "large_radius", "clean_distribution"),
        ("clean_percentile", "pilot_percentile"),
    )
    assert tuple(at.cosines) == of_means + of_draws
    for name, figure in at.cosines.items():
        check_mean(figure.mean, (row[name][i] for row in ok))
        assert figure.vacuous.count == holds(ok, lambda row, name=name: row[name][i] is None) > 0
        assert figure.vacuous.of == len(ok)
        for j, cosine in enumerate(COSINES):
            found = figure.at_least[j]
            assert found.cosine == cosine and found.share.of == len(ok)
            # by the radius where the row has one
            by_radius = name in ("fcsb", "angular", "second_moment", *of_draws)
            column, place, bound = (f"{name}_radius", j, radius) if by_radius else (name, i, cosine)
            assert found.share.count == holds(
                ok, lambda row, c=column, p=place, b=bound: at_least(row[c][p], b)
            )
    prediction, accuracy = at.unchanged["certified_prediction"], at.unchanged["certified_accuracy"]
    assert prediction.count == holds(ok, lambda row: at_least(row["certified_radius"], radius))
    assert prediction.of == len(ok)
    assert accuracy.count == holds(
        ok, lambda row: row["label"] == row["predicted_label"] and at_least(row["certified_radius"], radius)
    )
    by = at.unchanged["certified_accuracy_by_distribution"]
    assert by.of == accuracy.of and by.count == holds(
        ok, lambda row: row["label"] == row["predicted_label"] and (row["class_distribution"][i] or 0.0) > 0.0
    )
    assert accuracy.of == sum(row["label"] is not None for row in ok)
    # by vote: another radius, and another class that has to be right
    assert at.unchanged["certified_vote"].count == holds(ok, lambda row: at_least(row["vote_radius"], radius))
    by_vote = at.unchanged["certified_vote_accuracy"]
    assert by_vote.of == accuracy.of and by_vote.count == holds(
        ok, lambda row: row["label"] == row["vote_label"] and at_least(row["vote_radius"], radius)
    )
    assert at.unchanged["certified_retrieval_vote"].count == holds(
        ok, lambda row: at_least(row["retrieval_vote_radius"], radius)
    )
    assert at.unchanged["certified_retrieval"].count == holds(
        ok, lambda row: at_least(row["retrieval_radius"], radius)
    )
    # a radius that a row has exactly holds there: the data has such rows, and 0.30000000000000004 is no decimal
    assert holds(ok, lambda row: row["certified_radius"] == radius) > 0


def test_targets(summary: Summary, written: list[Row]) -> None:
    ok = [row for row in written if row["status"] == "ok"]
    assert [target.name for target in summary.targets] == ["angular>=0.8@0.1", "retrieval@1"]
    for i, target in enumerate(summary.targets):
        for decision in ("certified", "refuted", "budget"):
            found: Share = getattr(target, decision)
            assert found.of == len(ok)
            assert found.count == holds(ok, lambda row, i=i, d=decision: row["target_decision"][i] == d)
        assert target.certified.count + target.refuted.count + target.budget.count == len(ok)
        assert target.expected_false_certificates == pytest.approx(0.01 * len(ok))


@pytest.mark.parametrize(("count", "of"), [(0, 7), (7, 7), (3, 7), (830, 1000)])
def test_shares_have_exact_intervals(count: int, of: int) -> None:
    expected = binomtest(count, of).proportion_ci(0.95, method="exact")
    found = make_share(count, of)
    assert found.share == count / of
    assert found.low == pytest.approx(expected.low, abs=1e-9) and found.high == pytest.approx(
        expected.high, abs=1e-9
    )
    anytime = make_share(count, of, anytime=True)
    assert (anytime.low, anytime.high) == share_interval(count, of, 0.95, anytime=True)


def test_nothing_is_not_zero() -> None:
    assert make_share(0, 0) == Share(0, 0, None, None, None)
    assert make_mean(0, None, None) == Mean(0, None, None, None)
    assert make_mean(1, 0.5, None) == Mean(1, 0.5, 0.0, 1.0), "one value bounds nothing"


def test_mean_intervals_cover() -> None:
    # 400 samples of a skewed population, 95% each: fewer than 361 covering has probability below 1e-4
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        values = generator.beta(8.0, 0.5, size=60)
        found = make_mean(60, float(values.mean()), float(values.var(ddof=1)))
        assert found.low is not None and found.high is not None
        covered += found.low <= 8.0 / 8.5 <= found.high
    assert covered >= 361


def test_a_run_that_goes_on_has_intervals_that_hold_at_every_moment(tmp_path: Path) -> None:
    found = summarise(write(tmp_path / "a", [rows("u0", 40, seed=3)], planned=40))
    assert found.pairs == 40 and not found.finished
    prediction = found.radii[0].unchanged["certified_prediction"]
    assert (prediction.low, prediction.high) == share_interval(prediction.count, prediction.of, anytime=True)
    fcsb = found.radii[0].cosines["fcsb"].mean
    assert fcsb.mean is not None and (fcsb.low, fcsb.high) == (None, None)


def test_where_nothing_is_certified_shares_are_zero_and_means_are_none(tmp_path: Path) -> None:
    nothing = {
        "label": None,
        "fcsb": (None,) * 3,
        "angular": (None,) * 3,
        "fcsb_radius": (None,) * 2,
        "angular_radius": (None,) * 2,
        "certified_radius": None,
        "retrieval_radius": None,
        "target_decision": None,
    }
    content = [row | nothing for row in rows("u0", 20, seed=6)]
    found = summarise(write(tmp_path / "a", [content], planned=20))
    at = found.radii[0]
    for share in (
        at.cosines["fcsb"].at_least[0].share,
        at.cosines["angular"].at_least[1].share,
        at.unchanged["certified_prediction"],
        found.targets[0].certified,
    ):
        assert share is not None and (share.count, share.of, share.share, share.low) == (
            0,
            found.ok,
            0.0,
            0.0,
        )
    angular = at.cosines["angular"]
    assert angular.vacuous.share == 1.0 and angular.mean.mean is None
    assert found.metrics["class_accuracy"] == Share(0, 0, None, None, None), "no pair has a label"


def test_where_nothing_is_certified_nothing_can_be_false(tmp_path: Path) -> None:
    """Not alpha x the certified pairs either: if nothing can be certified, whatever is, is false."""
    content = [
        row | dict.fromkeys(CLAIMS) | {"target_decision": ("refuted", "budget")}
        for row in rows("u0", 50, seed=5)
        if row["status"] == "ok"
    ]
    found = summarise(write(tmp_path / "none", [content], planned=len(content)))
    assert found.expected_false_certificates == 0.0
    assert [target.expected_false_certificates for target in found.targets] == [0.0, 0.0]
    content[0]["target_decision"] = ("certified", "budget")
    text = JOB.replace("alpha: 0.01", "alpha: 0.5")
    found = summarise(write(tmp_path / "one", [content], planned=len(content), text=text))
    assert found.expected_false_certificates == 1.0
    assert [target.expected_false_certificates for target in found.targets] == [1.0, 0.0]


def test_a_run_without_rows_has_no_figures(tmp_path: Path) -> None:
    found = summarise(write(tmp_path / "a", [], planned=3))
    assert (found.pairs, found.ok, found.draws, found.draws_per_pair) == (0, 0, 0, None)
    assert found.quarantined.share is None and found.radii[0].cosines["angular"].mean.mean is None
    assert found.table()[1][0][1:] == ("-",) * (len(found.table()[0]) - 1)
    json.loads(found.to_json())


def test_without_classes_and_captions_there_are_no_such_figures(tmp_path: Path) -> None:
    text = JOB[: JOB.index("zero_shot")].replace("    - {certificate: retrieval, radius: 1}\n", "")
    content = [
        row | {"target_decision": ("certified",)} if row["status"] == "ok" else row
        for row in rows("u0", 9, seed=4)
    ]
    found = summarise(write(tmp_path / "a", [content], planned=9, text=text))
    assert set(found.metrics) == {"smooth_norm", "robustness_score"}
    assert not found.radii[0].unchanged
    assert found.table()[0] == ("radius", "cosine >= 0.5", "cosine >= 0.8", "mean cosine")


def test_json_is_strict_and_whole(summary: Summary) -> None:
    read = json.loads(summary.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read["version"] == 2 and read["run_id"] == summary.run_id
    assert read["quarantine"] == dict(summary.quarantine)
    figure = summary.radii[1].cosines["large_radius"].at_least[0]
    assert read["radii"][1]["cosines"]["large_radius"]["at_least"][0]["share"]["count"] == figure.share.count
    assert read["radii"][0]["unchanged"]["certified_prediction"]["of"] == summary.ok
    assert [target["name"] for target in read["targets"]] == ["angular>=0.8@0.1", "retrieval@1"]


def test_table_has_a_row_for_each_radius(summary: Summary) -> None:
    header, body = summary.table()
    assert header == (
        "radius", "certified accuracy", "accuracy by distribution", "accuracy by vote",
        "cosine >= 0.5", "cosine >= 0.8", "mean cosine", "caption in top k", "top k by distribution",
    )  # fmt: skip
    assert [row[0] for row in body] == ["0.1", "0.3", "1", "0.1 target", "1 target"]
    angular, retrieval = summary.targets
    assert angular.certified.share is not None and retrieval.certified.share is not None
    said = {name: cell for name, cell in zip(header, body[3], strict=True) if cell}
    assert said == {"radius": "0.1 target", "cosine >= 0.8": f"{angular.certified.share:.1%}"}
    assert body[4][header.index("caption in top k")] == f"{retrieval.certified.share:.1%}"
    share = summary.radii[0].unchanged["certified_accuracy"]
    assert share.share is not None
    assert body[0][1] == f"{share.share:.1%}"
    assert "vacuous)" in body[0][header.index("mean cosine")]
