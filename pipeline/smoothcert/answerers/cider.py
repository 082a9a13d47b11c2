"""CIDEr-D (Vedantam, Zitnick and Parikh 2015): how much captions agree with those of people, over a whole set.

The score of one caption is the mean over n-grams of one to four words, and over references, of the cosine of TF-IDF
vectors, clipped at the reference's counts, times a Gaussian penalty of the difference in length, times 10. So it lies
in [0, 10], and what papers print is often 100 times it. As in the COCO evaluation, whose tokeniser is Java and is not
used: words are lower-cased letters and figures, as for ROUGE-L.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from smoothcert.answerers.metrics import words_of

Captioned = tuple[str, Sequence[str]]
"""A caption, and those of people: at least one."""
_LONGEST = 4
_SIGMA = 6.0
_Gram = tuple[str, ...]


def cider(captioned: Callable[[], Iterable[Captioned]]) -> tuple[float | None, int]:
    """The mean over a set, and how many captions there are.

    Args:
        captioned: gives the set from its beginning, each time in the same order; it is read twice, so that it need not
            be in memory.

    Returns:
        None for fewer than two: what every caption has weighs nothing.
    """
    seen: Counter[_Gram] = Counter()
    count = 0
    for _, references in captioned():
        seen.update({gram for reference in references for gram in _grams(reference)})
        count += 1
    if count < 2:
        return None, count
    weigh = _Weights(seen, math.log(count))
    total = math.fsum(weigh.score(caption, references) for caption, references in captioned())
    return total / count, count


class _Weights:
    """What words weigh: the logarithm of how rare they are among the references of a set."""

    def __init__(self, seen: Counter[_Gram], log_count: float) -> None:
        self._seen, self._log_count = seen, log_count

    def score(self, caption: str, references: Sequence[str]) -> float:
        mine, norms, length = self._vector(caption)
        total = 0.0
        for reference in references:
            other, others, there = self._vector(reference)
            dots = [0.0] * _LONGEST
            for gram, weight in mine.items():
                if gram in other:
                    dots[len(gram) - 1] += min(weight, other[gram]) * other[gram]
            cosines = (
                dot / (a * b) if a and b else dot for dot, a, b in zip(dots, norms, others, strict=True)
            )
            total += sum(cosines) / _LONGEST * math.exp(-((length - there) ** 2) / (2 * _SIGMA**2))
        return 10.0 * total / len(references)

    def _vector(self, text: str) -> tuple[dict[_Gram, float], list[float], int]:
        """Weights of n-grams, their norms by n, and the length: of pairs of words, as the COCO evaluation counts it."""
        counts = _grams(text)
        weights, squares, length = {}, [0.0] * _LONGEST, 0
        for gram, times in counts.items():
            weight = times * (self._log_count - math.log(max(1, self._seen[gram])))
            weights[gram] = weight
            squares[len(gram) - 1] += weight**2
            length += times if len(gram) == 2 else 0
        return weights, [math.sqrt(each) for each in squares], length


def _grams(text: str) -> Counter[_Gram]:
    words = words_of(text)
    return Counter(
        tuple(words[start : start + size])
        for size in range(1, _LONGEST + 1)
        for start in range(len(words) - size + 1)
    )
