"""An encoder whose smoothed features are known exactly, to test certificates and attacks against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from smoothcert.encoders.base import Encoder
from smoothcert.encoders.profiles import Array, Profile, Rotation, Staircase


class KnownEncoder(Encoder):
    """u(x) = (cos, sin) of theta(t), t = <a, x - 1/2> for a fixed unit vector a, in a fixed plane of R^d.

    As u depends on x through t alone, so does m(x) = E[u(x + eps)]; both profiles have m in closed form, and
    the worst perturbation of length r is +r a or -r a. Make one with ``rotating`` (every input has the same
    ``smooth_norm``) or ``staircase`` (it varies from input to input).

    Methods below take ``pixels`` as numpy, (..., 3, H, W): uint8 as ``prepare`` makes them, or floats in
    units of [0,1]. They answer in float64. ``sigma`` and ``radius`` are in units of [0,1] pixels.

    Args:
        profile: theta.
        input_size: (H, W).
        feature_dim: d >= 2.
        seed: chooses a, and the plane where d > 2.
        text_angles: angle in the plane of named texts, in radians; other texts get one from their hash.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        input_size: tuple[int, int] = (4, 4),
        feature_dim: int = 2,
        seed: int = 0,
        text_angles: Mapping[str, float] | None = None,
    ) -> None:
        if feature_dim < 2:
            raise ValueError(f"feature_dim={feature_dim} must be at least 2")
        self._profile = profile
        self._text_angles = dict(text_angles or {})
        rng = np.random.default_rng(seed)
        direction = rng.standard_normal((3, *input_size))
        self.direction: Array = direction / np.linalg.norm(direction)
        """a, float64 (3, H, W), unit norm."""
        plane = np.eye(2) if feature_dim == 2 else np.linalg.qr(rng.standard_normal((feature_dim, 2)))[0].T
        self._plane: Array = np.ascontiguousarray(plane)
        settings = (profile, input_size, feature_dim, seed, sorted(self._text_angles.items()))
        super().__init__(
            name="known",
            digest=hashlib.sha256(repr(settings).encode()).hexdigest(),
            feature_dim=feature_dim,
            input_size=input_size,
        )
        self._torch_direction = torch.from_numpy(self.direction.ravel())
        self._torch_plane = torch.from_numpy(self._plane)

    @classmethod
    def rotating(cls, rate: float = 1.0, **settings: Any) -> KnownEncoder:
        """Theta = rate * t: m(x) has norm exp(-(rate sigma)^2 / 2), and a shift by r turns it by rate * r."""
        return cls(Rotation(rate), **settings)

    @classmethod
    def staircase(
        cls, thresholds: Sequence[float] = (0.0,), angles: Sequence[float] = (0.0, 1.0), **settings: Any
    ) -> KnownEncoder:
        """Theta jumps to the next of ``angles`` where t passes a threshold; see ``profiles.Staircase``."""
        return cls(Staircase(tuple(thresholds), tuple(angles)), **settings)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """See ``Encoder.prepare``; images of another size are resized."""
        height, width = self.input_size
        image = image.convert("RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        t = (pixels.double() - 0.5).flatten(1) @ self._torch_direction
        angle = self._profile.angle(t)
        return torch.stack((torch.cos(angle), torch.sin(angle)), dim=-1) @ self._torch_plane

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        angles = np.array([self.text_angle(text) for text in texts])
        return torch.from_numpy(np.stack((np.cos(angles), np.sin(angles)), axis=-1) @ self._plane)

    def text_angle(self, text: str) -> float:
        """Angle of a text's feature in the plane, in radians."""
        if text in self._text_angles:
            return self._text_angles[text]
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48 * 2 * np.pi

    def position(self, pixels: NDArray[Any]) -> Array:
        """T of each input, (...)."""
        pixels = np.asarray(pixels)
        x = pixels / 255.0 if pixels.dtype == np.uint8 else pixels.astype(np.float64)
        return np.asarray(np.tensordot(x - 0.5, self.direction, axes=3))

    def clean_feature(self, pixels: NDArray[Any]) -> Array:
        """u(x): (..., d)."""
        angle = self._profile.angle(torch.from_numpy(np.asarray(self.position(pixels)))).numpy()
        return np.asarray(np.stack((np.cos(angle), np.sin(angle)), axis=-1) @ self._plane)

    def smoothed_feature(self, pixels: NDArray[Any], sigma: float) -> Array:
        """m(x) = E[u(x + eps)], eps ~ N(0, sigma^2 I): (..., d)."""
        return np.asarray(self._profile.mean(self.position(pixels), sigma) @ self._plane)

    def smooth_norm(self, pixels: NDArray[Any], sigma: float) -> Array:
        """N = ‖m(x)‖: (...)."""
        return np.asarray(np.linalg.norm(self.smoothed_feature(pixels, sigma), axis=-1))

    def robustness_score(self, pixels: NDArray[Any], sigma: float) -> Array:
        """S = (1 + <m(x), u(x)>) / 2: (...)."""
        return np.asarray(
            (1 + np.sum(self.smoothed_feature(pixels, sigma) * self.clean_feature(pixels), -1)) / 2
        )

    def worst_cosine(
        self, pixels: NDArray[Any], radius: float, sigma: float, reference: NDArray[Any] | None = None
    ) -> Array:
        """Smallest cosine between m(x + delta) and a fixed vector, over all ‖delta‖ <= radius: (...).

        Args:
            pixels: (..., 3, H, W).
            radius: l2 bound of delta.
            sigma: of the noise.
            reference: (..., d), e.g. ``clean_feature(pixels)`` for the FCSB; default m(x).
        """
        reference = (
            self.smoothed_feature(pixels, sigma) if reference is None else np.asarray(reference, float)
        )
        in_plane = reference @ self._plane.T
        target = np.arctan2(in_plane[..., 1], in_plane[..., 0])
        low, high = self._reach(pixels, radius, sigma)
        # The nearest angle at or above low that is opposite to the reference.
        opposite = low + np.mod(target + np.pi - low, 2 * np.pi)
        ends = np.minimum(np.cos(low - target), np.cos(high - target))
        share = np.linalg.norm(in_plane, axis=-1) / np.linalg.norm(reference, axis=-1)
        return np.asarray(np.where(opposite <= high, -1.0, ends) * share)

    def worst_delta(self, pixels: NDArray[Any], radius: float, sigma: float) -> Array:
        """The delta of length ``radius`` that turns m(x) the most: (..., 3, H, W).

        With ``rotating`` both signs are equally bad, and beyond rate * radius = pi a shorter one is worse.
        """
        here = self._profile.mean_angle(self.position(pixels), sigma)
        low, high = self._reach(pixels, radius, sigma)
        sign = np.where(high - here >= here - low, 1.0, -1.0)
        return np.asarray(radius * sign[..., None, None, None] * self.direction)

    def flip_radius(self, pixels: NDArray[Any], vector: NDArray[Any], sigma: float) -> Array:
        """Length of the shortest delta with <m(x + delta), vector> <= 0: (...), inf where there is none.

        With ``vector`` the difference of two text features this is the exact radius of a zero-shot margin.
        """
        in_plane = self._plane @ np.asarray(vector, dtype=np.float64)
        target = np.arctan2(in_plane[1], in_plane[0])
        t = np.atleast_1d(self.position(pixels))
        here = self._profile.mean_angle(t, sigma)
        # Signed distance to the vector on the circle; its half plane ends pi/2 away on both sides.
        away = np.mod(here - target + np.pi, 2 * np.pi) - np.pi
        radii = np.zeros(t.shape)
        for index in np.ndindex(t.shape):
            if abs(away[index]) < np.pi / 2:
                edges = (here[index] - away[index] + side * np.pi / 2 for side in (-1, 1))
                gaps = [abs(self._profile.place(edge, sigma) - t[index]) for edge in edges]
                radii[index] = min((gap for gap in gaps if not np.isnan(gap)), default=np.inf)
        return radii.reshape(np.shape(self.position(pixels)))

    def _reach(self, pixels: NDArray[Any], radius: float, sigma: float) -> tuple[Array, Array]:
        t = self.position(pixels)
        return (
            self._profile.mean_angle(t - radius, sigma),
            self._profile.mean_angle(t + radius, sigma),
        )
