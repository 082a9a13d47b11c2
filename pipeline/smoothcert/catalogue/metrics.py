"""Every metric of a run besides its certificates, one entry each: summary, MLflow and docs loop over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure over the ok pairs of a run.

    Attributes:
        kind: ``share`` of pairs, with an exact binomial interval; ``mean`` of numbers in [0, 1], with an empirical
            Bernstein interval.
        sql: of a share what must be true of a pair, of a mean the number, in SQL over the table ``certificates``.
            Fields of the job's section ``needs`` may stand in braces: ``{retrieval.k}``. Where it is NULL, a pair
            does not count as one that holds, and is left out of a mean.
        meaning: for a reader who has never seen the code.
        of: the pairs that a share is of: ``ok``, or ``labelled`` ones, whose label is a class of the job.
        needs: section of the job without which there is no such figure; empty for none.
    """

    kind: Literal["share", "mean"]
    sql: str
    meaning: str
    of: Literal["ok", "labelled"] = "ok"
    needs: str = ""


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "smooth_norm": Metric(
            # where nothing is known of N, it is at least 0
            "mean",
            "coalesce(smooth_norm_lcb, 0)",
            "mean of the lower bounds of N, the norm of the smoothed feature",
        ),
        "robustness_score": Metric(
            "mean", "robustness_score_lcb", "mean of the lower bounds of the Gaussian robustness score S"
        ),
        "clean_accuracy": Metric(
            "share",
            "clean_label = label",
            "pairs that the encoder alone classifies right",
            of="labelled",
            needs="zero_shot",
        ),
        "class_accuracy": Metric(
            "share",
            "predicted_label = label",
            "pairs that the smoothed encoder classifies right",
            of="labelled",
            needs="zero_shot",
        ),
        "vote_accuracy": Metric(
            "share",
            "vote_label = label",
            "pairs that the vote over draws classifies right",
            of="labelled",
            needs="zero_shot",
        ),
        "retrieval_accuracy": Metric(
            "share",
            "retrieval_rank <= {retrieval.k}",
            "pairs whose own caption is among the first k without attack",
            needs="retrieval",
        ),
    }
)
