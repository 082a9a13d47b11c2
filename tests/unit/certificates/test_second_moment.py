"""T7 against its published table, its closed form, T3, and encoders that reach nearly what it leaves open."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from smoothcert.certificates import angular_bound, angular_radius, second_moment_bound, second_moment_radius
from smoothcert.certificates.likelihood import LikelihoodRatio
from smoothcert.certificates.second_moment_dual import Facts, dual_value

# theory.md T7: N, lambda, rho, cosine
TABLE = np.array(
    [
        (0.94, 0.06, 1.5, 0.808),
        (0.9, 0.05, 1.0, 0.951),
        (0.9, 0.05, 1.5, 0.821),
        (0.9, 0.02, 2.0, 0.732),
        (0.75, 0.10, 0.5, 0.975),
        (0.75, 0.10, 1.0, 0.862),
    ]
)


def closed_form(norm: np.ndarray, eigenvalue: np.ndarray, rho: np.ndarray) -> np.ndarray:
    sine = np.sqrt(np.expm1(rho**2) * eigenvalue) / norm
    return np.where(sine < 1, np.sqrt(np.maximum(1 - sine**2, 0)), np.nan)


def test_the_published_table() -> None:
    norm, eigenvalue, rho, cosine = TABLE.T
    found = second_moment_bound(norm, eigenvalue, 0.25 * rho, 0.25)
    np.testing.assert_allclose(found, cosine, atol=2e-3)
    # one row at a time, and all together, is the same
    alone = [float(second_moment_bound(*row[:3], 1.0)) for row in TABLE]
    np.testing.assert_allclose(found, alone, atol=1e-9)


def test_never_below_t3_nor_the_closed_form() -> None:
    generator = np.random.default_rng(0)
    norm, share = generator.uniform(0.05, 0.999, 160), generator.uniform(0, 1, 160) ** 2
    rho = np.tile([0.05, 0.3, 1.0, 1.7, 2.6], 32)
    share[:8] = 0.0
    eigenvalue = share * (1 - norm**2)
    found, t3 = second_moment_bound(norm, eigenvalue, rho, 1.0), angular_bound(norm, rho, 1.0)
    assert np.all((found >= t3) | np.isnan(t3))
    floor = closed_form(norm, np.maximum(eigenvalue, 1e-6), rho)
    said = floor > 0.02
    assert np.all(found[said] >= floor[said] - 2e-4)
    assert said.sum() > 40


def test_without_knowledge_of_the_spread_it_is_t3() -> None:
    """An eigenvalue of 1 - N^2 or more says nothing that N does not: T3, to the precision of the dual."""
    for rho in (0.25, 1.0):
        norm = np.linspace(0.6, 0.98, 12)
        t3 = angular_bound(norm, rho, 1.0)
        for eigenvalue in (1 - norm**2, np.full(12, 5.0)):
            found = second_moment_bound(norm, eigenvalue, rho, 1.0)
            assert np.all((found >= t3) | np.isnan(t3))
            known = ~np.isnan(t3)
            # all scatter in one direction, and that one beside m: the extremal encoder of T3 scatters along m as well
            assert np.all(found[known] - t3[known] < 0.2)


def test_mu_of_zero_is_the_dual_of_t3() -> None:
    """With mu = 0 the right side is E||L w + lambda|| - <lambda, m>, whatever the eigenvalue."""
    ratio = LikelihoodRatio(np.array([0.8, 0.8]), cells=700, reach=8.5)
    facts = Facts(np.array([0.8, 0.8]), np.array([0.01, 0.3]), np.zeros(2))
    psi, a, b = np.array([0.5, 0.5]), 0.7, -1.1
    multipliers = np.tile([a, b, 0.0], (2, 1))
    found = dual_value(ratio, facts, psi, multipliers, np.zeros(2))
    m = 0.8 * np.array([np.cos(0.5), -np.sin(0.5)])
    expected = ratio.expected_norm(np.full(2, a), np.full(2, b)) - (a * m[0] + b * m[1])
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_more_knowledge_never_certifies_less() -> None:
    norm, rho = np.linspace(0.5, 0.95, 10), 1.0
    small, large = (second_moment_bound(norm, share * (1 - norm**2), rho, 1.0) for share in (0.2, 0.5))
    assert np.all(np.nan_to_num(small) >= np.nan_to_num(large) - 2e-5)
    nearer = second_moment_bound(norm, 0.1, 0.9, 1.0)
    assert np.all(np.nan_to_num(nearer) >= np.nan_to_num(second_moment_bound(norm, 0.1, 1.0, 1.0)) - 2e-5)
    # a larger N with the same eigenvalue
    assert np.all(np.diff(np.nan_to_num(second_moment_bound(norm, 0.03, rho, 1.0))) > -2e-5)
    # an event that may fail costs, and an event that never does costs nothing
    certain = second_moment_bound(norm, 0.05, rho, 1.0)
    previous = certain
    for escape in (1e-4, 1e-3, 1e-2, 0.1):
        found = second_moment_bound(norm, 0.05, rho, 1.0, escape=escape)
        assert np.all(np.nan_to_num(found) <= np.nan_to_num(previous) + 2e-5)
        previous = found
    tiny = second_moment_bound(norm, 0.05, rho, 1.0, escape=1e-9)
    np.testing.assert_allclose(np.nan_to_num(tiny), np.nan_to_num(certain), atol=2e-3)


def encoder(
    rho: float, y: np.ndarray, x: np.ndarray, z: np.ndarray, mass: np.ndarray
) -> tuple[float, float, float]:
    """(N, largest eigenvalue, attacked cosine) of u = (x, y) along t and w, the rest spread over many directions.

    The rest sqrt(1 - x^2 - y^2) is turned into ever new directions by other coordinates of the noise, so that it adds
    nothing to m and hardly to an eigenvalue.
    """
    moved = mass * np.exp(rho * z - rho**2 / 2)
    moved /= moved.sum()
    m, shifted = np.array([x @ mass, y @ mass]), np.array([x @ moved, y @ moved])
    covariance = np.cov(np.stack([x, y]), aweights=mass, ddof=0)
    norm = float(np.linalg.norm(m))
    return (
        norm,
        float(np.linalg.eigvalsh(covariance)[-1]),
        float(m @ shifted / norm / np.linalg.norm(shifted)),
    )


def test_encoders_that_reach_it() -> None:
    """Never above an encoder that exists; and for the best of a family of encoders, hardly below."""
    z = np.linspace(-7, 9, 3201)
    mass = np.exp(-(z**2) / 2)
    mass /= mass.sum()
    generator = np.random.default_rng(0)
    rows = []
    for rho in (0.5, 1.0, 1.5):
        ratio = np.exp(rho * z - rho**2 / 2)
        for _ in range(150):
            slope, start = generator.uniform(0.02, 0.6) / rho, generator.uniform(-0.5, 0.1)
            limit = generator.uniform(0.3, 1.0)
            y = np.clip(start + slope * (ratio - 1), -1, limit)
            x = generator.uniform(0.3, 1) * np.sqrt(1 - y**2)
            rows.append((rho, *encoder(rho, y, x, z, mass)))
    rho, norm, eigenvalue, cosine = np.array(rows).T
    bound = np.nan_to_num(second_moment_bound(np.minimum(norm, 1), eigenvalue, rho, 1.0))
    assert np.all(bound <= np.maximum(cosine, 0) + 1e-6)
    assert np.max(bound - cosine) > -0.02  # the family comes near

    # the worst of the family with the facts of a row of the table
    def attack(parameters: np.ndarray) -> float:
        scale, start, limit, share = parameters
        y = np.clip(start + abs(scale) * (np.exp(z - 0.5) - 1), -1, min(abs(limit), 1))
        x = np.clip(share, 0, 1) * np.sqrt(1 - y**2)
        norm, eigenvalue, cosine = encoder(1.0, y, x, z, mass)
        return cosine + 20 * max(0.9 - norm, 0) + 20 * max(eigenvalue - 0.05, 0)

    found = minimize(
        attack, [0.15, -0.2, 1.0, 0.97], method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-7}
    )
    bound = float(second_moment_bound(0.9, 0.05, 1.0, 1.0))
    assert bound - 1e-6 <= found.fun <= bound + 5e-3


def test_what_is_excluded_at_a_norm_is_excluded_at_every_larger_one() -> None:
    """So the right side is asked at the lower bound of N alone. It is computed here by a plain sum over the noise."""
    z = np.linspace(-6, 8, 301)
    mass = np.exp(-(z**2) / 2)
    mass /= mass.sum()
    y = np.linspace(-1, 1, 301)
    generator = np.random.default_rng(0)
    excluded = 0
    for _ in range(40):
        rho, norm, factor = (
            generator.uniform(0.2, 1.4),
            generator.uniform(0.3, 0.9),
            generator.uniform(1.02, 1.6),
        )
        spread = generator.uniform(0.02, 0.5) * (1 - norm**2)
        deviation = np.sqrt(np.expm1(rho**2))
        psi = factor * np.arcsin(min(deviation * np.sqrt(spread) / norm, 0.6))
        a, kappa, mu = 0.3 * deviation, -1.0, generator.uniform(0.5, 1.2) * deviation / (2 * np.sqrt(spread))
        free = (np.exp(rho * z - rho**2 / 2)[:, None] + kappa) * y + a * np.sqrt(1 - y**2)
        sides = []
        for larger in np.linspace(norm, 1.0, 6):
            beta = -larger * np.sin(psi)
            expected = mass @ (free - mu * (y - beta) ** 2).max(axis=1)
            sides.append(expected - larger * (a * np.cos(psi) - kappa * np.sin(psi)) + mu * spread)
        if sides[0] < 0:
            excluded += 1
            assert max(sides) < 0
        facts = Facts(np.array([norm]), np.array([spread]), np.zeros(1))
        multipliers = np.array([[a, kappa - 2 * mu * norm * np.sin(psi), mu]])
        ratio = LikelihoodRatio(np.array([rho]), cells=700, reach=8.5)
        found = dual_value(ratio, facts, np.array([psi]), multipliers, np.zeros(1))[0]
        assert sides[0] - 1e-9 <= found + 1e-4 and found == pytest.approx(sides[0], abs=1e-3)
    assert excluded > 10


def test_radius_and_bound_agree() -> None:
    norm, eigenvalue = np.array([0.9, 0.75, 0.6]), np.array([0.05, 0.1, 0.3])
    cosine = np.array([[0.3], [0.9]])
    radius = second_moment_radius(norm, eigenvalue, cosine, 0.5)
    assert np.all(radius >= angular_radius(norm, cosine, 0.5) * (1 - 1e-12))
    held = second_moment_bound(norm, eigenvalue, 0.9999 * radius, 0.5)
    assert np.all(held >= cosine - 2e-5)
    beyond = np.nan_to_num(second_moment_bound(norm, eigenvalue, 1.002 * radius, 0.5), nan=-1)
    assert np.all(beyond < cosine + 2e-5)
    generator = np.random.default_rng(0)
    norm, cosine = generator.uniform(0.6, 0.97, 25), generator.choice([0.3, 0.6, 0.9], 25)
    eigenvalue = generator.uniform(0.1, 0.5, 25) * (1 - norm**2)
    radius = second_moment_radius(norm, eigenvalue, cosine, 1.0)
    beyond = np.nan_to_num(second_moment_bound(norm, eigenvalue, 1.002 * radius, 1.0), nan=-1)
    assert np.all(beyond < cosine + 2e-5)
    norm, eigenvalue = np.array([0.9, 0.75, 0.6]), np.array([0.05, 0.1, 0.3])
    with_escape = second_moment_radius(norm, eigenvalue, 0.5, 0.5, escape=0.01)
    assert np.all(with_escape <= second_moment_radius(norm, eigenvalue, 0.5, 0.5) * (1 + 1e-3))


def test_far_from_the_closed_form_the_bound_is_found_that_the_radius_is_proved_by() -> None:
    """Large shifts and small eigenvalues, where the closed form says nothing and its multipliers are far too large."""
    norm = np.array([0.865, 0.8508, 0.7746, 0.9831, 0.9916, 0.9877])
    eigenvalue = np.array([0.0069, 0.0053, 0.0198, 0.0043, 0.0025, 0.0008])
    for cosine in (0.2, 0.5):
        radius = second_moment_radius(norm, eigenvalue, cosine, 1.0)
        assert np.all(np.expm1(radius**2) * eigenvalue > norm**2)
        assert np.all(second_moment_bound(norm, eigenvalue, 0.999 * radius, 1.0) >= cosine - 1e-3)


def test_ends() -> None:
    assert float(second_moment_bound(1.0, 0.0, 2.0, 1.0)) == 1.0
    assert float(second_moment_bound(0.9, 0.0, 0.0, 1.0)) == 1.0
    assert np.isnan(second_moment_bound(0.0, 0.1, 0.5, 1.0))
    assert np.isnan(second_moment_bound(0.9, 0.01, 7.0, 1.0))
    assert np.isnan(second_moment_bound(0.3, 0.9, 2.0, 1.0))
    assert float(second_moment_bound(0.9, 0.0, 1.0, 1.0)) > 0.99  # no scatter at all, up to a floor
    assert float(second_moment_bound(0.9, 0.05, 1e-9, 1.0)) > 1 - 1e-6
    for rho in (3.1, 4.4, 5.2, 6.0):  # far out there is nothing but what hardly scatters
        floor = float(closed_form(np.array(0.999), np.array(1e-6), np.array(rho)))
        assert floor != floor or float(second_moment_bound(0.999, 1e-6, rho, 1.0)) >= floor - 1e-4
        assert not float(second_moment_bound(0.999, 1e-6, rho, 1.0, escape=1e-6)) > 1.0
    assert float(second_moment_radius(0.999, 1e-6, 0.5, 0.5)) > 1.5
    # one number is a row as well
    one = float(second_moment_radius(0.8, 0.1, 0.5, 1.0))
    assert (
        one
        == float(second_moment_radius([0.8], 0.1, 0.5, 1.0)[0])
        > 1.2 * float(angular_radius(0.8, 0.5, 1.0))
    )
    assert second_moment_bound(np.full((2, 1), 0.9), [0.01, 0.02, 0.03], 0.5, 1.0).shape == (2, 3)
    assert second_moment_bound(np.empty(0), 0.1, 0.5, 1.0).shape == (0,)
    assert float(second_moment_radius(1.0, 0.0, 0.5, 0.5)) == pytest.approx(3.0)
    assert float(second_moment_radius(0.9, 0.1, 1.0, 0.5)) == 0.0
    assert np.isnan(second_moment_radius(0.0, 0.1, 0.5, 0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.1, 0.1, 0.1, 1.0), "smooth_norm"),
        ((0.9, -0.1, 0.1, 1.0), "eigenvalue"),
        ((0.9, np.nan, 0.1, 1.0), "eigenvalue"),
        ((0.9, 0.1, -0.1, 1.0), "radius"),
        ((0.9, 0.1, 0.1, 0.0), "sigma"),
    ],
)
def test_bad_input_is_an_error(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        second_moment_bound(*arguments)
    with pytest.raises(ValueError, match="escape"):
        second_moment_bound(0.9, 0.1, 0.1, 1.0, escape=1.5)
