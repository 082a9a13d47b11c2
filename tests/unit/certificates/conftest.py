"""Independent computations: adaptive quadrature and direct optimisation, sharing no code with the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

Expectation = Callable[[Callable[[float], float], float], float]


def expectation(function: Callable[[float], float], kink: float) -> float:
    """E function(z) for z ~ N(0,1), by adaptive quadrature split at a kink and where the mass is."""
    ends = sorted(
        {-12.0, 12.0, *(min(max(kink + d, -12.0), 12.0) for d in (-2, -0.1, -1e-3, 0, 1e-3, 0.1, 2))}
    )

    def integrand(z: float) -> float:
        return float(function(z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi))

    return sum(
        quad(integrand, low, high, limit=200, epsabs=1e-15, epsrel=1e-13)[0]
        for low, high in zip(ends, ends[1:], strict=False)
    )


def ratio(z: float, rho: float) -> float:
    """Likelihood ratio of N(rho, 1) to N(0, 1)."""
    return float(np.exp(rho * z - rho * rho / 2))


def extremal(a: float, rho: float, level: float = 0.0) -> tuple[float, float, float]:
    """(b, t, s) of the extremal encoder u = (a, L + b)/|.|: E[L u]_2 = level, E u = (t, -s)."""

    def moved(b: float) -> float:
        def u2(z: float) -> float:
            return (ratio(z, rho) + b) / float(np.hypot(a, ratio(z, rho) + b))

        # E[L g(z)] = E[g(z + rho)]
        return expectation(lambda z: u2(z + rho), _kink(b, rho) - rho) - level

    low, high = -3.0 * np.exp(rho * rho) - a, max(3.0 * a, 1.0)
    b = brentq(moved, low, high, xtol=1e-14 * np.exp(rho * rho), rtol=1e-14)
    kink = _kink(b, rho)
    t = expectation(lambda z: a / float(np.hypot(a, ratio(z, rho) + b)), kink)
    s = -expectation(lambda z: (ratio(z, rho) + b) / float(np.hypot(a, ratio(z, rho) + b)), kink)
    return b, t, s


def _kink(b: float, rho: float) -> float:
    return float((np.log(-b) + rho * rho / 2) / rho) if b < 0 else -12.0


@pytest.fixture(name="expectation", scope="session")
def _expectation() -> Expectation:
    return expectation


@pytest.fixture(name="extremal", scope="session")
def _extremal() -> Callable[..., tuple[float, float, float]]:
    return extremal
