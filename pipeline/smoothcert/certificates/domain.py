"""What every certificate accepts: finite float64 numbers inside a stated range, nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def numbers(name: str, value: ArrayLike, low: float, high: float, *, low_open: bool = False) -> FloatArray:
    """``value`` as a float64 array whose entries all lie in [low, high] (or ``(low, high]``).

    Raises:
        ValueError: an entry is NaN or outside the range; certificates never guess what was meant.
    """
    array = np.asarray(value, dtype=np.float64)
    inside = (array > low if low_open else array >= low) & (array <= high)
    if not inside.all():
        wrong = array[~inside].flat[0]
        bracket = "(" if low_open else "["
        raise ValueError(
            f"{name}={float(wrong)!r} is outside {bracket}{low:g}, {high:g}]; check where it comes from"
        )
    return array


def positive(name: str, value: ArrayLike) -> FloatArray:
    """``value`` as a float64 array of finite numbers above 0."""
    return numbers(name, value, 0.0, np.finfo(np.float64).max, low_open=True)


def shift_in_noise_units(radius: ArrayLike, sigma: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return rho = radius/sigma (rounded up: a larger shift is the safe side) and sigma, both checked."""
    top = float(np.finfo(np.float64).max)
    checked_radius, checked_sigma = numbers("radius", radius, 0.0, top), positive("sigma", sigma)
    rho = checked_radius / checked_sigma
    return np.where(rho > 0, np.nextafter(rho, np.inf), rho), checked_sigma
