"""The audit: an honest run has nothing to object, and each way to be dishonest is named with its pairs."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from smoothcert.audit.audit import RunAudit, audit_run, audit_runs
from smoothcert.certificates import (
    LARGE_RADIUS_THRESHOLDS,
    angular_bound,
    angular_radius,
    clean_reference_bound,
    fcsb,
    fcsb_radius,
    large_radius_bound,
    margin_radius,
    normal_scalar,
    second_moment_bound,
    second_moment_radius,
    shifted_percentile_radius,
    similarity_bound,
    vote_radius,
)
from smoothcert.datasets import UnitSpec
from smoothcert.errors import StoreError
from smoothcert.job import parse_job
from smoothcert.sql import Query
from smoothcert.store import (
    ATTACKS,
    CERTIFICATES,
    Commit,
    RunDirectory,
    RunIdentity,
    new_attempt,
    rows_to_table,
)
from smoothcert.store.parts import write_part
from smoothcert.store.units import plan_number, task_of, unit_under

SIGMA, ALPHA, RADII, COSINES = 0.5, 0.001, (0.25, 0.5), (0.5, 0.8)
JOB = """
name: audited
data: {format: parquet, uri: somewhere}
encoder: {model: bundled:digits-clip}
certify:
  sigma: 0.5
  max_draws: 1000
  radii: [0.25, 0.5]
  cosines: [0.5, 0.8]
  targets: [{certificate: angular, radius: 0.25, cosine: 0.8}]
zero_shot: {labels: [two, three, seven]}
retrieval: {candidates: 3, k: 2}
attacks: [{attack: pgd, norm: l2, budgets: [0.25]}]
"""
DIGEST = "e" * 64
PAIRS = 4
EXCEEDANCE = (0.97, 0.95, 0.9, 0.8, 0.6, 0.3, 0.1, 0.02)
SHARE = 0.92
QUANTILES = tuple(0.9 - 0.02 * j if j < 17 else -1.0 for j in range(25))
"""At attacks of 0, 1/8, ..., 24/8 sigma."""
Row = dict[str, Any]
Change = Callable[[Row], None]


def listed(values: Sequence[Any]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)


def scalars(name: str, center: float, spread: float, bounds: tuple[float, float], **more: Any) -> Row:
    """Columns of one certificate by the distribution: scalars whose means prove these bounds at the radii."""
    low, law = [], []
    for radius, bound in zip(RADII, bounds, strict=True):
        numbers = (center, spread, 2.5, radius / SIGMA)
        scalar = normal_scalar([numbers])
        least, most = scalar.limits()
        low.append(float(((bound + scalar.constant(radius, SIGMA) - least) / (most - least))[0]))
        law += [*numbers, low[-1] + 0.01]
    assert max(low) < 0.99
    found = {f"{name}_scalar_lcb": tuple(low), f"{name}_scalar": tuple(law)}
    return found | {f"{name}_distribution": tuple(bound - 1e-9 for bound in bounds)} | more


def distributions(pair: int) -> Row:
    """What follows from the distributions of margins, and from the spread of the features."""
    norm = 0.6 + 0.01 * pair
    moment = (norm - 0.01, 0.08)
    return {
        "eigenvalue": 0.05,
        "eigenvalue_ucb": 0.08,
        "escape_ucb": 0.01,
        "second_moment": listed([second_moment_bound(*moment, r, SIGMA, escape=0.01) for r in RADII]),
        "second_moment_radius": listed(
            [second_moment_radius(*moment, c, SIGMA, escape=0.01) for c in COSINES]
        ),
        **scalars("clean", 0.57, 0.15, (0.45, 0.3)),
        **scalars("class", 0.57, 0.15, (0.045, 0.01)),
        **scalars("caption", 0.52, 0.15, (0.35, 0.2)),
        **scalars("retrieval", 0.45, 0.15, (0.008, 0.005)),
    }


def certificate(pair: int) -> Row:
    """A row whose bounds follow from its lower confidence bounds, for the test to change."""
    return dict(_certificate(pair))


@functools.cache
def _certificate(pair: int) -> Row:
    score, norm = 0.78 + 0.01 * pair, 0.6 + 0.01 * pair
    half = np.array([2 * score - 1 - 0.01, norm - 0.01])
    return {
        "unit_id": "u00000-0",
        "pair_id": f"a.parquet#{pair}",
        "source_uri": "a.parquet",
        "caption": None,
        "captions": (),
        "kept": None,
        "image_digest": None,
        "label": None,
        "status": "ok",
        "error_stage": None,
        "error_class": None,
        "error_message": None,
        "sigma": SIGMA,
        "alpha": ALPHA,
        "input_height": 8,
        "input_width": 8,
        "draws": 1000,
        "pilot_draws": 63,
        "stop_reason": "decided",
        "smooth_norm": norm + 0.02,
        "smooth_norm_lcb": norm,
        "robustness_score": score + 0.01,
        "robustness_score_lcb": score,
        "fcsb": listed([fcsb(score, r, SIGMA) for r in RADII]),
        "angular": listed([angular_bound(norm, r, SIGMA) for r in RADII]),
        "clean_reference": listed([clean_reference_bound(half[0], half[1], r, SIGMA) for r in RADII]),
        "exceedance_lcb": EXCEEDANCE,
        "large_radius": listed(
            [large_radius_bound(EXCEEDANCE, LARGE_RADIUS_THRESHOLDS, r, SIGMA) for r in RADII]
        ),
        **distributions(pair),
        "fcsb_radius": listed([fcsb_radius(score, c, SIGMA) for c in COSINES]),
        "angular_radius": listed([angular_radius(norm, c, SIGMA) for c in COSINES]),
        "caption_similarity": 0.52,
        "caption_similarity_lcb": 0.5,
        "caption_alignment": 0.7,
        "caption_bound": listed([similarity_bound(0.49, half[1], 0.7, r, SIGMA) for r in RADII]),
        "clean_label": "two",
        "predicted_label": "two",
        "vote_label": "two",
        "vote_share": 0.95,
        "vote_share_lcb": SHARE,
        "vote_radius": float(vote_radius(SHARE, SIGMA)),
        "retrieval_vote_share": 0.95,
        "retrieval_vote_share_lcb": SHARE,
        "retrieval_vote_radius": float(vote_radius(SHARE, SIGMA)),
        "clean_quantile_lcb": QUANTILES,
        "clean_percentile": (QUANTILES[4], QUANTILES[8]),
        "clean_percentile_radius": listed([shifted_percentile_radius(QUANTILES, c, SIGMA) for c in COSINES]),
        "pilot_quantile_lcb": QUANTILES,
        "pilot_percentile": (QUANTILES[4], QUANTILES[8]),
        "pilot_percentile_radius": listed([shifted_percentile_radius(QUANTILES, c, SIGMA) for c in COSINES]),
        "caption_quantile_lcb": QUANTILES,
        "caption_percentile": (QUANTILES[4], QUANTILES[8]),
        "class_quantile_lcb": QUANTILES,
        "class_percentile": (QUANTILES[4], QUANTILES[8]),
        "class_margin": 0.57,
        "class_margin_lcb": 0.54,
        "class_rival": "three",
        "class_rival_margin_lcb": 0.55,
        "class_rival_alignment": -0.4,
        "certified_radius": float(margin_radius(0.55, half[1], -0.4, SIGMA)),
        "retrieval_rank": 1,
        "retrieval_rival_margin_lcb": 0.45,
        "retrieval_rival_alignment": -0.3,
        "retrieval_radius": float(margin_radius(0.45, half[1], -0.3, SIGMA)),
        "target_decision": ("certified",),
        "log_e_value": (7.5,),
        "encoder_digest": DIGEST,
        "seed": 0,
        "noise": "known",
        "device": "cpu",
        "dtype": "float32",
    }


def outcome(pair: int) -> Row:
    """A PGD outcome at budget 0.25 that respects every certificate."""
    row = {column.name: None for column in ATTACKS.columns if column.name not in ("run_id", "attempt")}
    score, norm = 0.78 + 0.01 * pair, 0.6 + 0.01 * pair
    clean, smoothed = float(fcsb(score, 0.25, SIGMA)), float(angular_bound(norm, 0.25, SIGMA))
    return row | {
        "pair_id": f"a.parquet#{pair}",
        "source_uri": "a.parquet",
        "status": "ok",
        "attack": "pgd",
        "attack_id": "1a2b3c4d",
        "settings": "{}",
        "norm": "l2",
        "budget": 0.25,
        "objective": "divergence",
        "subject": "smoothed",
        "sigma": SIGMA,
        "steps": 10,
        "restarts": 1,
        "eot_draws": 64,
        "queries": 640,
        "perturbation_l2": 0.25,
        "perturbation_linf": 0.02,
        "evaluate_draws": 1000,
        "alpha": ALPHA,
        "cosine_to_clean": 0.982,
        "cosine_to_clean_lcb": 0.0,
        "cosine_to_clean_ucb": 0.985,
        "cosine_to_smoothed": 0.998,
        "cosine_to_smoothed_lcb": 0.0,
        "cosine_to_smoothed_ucb": 0.999,
        "class_margin_label": "two",
        "class_margin": 0.04,
        "class_margin_ucb": 0.05,
        "caption_similarity": 0.35,
        "caption_similarity_ucb": 0.4,
        "retrieval_margin": 0.005,
        "retrieval_margin_ucb": 0.01,
        "attacked_vote": "two",
        "vote_share_label": "two",
        "vote_share": 0.8,
        "vote_share_ucb": 0.85,
        "retrieval_vote_share": 0.8,
        "retrieval_vote_share_ucb": 0.85,
        "clean_percentile": 0.84,
        "clean_percentile_ucb": 0.86,
        "caption_percentile": 0.84,
        "caption_percentile_ucb": 0.86,
        "class_percentile": 0.84,
        "class_percentile_ucb": 0.86,
        "margin": 0.2,
        "success": False,
        "certified_to_clean": clean,
        "certified_to_smoothed": smoothed,
        "certified_cosine": max(clean, smoothed),
        "violation": False,
        "input_height": 8,
        "input_width": 8,
        "encoder_digest": DIGEST,
        "seed": 7,
        "certify_seed": 0,
        "device": "cpu",
        "dtype": "float32",
    }


def make_run(
    url: Path, certificates: Sequence[Row], attacks: Sequence[Row] = (), planned: int = PAIRS
) -> RunDirectory:
    unit = UnitSpec("u00000-0", "a.parquet", 0, planned)
    identity = RunIdentity(parse_job(JOB), "d" * 64, DIGEST, "0.1")
    run = RunDirectory.create_or_open(str(url), identity, [unit])
    attempt = new_attempt()
    part = run.write_rows(CERTIFICATES, unit.unit_id, attempt, certificates)
    run.commits.commit(Commit(unit_id=unit.unit_id, attempt=attempt, parts=(part,), ok=len(certificates)))
    if attacks:
        attacked = unit_under(unit, "1a2b3c4d").unit_id
        # row by row, as an older version wrote them: it did not look whether one occurs twice
        table = pa.concat_tables(
            rows_to_table([row | {"unit_id": attacked}], ATTACKS, run_id=run.run_id, attempt=attempt)
            for row in attacks
        )
        part = write_part(run.storage, ATTACKS, attacked, attempt, table)
        quarantined = sum(row["status"] != "ok" for row in attacks)
        run.commits.commit(
            Commit(
                unit_id=attacked,
                attempt=attempt,
                parts=(part,),
                ok=len(attacks) - quarantined,
                quarantined=quarantined,
            )
        )
    return run


def audited(
    url: Path, *, certificate_change: Change | None = None, attack_change: Change | None = None
) -> RunAudit:
    """A run whose pair 2 was changed."""
    certificates, attacks = [certificate(i) for i in range(PAIRS)], [outcome(i) for i in range(PAIRS)]
    if certificate_change is not None:
        certificate_change(certificates[2])
    if attack_change is not None:
        attack_change(attacks[2])
    return audit_run(make_run(url, certificates, attacks))


def raised(name: str, by: float, position: int = 0) -> Change:
    def change(row: Row) -> None:
        values = list(row[name])
        values[position] += by
        row[name] = tuple(values)

    return change


def put(**values: Any) -> Change:
    return lambda row: row.update(values)


def test_an_honest_run_has_nothing_to_object(tmp_path: Path) -> None:
    result = audited(tmp_path / "run")
    assert result.findings == () and result.sound
    assert (result.pairs, result.attacks, result.audited_pairs, result.violated_pairs) == (4, 4, 4, 0)
    assert json.loads(result.to_json())["sound"] is True


def test_an_attack_that_beats_a_certificate_is_a_violation(tmp_path: Path) -> None:
    bound = float(angular_bound(0.62, 0.25, SIGMA))
    change = put(cosine_to_smoothed_ucb=bound - 1e-3)
    result = audited(tmp_path / "run", attack_change=change)
    assert {finding.rule for finding in result.findings} == {"violation"}
    (finding,) = (f for f in result.findings if "below its certified bound" in f.means)
    assert {pair for pair, _ in finding.listed} == {"a.parquet#2"}
    # among them the computed bound, the stored ones by mean and by second moment, and the attack row's own
    assert finding.count == 4
    assert (result.audited_pairs, result.violated_pairs) == (4, 1)
    assert result.chance is not None and 0 < result.chance < 0.15


def test_the_norm_of_the_perturbation_counts_not_the_budget(tmp_path: Path) -> None:
    # below what is certified at half of the budget, above what is certified at the budget itself
    near, far = (float(angular_bound(0.62, radius, SIGMA)) for radius in (0.125, 0.25))
    change = put(perturbation_l2=0.125, cosine_to_smoothed_ucb=(near + far) / 2)
    result = audited(tmp_path / "run", attack_change=change)
    assert [finding.rule for finding in result.findings] == ["violation"]
    assert result.findings[0].listed[0][1].startswith("angular ")


def test_a_raised_bound_is_beaten_by_an_attack_close_to_the_true_one(tmp_path: Path) -> None:
    """The deliberately unsound certificate: both the arithmetic and the attack give it away."""
    bound = float(angular_bound(0.62, 0.25, SIGMA))
    result = audited(
        tmp_path / "run",
        certificate_change=raised("angular", 0.05),
        attack_change=put(cosine_to_smoothed_ucb=bound + 0.01),
    )
    assert {finding.rule for finding in result.findings} == {"rounded-up", "violation"}
    assert result.violated_pairs == 1


def test_rows_from_before_references_had_names_are_the_same_question(tmp_path: Path) -> None:
    attacks = [
        outcome(i) | {"success": i == 0, "reference": "clean" if i % 2 else None} for i in range(PAIRS)
    ]
    run = make_run(tmp_path / "run", [certificate(i) for i in range(PAIRS)], attacks)
    with Query([run]) as query:
        rates = query.sql("SELECT attack, reference, pairs, wrong_after FROM attack_success").to_pylist()
    assert [tuple(row.values()) for row in rates] == [
        ("pgd", "clean", PAIRS, 1),
        ("worst case", "clean", PAIRS, 1),
    ]


def test_a_missing_pair_is_a_missing_unit(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [certificate(i) for i in range(3)])
    (finding,) = audit_run(run).findings
    assert finding.rule == "missing-pair" and finding.count == 1


def test_doubled_attack_rows_are_named(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", [certificate(i) for i in range(PAIRS)], [outcome(i) for i in (0, 1, 2, 3, 3)]
    )
    (finding,) = audit_run(run).findings
    assert (finding.rule, finding.listed[0][0]) == ("doubled-row", "a.parquet#3")


def test_doubled_attack_rows_are_not_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [certificate(i) for i in range(PAIRS)])
    unit = unit_under(run.plan()[0], "1a2b3c4d").unit_id
    once = [outcome(3) | {"unit_id": unit} | change for change in ({}, {"budget": 0.5}, {"subject": "bare"})]
    with pytest.raises(
        StoreError,
        match=r"'a.parquet#3'.*'1a2b3c4d'.*'smoothed'.*'0.25' occurs twice in one part of 'attacks'",
    ):
        run.write_rows(ATTACKS, unit, new_attempt(), [*once, once[0]])
    assert run.write_rows(ATTACKS, unit, new_attempt(), once).rows == 3


def test_many_offenders_are_counted_and_some_listed(tmp_path: Path) -> None:
    certificates = [certificate(i % 3) | {"pair_id": f"a.parquet#{i}"} for i in range(30)]
    for row in certificates:
        raised("angular", 0.05)(row)
    make_run(tmp_path / "run", certificates, planned=30)
    (result,) = audit_runs([str(tmp_path / "run")])
    (finding,) = result.findings
    assert (finding.rule, finding.count, len(finding.listed)) == ("rounded-up", 30, 20)
    assert any("and 10 more" in line for line in result.lines())


def test_attack_units_keep_number_place_and_parts() -> None:
    unit = UnitSpec("u00012-9f8e7d6c", "data/a.parquet", 10, 20)
    attacked = unit_under(unit, "1a2b3c4d")
    part = attacked.part(10, 15)
    for each in (attacked, part):
        assert (plan_number(each.unit_id), task_of(each.unit_id)) == ("u00012", "1a2b3c4d")
    assert task_of(unit.unit_id) == "" and len({unit.unit_id, attacked.unit_id, part.unit_id}) == 3
