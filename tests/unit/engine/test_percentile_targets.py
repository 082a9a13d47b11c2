"""Targets on percentiles: thresholds in closed form, scores at the edge, and what a job must have for them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from smoothcert.catalogue.functions import projection_of_score
from smoothcert.encoders import KnownEncoder
from smoothcert.engine import encode_texts
from smoothcert.engine.thresholds import IMPOSSIBLE, percentile_cut, percentile_threshold
from smoothcert.job import ZeroShotSection

LABELS = ("left", "right")
ANGLES = {"left": 0.0, "right": math.pi / 2}
CONSTANT = KnownEncoder.staircase((-1e3,), (0.2, 0.3), text_angles=ANGLES | {"a caption": 0.3 + math.pi / 3})
"""Whatever the image: cosine 1 to itself, 0.5 to the caption, (cos 0.3 - sin 0.3) / sqrt 2 over the other class."""


@settings(max_examples=100)
@given(st.floats(0.01, 0.99), st.floats(0.0, 3.0))
def test_the_share_that_is_needed_is_the_closed_form_rounded_up(q, rho):
    found = percentile_threshold(q, 0.4 * rho, 0.4)
    exact = norm.sf(norm.ppf(q) - rho)
    assert exact - 1e-15 <= found <= exact + 1e-11 + 1e-9 * norm.cdf(norm.ppf(q) - rho)


def test_what_no_share_shows_is_impossible():
    assert percentile_threshold(0.5, 40.0, 1.0) == IMPOSSIBLE


@settings(max_examples=200)
@given(st.floats(-1.0, 1.0, exclude_max=True))
def test_a_draw_counts_where_its_column_would_show_the_level(level):
    cut = percentile_cut(level)
    assert 0.0 <= cut <= 1.0 and float(projection_of_score(cut)) >= level
    assert cut <= (1.0 + level) / 2.0 + 1e-15


def targets(radius, **levels):
    return tuple(
        {"certificate": f"{name}_percentile", "radius": radius, "cosine": level}
        for name, level in levels.items()
    )


def test_scores_that_are_all_equal(make):
    """All draws above the level, at a hair from it, or below it: certified with what n ones show, or refuted."""
    texts = encode_texts(CONSTANT, zero_shot=ZeroShotSection(labels=LABELS, prompts=("{label}",)))
    margin = (math.cos(0.3) - math.sin(0.3)) / math.sqrt(2)
    exact = {"clean": 1.0, "pilot": 1.0, "caption": 0.5, "class": margin}
    near = {name: value - 1e-6 for name, value in exact.items()}
    beyond = {"caption": 0.5 + 1e-6, "class": margin + 1e-6}
    asked = (*targets(0.25, **near), *targets(0.25, **beyond), *targets(0.25, caption=-1.0))
    certify = make.section(alpha=0.01, max_draws=200, targets=asked)
    found = make.measured(make.run(CONSTANT, certify, make.pairs(make.pixels(2)), texts))
    for m in found.values():
        assert m.decisions == ("certified",) * 4 + ("refuted",) * 2 + ("certified",)
        assert len({m.log_e_values[i] for i in (0, 1, 2, 3, 6)}) == 1
        assert m.stop_reason == "decided" and m.draws < 100


def test_draws_too_few_for_the_radius_leave_it_open(make):
    certify = make.section(alpha=0.01, max_draws=20, targets=targets(0.9, clean=0.5))
    (m,) = make.measured(make.run(CONSTANT, certify, make.pairs(make.pixels(1)))).values()
    assert m.decisions == ("budget",) and m.log_e_values[0] < math.log(100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"percentile": None, "targets": targets(0.1, clean=0.5)}, "certify.percentile, which is null"),
        ({"targets": targets(0.1, clean=-0.2)}, "use 0 or more"),
        ({"targets": ({"certificate": "class_percentile", "radius": 0.1},)}, "needs 'cosine'"),
        ({"percentile": 1.0, "targets": ()}, "percentile"),
        ({"percentile": 0.0, "targets": ()}, "percentile"),
    ],
)
def test_what_cannot_be_asked_is_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make.section(**changes)
