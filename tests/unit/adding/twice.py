"""A certificate of its own: a pure function, and the entry that makes every room speak of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoothcert.catalogue.certificate import Certificate, Form
from smoothcert.catalogue.evidence import SCORE
from smoothcert.catalogue.quantities import TO_CLEAN
from smoothcert.certificates import fcsb


def twice_bound(score: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]:
    """What T2 certifies at twice the radius holds at the radius all the more."""
    return fcsb(score, 2.0 * np.asarray(radius, dtype=np.float64), sigma)


TWICE = Certificate(
    name="twice",
    rule="mean",
    quantity=TO_CLEAN,
    source="theory T2",
    basis=(SCORE,),
    share_of_alpha=Fraction(1),
    bound=Form(
        "twice",
        twice_bound,
        "twice_bound",
        "As fcsb, for an attack of twice the radius; element NULL where nothing is certified.",
    ),
    anywhere=True,
    target=True,
)
