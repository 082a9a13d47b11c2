from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from smoothcert.attacks.hyperplanes import nearest_on_hyperplane


@pytest.mark.parametrize("seed", range(12))
def test_l2_agrees_with_a_general_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.random(8), rng.standard_normal(8)
    gap = float(w @ (rng.random(8) - x))
    found = minimize(
        lambda z: ((z - x) ** 2).sum(),
        np.full(8, 0.5),
        jac=lambda z: 2 * (z - x),
        bounds=[(0, 1)] * 8,
        constraints={"type": "eq", "fun": lambda z: w @ (z - x) - gap, "jac": lambda z: w},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    ours = nearest_on_hyperplane(
        torch.tensor(x[None]), torch.tensor(w[None]), torch.tensor([gap], dtype=torch.float64), "l2"
    )
    np.testing.assert_allclose(ours[0].numpy(), found.x, atol=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_linf_distance_agrees_with_a_linear_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.random(8), rng.standard_normal(8)
    gap = float(w @ (rng.random(8) - x))
    # minimise t with |z - x| <= t, 0 <= z <= 1, <w, z> = <w, x> + gap
    eye, one = np.eye(8), np.ones((8, 1))
    program = linprog(
        np.r_[np.zeros(8), 1.0],
        A_ub=np.block([[eye, -one], [-eye, -one]]),
        b_ub=np.r_[x, -x],
        A_eq=np.r_[w, 0.0][None],
        b_eq=[w @ x + gap],
        bounds=[(0, 1)] * 8 + [(0, None)],
    )
    ours = nearest_on_hyperplane(
        torch.tensor(x[None]), torch.tensor(w[None]), torch.tensor([gap], dtype=torch.float64), "linf"
    )
    z = ours[0].numpy()
    assert np.abs(z - x).max() == pytest.approx(program.fun, abs=1e-9)
    assert w @ (z - x) == pytest.approx(gap, abs=1e-9)


def test_out_of_reach_gives_the_nearest_corner_and_a_flat_normal_stays() -> None:
    points = torch.full((2, 3), 0.5, dtype=torch.float64)
    normal = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = nearest_on_hyperplane(points, normal, torch.tensor([100.0, 1.0]), "l2")
    np.testing.assert_allclose(found, [[1.0, 0.0, 0.5], [0.5, 0.5, 0.5]])
