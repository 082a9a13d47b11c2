"""The deployed defence averages finitely many draws (docs/theory.md section 3.9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from smoothcert.certificates.domain import FloatArray, numbers


def deployment_gap(smooth_norm: ArrayLike, draws: ArrayLike, beta: ArrayLike) -> FloatArray:
    """How far the mean of ``draws`` features may lie from m, with probability at least 1 - beta.

    sqrt((1 - N^2)/n) + sqrt(2 ln(1/beta)/n): the root mean square deviation of unit features, plus
    McDiarmid's bound for its fluctuation (one feature moves the mean by at most 2/n).

    Args:
        smooth_norm: N or a lower bound of it, at the input that is defended, in [0,1].
        draws: draws that one deployed answer averages, >= 1.
        beta: failure probability per answer, in (0,1].

    Returns:
        The broadcast distance, rounded up, at most 2. Where it reaches the norm of the smoothed feature, a
        direction of the mean is not guaranteed at all.

    Raises:
        ValueError: NaN or out of range.
    """
    norm = numbers("smooth_norm", smooth_norm, 0.0, 1.0)
    n = numbers("draws", draws, 1.0, np.finfo(np.float64).max)
    failure = numbers("beta", beta, 0.0, 1.0, low_open=True)
    spread = np.sqrt((1.0 - norm) * (1.0 + norm) / n)
    gap = (spread + np.sqrt(-2.0 * np.log(failure) / n)) * (1 + 1e-14)
    return np.asarray(np.minimum(gap, 2.0))
