"""What attacks left of the decisions by vote and by percentile, out of the view ``attack_rules``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.summary.shares import Mean, Share


@dataclass(frozen=True, slots=True)
class RulesUnderAttack:
    """One subject with noise at one budget, the worst over all attacks on each pair, by other rules than the mean.

    Attributes:
        subject: what was attacked.
        norm: of the budget.
        budget: in [0,1] pixels.
        pairs: pairs with an outcome.
        vote_accuracy: labelled pairs whose vote under attack is the label.
        percentile_accuracy: labelled pairs whose class by vote is the label and keeps the percentile of its margins
            above 0.
        clean_percentile: the job's percentile of a draw's cosine to the clean feature under attack.
        caption_percentile: the same of its similarity to the caption.
    """

    subject: str
    norm: str
    budget: float
    pairs: int
    vote_accuracy: Share
    percentile_accuracy: Share
    clean_percentile: Mean
    caption_percentile: Mean


RULE_FIGURES = ("vote_accuracy", "percentile_accuracy", "clean_percentile", "caption_percentile")
"""The figures among the fields of ``RulesUnderAttack``."""


def rules_under_attack(query: Query, run_id: str) -> tuple[RulesUnderAttack, ...]:
    """The figures of one run, in the order of the view; empty without attacks.

    Args:
        query: an open query; other runs may be in it.
        run_id: the run.
    """
    rows = query.rows(f"SELECT * FROM attack_rules WHERE run_id = {quote(run_id)}")
    return tuple(_figures(row) for row in rows)


def _figures(row: dict[str, Any]) -> RulesUnderAttack:
    def share(rule: str) -> Share:
        of = row[f"{rule}_pairs"]
        known = [row[f"{rule}_accuracy{end}"] if of else None for end in ("", "_low", "_high")]
        return Share(row[f"{rule}_right"], of, *known)

    def mean(name: str) -> Mean:
        return Mean(row["pairs"], row[f"attacked_{name}"], None, None)

    return RulesUnderAttack(
        subject=row["subject"],
        norm=row["norm"],
        budget=row["budget"],
        pairs=row["pairs"],
        vote_accuracy=share("vote"),
        percentile_accuracy=share("percentile"),
        clean_percentile=mean("clean_percentile"),
        caption_percentile=mean("caption_percentile"),
    )
