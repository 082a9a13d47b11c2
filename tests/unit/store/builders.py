"""Builders of small runs: two radii, two cosines, two targets. Loaded by the conftests as ``make``."""

from collections.abc import Sequence
from typing import Any

from smoothcert.datasets import UnitSpec
from smoothcert.job import Job, parse_job
from smoothcert.store import CERTIFICATES, Commit, RunDirectory, RunIdentity, new_attempt

JOB = """
name: tiny
data: {format: parquet, uri: pairs.parquet}
encoder: {model: "bundled:digits-clip"}
certify:
  sigma: 0.5
  radii: [0.25, 0.5]
  cosines: [0.5, 0.8]
  targets: [{certificate: angular, radius: 0.25, cosine: 0.8}, {certificate: class, radius: 0.5}]
zero_shot: {labels: [cat, dog]}
"""

QUANTILES = tuple(0.9 if j < 9 else -1.0 for j in range(25))


def job(*overrides: str) -> Job:
    return parse_job(JOB, overrides)


def identity(
    *overrides: str, data: str = "d" * 64, encoder: str = "e" * 64, code: str = "0.1"
) -> RunIdentity:
    return RunIdentity(job(*overrides), data, encoder, code)


def units(count: int, pairs: int = 4) -> list[UnitSpec]:
    return [UnitSpec(f"u{i:05d}-0", "data/a.parquet", i * pairs, (i + 1) * pairs) for i in range(count)]


def ok_row(unit_id: str, pair_id: str, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "unit_id": unit_id,
        "pair_id": pair_id,
        "source_uri": "data/a.parquet",
        "caption": "a cat",
        "captions": ("a cat", "a small cat"),
        "kept": None,
        "image_digest": None,
        "label": None,
        "status": "ok",
        "error_stage": None,
        "error_class": None,
        "error_message": None,
        "sigma": 0.5,
        "alpha": 0.001,
        "input_height": 8,
        "input_width": 8,
        "draws": 100,
        "pilot_draws": 16,
        "stop_reason": "decided",
        "smooth_norm": 0.9,
        "smooth_norm_lcb": 0.85,
        "robustness_score": 0.95,
        "robustness_score_lcb": 0.9,
        "exceedance_lcb": (0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.5),
        "eigenvalue": 0.04,
        "eigenvalue_ucb": 0.06,
        "escape_ucb": 0.03,
        "clean_scalar_lcb": (0.9, None),
        "clean_scalar": (0.8, 0.1, 2.5, 0.5, 0.95, *(None,) * 5),
        "class_scalar_lcb": (0.9, None),
        "class_scalar": (0.3, 0.1, 2.5, 0.5, 0.95, *(None,) * 5),
        "caption_scalar_lcb": (0.9, 0.9),
        "caption_scalar": (0.2, 0.1, 2.5, 0.5, 0.95, 0.2, 0.1, 2.5, 1.0, 0.95),
        "retrieval_scalar_lcb": None,
        "retrieval_scalar": None,
        "fcsb": (0.7, None),
        "angular": (0.9, 0.6),
        "second_moment": (0.95, 0.7),
        "second_moment_radius": (0.7, 0.35),
        "clean_reference": (0.8, None),
        "large_radius": (None, None),
        "clean_distribution": (0.75, None),
        "fcsb_radius": (0.4, None),
        "angular_radius": (0.6, 0.3),
        "caption_similarity": 0.2,
        "caption_similarity_lcb": 0.1,
        "caption_alignment": 0.2,
        "caption_bound": (0.05, -0.2),
        "caption_distribution": (0.1, -0.1),
        "clean_label": "cat",
        "predicted_label": "cat",
        "class_margin": 0.3,
        "class_margin_lcb": 0.2,
        "class_rival": "dog",
        "class_rival_margin_lcb": 0.2,
        "class_rival_alignment": -0.3,
        "certified_radius": 0.45,
        "class_distribution": (0.1, None),
        "retrieval_rank": None,
        "retrieval_rival_margin_lcb": None,
        "retrieval_rival_alignment": None,
        "retrieval_radius": None,
        "vote_label": "cat",
        "vote_share": 0.97,
        "vote_share_lcb": 0.9,
        "vote_radius": 0.64,
        "clean_quantile_lcb": QUANTILES,
        "clean_percentile": (0.9, 0.7),
        "clean_percentile_radius": (0.5, 0.25),
        "pilot_quantile_lcb": QUANTILES,
        "pilot_percentile": (0.9, 0.7),
        "pilot_percentile_radius": (0.5, 0.25),
        "caption_quantile_lcb": QUANTILES,
        "caption_percentile": (0.2, -0.1),
        "class_quantile_lcb": QUANTILES,
        "class_percentile": (0.2, -0.1),
        "retrieval_vote_share": None,
        "retrieval_vote_share_lcb": None,
        "retrieval_vote_radius": None,
        "retrieval_distribution": None,
        "target_decision": ("certified", "budget"),
        "log_e_value": (7.5, 0.5),
        "encoder_digest": "e" * 64,
        "seed": 0,
        "noise": "philox",
        "device": "cpu",
        "dtype": "float32",
    }
    return {**row, **changes}


def quarantined_row(unit_id: str, pair_id: str, error: str = "DecodeError") -> dict[str, Any]:
    row = ok_row(unit_id, pair_id)
    kept = {"unit_id", "pair_id", "source_uri", "caption", "captions", "sigma", "alpha", "input_height"}
    kept |= {"input_width", "encoder_digest", "seed", "noise", "device", "dtype"}
    nothing = {name: None for name in row if name not in kept}
    changes = {"status": "quarantined", "error_stage": "decode", "error_class": error, "error_message": "cut"}
    return {**row, **nothing, **changes, "draws": 0, "pilot_draws": 0}


def unit_rows(unit: UnitSpec) -> list[dict[str, Any]]:
    """Rows of a unit; every pair whose position ends in 3 is quarantined."""
    make = [quarantined_row if i % 10 == 3 else ok_row for i in range(unit.start, unit.stop)]
    return [
        m(unit.unit_id, f"a.parquet#{i}") for m, i in zip(make, range(unit.start, unit.stop), strict=True)
    ]


def attempt_unit(run: RunDirectory, unit_id: str, rows: Sequence[dict[str, Any]], **changes: Any) -> Commit:
    """Write the part of a new attempt and return its commit, not committed yet."""
    attempt = new_attempt()
    part = run.write_rows(CERTIFICATES, unit_id, attempt, rows)
    quarantined = sum(row["status"] != "ok" for row in rows)
    facts: dict[str, Any] = {"draws": 116 * len(rows), "seconds": 1.5, "worker": "w1", **changes}
    return Commit(
        unit_id=unit_id,
        attempt=attempt,
        parts=(part,),
        ok=len(rows) - quarantined,
        quarantined=quarantined,
        **facts,
    )


def commit_unit(run: RunDirectory, unit: UnitSpec) -> bool:
    return run.commits.commit(attempt_unit(run, unit.unit_id, unit_rows(unit)))
