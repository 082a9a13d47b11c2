"""Metrics of answers against their definitions and by brute force."""

from __future__ import annotations

import itertools
import random

import pytest

from smoothcert.answerers.metrics import (
    contained_match,
    exact_match,
    keyword_share,
    rouge_l,
    vqa_accuracy,
)
from smoothcert.answerers.normalising import normalise


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Cat", "cat"),
        (" Two dogs.\n", "2 dogs"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("1,000", "1000"),
        ("3.5 m", "3.5 m"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("Yes!", "yes"),
        ("an orange, a lemon", "orange lemon"),
        ("a", ""),
    ],
)
def test_normalisation(answer: str, normal: str) -> None:
    assert normalise(answer) == normal


def test_vqa_accuracy_is_the_mean_over_nine_of_ten() -> None:
    for matches in range(11):
        references = ["two"] * matches + ["cat"] * (10 - matches)
        by_hand = 0.0
        for left_out in range(10):
            others = [each for place, each in enumerate(references) if place != left_out]
            by_hand += min(1.0, others.count("two") / 3) / 10
        assert vqa_accuracy("2", references) == pytest.approx(by_hand, abs=1e-12)
    assert vqa_accuracy("2", ["two"]) == 1.0 and vqa_accuracy("3", ["two"]) == 0.0


def test_matches() -> None:
    assert exact_match("A Cat.", ["dog", "the cat"]) and not exact_match("a cat sits", ["cat"])
    assert contained_match("there is a cat here", ["the cat"])
    assert not contained_match("concatenate", ["cat"]) and not contained_match("", [])


def test_keywords() -> None:
    assert keyword_share("a red ball", ["a big red ball on the grass"]) == pytest.approx(2 / 4)
    assert keyword_share("the", ["the"]) == 1.0 and keyword_share("x", []) == 0.0


def test_rouge_l_against_all_subsequences() -> None:
    rng = random.Random(0)
    for _ in range(60):
        one, other = ([rng.choice("abcd") for _ in range(rng.randint(1, 7))] for _ in range(2))
        longest = max(
            len(chosen)
            for size in range(len(one) + 1)
            for chosen in itertools.combinations(one, size)
            if _is_within(chosen, other)
        )
        f1 = 2 * longest / (len(one) + len(other))
        assert rouge_l(" ".join(one), [" ".join(other), "zzz"]) == pytest.approx(f1, abs=1e-12)


def _is_within(chosen: tuple[str, ...], words: list[str]) -> bool:
    left = iter(words)
    return all(word in left for word in chosen)
