"""How good an answer is, given what people answered. All in [0, 1]: never times 100."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from smoothcert.answerers.normalising import normalise

_WORD = re.compile(r"[a-z0-9]+")
_STOP = frozenset(
    "a an the of in on at to and or is are was were be with by for from it its this that there as".split()
)
_OFFICIAL = 4
"""Reference answers from which on the official VQA accuracy, made for ten, means something."""


def exact_match(answer: str, references: Sequence[str]) -> bool:
    """Whether it says the same as a reference, after normalisation."""
    said = normalise(answer)
    return any(said == normalise(each) for each in references)


def contained_match(answer: str, references: Sequence[str]) -> bool:
    """Whether it holds a reference as whole words, after normalisation."""
    said = f" {normalise(answer)} "
    return any(f" {each} " in said for each in map(normalise, references) if each)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """The accuracy of the VQA evaluation: the mean over the references left out one by one of min(1, matches / 3).

    Where there are fewer than four references, which it was not made for, 1 for an exact match and 0 otherwise.
    """
    if len(references) < _OFFICIAL:
        return float(exact_match(answer, references))
    said = normalise(answer)
    same = [said == normalise(each) for each in references]
    matches = sum(same)
    return sum(min(1.0, (matches - each) / 3) for each in same) / len(references)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004): F1 of the longest common subsequence of words; the best reference counts.

    Lower-cased letters and figures, no stemming.
    """
    said = words_of(answer)
    return max((_f1(said, words_of(each)) for each in references), default=0.0)


def keyword_share(answer: str, references: Sequence[str]) -> float:
    """Share of a reference's words, without the most common ones, that the answer has; the best reference counts."""
    said = set(words_of(answer))
    shares = []
    for each in references:
        wanted = set(words_of(each)) - _STOP or set(words_of(each))
        if wanted:
            shares.append(len(wanted & said) / len(wanted))
    return max(shares, default=0.0)


METRICS: Mapping[str, Callable[[str, Sequence[str]], float]] = MappingProxyType(
    {
        "exact_match": exact_match,
        "contained_match": contained_match,
        "vqa_accuracy": vqa_accuracy,
        "rouge_l": rouge_l,
        "keyword_share": keyword_share,
    }
)
"""By name: those of ``catalogue/answer_metrics.py`` that need answer and references alone."""


def words_of(text: str) -> list[str]:
    """Lower-cased letters and figures, in order."""
    return _WORD.findall(text.lower())


def _f1(one: list[str], other: list[str]) -> float:
    common = _longest_common(one, other)
    if not common:
        return 0.0
    precision, recall = common / len(one), common / len(other)
    return 2 * precision * recall / (precision + recall)


def _longest_common(one: list[str], other: list[str]) -> int:
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, against in enumerate(other, 1):
            here = lengths[place]
            lengths[place] = before + 1 if word == against else max(here, lengths[place - 1])
            before = here
    return lengths[-1]
