"""Every metric of an answer, one entry each: table, view, summary, MLflow, report and docs loop over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class AnswerMetric:
    """One figure over the questions that were answered and have what it needs.

    Attributes:
        kind: ``column`` of the table ``answers``; ``derived`` from its columns by ``sql``; ``set``: of all answers of
            a run together, in the summary alone.
        meaning: for a reader who has never seen the code, its scale included.
        sql: over a row of ``answers``: the number, NULL where there is none; empty of a set.
        needs: field of the job's section ``answer`` without which there is no such figure; empty for none.
        largest: the largest value; the smallest is 0.
        certifiable: whether ``answer.vote.score`` may name it: it is a function of answer and references alone.
    """

    kind: Literal["column", "derived", "set"]
    meaning: str
    sql: str = ""
    needs: str = ""
    largest: float = 1.0
    certifiable: bool = False


def _of_words(name: str, meaning: str) -> AnswerMetric:
    return AnswerMetric("column", meaning, sql=name, certifiable=True)


def _keywords(least: float) -> AnswerMetric:
    share = "all words" if least == 1 else f"at least {least:g} of the words"
    return AnswerMetric(
        "derived",
        f"1 where the answer has {share} of a reference, common words left out.",
        sql=f"(keyword_share >= {least!r})::INTEGER",
    )


ANSWER_METRICS: Mapping[str, AnswerMetric] = MappingProxyType(
    {
        "exact_match": _of_words(
            "exact_match", "1 where the answer says the same as a reference, after VQA normalisation."
        ),
        "contained_match": _of_words(
            "contained_match", "1 where the answer holds a reference, after VQA normalisation."
        ),
        "vqa_accuracy": _of_words(
            "vqa_accuracy", "Accuracy of the VQA evaluation; exact match below four references."
        ),
        "rouge_l": _of_words(
            "rouge_l",
            "ROUGE-L: F1 of the longest common subsequence of words with the best reference, no stemming, not times "
            "100.",
        ),
        "keyword_share": _of_words(
            "keyword_share",
            "Share of a reference's words that the answer has, common words left out; the best reference counts.",
        ),
        "keyword_match_25": _keywords(0.25),
        "keyword_match_50": _keywords(0.5),
        "keyword_match_100": _keywords(1.0),
        "clip_score": AnswerMetric(
            "column",
            "Cosine of the features of x, the image that was asked about, and of the answer in the encoder of "
            "answer.clip_score, 0 where negative. "
            "CLIPScore of Hessel et al. is 2.5 times it, that of torchmetrics 100 times.",
            sql="clip_score",
            needs="clip_score",
        ),
        "judged_similarity": AnswerMetric(
            "column",
            "How alike in meaning the answer is to a reference, as answer.judge sees it.",
            sql="judged_similarity",
            needs="judge",
        ),
        "judged_match": AnswerMetric(
            "derived",
            "1 where judged_similarity is at least judge_threshold.",
            sql="(judged_similarity >= judge_threshold)::INTEGER",
            needs="judge",
        ),
        "cider": AnswerMetric(
            "set",
            "CIDEr-D (Vedantam et al. 2015) as the COCO evaluation scores it: in [0, 10], so 1.2 is what papers call "
            "120. For captions, by kind of question: what a word weighs depends on the whole set.",
            largest=10.0,
        ),
    }
)
"""By name."""

BY_ROW: Mapping[str, AnswerMetric] = MappingProxyType(
    {name: metric for name, metric in ANSWER_METRICS.items() if metric.kind != "set"}
)
"""Those that a single answer has."""

IN_TABLE: Mapping[str, AnswerMetric] = MappingProxyType(
    {name: metric for name, metric in ANSWER_METRICS.items() if metric.kind == "column"}
)
"""Those that are columns of the table ``answers``."""

CERTIFIABLE: tuple[str, ...] = tuple(name for name, metric in ANSWER_METRICS.items() if metric.certifiable)
"""Those whose mean under noise a vote can certify."""
