"""The largest of slope y + across sqrt(1-y^2) - mu y^2 over [-1, 1]: the inner maximum of docs/theory.md T7 and T8."""

from __future__ import annotations

import numpy as np

from smoothcert.certificates.domain import FloatArray


def summit(slope: FloatArray, across: FloatArray, mu: FloatArray, steps: int = 8) -> FloatArray:
    """Where it is largest, nearly: Newton steps in t = y / sqrt(1-y^2).

    The derivative slope - across t - 2 mu y is convex in |t| and falls, so the steps rise towards its root. They start
    from two numbers below it, of which one is near where either term rules.

    Args:
        slope: any finite numbers.
        across: >= 0, broadcasts against ``slope``.
        mu: >= 0, likewise.
        steps: of Newton; fewer are less precise.
    """
    if not mu.any():
        length = np.hypot(slope, across)
        return np.divide(slope, length, out=np.zeros_like(length), where=length > 0.0)
    size, linear, twice = np.abs(slope), across + 1e-12, 2.0 * mu
    t = np.maximum(size / (linear + twice), (size - twice) / linear)
    for _ in range(steps):
        inverse = 1.0 / np.sqrt(1.0 + t * t)
        bend = twice * inverse
        t += (size - t * (linear + bend)) / (linear + bend * inverse * inverse)
        np.clip(t, 0.0, 1e150, out=t)
    y = np.sign(slope) * t / np.sqrt(1.0 + t**2)
    alone = np.divide(slope, twice, out=np.copysign(np.ones_like(y), slope), where=(twice > 0.0) & (y == y))
    return np.asarray(np.where(across > 0.0, y, np.clip(alone, -1.0, 1.0)))


def largest_value(slope: FloatArray, across: FloatArray, mu: FloatArray, place: FloatArray) -> FloatArray:
    """An upper bound of it, the nearer the nearer ``place`` is to the summit, and true wherever it is.

    The tangent of the parabola at ``place`` lies above it, and leaves the length of a vector.
    """
    bend = 2.0 * mu * place
    return np.asarray(np.hypot(slope - bend, across) + bend * place / 2.0)
