"""The deployed defence averages finitely many draws (docs/theory.md section 3.9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from smoothcert.certificates.domain import FloatArray, numbers
from smoothcert.certificates.projection import projection_bound


def deployment_gap(
    smooth_norm: ArrayLike,
    draws: ArrayLike,
    beta: ArrayLike,
    *,
    radius: ArrayLike = 0.0,
    sigma: ArrayLike = 1.0,
) -> FloatArray:
    """How far the mean of ``draws`` features may lie from m, with probability at least 1 - beta.

    The deviation counts where the answer is given: at the attacked input x + delta, whose smooth norm is not the
    row's. Give the row's with the radius of the attacks, and T1 carries it over to
    N' = max(0, 2 Phi(Phi^-1((1+N)/2) - radius/sigma) - 1), the least norm at any of them; or give N' itself (0 if
    nothing is known of it) without a radius.

    The smaller of two distances: sqrt(2 (1-N'^2) ln(2/beta)/n) + 4 ln(2/beta)/(3n), Bernstein's inequality in a
    Hilbert space (Pinelis 1994, Annals of Probability 22(4): unit features have the variance 1-N^2, and none is
    farther than 2 from their mean); and sqrt((1-N'^2)/n) + sqrt(2 ln(1/beta)/n), the root mean square plus
    McDiarmid's bound of its fluctuation, which is smaller for few draws.

    Args:
        smooth_norm: N or a lower bound of it, in [-1,1]; negative bounds count as 0.
        draws: draws that one deployed answer averages, >= 1.
        beta: failure probability per answer, in (0,1].
        radius: l2 radius of the attacks, >= 0; 0 where ``smooth_norm`` is already that of the input defended.
        sigma: noise standard deviation in the same units, > 0.

    Returns:
        The broadcast distance, rounded up, at most 2. Where it reaches the norm of the smoothed feature, a
        direction of the mean is not guaranteed at all.

    Raises:
        ValueError: NaN or out of range.
    """
    norm = np.maximum(numbers("smooth_norm", smooth_norm, -1.0, 1.0), 0.0)
    n = numbers("draws", draws, 1.0, np.finfo(np.float64).max)
    failure = numbers("beta", beta, 0.0, 1.0, low_open=True)
    attacked = np.maximum(projection_bound(norm, radius, sigma), 0.0)
    variance = (1.0 - attacked) * (1.0 + attacked)
    log_term = np.log(2.0) - np.log(failure)
    bernstein = np.sqrt(2.0 * variance * log_term / n) + 4.0 * log_term / (3.0 * n)
    mcdiarmid = np.sqrt(variance / n) + np.sqrt(-2.0 * np.log(failure) / n)
    return np.asarray(np.minimum(np.minimum(bernstein, mcdiarmid) * (1 + 1e-14), 2.0))
