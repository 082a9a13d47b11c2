"""Order statistics as quantile bounds, against the binomial distribution and a capital integrated numerically."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom

from smoothcert.certificates import percentile_radius
from smoothcert.statistics import lower_bound, percentile_bound, quantile_rank


@pytest.mark.parametrize("alpha", [0.05, 1e-3])
@pytest.mark.parametrize("q", [1e-4, 0.03, 0.5, 0.9, 0.999])
def test_ranks_by_counting(alpha: float, q: float) -> None:
    for n in (1, 7, 50, 300, 1000):
        counted = int(np.sum(binom.cdf(np.arange(n), n, q) <= alpha))
        assert int(quantile_rank(n, q, alpha)) == counted


def test_anytime_ranks_by_integration() -> None:
    """The capital of h of n below: E over p < q, from a Beta(1/2, 1/2) cut at q, of the likelihood ratio of p to q."""

    def capital(h: int, n: int, q: float) -> float:
        # p = q s^2 takes the prior's infinite end away
        def ratio(s: float) -> float:
            p = q * s * s
            return float((p / q) ** h * ((1 - p) / (1 - q)) ** (n - h))

        def prior(s: float) -> float:
            return float(1 / np.sqrt(1 - q * s * s))

        mixed = quad(lambda s: ratio(s) * prior(s), 0, 1, epsabs=0, epsrel=1e-10, limit=200)[0]
        return float(mixed / quad(prior, 0, 1, epsrel=1e-12)[0])

    for n, q, alpha in [(40, 0.5, 0.01), (200, 0.2, 0.001), (300, 0.9, 0.05), (25, 0.05, 0.05)]:
        expected = sum(capital(h, n, q) >= 1 / alpha for h in range(n))
        assert int(quantile_rank(n, q, alpha, anytime=True)) == expected
        assert expected <= int(quantile_rank(n, q, alpha))


def test_ranks_broadcast_and_end() -> None:
    found = quantile_rank([[10], [1000]], [0.0, 0.5, 1.0], 0.001)
    assert found.shape == (2, 3)
    assert np.all(found[:, 0] == 0)  # the smallest number of all bounds nothing
    assert np.all(found[:, 2] == [10, 1000])  # all draws are at most the largest possible value
    for wrong in ({"draws": 0}, {"share": 1.1}, {"share": np.nan}, {"alpha": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            quantile_rank(**({"draws": 10, "share": 0.5, "alpha": 0.1} | wrong))


def test_bounds_are_order_statistics() -> None:
    generator = np.random.default_rng(0)
    scores = np.round(generator.normal(size=(3, 4, 200)), 1)  # with ties
    counts = generator.integers(50, 201, (3, 4))
    scores[np.arange(200) >= counts[..., None]] = np.nan  # what does not count is ignored
    found = percentile_bound(scores, [0.0, 0.1, 0.3], 0.25, 0.01, percentile=0.4, counts=counts)
    assert found.shape == (3, 4, 3)
    for i in range(3):
        for j in range(4):
            own = np.sort(scores[i, j, : counts[i, j]])
            said = found[i, j][~np.isnan(found[i, j])]
            assert len(said) >= 2 and np.isin(said, own).all() and np.all(np.diff(said) <= 0)
    rank = int(quantile_rank(int(counts[0, 0]), 0.4 * (1 - 1e-12), 0.01))
    assert found[0, 0, 0] == np.sort(scores[0, 0, : counts[0, 0]])[rank - 1]


def test_bound_and_radius_say_the_same_of_one_threshold() -> None:
    """The bound reaches t at exactly the radii up to that of the exact binomial bound of P(Y >= t)."""
    generator = np.random.default_rng(1)
    scores = generator.normal(size=(20, 300))
    radii = np.linspace(0, 1.2, 60)
    found = percentile_bound(scores, radii, 0.5, 0.001)
    for t in (-2.0, -1.0, -0.3):
        lcb = lower_bound((scores >= t).astype(float), 0.001, "clopper_pearson")
        radius = percentile_radius(lcb, 0.5, 0.5)
        assert np.array_equal(
            np.nan_to_num(found, nan=-9) >= t, radii <= np.nan_to_num(radius, nan=-1)[:, None]
        )


def test_constant_scores_and_too_few_draws() -> None:
    same = np.full(300, 0.7)
    found = percentile_bound(same, [0.0, 0.4, 5.0], 0.25, 0.001)
    assert np.array_equal(found, [0.7, 0.7, np.nan], equal_nan=True)
    assert np.isnan(percentile_bound(np.array([0.7]), 0.0, 0.25, 0.001)).all()
    assert percentile_bound(np.ones((0, 5)), [0.1], 0.25, 0.001).shape == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [0.1, np.nan]}, "finite"),
        ({"scores": [0.1, np.inf]}, "finite"),
        ({"scores": []}, "holds none"),
        ({"counts": 3}, "counts"),
        ({"percentile": 1.0}, "percentile"),
        ({"radius": -0.1}, "radius"),
        ({"radius": [[0.1]]}, "vector"),
        ({"alpha": 0.0}, "alpha"),
    ],
)
def test_bad_input_is_an_error(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"scores": [0.1, 0.2], "radius": 0.1, "sigma": 0.25, "alpha": 0.01}
    with pytest.raises(ValueError, match=message):
        percentile_bound(**(given | change))  # type: ignore[arg-type]
