"""Nearest point of a hyperplane inside the box [0,1]^n, in l2 or l-infinity."""

from __future__ import annotations

import torch

from smoothcert.attacks.norms import Norm, column


def nearest_on_hyperplane(
    points: torch.Tensor, normal: torch.Tensor, gap: torch.Tensor, norm: Norm
) -> torch.Tensor:
    """The z in [0,1]^n nearest to each point with <normal, z - point> = gap.

    By the optimality conditions z = clamp(point + t v), with v the normal (l2) or its sign (linf) and t of
    the sign of ``gap``. The inner product then rises with |t|, piecewise linearly and ever more slowly, so
    that Newton's method from t = 0 climbs to the solution, piece by piece, without overshooting.

    Args:
        points: (k, ...) in [0,1].
        normal: (k, ...).
        gap: (k,).
        norm: whose distance is minimised.

    Returns:
        (k, ...), in ``points``' type; where the box holds no such z, the corner nearest to the hyperplane.
    """
    start, towards = points.double(), normal.double()
    towards = towards * column(torch.where(gap < 0, -1.0, 1.0).double(), points)
    way = towards if norm == "l2" else towards.sign()
    # How far each pixel can move before it meets the box.
    room = torch.where(way > 0, 1 - start, start)
    missing = gap.double().abs()
    gain = (towards * way).flatten(1)
    t = torch.zeros_like(missing)
    for _ in range(50):
        free = (column(t, points) * way.abs() < room).flatten(1)
        moved = torch.minimum(column(t, points) * way.abs(), room) * way.sign()
        short = missing - (towards * moved).flatten(1).sum(dim=1)
        slope = (gain * free).sum(dim=1)
        step = torch.where((slope > 0) & (short > 1e-12 * missing), short / slope.clamp_min(1e-300), 0.0)
        if not bool((step > 0).any()):
            break
        t = t + step
    moved = torch.minimum(column(t, points) * way.abs(), room) * way.sign()
    return (start + moved).clamp(0.0, 1.0).to(points.dtype)
