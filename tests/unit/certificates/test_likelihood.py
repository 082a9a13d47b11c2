"""The rigorous expectation against adaptive quadrature: above it for every lambda, and barely."""

from __future__ import annotations

import numpy as np
import pytest

from smoothcert.certificates.likelihood import LikelihoodRatio


@pytest.mark.parametrize("rho", [0.01, 0.3, 1.0, 2.5, 3.5])
def test_weights_are_a_distribution_with_mean_one(rho: float) -> None:
    ratio = LikelihoodRatio(rho, cells=2000, reach=8.5)
    assert ratio.weights.min() >= 0
    assert ratio.weights.sum() == pytest.approx(1.0, abs=1e-13)
    assert ratio.weights @ ratio.nodes + ratio.tail == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("cells", [200, 2000])
@pytest.mark.parametrize("rho", [0.01, 0.3, 1.0, 2.5])
def test_above_the_true_expectation_and_near_it(rho: float, cells: int, expectation) -> None:  # type: ignore[no-untyped-def]
    ratio = LikelihoodRatio(rho, cells=cells, reach=8.5 if cells > 500 else 6.5)
    generator = np.random.default_rng(0)
    for _ in range(12):
        a = float(rho * np.exp(generator.uniform(-9, 3)))
        b = float(generator.choice([-1.0, 1.0], p=[0.8, 0.2]) * np.exp(generator.uniform(-0.5, 1.2) * rho**2))
        kink = float((np.log(-b) + rho**2 / 2) / rho) if b < 0 else 0.0
        true = expectation(lambda z: float(np.hypot(a, np.exp(rho * z - rho**2 / 2) + b)), kink)  # noqa: B023
        found = float(ratio.expected_norm(np.float64(a), np.float64(b)))
        assert found >= true - 1e-12 * true
        assert found - true <= (3e-5 if cells > 500 else 3e-3) * max(true, 1.0)


def test_rows_of_shifts_agree_with_single_shifts() -> None:
    shifts = np.array([0.2, 0.9, 1.4])
    a, b = np.array([0.5, 1.0, 3.0]), np.array([-1.0, -2.0, 0.5])
    together = LikelihoodRatio(shifts, cells=448, reach=6.5).expected_norm(a, b)
    alone = [
        float(LikelihoodRatio(r, cells=448, reach=6.5).expected_norm(x, y))
        for r, x, y in zip(shifts, a, b, strict=True)
    ]
    # the grids differ, both are upper bounds of the same number
    np.testing.assert_allclose(together, alone, rtol=1e-3)
