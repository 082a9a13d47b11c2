import csv
import dataclasses
import io
import json
import re

import pytest
import yaml

from smoothcert.job import Job
from smoothcert.summary.attacked import UnderAttack
from smoothcert.summary.shares import Mean, Share
from smoothcert.summary.summary import AtCosine, AtRadius, CertifiedCosine, Summary, TargetOutcome
from smoothcert.tracking import figures
from smoothcert.tracking.curves import picture

JOB = """
name: sample
data: {format: parquet, uri: ["s3://key:hunter2@bucket/a", "https://host/b.parquet?sig=hunter2"]}
encoder: {model: bundled:digits-clip}
certify:
  sigma: 0.5
  radii: [0.25, 1]
  cosines: [0.8]
  targets:
    - {certificate: angular, radius: 0.25, cosine: 0.8}
    - {certificate: class, radius: 1}
zero_shot: {labels: [%s]}
tracking: {uri: "https://me:hunter2@mlflow.example"}
"""
NONE = Share(0, 0, None, None, None)


def job(labels: int = 2) -> Job:
    # by hand, since a job file with such URLs is refused
    return Job.model_validate(yaml.safe_load(JOB % ", ".join(f"label{i:04d}" for i in range(labels))))


def share(count: int, of: int = 10) -> Share:
    return Share(count, of, count / of, count / of - 0.01, count / of + 0.01)


def cosine(mean: Mean, vacuous: int, at_least: int) -> CertifiedCosine:
    return CertifiedCosine(mean, share(vacuous), (AtCosine(0.8, share(at_least)),))


def at(radius: float, *, labelled: bool = True, vacuous: bool = False) -> AtRadius:
    nothing = Mean(0, None, None, None)
    return AtRadius(
        radius=radius,
        cosines={
            "fcsb": cosine(nothing, 10, 2) if vacuous else cosine(Mean(9, 0.5, 0.4, 0.6), 1, 2),
            "angular": cosine(Mean(10, 0.9, 0.8, 1.0), 0, 7),
            "clean_reference": cosine(Mean(8, 0.6, 0.5, 0.7), 2, 3),
            "large_radius": cosine(nothing, 10, 0),
        },
        unchanged={
            "certified_prediction": share(5),
            "certified_accuracy": share(4) if labelled else NONE,
            "certified_prediction_by_distribution": share(6),
            "certified_accuracy_by_distribution": share(5) if labelled else NONE,
        },
    )


def summary(*, labelled: bool = True) -> Summary:
    return Summary(
        run_id="sample-1",
        job="sample",
        sigma=0.5,
        alpha=0.001,
        finished=True,
        pairs=11,
        ok=10,
        quarantined=Share(1, 11, 1 / 11, 0.0, 0.4),
        quarantine=(("DecodeError", 1),),
        draws=1000,
        pilot_draws=640,
        draws_per_pair=100.0,
        metrics={
            "smooth_norm": Mean(10, 0.9, 0.8, 1.0),
            "robustness_score": Mean(10, 0.95, 0.9, 1.0),
            "clean_accuracy": share(9) if labelled else NONE,
            "class_accuracy": share(8) if labelled else NONE,
        },
        radii=(at(0.25, labelled=labelled), at(1.0, labelled=labelled, vacuous=True)),
        targets=(
            TargetOutcome("angular>=0.8@0.25", share(7), share(2), share(1), 0.01),
            TargetOutcome("class@1", share(6), share(4), share(0), 0.01),
        ),
        expected_false_certificates=0.01,
        attacks=(attacked("worst case", None), attacked("pgd", "1234abcd")),
    )


def attacked(attack: str, attack_id: str | None) -> UnderAttack:
    return UnderAttack(
        attack=attack,
        method=attack if attack_id is None else f"{attack} with BPDA",
        attacks=1,
        attack_id=attack_id,
        question="classification",
        subject="smoothed",
        norm="l2",
        budget=0.5,
        pairs=10,
        quarantined=0,
        missing=0,
        clean_accuracy=share(8),
        robust_accuracy=share(6),
        success_among_right=share(2),
        wrong_under_attack=share(4),
    )


def test_metrics_are_the_leading_figures_and_the_table_has_all_with_intervals() -> None:
    found = figures.metrics(summary())
    assert found["certified_share_angular_0.8/r0.25"] == 0.7
    assert found["certified_accuracy_by_distribution/r0.25"] == 0.5
    assert found["certified_cosine_fcsb/r0.25"] == 0.5 and found["certified_cosine_angular/r1"] == 0.9
    assert found["target_certified/angular_0.8_r0.25"] == 0.7 and found["quarantined"] == 1 / 11
    assert found["robust_accuracy/classification_smoothed_l2_0.5"] == 0.6
    assert found["success_among_right/classification_smoothed_l2_0.5"] == 0.2
    assert all(isinstance(value, (int, float)) for value in found.values())
    table = {row["figure"]: row for row in csv.DictReader(io.StringIO(figures.figures_document(summary())))}
    beside = {
        "ok": 10,
        "certified_share_fcsb_0.8/r1": 0.2,
        "certified_cosine_clean_reference/r0.25": 0.6,
        "vacuous_clean_reference/r0.25": 0.2,
        "vacuous_large_radius/r1": 1.0,
        "certified_prediction_by_distribution/r0.25": 0.6,
        "certified_accuracy/r0.25": 0.4,
        "target_refuted/class_r1": 0.4,
        "clean_accuracy/classification_smoothed_l2_0.5": 0.8,
        "success_among_right/classification_smoothed_l2_0.5/pgd_with_BPDA_1234abcd": 0.2,
        "expected_false_certificates": 0.01,
    }
    assert {name: float(table[name]["value"]) for name in beside} == beside
    assert not set(beside) & set(found), "metrics are few"
    assert set(found) < set(table) and len(found) < len(table) / 2
    row = table["certified_accuracy_by_distribution/r0.25"]
    assert (row["low"], row["high"]) == (repr(0.5 - 0.01), repr(0.5 + 0.01)) and table["ok"]["low"] == ""


def test_a_figure_without_value_is_left_out_and_not_zero() -> None:
    found = figures.metrics(summary(labelled=False))
    names = [each.name for each in figures.figures(summary(labelled=False))]
    assert not any(
        name.startswith(("class_accuracy", "clean_accuracy/r", "certified_accuracy")) for name in names
    )
    assert not any(name.startswith("certified_retrieval") for name in names)
    assert found["certified_prediction_by_distribution/r0.25"] == 0.6, "without labels it leads"
    assert "certified_cosine_fcsb/r0.25" in found and "certified_cosine_fcsb/r1" not in names, (
        "a mean over nothing"
    )
    assert "vacuous_fcsb/r1" in names and "certified_cosine_large_radius/r1" not in names


def test_names_are_ones_that_mlflow_takes() -> None:
    # letters, digits, _ - . space : / and no path that climbs: MLflow's own rule for names
    for name in (*(each.name for each in figures.figures(summary())), *figures.parameters(job())):
        assert re.fullmatch(r"[\w.\-/]{1,250}", name) and ".." not in name and not name.startswith("/")


def test_kinds_of_questions_are_in_names_that_mlflow_takes() -> None:
    kinds = ("yes/no", 'what\'s "this"?', "natural science", "../up", "long " * 99)
    answers = {f"answers_right/bare_{kind}": share(3) for kind in kinds}
    answers |= {
        "answers_cider/bare_a": Mean(3, 0.5, None, None),
        "answers_rouge_l/bare_a": Mean(3, 0.5, None, None),
    }
    found = list(figures.figures(dataclasses.replace(summary(), answers=answers)))
    names = [each.name for each in found if each.name.startswith("answers_")]
    assert len(set(names)) == len(answers)
    for name in names:
        assert re.fullmatch(r"[\w.\-/]{1,250}", name) and name.count("/") == 1 and "/.." not in name
    leading = {each.name for each in found if each.leading}
    assert {"answers_right/bare_yes_no", "answers_cider/bare_a"} <= leading
    assert "answers_rouge_l/bare_a" in names and "answers_rouge_l/bare_a" not in leading


def test_parameters_are_the_resolved_job_without_credentials() -> None:
    found = figures.parameters(job())
    assert found["certify.sigma"] == "0.5"
    assert found["certify.alpha"] == "0.001", "defaults are written out"
    assert json.loads(found["certify.radii"]) == [0.25, 1.0]
    assert json.loads(found["certify.targets"]) == ["angular>=0.8@0.25", "class@1"]
    assert json.loads(found["data.uri"]) == ["s3://bucket/a", "https://host/b.parquet"]
    assert found["encoder.trust_remote_code"] == "false"
    assert "retrieval" not in found and not any(name.startswith("tracking") for name in found)
    assert "hunter2" not in json.dumps(found)


def test_long_parameters_keep_head_length_and_digest() -> None:
    few, many = figures.parameters(job(1000)), figures.parameters(job(1001))
    for found in (few, many):
        assert max(len(value) for value in found.values()) == figures.PARAM_LIMIT
        assert found["zero_shot.labels"].startswith('["label0000", "label0001"')
    assert few["zero_shot.labels"] != many["zero_shot.labels"], "the digest tells them apart"
    assert re.search(r"\[\d+ characters, sha256 [0-9a-f]{64}\]$", few["zero_shot.labels"])
    assert figures.shorten("x" * figures.PARAM_LIMIT) == "x" * figures.PARAM_LIMIT


def test_job_document_is_the_job_without_credentials() -> None:
    text = figures.job_document(job())
    assert "hunter2" not in text
    read = Job.model_validate(yaml.safe_load(text))
    assert read.certify == job().certify
    assert read.tracking.uri == "https://mlflow.example"


def test_description_is_a_markdown_table() -> None:
    text = figures.description(summary())
    assert text.startswith("10 of 11 pairs have certificates, at sigma 0.5 and alpha 0.001.")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1
    assert rows[2].startswith("| 0.25 | 40.0% | 50.0% | - | 70.0% |")


def test_mlflow_has_first_what_runs_are_compared_by() -> None:
    """Its comparison draws the first metric, and the number of pairs is the same in all runs."""
    first = next(iter(figures.metrics(summary())))
    assert first == "certified_accuracy_by_distribution/r0.25"


def test_curves_that_are_equal_are_all_seen() -> None:
    """Of many runs: no shades over each other, one legend, and marks and dashes that differ."""
    points = [(0.25, 0.8, 0.7, 0.9), (0.5, 0.4, 0.3, 0.5)]
    made = picture({title: dict.fromkeys("abc", points) for title in ("one", "two", "three")}, "study")
    assert len(made.axes) == 3 and len(made.legends) == 1
    for axes in made.axes:
        assert axes.get_legend() is None and len(axes.lines) == 3
        assert (
            len({(line.get_marker(), line.get_linestyle(), line.get_linewidth()) for line in axes.lines}) == 3
        )
    rows = {axes.get_subplotspec().rowspan.start for axes in made.axes}
    assert rows == {0, 1}
    (axes,) = picture({"share": {"a": points, "b": points}, "cosine": {"c": points}}, "run").axes[:1]
    assert axes.get_legend() is not None and len(axes.collections) == 2, "intervals of two are shaded"


@pytest.mark.parametrize(("panels", "curves"), [(1, 1), (4, 3), (3, 10)])
def test_nothing_of_a_picture_is_cut_or_covered(panels: int, curves: int) -> None:
    """Where matplotlib draws things, with names as long as a study's."""
    points = [(0.25, 0.8, 0.7, 0.9), (0.5, 0.4, 0.3, 0.5)]
    names = [f"certify.sigma=0.{i}, purifier=digits-psm, mapper=digits-psm" for i in range(curves)]
    titles = [f"mean certified cosine, to the smoothed feature {i}" for i in range(panels)]
    made = picture({title: dict.fromkeys(names, points) for title in titles}, "a study")
    width, height = made.get_size_inches()
    whole = made.get_tightbbox()
    assert whole.x0 >= 0 and whole.y0 >= 0 and whole.x1 <= width and whole.y1 <= height
    (legend,) = made.legends
    boxes = [
        each.get_tightbbox().transformed(made.dpi_scale_trans.inverted()) for each in (*made.axes, legend)
    ]
    for number, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[:number])
