"""One fixed direction a rival, at the whole level."""

from __future__ import annotations

import numpy as np
import pytest

from smoothcert.certificates import margin_radius, mixture_direction


def vectors(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(m, w, v): smoothed features, rivals they stay away from, and pilot directions near them."""
    m = generator.normal(size=(count, 4))
    m *= generator.uniform(0.6, 0.98, (count, 1)) / np.linalg.norm(m, axis=1, keepdims=True)
    w = generator.normal(size=(count, 4))
    w *= -np.sign(np.sum(m * w, axis=1, keepdims=True)) / np.linalg.norm(w, axis=1, keepdims=True)
    v = m + 0.05 * generator.normal(size=m.shape)
    return m, w, v / np.linalg.norm(v, axis=1, keepdims=True)


def test_a_unit_direction_with_a_sound_radius() -> None:
    """The radius from <m, q> alone is no larger than T4's, which knows both projections exactly, and not far below."""
    m, w, v = vectors(np.random.default_rng(0), 300)
    margin, norm, g = -np.sum(m * w, axis=1), np.sum(m * v, axis=1), np.sum(v * w, axis=1)
    weights = mixture_direction(margin, norm, g, 0.0)
    q = -weights[:, :1] * w + weights[:, 1:] * v
    np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1.0, atol=1e-9)
    one = np.nan_to_num(margin_radius(None, np.sum(m * q, axis=1), np.sum(q * w, axis=1), 1.0))
    both = np.nan_to_num(margin_radius(margin, norm, g, 1.0))
    assert np.all(one <= both * (1 + 1e-3) + 1e-3)
    assert np.mean(one) > 0.97 * np.mean(both)


def test_the_whole_level_is_worth_more_than_two_halves() -> None:
    """With a gap as draws leave it, larger at alpha/2 by ln 2 / ln(1/alpha), one direction certifies more."""
    m, w, v = vectors(np.random.default_rng(1), 300)
    margin, norm, g = -np.sum(m * w, axis=1), np.sum(m * v, axis=1), np.sum(v * w, axis=1)
    whole, half = 0.025, 0.025 * (1 + np.log(2) / np.log(1000))
    weights = mixture_direction(margin, norm, g, whole)
    q = -weights[:, :1] * w + weights[:, 1:] * v
    one = np.nan_to_num(margin_radius(None, np.sum(m * q, axis=1) - whole, np.sum(q * w, axis=1), 1.0))
    both = np.nan_to_num(margin_radius(np.maximum(margin - half, -1), norm - half, g, 1.0))
    assert one.mean() > both.mean()


def test_ends_and_shapes() -> None:
    weights = mixture_direction(0.3, 0.8, [[-1.0], [0.0], [1.0]], [0.0, 0.1])
    assert weights.shape == (3, 2, 2) and np.isfinite(weights).all()
    np.testing.assert_allclose(mixture_direction(0.5, -0.9, 0.0, 0.0), [1.0, 0.0], atol=1e-9)
    for arguments in [
        (1.2, 0.5, 0.1, 0.0),
        (0.1, np.nan, 0.1, 0.0),
        (0.1, 0.5, 1.1, 0.0),
        (0.1, 0.5, 0.1, -0.1),
    ]:
        with pytest.raises(ValueError, match="is outside"):
            mixture_direction(*arguments)
