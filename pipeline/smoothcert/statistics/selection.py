"""Claims about many pairs at once (docs/theory.md section 3.8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def simultaneous_alpha(alpha: float, rows: int) -> float:
    """Level for each of ``rows`` certificates at which all hold together with probability 1 - alpha.

    This is Bonferroni's correction; near the floor, draws grow by the factor 1 + ln(rows)/ln(1/alpha).

    Raises:
        ValueError: alpha outside (0, 1) or no rows.
    """
    if not 0.0 < alpha < 1.0 or rows < 1:
        raise ValueError(f"alpha={alpha} must be in (0, 1) and rows={rows} at least 1")
    return alpha / rows


def nested_radius(held: ArrayLike, radii: ArrayLike) -> NDArray[np.float64]:
    """Radius from tests at a grid of radii, each at the whole level: the last before the first that did not hold.

    A claim at one radius implies it at every smaller one. So if the result is too large, the test failed at the first
    radius of the grid at which the claim is false; that radius is fixed beforehand, and its test fails with
    probability alpha at most. The grid needs no correction (a fixed sequence of hypotheses, Maurer, Hothorn and
    Lehmacher 1995); the same holds for the smallest radius over rivals, at the rival who is truly nearest.

    Args:
        held: (..., m) whether the test at each radius succeeded.
        radii: (m,) increasing, fixed before the draws that were tested.

    Returns:
        (...,) radius; NaN where not even the first held.

    Raises:
        ValueError: shapes that do not fit, or radii that do not increase.
    """
    passed, grid = np.asarray(held, dtype=bool), np.asarray(radii, dtype=np.float64)
    if grid.ndim != 1 or not grid.size or passed.shape[-1:] != grid.shape:
        raise ValueError(
            f"held {passed.shape} and radii {grid.shape} need the same last axis, of at least one radius"
        )
    if not (np.diff(grid) > 0).all():
        raise ValueError("radii must increase strictly, and not be NaN")
    upto = np.logical_and.accumulate(passed, axis=-1).sum(axis=-1)
    return np.where(upto > 0, grid[np.maximum(upto - 1, 0)], np.nan)


def ebh(log_e_values: ArrayLike, q: float) -> NDArray[np.bool_]:
    """Select certificates with false discovery rate at most q, whatever their dependence (e-BH).

    The k largest e-values are selected, k the largest with e_(k) >= n / (q k) (Wang and Ramdas 2022,
    arXiv 2009.02824). All pairs that were asked for must be in, not the promising ones only.

    Args:
        log_e_values: (n,) logs of e-values; NaN is never selected but counts in n.
        q: false discovery rate, in (0, 1).

    Returns:
        (n,) True where selected.

    Raises:
        ValueError: q outside (0, 1), or the values are not a vector.
    """
    logs = np.asarray(log_e_values, dtype=np.float64)
    if logs.ndim != 1:
        raise ValueError(f"log_e_values has shape {logs.shape}; give a vector with one value per pair")
    if not 0.0 < q < 1.0:
        raise ValueError(f"q={q} must be in (0, 1)")
    n = logs.size
    usable = np.where(np.isnan(logs), -np.inf, logs)
    order = np.argsort(-usable, kind="stable")
    ranks = np.arange(1, n + 1)
    with np.errstate(divide="ignore"):
        enough = usable[order] >= np.log(n / (q * ranks))
    selected = np.zeros(n, dtype=bool)
    if enough.any():
        selected[order[: int(np.flatnonzero(enough)[-1]) + 1]] = True
    return selected
