"""The numbers of docs/theory.md, computed again: tables of T3, T7 and T8, and claims that no other test makes.

T7 and T8 are evaluated here from their formulas alone, by a plain sum over the noise and a bisection for the inner
maximum: nothing of the package enters but T1, T3 and T6, which they must contain.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import norm as normal

from smoothcert.certificates import angular_bound, fcsb, large_radius_bound, projection_bound

Array = NDArray[np.float64]

PAGE = (Path(__file__).parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
Z = np.linspace(-9.0, 13.0, 2001)
MASS = normal.pdf(Z) / normal.pdf(Z).sum()


def rows(heading: str, first_column: str) -> list[list[float]]:
    """The table whose first column has that name, below a heading; "vacuous" is NaN."""
    section = re.search(rf"^### {heading}\. .*?(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert section
    lines = section[0].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_column} |")) + 2
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip(" *").replace("vacuous", "nan") for cell in line.strip("|").split("|")]
        found.append([float(cell) for cell in cells])
    return found


def ratio(rho: float) -> Array:
    return np.exp(rho * Z - rho**2 / 2)


def inner_maximum(slope: Array, root: float, mu: float, centre: float) -> tuple[Array, Array]:
    """Maximum over y in [-1, 1] of slope y + root sqrt(1 - y^2) - mu (y - centre)^2, and where it is."""
    low, high = np.full(slope.shape, -np.pi / 2), np.full(slope.shape, np.pi / 2)
    for _ in range(50):
        angle = (low + high) / 2
        y, c = np.sin(angle), np.cos(angle)
        rising = slope * c - root * y - 2 * mu * (y - centre) * c > 0
        low, high = np.where(rising, angle, low), np.where(rising, high, angle)
    y = np.sin((low + high) / 2)
    return slope * y + root * np.sqrt(1 - y**2) - mu * (y - centre) ** 2, y


def second_moment(
    norm: float, psi: float, eigenvalue: float, rho: float, kappa: tuple[float, float], mu: float
) -> float:
    """F of T7."""
    value, _ = inner_maximum(ratio(rho) + kappa[1], abs(kappa[0]), mu, -norm * np.sin(psi))
    known = norm * (kappa[0] * np.cos(psi) - kappa[1] * np.sin(psi))
    return float(MASS @ value - known + mu * eigenvalue)


def best_second_moment(norm: float, psi: float, eigenvalue: float, rho: float) -> float:
    """Least F over kappa_2 and mu at kappa_1 = 0, which is where it is least in the table."""

    def right_side(p: Array) -> tuple[float, Array]:
        kappa, mu, beta = float(p[0]), float(np.exp(p[1])), -norm * np.sin(psi)
        value, y = inner_maximum(ratio(rho) + kappa, 0.0, mu, beta)
        slope = [MASS @ y - beta, mu * (eigenvalue - MASS @ (y - beta) ** 2)]
        return float(MASS @ value - kappa * beta + mu * eigenvalue), np.array(slope)

    return float(minimize(right_side, np.array([-1.0, 1.0]), jac=True, method="BFGS").fun)


def floor(value: float, digits: int) -> float:
    return float(np.floor(value * 10**digits + 1e-9) / 10**digits)


@pytest.mark.parametrize("row", rows("T3", "N"))
def test_table_of_t3(row: list[float]) -> None:
    norm, rho, t2, arcsin, t3 = row
    assert t2 == floor(float(fcsb((1 + norm) / 2, rho, 1.0)), 4)
    assert arcsin == floor(float(np.sqrt(1 - ((2 * normal.cdf(rho) - 1) / norm) ** 2)), 4)
    assert t3 == floor(float(angular_bound(norm, rho, 1.0)), 4)


@pytest.mark.parametrize("row", rows("T7", "N"))
def test_table_of_t7(row: list[float]) -> None:
    norm, eigenvalue, rho, t3, closed, t7 = row
    np.testing.assert_equal(t3, floor(float(angular_bound(norm, rho, 1.0)), 3))
    seen = np.expm1(rho**2) * eigenvalue / norm**2
    np.testing.assert_equal(closed, floor(float(np.sqrt(1 - seen)), 3) if seen < 1 else np.nan)
    assert best_second_moment(norm, np.arccos(t7), eigenvalue, rho) < 0
    assert best_second_moment(norm, np.arccos(t7 + 0.001), eigenvalue, rho) > 0


@pytest.mark.parametrize(
    ("rho", "kappa"), [(0.5, (0.3, -0.5)), (0.5, (1.0, -3.0)), (1.5, (0.0, -0.92)), (1.5, (0.3, -0.5))]
)
def test_t7_is_concave_in_the_norm_not_convex(rho: float, kappa: tuple[float, float]) -> None:
    """So the larger of two values at the ends of an interval of norms is no bound between them.

    What makes the lower end enough is the scaling in the proof; F shows it too, being at least 0 at norm 0.
    """
    norms = np.linspace(0.0, 1.0, 9)
    values = np.array([second_moment(float(n), 0.62, 0.05, rho, kappa, 3.0) for n in norms])
    assert values[0] >= 0
    assert np.diff(values, 2).max() < 1e-9
    assert np.diff(values, 2).min() < -1e-4


def test_t7_without_its_second_moment_is_t3() -> None:
    rng = np.random.default_rng(0)
    for norm, psi, rho, a, b in rng.uniform([0.2, 0.1, 0.1, 0.1, -3], [1, 1.5, 2, 3, 0], (20, 5)):
        direct = MASS @ np.hypot(a, ratio(rho) + b) - norm * (a * np.cos(psi) - b * np.sin(psi))
        assert second_moment(norm, psi, 1.0, rho, (a, b), 0.0) == pytest.approx(direct, abs=1e-9)


@pytest.mark.parametrize("row", rows("T8", "s"))
def test_table_of_t8(row: list[float]) -> None:
    s, deviation, t1, closed, t8 = row
    assert t1 == floor(float(normal.ppf((1 + s) / 2)), 3)
    assert closed == floor(float(np.sqrt(np.log1p((s / deviation) ** 2))), 3)

    def best(rho: float) -> float:
        def right_side(p: Array) -> tuple[float, Array]:
            l1, mu = np.exp(p)
            value, margin = inner_maximum(l1 - ratio(rho), 0.0, mu, s)
            slope = [l1 * (MASS @ margin - s), mu * (deviation**2 - MASS @ (margin - s) ** 2)]
            return float(MASS @ value - l1 * s + mu * deviation**2), np.array(slope)

        starts = ([0.0, 0.0], [1.0, 1.5])
        return min(float(minimize(right_side, start, jac=True, method="BFGS").fun) for start in starts)

    assert best(t8) < 0 < best(t8 + 0.001)


@pytest.mark.parametrize("rho", [0.25, 1.0, 2.0])
def test_t8_contains_t1_and_t6(rho: float) -> None:
    shifted = ratio(rho)
    s = 0.6
    at = np.exp(rho * normal.ppf((1 + s) / 2) - rho**2 / 2)
    mean_alone = MASS @ np.abs(at - shifted) - at * s
    assert -mean_alone == pytest.approx(float(projection_bound(s, rho, 1.0)), abs=1e-4)
    c, p = np.array([0.0, 0.5, 0.9]), np.array([0.9999, 0.999, 0.99])
    weights = np.diff(c, prepend=-1.0) * np.exp(rho * normal.ppf(p) - rho**2 / 2)
    places = np.concatenate([[-1.0], c])
    gains = np.concatenate([[0.0], np.cumsum(weights)])
    steps_alone = MASS @ (gains[:, None] - places[:, None] * shifted).max(axis=0) - weights @ p
    assert -steps_alone == pytest.approx(float(large_radius_bound(p, c, rho, 1.0)), abs=1e-4)


def test_negative_t2_would_be_false() -> None:
    """u = v below q and -v above: T2 gives a negative number, and the cosine is -1."""
    q, rho = 0.3, 1.0
    score = normal.cdf(q)
    formula, attacked = 2 * normal.cdf(normal.ppf(score) - rho) - 1, 2 * normal.cdf(q - rho) - 1
    assert -1 < formula < 0
    assert attacked == pytest.approx(formula)
    assert np.sign(attacked) == -1 < formula
    assert np.isnan(fcsb(score, rho, 1.0))
