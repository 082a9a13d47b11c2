"""Betting written a second time, slowly: scalars, loops and exact sums, straight from the published formula."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest

FRACTIONS = (0.5, 0.9, 0.99)


class Reference:
    """Waudby-Smith and Ramdas 2023: predictable plug-in stakes, cut at c/m, capital averaged over c."""

    def stakes(self, draws: Sequence[float], alpha: float) -> list[float]:
        found = []
        for i in range(1, len(draws) + 1):
            earlier = draws[: i - 1]
            means = [(0.5 + math.fsum(earlier[:j])) / (j + 1) for j in range(1, i)]
            squares = math.fsum((y - mean) ** 2 for y, mean in zip(earlier, means, strict=True))
            variance = (0.25 + squares) / i
            found.append(math.sqrt(2 * math.log(1 / alpha) / (variance * i * math.log(1 + i))))
        return found

    def log_capitals(
        self, draws: Sequence[float], alpha: float, m: float, *, stakes: Sequence[float] | None = None
    ) -> list[float]:
        """Log K_t(m) for t = 1 .. n, of the bet that the mean exceeds m."""
        stakes = self.stakes(draws, alpha) if stakes is None else stakes
        gamblers: list[list[float]] = [[], [], []]
        mixed = []
        for y, stake in zip(draws, stakes, strict=True):
            for logs, c in zip(gamblers, FRACTIONS, strict=True):
                logs.append(math.log(1 + min(stake, c / m) * (y - m)))
            sums = [math.fsum(logs) for logs in gamblers]
            mixed.append(max(sums) + math.log(math.fsum(math.exp(s - max(sums)) for s in sums) / 3))
        return mixed

    def log_capitals_below(
        self, draws: Sequence[float], alpha: float, m: float, *, stakes: Sequence[float] | None = None
    ) -> list[float]:
        """The same of the bet that the mean is below m: everything mirrored at 1/2, with the same stakes."""
        stakes = self.stakes(draws, alpha) if stakes is None else stakes
        return self.log_capitals([1 - y for y in draws], alpha, 1 - m, stakes=stakes)

    def lower_bound(self, draws: Sequence[float], alpha: float, *, peek: bool) -> float:
        """Largest m with K(m) >= 1/alpha, at the last draw, or at any draw so far (``peek``)."""
        stakes = self.stakes(draws, alpha)

        def rich(m: float) -> bool:
            logs = self.log_capitals(draws, alpha, m, stakes=stakes)
            return (max(logs) if peek else logs[-1]) >= math.log(1 / alpha)

        low, high = 0.0, 1.0
        while high - low > 1e-8:
            middle = (low + high) / 2
            low, high = (middle, high) if rich(middle) else (low, middle)
        return low

    def first(self, values: Iterable[float], level: float) -> int | None:
        """Position of the first value that reaches a level."""
        return next((i for i, value in enumerate(values) if value >= level), None)

    def cuts(self, length: int, inner: Iterable[int]) -> list[slice]:
        """The pieces of a sequence that is cut at some positions."""
        return [slice(a, b) for a, b in pairwise([0, *sorted(inner), length])]


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference()
