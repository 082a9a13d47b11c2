"""Printed numbers, taken for what they can be trusted with: the lower end of what rounds to them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Printing:
    """How a log prints its numbers, as far as all of them show: trailing zeros may be missing in any one.

    Attributes:
        digits: significant digits of the longest.
        decimals: digits behind the point of the longest.
    """

    digits: int
    decimals: int

    @classmethod
    def of(cls, texts: Iterable[str]) -> Printing:
        """The printing of a log's numbers.

        Raises:
            ValueError: one is not a finite number.
        """
        digits, decimals = 1, 0
        for text in texts:
            number = Decimal(text).normalize()
            exponent = number.as_tuple().exponent
            if not isinstance(exponent, int):
                raise ValueError(f"'{text}' is not a finite number")
            digits = max(digits, len(number.as_tuple().digits))
            decimals = max(decimals, -exponent)
        return cls(digits, decimals)

    def between(self, text: str) -> tuple[float, float]:
        """What may have been printed as this text: rounded to nearest, to so many digits or so many decimals.

        Which of the two is not known, so both are allowed for.
        """
        value = float(text)
        half = 0.5 * 10.0**-self.decimals
        if value:
            half = max(half, 0.5 * 10.0 ** (math.floor(math.log10(abs(value))) - self.digits + 1))
        return math.nextafter(value - half, -math.inf), math.nextafter(value + half, math.inf)
