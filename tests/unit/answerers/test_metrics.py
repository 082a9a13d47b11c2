"""Metrics of answers against their definitions and by brute force."""

from __future__ import annotations

import itertools
import random
from typing import get_args

import duckdb
import pytest

from smoothcert.answerers.cider import cider
from smoothcert.answerers.metrics import (
    METRICS,
    contained_match,
    exact_match,
    keyword_share,
    rouge_l,
    vqa_accuracy,
)
from smoothcert.answerers.normalising import normalise
from smoothcert.catalogue.answer_metrics import ANSWER_METRICS, CERTIFIABLE, IN_TABLE
from smoothcert.job.answer import ScoreName
from smoothcert.store.tables.answers import ANSWERS


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


CAPTIONED = [
    ("a cat sits on the mat", ["the cat sat on the mat", "a cat is on a mat"]),
    ("two dogs run", ["two dogs are running in the grass", "dogs run in a field", "two brown dogs run"]),
    ("a red ball on the grass next to a tree", ["a red ball lies on grass"]),
    ("nothing", ["a man rides a horse on the beach", "a man on a horse"]),
    ("a man rides a horse on the beach", ["a man rides a horse on the beach", "a rider at the sea"]),
]


def test_rouge_l_is_that_of_googles_rouge_score() -> None:
    """Numbers of rouge-score 0.1.2 (``score_multi``, no stemming)."""
    theirs = [0.6666666666666666, 0.8571428571428571, 0.625, 0.0, 1.0]
    assert [rouge_l(*each) for each in CAPTIONED] == pytest.approx(theirs, abs=1e-12)


def test_cider_is_that_of_the_coco_evaluation() -> None:
    """Numbers of pycocoevalcap 1.2 (``CiderScorer``), in its scale: not times 100."""
    mean, count = cider(lambda: CAPTIONED)
    assert count == 5 and mean == pytest.approx(2.4050489679876925, rel=1e-12)
    rng = random.Random(1)

    def text() -> str:
        return " ".join(rng.choice("abcdefghijk") for _ in range(rng.randint(1, 9)))

    many = [(text(), [text() for _ in range(rng.randint(1, 5))]) for _ in range(300)]
    assert cider(lambda: iter(many))[0] == pytest.approx(0.620504428242445, rel=1e-12)


def test_cider_of_the_same_captions_is_ten_and_of_one_alone_is_none() -> None:
    texts = ["a b c d e", "f g h i j", "k l m n o p"]
    assert cider(lambda: [(text, [text]) for text in texts])[0] == pytest.approx(10.0, rel=1e-12)
    assert cider(lambda: [("a b", ["a b"])]) == (None, 1) and cider(lambda: []) == (None, 0)


def test_the_catalogue_the_job_and_the_functions_name_the_same_metrics() -> None:
    assert set(METRICS) == set(CERTIFIABLE) == set(get_args(ScoreName))
    assert set(CERTIFIABLE) <= set(IN_TABLE) and set(IN_TABLE) <= {each.name for each in ANSWERS.columns}


@pytest.mark.parametrize("least", [0.25, 0.5, 1.0])
def test_keyword_matches_are_shares_from_a_level_on(least: float) -> None:
    sql = ANSWER_METRICS[f"keyword_match_{least * 100:.0f}"].sql
    shares = [0.0, 0.2, 0.25, 0.4, 0.5, 0.75, 1.0, None]
    values = ", ".join(f"({'NULL' if each is None else each})" for each in shares)
    found = duckdb.sql(f"SELECT {sql} FROM (VALUES {values}) AS answers(keyword_share)").fetchall()
    assert [value for (value,) in found] == [None if each is None else int(each >= least) for each in shares]


def _is_within(chosen: tuple[str, ...], words: list[str]) -> bool:
    left = iter(words)
    return all(word in left for word in chosen)
