"""T8: the constant against adaptive quadrature, T1, T4 and T6, and the bound against linear programs of encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import ndtr, ndtri

from smoothcert.certificates import (
    MarginScalar,
    choose_scalar,
    dual_bound,
    large_radius_bound,
    projection_bound,
)


def scalar(rows: int = 1, **pieces: Any) -> MarginScalar:
    """A scalar with some pieces, the others absent."""
    knots = np.broadcast_to(
        np.asarray(pieces.get("knots", np.empty(0)), dtype=float), (rows, np.size(pieces.get("knots", [])))
    )
    k = knots.shape[1]

    def row(name: str, value: float = 0.0) -> np.ndarray:
        return np.broadcast_to(np.asarray(pieces.get(name, value), dtype=float), (rows,)).copy()

    return MarginScalar(
        row("alignment"),
        knots.copy(),
        np.broadcast_to(np.asarray(pieces.get("slopes", 0.0), dtype=float), (rows, k + 1)).copy(),
        row("pilot"),
        row("curvature"),
        row("center"),
        np.broadcast_to(np.asarray(pieces.get("steps", 0.0), dtype=float), (rows, k)).copy(),
    )


RANDOM = {
    "phi": ("knots", "slopes"),
    "phi and pilot": ("knots", "slopes", "pilot"),
    "second moment": ("slopes", "curvature"),
    "second moment and pilot": ("slopes", "curvature", "pilot"),
    "steps": ("knots", "steps"),
    "all": ("knots", "slopes", "steps", "curvature", "pilot"),
}


def random_scalar(generator: np.random.Generator, rows: int, kind: str) -> MarginScalar:
    pieces = RANDOM[kind]
    k = 3 if "knots" in pieces else 0
    size = generator.choice([0.3, 1.0, 4.0], (rows, 1))
    parts = {
        "slopes": -np.sort(-size * generator.exponential(size=(rows, k + 1)), axis=1),
        "pilot": size[:, 0] * generator.exponential(size=rows),
        "curvature": size[:, 0] * generator.exponential(size=rows),
        "steps": size * generator.exponential(size=(rows, k)),
    }
    return MarginScalar(
        generator.uniform(-1, 1, rows),
        np.sort(generator.uniform(-1, 1, (rows, k)), axis=1),
        *(parts[name] if name in pieces else 0 * parts[name] for name in ("slopes", "pilot", "curvature")),
        generator.uniform(-1, 1, rows),
        parts["steps"] if "steps" in pieces else 0 * parts["steps"],
    )


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("rho", [0.2, 1.0, 2.2])
def test_constant_against_brute_force(kind: str, rho: float) -> None:
    """Above E_z max of h - L M over a fine grid of features (each M with its largest <u, v>), and hardly above."""
    h = random_scalar(np.random.default_rng(3), 4, kind)
    constant = h.constant(rho, 1.0)
    z = np.linspace(-8, 8 + rho, 1500)
    weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    for row in range(4):
        margins = np.unique(np.concatenate([np.cos(np.linspace(0, np.pi, 1001)), h.knots[row]]))[None]
        g = h.alignment[row]
        along = -margins * g + np.sqrt(np.maximum((1 - margins**2) * (1 - g**2), 0))
        values = h.take(slice(row, row + 1)).values(margins, along)
        most = np.max(values - np.exp(rho * z - rho**2 / 2)[:, None] * margins, axis=1)
        size = 1 + float(np.max(np.abs(h.limits())))
        assert most @ weight - 1e-5 * size <= constant[row] <= most @ weight + 1e-3 * size


@pytest.mark.parametrize("rho", [1e-6, 0.3, 1.5, 4.0])
def test_closed_form_and_quadrature_agree(rho: float) -> None:
    h = random_scalar(np.random.default_rng(0), 30, "phi")
    quadrature, closed = h._by_quadrature(np.full(30, rho)), h._by_knots(np.full(30, rho))
    assert np.all(quadrature >= closed - 1e-12)
    np.testing.assert_allclose(quadrature, closed, atol=3e-4 * (1 + h.slopes.max()))


@pytest.mark.parametrize("rho", [0.3, 1.0])
def test_a_linear_scalar_is_t1(rho: float) -> None:
    """l M proves l s - C; at the best l that is T1."""
    for s in (0.2, 0.7, 0.95):
        best = np.exp(rho * ndtri((1 + s) / 2) - rho**2 / 2)  # L at the quantile of the extremal half-space
        for factor, attained in ((1.0, True), (0.8, False), (1.3, False)):
            h = scalar(slopes=[factor * best])
            proved = factor * best * s - float(h.constant(rho, 1.0)[0])
            t1 = float(projection_bound(s, rho, 1.0))
            assert proved <= t1 + 1e-12 and (abs(proved - t1) < 1e-11) == attained


def test_with_the_pilot_direction_it_is_t4() -> None:
    generator = np.random.default_rng(1)
    g, l1, lv = (
        generator.uniform(-0.9, 0.5, 40),
        generator.exponential(size=40),
        generator.exponential(size=40),
    )
    one = np.ones(40)
    gram = np.moveaxis(np.array([[one, -one, g], [-one, one, -g], [g, -g, one]]), -1, 0)
    facts, weights = np.full((40, 2), 0.4), np.stack([l1, lv], axis=1)
    for rho in (0.4, 1.3):
        t4 = dual_bound(gram, facts, rho, 1.0, weights)
        h = scalar(40, alignment=g, pilot=lv)
        h = MarginScalar(h.alignment, h.knots, l1[:, None], h.pilot, h.curvature, h.center, h.steps)
        proved = np.sum(weights * facts, axis=1) - h.constant(rho, 1.0)
        np.testing.assert_allclose(np.clip(proved, -1, 1), -t4, atol=2e-4)


def test_with_indicators_it_is_t6() -> None:
    c, p, rho = np.array([-0.2, 0.3, 0.8]), np.array([0.995, 0.98, 0.6]), 0.9
    nu = np.diff(c, prepend=-1.0) * np.exp(rho * ndtri(p) - rho**2 / 2)
    h = scalar(knots=c, steps=nu)
    proved = float(nu @ p - h.constant(rho, 1.0)[0])
    assert proved == pytest.approx(float(large_radius_bound(p, c, rho, 1.0)), abs=1e-4)


def worst_encoder(rho: float, g: float, facts: dict[str, float], cells: int = 120) -> Any:
    """The least E[L M] over encoders that are random on cells of the noise, by linear programming.

    Variables: the probability of each (cell, margin), each margin with its largest <u, v>. Facts: E M, E <u, v>,
    E (M-a)^2, P(M >= c).
    """
    edges = np.concatenate([[-np.inf], np.linspace(-4, 4 + rho, cells - 1), [np.inf]])
    mass, moved = np.diff(ndtr(edges)), np.diff(ndtr(edges - rho))
    margins = np.unique(np.concatenate([np.cos(np.linspace(0, np.pi, 121)), [facts["c"], facts["c"] - 1e-9]]))
    along = -margins * g + np.sqrt(np.maximum((1 - margins**2) * (1 - g**2), 0))
    rows = [-margins, -along, (margins - facts["a"]) ** 2, -(margins >= facts["c"]).astype(float)]
    limits = [-facts["s"], -facts["n"], facts["q"], -facts["p"]]
    unequal = np.stack([np.outer(mass, row).ravel() for row in rows])
    equal = np.kron(np.eye(cells), np.ones(margins.size))
    # probabilities given the cell; the tiny cells at the ends are scaled to keep the program well conditioned
    found = linprog(
        np.outer(moved, margins).ravel(),
        unequal,
        limits,
        equal,
        np.ones(cells),
        bounds=(0, None),
        method="highs",
    )
    assert found.status == 0
    return found


@pytest.mark.parametrize(
    ("rho", "g", "facts"),
    [
        # mean and second moment rule; mean and pilot direction; all but one of mean, pilot, second moment, threshold
        (1.8, -0.6, {"s": 0.6, "n": 0.93, "a": 0.6, "q": 0.02, "c": 0.4, "p": 0.9}),
        (1.0, -0.5, {"s": 0.45, "n": 0.9, "a": 0.5, "q": 0.5, "c": 0.2, "p": 0.5}),
        (0.8, -0.5, {"s": 0.35, "n": 0.85, "a": 0.5, "q": 0.12, "c": 0.1, "p": 0.97}),
        (1.5, -0.6, {"s": 0.5, "n": 0.9, "a": 0.6, "q": 0.15, "c": 0.3, "p": 0.98}),
        (1.2, -0.3, {"s": 0.3, "n": 0.97, "a": 0.4, "q": 0.1, "c": 0.1, "p": 0.95}),
    ],
)
def test_the_dual_is_attained(rho: float, g: float, facts: dict[str, float]) -> None:
    """With the multipliers of a generic solver the bound is below the worst discrete encoder, by less than 1e-3."""
    primal = worst_encoder(rho, g, facts)
    l1, lv, mu, nu = -primal.ineqlin.marginals
    h = scalar(
        alignment=g, knots=[facts["c"]], slopes=[l1], pilot=lv, curvature=mu, center=facts["a"], steps=[nu]
    )
    known = l1 * facts["s"] + lv * facts["n"] - mu * facts["q"] + nu * facts["p"]
    proved = known - float(h.constant(rho, 1.0)[0])
    assert proved <= primal.fun + 1e-9
    assert proved >= primal.fun - 1e-3
    # several facts at once
    assert sum(x > 1e-6 for x in (l1, lv, mu, nu)) >= 2


@pytest.mark.parametrize("rho", [0.5, 1.0, 1.7])
def test_phi_alone_attains_the_worst_pairing(rho: float) -> None:
    """A discrete law of M that is known: phi with the paired L as slopes proves E[L M] of the worst pairing exactly."""
    margins, share = np.array([-0.9, -0.2, 0.1, 0.4, 0.7, 0.9]), np.array([0.004, 0.03, 0.1, 0.3, 0.4, 0.166])
    # the smallest margin where L is largest
    edges = -ndtri(np.clip(np.concatenate([[0.0], np.cumsum(share)]), 0, 1))
    worst = float(np.sum(margins * -np.diff(ndtr(edges - rho))))
    slopes = np.exp(rho * edges - rho**2 / 2)[1:-1]
    slopes = np.concatenate([[slopes[0] * 1e5], slopes, [0.0]])
    h = scalar(knots=margins, slopes=slopes)
    mean = float(h.values(margins[None], 0 * margins[None])[0] @ share)
    assert mean - float(h.constant(rho, 1.0)[0]) == pytest.approx(worst, abs=1e-9 * slopes.max())
    # a parabola, the best of many, proves less
    l1, mu = (each.ravel() for each in np.meshgrid(np.linspace(0.2, 3, 25), np.linspace(0, 3, 25)))
    other = scalar(len(l1), slopes=l1[:, None], curvature=mu, center=0.6)
    at = np.broadcast_to(margins, (len(l1), len(margins)))
    best = other.values(at, 0 * at) @ share - other.constant(rho, 1.0)
    assert best.shape == l1.shape and best.max() < worst - 1e-3


def test_a_step_is_dominated_by_its_concave_hull() -> None:
    """The same constant, and nowhere smaller: why the choice has no steps."""
    step = scalar(knots=[0.2], slopes=[0.0], steps=[1.0])
    hull = scalar(knots=[0.2], slopes=[1 / 1.2, 0.0])
    m = np.linspace(-1, 1, 400)[None]
    at_least = hull.values(m, 0 * m) - float(hull.values(np.array([[-1.0]]), np.zeros((1, 1)))[0, 0])
    assert np.all(at_least >= step.values(m, 0 * m) - 1e-12)
    lowest = float(hull.values(np.array([[-1.0]]), np.zeros((1, 1)))[0, 0])
    for rho in (0.3, 1.5):
        assert float(hull.constant(rho, 1.0)[0]) - lowest == pytest.approx(
            float(step.constant(rho, 1.0)[0]), abs=2e-4
        )


@pytest.mark.parametrize("kind", RANDOM)
def test_limits_hold_and_scores_map(kind: str) -> None:
    generator = np.random.default_rng(5)
    h = random_scalar(generator, 20, kind)
    u = generator.normal(size=(20, 4000, 3))
    u /= np.linalg.norm(u, axis=2, keepdims=True)
    margins = u[..., 0]  # -w is the first axis; v lies in the plane of the first two
    along = -h.alignment[:, None] * u[..., 0] + np.sqrt(1 - h.alignment[:, None] ** 2) * u[..., 1]
    values, (low, high) = h.values(margins, along), h.limits()
    assert np.all(values >= low[:, None]) and np.all(values <= high[:, None])
    scores = h.scores(margins, along)
    assert scores.min() >= 0 and scores.max() <= 1
    # what a mean score proves is what its threshold asks for
    constant = h.constant(0.3, 1.0)
    mean = scores.mean(axis=1)
    proved = h.bound(constant, mean)
    np.testing.assert_allclose(
        proved, np.clip(values.mean(axis=1) - constant, -1, 1), atol=1e-9 * (high - low).max()
    )
    inner = np.abs(proved) < 0.99
    np.testing.assert_allclose(
        h.threshold(constant, np.where(inner, proved, 0.0))[inner], mean[inner], atol=1e-9
    )


def test_the_constant_grows_with_the_radius_and_ends() -> None:
    for kind in RANDOM:
        h = random_scalar(np.random.default_rng(7), 10, kind)
        constants = np.stack([h.constant(rho, 0.5) for rho in (0.0, 0.1, 0.4, 1.0, 2.9)])
        assert np.all(np.diff(constants, axis=0) > -1e-3 * (1 + np.abs(constants[1:])))
        assert np.isinf(h.constant(3.1, 0.5)).all()
        assert np.all(h.threshold(h.constant(3.1, 0.5)) > 1) and np.all(
            h.bound(h.constant(3.1, 0.5), 1.0) == -1
        )


def normal_margins(
    mean: float, deviation: float, rows: int = 1, draws: int = 63, seed: int = 0
) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(mean, deviation, (rows, draws)), -1, 1)


@pytest.mark.parametrize("rho", [0.5, 1.0, 1.5])
def test_the_choice_is_near_the_best_for_a_normal_law(rho: float) -> None:
    """Many draws: what is proved of the mean comes near the worst pairing, whose value is mean - rho deviation."""
    pilot = normal_margins(0.5, 0.15, draws=400)
    h = choose_scalar(pilot, rho, 1.0, draws=10**6, alpha=1e-3)
    fresh = normal_margins(0.5, 0.15, draws=200_000, seed=1)
    proved = float(h.values(fresh, 0 * fresh).mean() - h.constant(rho, 1.0)[0])
    assert 0.5 - rho * 0.15 - 0.02 < proved < 0.5 - rho * 0.15 + 0.002


def test_a_target_asks_for_few_draws() -> None:
    """An easy level is proved sooner by the scalar chosen for it than by the one for the best bound of 1,000 draws."""
    pilot = normal_margins(0.6, 0.1)
    needed = {}
    for level in (None, 0.0):
        h = choose_scalar(pilot, 1.0, 1.0, draws=1000, alpha=1e-3, level=level)
        low, _ = h.limits()
        fresh = normal_margins(0.6, 0.1, draws=4000, seed=1)
        e = (h.values(fresh, 0 * fresh) - h.constant(1.0, 1.0)) / (h.constant(1.0, 1.0) - low)
        needed[level] = np.log(1000) / np.log1p(0.99 * e).mean()
    assert needed[0.0] <= needed[None]


@pytest.mark.parametrize(
    "pilot", [np.full((1, 63), 0.4), np.full((1, 1), 0.4), np.full((1, 5), 1.0), np.full((1, 5), -1.0)]
)
@pytest.mark.parametrize("rho", [0.0, 1.0, 5.9])
def test_constant_margins_and_ends(pilot: np.ndarray, rho: float) -> None:
    for level in (None, 0.0, 1.0, -1.0):
        h = choose_scalar(pilot, rho, 1.0, draws=300, alpha=1e-3, level=level)
        constant = h.constant(rho, 1.0)
        assert np.isfinite(constant).all() and np.isfinite(h.threshold(constant, 0.0)).all()
        # a constant margin stays what it is under every shift
        proved = h.bound(constant, h.scores(pilot, 0 * pilot).mean(axis=1))
        assert proved[0] <= pilot[0, 0] + 1e-9


def test_no_rows_and_several_radii() -> None:
    assert choose_scalar(np.empty((0, 5)), 0.1, 1.0, draws=10, alpha=0.1).knots.shape[0] == 0
    pilot = normal_margins(0.5, 0.2, rows=3)
    together = choose_scalar(pilot, [0.1, 0.2, 0.3], 0.25, draws=300, alpha=1e-3)
    for row, radius in enumerate((0.1, 0.2, 0.3)):
        alone = choose_scalar(pilot[row : row + 1], radius, 0.25, draws=300, alpha=1e-3)
        np.testing.assert_allclose(together.slopes[row], alone.slopes[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose_scalar([[0.1, np.nan]], 0.1, 1.0, draws=10, alpha=0.1), "margins"),
        (lambda: choose_scalar([[1.5]], 0.1, 1.0, draws=10, alpha=0.1), "margins"),
        (lambda: choose_scalar([0.1], 0.1, 1.0, draws=10, alpha=0.1), "margins"),
        (lambda: choose_scalar([[0.1]], 0.1, 1.0, draws=0, alpha=0.1), "draws"),
        (lambda: choose_scalar([[0.1]], 0.1, 1.0, draws=9, alpha=1.0), "alpha"),
        (lambda: choose_scalar([[0.1]], -0.1, 1.0, draws=9, alpha=0.1), "radius"),
        (lambda: scalar(knots=[0.5, 0.1], slopes=[2.0, 1.0, 0.5]), "fall"),
        (lambda: scalar(knots=[0.1], slopes=[1.0, 2.0]), "rise"),
        (lambda: scalar(pilot=-0.1), "pilot"),
        (lambda: scalar(curvature=np.nan), "curvature"),
        (lambda: scalar(knots=[1.2]), "knots"),
    ],
)
def test_bad_input_is_an_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
