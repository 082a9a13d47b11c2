"""l2 and l-infinity balls inside the box [0,1]^n, exact to the last bit.

A budget is a promise: the norm of x' - x, measured in float64, never exceeds it, and x' is in [0,1]. (The
box is part of an attack's threat model, not of a certificate's, which covers every delta in the ball.)
"""

from __future__ import annotations

from functools import cached_property

import torch

from smoothcert.attacks.noise import NoiseKey, normals, uniforms
from smoothcert.catalogue.attacks import NORMS as NORMS
from smoothcert.catalogue.attacks import Norm as Norm


def column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B,) values shaped (B, 1, ..., 1) to scale a batch of ``like``'s rank."""
    return values.reshape(-1, *([1] * (like.ndim - 1)))


def measured_norm(delta: torch.Tensor, norm: Norm) -> torch.Tensor:
    """Norms of a batch of perturbations, computed in float64: (B,)."""
    flat = delta.flatten(1).double()
    order = 2 if norm == "l2" else float("inf")
    lengths: torch.Tensor = torch.linalg.vector_norm(flat, ord=order, dim=1)
    return lengths


def difference(points: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Perturbations x' - x in float64, where the subtraction of float32 pixels does not round."""
    return points.double() - images.double()


class Ball:
    """All images within a budget of a clean image: a batch of them, one budget a pair.

    Attributes:
        images: clean images, float32 (B, 3, H, W) in [0,1].
        budget: float64 (B,), units of [0,1] pixels.
        norm: ``l2`` or ``linf``.
    """

    def __init__(self, images: torch.Tensor, budget: torch.Tensor, norm: Norm) -> None:
        self.images = images
        self.budget = budget
        self.norm: Norm = norm

    @cached_property
    def _reach(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Most negative and most positive steps that stay in the box."""
        return -self.images, 1 - self.images

    @cached_property
    def _sides(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest float32 pixels within an l-infinity budget, box included."""
        centre, reach = self.images.double(), column(self.budget, self.images)
        low, high = (centre - reach).float(), (centre + reach).float()
        infinity = torch.tensor(float("inf"), device=low.device)
        low = torch.where((centre - low.double()) > reach, torch.nextafter(low, infinity), low)
        high = torch.where((high.double() - centre) > reach, torch.nextafter(high, -infinity), high)
        return low.clamp_min_(0.0), high.clamp_max_(1.0)

    def select(self, rows: torch.Tensor) -> Ball:
        """The balls of some pairs; ``rows`` ascend, without repetition."""
        if len(rows) == len(self.images):
            return self
        return Ball(self.images[rows], self.budget[rows], self.norm)

    def project(self, points: torch.Tensor) -> torch.Tensor:
        """Nearest points (Euclidean) of ball and box together; float32, norms rounded down.

        For l2 the nearest point is clamp(x + t (z - x)) for one t in [0,1] (the optimality conditions of both
        constraints), the largest that keeps the budget. Pixels that the box stops stay stopped as t grows,
        so that filling what they leave of the budget with the others climbs to t from below, and every
        iterate is feasible.
        """
        if self.norm == "linf":
            low, high = self._sides
            return torch.minimum(torch.maximum(points, low), high)
        return self._filled(points)

    def near(self, points: torch.Tensor) -> torch.Tensor:
        """Like ``project``, for points on the way: in a fraction of the time, and as good for a search.

        For l2 it uses less of the budget than there is where the box stops pixels, and exceeds it by the rounding of
        float32 at most.
        """
        if self.norm == "linf":
            return self.project(points)
        step = points - self.images
        share = (self.budget.to(step.dtype) / _length(step).clamp_min(1e-30)).clamp_max(1.0)
        return torch.addcmul(self.images, step, column(share, step)).clamp_(0.0, 1.0)

    def fit(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points in the box that exceed the budget by rounding at most, brought inside; and their float64 steps."""
        delta = difference(points, self.images)
        if self.norm == "linf":
            return points, delta
        over = (measured_norm(delta, "l2") > self._allowed).nonzero()[:, 0]
        if len(over):
            some, outside = self.select(over), points[over]
            fitted = some._shrink_to_fit(outside, outside - some.images, torch.ones_like(some.budget))
            points = points.index_copy(0, over, fitted)
            delta[over] = difference(fitted, some.images)
        return points, delta

    @property
    def _allowed(self) -> torch.Tensor:
        """Just inside, so that summing in another order still finds at most the budget."""
        return self.budget * (1 - 1e-12)

    def _filled(self, points: torch.Tensor) -> torch.Tensor:
        step = points - self.images
        budget = self.budget.to(step.dtype)
        t = (budget / _length(step).clamp_min(1e-30)).clamp_max(1.0)
        for _ in range(20):
            # Float32 will do here: it decides how much of the budget is used, not whether it is kept.
            wanted = column(t, step) * step
            moved = self._within(wanted)
            stuck = _length(moved * (moved != wanted))
            free = _length(moved * (moved == wanted))
            left = (budget**2 - stuck**2).clamp_min(0.0).sqrt() / free.clamp_min(1e-30)
            growth = torch.where(free > 0, left, 1.0).clamp_min(1.0)
            wider = (t * growth).clamp_max(1.0)
            if not bool((wider > t * (1 + 1e-6)).any()):
                break
            t = wider
        return self._shrink_to_fit(self.images + moved, step, t)

    def _within(self, wanted: torch.Tensor) -> torch.Tensor:
        """The part of a step that stays in the box."""
        return torch.clamp(wanted, *self._reach)

    def _shrink_to_fit(self, projected: torch.Tensor, step: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Undo what rounding to float32 added, until the float64 norm is within the budget."""
        allowed = self._allowed
        projected = projected.clamp_(0.0, 1.0)
        slack = 1e-7
        for _ in range(40):
            length = measured_norm(difference(projected, self.images), "l2")
            over = length > allowed
            if not bool(over.any()):
                return projected
            t = torch.where(over, t * (allowed / length.clamp_min(1e-300)).to(t.dtype) * (1 - slack), t)
            shrunk = (self.images + self._within(column(t.to(step.dtype), step) * step)).clamp_(0.0, 1.0)
            projected = torch.where(column(over, step), shrunk, projected)
            slack *= 2
        # A budget near float32's resolution of the pixels themselves: nothing smaller than x is left.
        return torch.where(column(over, step), self.images, projected)

    def steepest(self, gradient: torch.Tensor) -> torch.Tensor:
        """Direction of unit norm along which a linear function rises fastest; 0 where it is flat."""
        if self.norm == "linf":
            return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0).sign()
        flat: torch.Tensor = gradient.flatten(1)
        lengths = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        flat = flat / lengths
        # Gradients of saturated losses square to zero in float32, broken ones are not finite.
        odd = (~((lengths > 1e-15) & torch.isfinite(lengths)))[:, 0]
        if bool(odd.any()):
            flat[odd] = _scaled_to_unit(gradient.flatten(1)[odd])
        direction: torch.Tensor = flat.view_as(gradient)
        return direction

    def random_points(self, keys: list[NoiseKey]) -> torch.Tensor:
        """Uniform in the ball, then clamped to the box; one key a pair."""
        shape = tuple(self.images.shape[1:])
        device = self.images.device
        if self.norm == "linf":
            step = 2 * uniforms(keys, shape, device) - 1
        else:
            # n coordinates of a random direction in n + 2 dimensions are uniform in the n-dimensional ball
            numbers = normals(keys, (self.images[0].numel() + 2,), device)
            numbers /= torch.linalg.vector_norm(numbers, dim=1, keepdim=True)
            step = numbers[:, :-2].reshape(-1, *shape)
        return self.near(torch.addcmul(self.images, step, column(self.budget, step).float()))


def _scaled_to_unit(rows: torch.Tensor) -> torch.Tensor:
    """Unit vectors of rows of any size; 0 where a row is flat, and what is not finite counts as 0."""
    rows = torch.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    rows = rows / rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-38)
    lengths: torch.Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp_min(1e-12)


def _length(delta: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return lengths
