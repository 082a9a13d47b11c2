"""What certificates bound from below and attacks push down, and where an attack's outcome shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number about one pair that an attacker wants small.

    Attributes:
        name: short and stable.
        attacked: column of the table ``attacks`` that estimates it under attack; ``<attacked>_ucb`` is its upper
            confidence bound. Empty where no attack row can tell.
        cosine: whether it is a cosine between features: bounds lie in [0,1], never rise with the radius, and are
            reported at the job's cosines.
        shown: column of the table ``attacks`` that repeats what is certified of it at the budget; empty for none.
        section: section of the job without which nothing is certified of it; empty for none.
        floor: a certificate with a radius promises that it stays above this.
        label: column of the table ``certificates`` with the class that it is about; empty for none.
        attacked_label: column of the table ``attacks`` with the class that ``attacked`` is about.
        texts: what else must be the same in another run for its attacks to say something of it: nothing, ``class``
            (classes and prompts) or ``pool`` (candidates and rank).
        of: what it is a number of, where another rule of decision has a number of the same; empty for none.
    """

    name: str
    attacked: str
    cosine: bool = False
    shown: str = ""
    section: Literal["", "zero_shot", "retrieval"] = ""
    floor: float = 0.0
    label: str = ""
    attacked_label: str = ""
    texts: Literal["", "class", "pool"] = ""
    of: Literal["", "clean", "caption"] = ""


TO_CLEAN = Quantity(
    name="clean", attacked="cosine_to_clean", cosine=True, shown="certified_to_clean", of="clean"
)
"""cos(m(x+delta), u(x)): to the feature of the clean image without noise."""
TO_SMOOTHED = Quantity(
    name="smoothed", attacked="cosine_to_smoothed", cosine=True, shown="certified_to_smoothed"
)
"""cos(m(x+delta), m(x)): to the smoothed feature of the clean image."""
TO_CAPTION = Quantity(name="caption", attacked="caption_similarity", of="caption")
"""<m(x+delta), t> for the caption's feature t: a projection, which may be negative."""
CLASS_MARGIN = Quantity(
    name="class",
    attacked="class_margin",
    section="zero_shot",
    label="predicted_label",
    attacked_label="class_margin_label",
    texts="class",
)
"""Smallest <m(x+delta), -w> over rival classes."""
RANK_MARGIN = Quantity(name="retrieval", attacked="retrieval_margin", section="retrieval", texts="pool")
"""The same of the own caption over the k-th nearest other one of the pool."""
CLASS_VOTES = Quantity(
    name="vote",
    attacked="vote_share",
    section="zero_shot",
    floor=0.5,
    label="vote_label",
    attacked_label="vote_share_label",
    texts="class",
)
"""Probability that a draw u(x+delta+eps) is nearer to the class's text than to any other."""
RANK_VOTES = Quantity(
    name="retrieval vote", attacked="retrieval_vote_share", section="retrieval", floor=0.5, texts="pool"
)
"""Probability that the own caption is among the first k of the pool for a draw."""
CLEAN_PERCENTILE = Quantity(name="percentile to clean", attacked="clean_percentile", cosine=True, of="clean")
"""Percentile of the cosine between a draw u(x+delta+eps) and the clean feature u(x)."""
PILOT_PERCENTILE = Quantity(name="percentile to pilot", attacked="", cosine=True)
"""The same to the pilot direction. No row keeps that direction, so that no attack can be held against it."""
CAPTION_PERCENTILE = Quantity(name="percentile to caption", attacked="caption_percentile", of="caption")
"""The same to the caption's feature t; it may be negative."""
CLASS_PERCENTILE = Quantity(
    name="percentile of class",
    attacked="class_percentile",
    section="zero_shot",
    label="vote_label",
    attacked_label="vote_share_label",
    texts="class",
)
"""Percentile of a draw's smallest margin over the other classes."""
