"""Has a mean risen, night after night: a test that may be looked at after every night, for ever.

Each night brings scores in [0, 1] of pairs that were drawn for that night, uniformly and without replacement. Under the
null, the mean score over all pairs is at most m0 on every night. For a stake lambda in [0, 1/m0],

    E[prod_i (1 + lambda (z_i - m0))] <= prod_i (1 + lambda (E[z_i] - m0)) <= 1,

the first step because draws without replacement are negatively associated (Joag-Dev and Proschan 1983) and each factor
rises with its score. So products over nights are e-values, for one stake or a mixture of stakes, begun on any night. A
mixture over the first night, of weights 1/(s(s + 1)), loses little to the quiet nights before a change. Its capital
reaches 1/alpha on any night with probability at most alpha (Ville 1939; Waudby-Smith and Ramdas 2023; Shin, Ramdas and
Rinaldo 2023). docs/theory.md section 3.8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

STAKES = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 0.9)
"""Shares of 1/m0 that are staked, each by an equal part of the capital."""
_ROUNDING = 1e-9
"""The log capital must exceed its threshold by this much: floating point error of sums of logarithms."""


def log_evidence(nights: Sequence[tuple[ArrayLike, ArrayLike]], most: float) -> list[float]:
    """Log e-value against "the mean score is at most ``most`` on every night", after each night.

    Args:
        nights: for each night (scores, counts): the distinct scores in [0, 1], and how many pairs have each.
        most: m0, in (0, 1).

    Raises:
        ValueError: a score is outside [0, 1], a count is negative, or ``most`` is outside (0, 1).
    """
    if not 0.0 < most < 1.0:
        raise ValueError(f"most={most} must be in (0, 1)")
    if not nights:
        return []
    stakes = np.asarray(STAKES) / most
    gains = np.empty((len(nights), len(STAKES)))
    for position, (scores, counts) in enumerate(nights):
        values, many = np.asarray(scores, dtype=np.float64), np.asarray(counts, dtype=np.float64)
        if not ((values >= 0.0) & (values <= 1.0)).all() or not (many >= 0.0).all():
            raise ValueError(
                f"night {position + 1}: scores={values.tolist()} must be in [0, 1], counts={many.tolist()} >= 0"
            )
        gains[position] = np.log1p(stakes[:, None] * (values - most)) @ many
    last = np.arange(1.0, len(nights) + 1.0)
    until = np.cumsum(gains, axis=0)
    # of each stake, over the nights on which it began: capital until now over capital until then
    began = np.logaddexp.accumulate(-np.log(last * (last + 1.0))[:, None] - (until - gains), axis=0) + until
    # what would be staked from a later night on is kept
    kept = -np.log(last + 1.0)
    return [float(each) for each in np.logaddexp(logsumexp(began, axis=1) - math.log(len(STAKES)), kept)]


def first_alarm(evidence: Sequence[float], alpha: float) -> int | None:
    """Position of the first night whose evidence reaches 1/alpha; None if none does.

    Raises:
        ValueError: alpha is outside (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha={alpha} must be in (0, 1)")
    needed = math.log(1.0 / alpha) + _ROUNDING
    return next((position for position, each in enumerate(evidence) if each >= needed), None)
