"""Angle as a function of one number, with its Gaussian average in closed form (for ``KnownEncoder``).

Both profiles have a smoothed angle that never falls, so that the worst of all shifts of at most r is a shift
by r itself, up or down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


class Profile(Protocol):
    """theta(t), and the mean m(t) = E[(cos, sin) theta(t + sigma Z)] with Z standard normal."""

    def angle(self, t: torch.Tensor) -> torch.Tensor:
        """theta(t) in radians, same shape; differentiable."""

    def mean(self, t: Array, sigma: float) -> Array:
        """m(t): (..., 2)."""

    def mean_angle(self, t: Array, sigma: float) -> Array:
        """Polar angle of m(t), continuous and never falling in t."""

    def place(self, angle: float, sigma: float) -> float:
        """The t with ``mean_angle(t) = angle``; NaN if there is none."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """theta(t) = rate * t, hence m(t) = exp(-(rate sigma)^2 / 2) (cos, sin)(rate t): one norm everywhere."""

    rate: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"rate={self.rate} must be positive and finite")

    def angle(self, t: torch.Tensor) -> torch.Tensor:
        """See ``Profile``."""
        return self.rate * t

    def mean(self, t: Array, sigma: float) -> Array:
        """See ``Profile``."""
        norm = np.exp(-((self.rate * sigma) ** 2) / 2)
        return np.asarray(norm * np.stack((np.cos(self.rate * t), np.sin(self.rate * t)), axis=-1))

    def mean_angle(self, t: Array, sigma: float) -> Array:
        """See ``Profile``."""
        return self.rate * t

    def place(self, angle: float, sigma: float) -> float:
        """See ``Profile``."""
        return angle / self.rate


@dataclass(frozen=True, slots=True)
class Staircase:
    """theta(t) = angles[number of thresholds below t], hence m(t) = sum_i P(step i) (cos, sin)(angles[i]).

    Args:
        thresholds: (K,) strictly increasing.
        angles: (K+1,) strictly increasing, spanning less than pi. Then <m(t), w> changes sign at most once,
            for every w (the Gaussian kernel is variation diminishing): the smoothed angle never falls.
    """

    thresholds: tuple[float, ...]
    angles: tuple[float, ...]

    def __post_init__(self) -> None:
        steps, angles = np.diff(self.thresholds), np.diff(self.angles)
        if len(self.angles) != len(self.thresholds) + 1 or not self.thresholds:
            raise ValueError(f"{len(self.thresholds)} thresholds need one angle more, not {len(self.angles)}")
        if not (np.all(steps > 0) and np.all(angles > 0) and np.sum(angles) < np.pi):
            raise ValueError("thresholds and angles must increase strictly, and angles span less than pi")

    def angle(self, t: torch.Tensor) -> torch.Tensor:
        """See ``Profile``; the gradient is zero, as that of a staircase is."""
        thresholds = torch.tensor(self.thresholds, dtype=t.dtype, device=t.device)
        angles = torch.tensor(self.angles, dtype=t.dtype, device=t.device)
        return angles[torch.bucketize(t.detach(), thresholds)] + 0 * t

    def mean(self, t: Array, sigma: float) -> Array:
        """See ``Profile``."""
        below = ndtr((np.asarray(self.thresholds) - np.asarray(t)[..., None]) / sigma)
        zero, one = np.zeros_like(below[..., :1]), np.ones_like(below[..., :1])
        shares = np.diff(np.concatenate((zero, below, one), axis=-1), axis=-1)
        corners = np.stack((np.cos(self.angles), np.sin(self.angles)), axis=-1)
        return np.asarray(shares @ corners)

    def mean_angle(self, t: Array, sigma: float) -> Array:
        """See ``Profile``; between the first and the last of ``angles``."""
        middle = (self.angles[0] + self.angles[-1]) / 2
        mean = self.mean(t, sigma)
        along = mean @ np.array([np.cos(middle), np.sin(middle)])
        across = mean @ np.array([-np.sin(middle), np.cos(middle)])
        return np.asarray(middle + np.arctan2(across, along))

    def place(self, angle: float, sigma: float) -> float:
        """See ``Profile``."""
        # late: only places of known encoders need it, and it takes long to import
        from scipy.optimize import brentq

        low, high = self.thresholds[0] - 9 * sigma, self.thresholds[-1] + 9 * sigma

        def excess(t: float) -> float:
            return float(self.mean_angle(np.asarray(t), sigma)) - angle

        if excess(low) * excess(high) > 0:
            return float("nan")
        return float(brentq(excess, low, high, xtol=1e-12))
