"""Numbers in sentences that promise something: what is "at most" is rounded up, an interval outwards."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

_DIGITS = 12
"""Significant digits that count: what is behind them is floating point error."""


def at_most(number: float) -> str:
    """A number that is not negative, rounded up: to two significant digits below 10, else to a whole one."""
    exact = _exact(number)
    last = min(0, exact.adjusted() - 1) if exact else 0
    return f"{exact.quantize(Decimal(1).scaleb(last), rounding=ROUND_CEILING).normalize():,f}"


def share_text(count: int, of: int) -> str:
    """A share in percent; 100.0% is all, and 0.0% is none."""
    if 0 < count < of:
        return f"{min(max(count / of, 0.001), 0.999):.1%}"
    return f"{count / of:.1%}"


def interval_text(low: float, high: float) -> str:
    """The interval of a share in percent, rounded outwards."""
    step = Decimal("0.1")
    ends = (
        (_exact(end) * 100).quantize(step, rounding=rounding)
        for end, rounding in ((low, ROUND_FLOOR), (high, ROUND_CEILING))
    )
    return " to ".join(f"{end}%" for end in ends)


def _exact(number: float) -> Decimal:
    return Decimal(f"{number:.{_DIGITS}g}")
