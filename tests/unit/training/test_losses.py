"""The parts of the losses against their definitions in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smoothcert.training.losses import cosine_loss, denoising_loss, identity_loss, moments_loss


def rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cosine_loss() -> None:
    a, b = rows(0, 5, 7), rows(1, 5, 7)
    x, y = a.double().numpy(), b.double().numpy()
    wanted = np.mean([1 - x[i] @ y[i] / np.linalg.norm(x[i]) / np.linalg.norm(y[i]) for i in range(5)])
    assert float(cosine_loss(a, b)) == pytest.approx(wanted, abs=1e-5)
    assert float(cosine_loss(a, 3 * a)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_loss(a, -a)) == pytest.approx(2, abs=1e-6)


def test_moments_loss() -> None:
    """Of unit rows; tokens (B, T, d) count as rows."""
    a, b = rows(0, 4, 3, 6), rows(1, 4, 3, 6)
    x, y = (t.double().numpy().reshape(12, 6) for t in (a, b))
    x, y = (t / np.linalg.norm(t, axis=1, keepdims=True) for t in (x, y))
    wanted = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.sum((x.std(0) - y.std(0)) ** 2)
    assert float(moments_loss(a, b)) == pytest.approx(wanted, rel=1e-4)
    assert float(moments_loss(a, a)) == pytest.approx(0, abs=1e-9)


def test_the_moments_of_equal_rows_have_a_gradient() -> None:
    same = torch.ones(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(moments_loss(same, rows(2, 4, 3)), same)
    assert bool(torch.isfinite(gradient).all())


def test_identity_loss_is_relative() -> None:
    z, m = rows(0, 5, 7), rows(1, 5, 7)
    wanted = (m - z).double().square().sum() / z.double().square().sum()
    assert float(identity_loss(m, z)) == pytest.approx(float(wanted), rel=1e-5)
    assert float(identity_loss(10 * m, 10 * z)) == pytest.approx(float(wanted), rel=1e-5)


def test_denoising_loss() -> None:
    a, b = rows(0, 2, 3, 4, 4), rows(1, 2, 3, 4, 4)
    assert float(denoising_loss(a, b)) == pytest.approx(float((a - b).double().square().mean()), rel=1e-5)
