"""What attacks achieved, out of the view ``attack_success``: the figures of RobustBench, and what is wrong at last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smoothcert.sql import Query
from smoothcert.sql.attack_views import WORST_CASE
from smoothcert.sql.literals import quote
from smoothcert.summary.shares import Share


@dataclass(frozen=True, slots=True)
class UnderAttack:
    """One attack, or the worst case over all with the same question, on one subject at one budget.

    Right means that the objective is not reached; of classification, that the class is the label.

    Attributes:
        attack: its name, or ``worst case``.
        method: the attack with what else matters to its search: BPDA, surrogates.
        attacks: how many it counts: 1, or of the worst case all with the same question.
        attack_id: of the attack; None for the worst case.
        question: the objective and what makes it one question: its reference, threshold or target.
        subject: what was attacked.
        norm: of the budget.
        budget: in [0,1] pixels.
        pairs: pairs asked for.
        quarantined: those that could not be attacked.
        missing: those without an outcome yet.
        clean_accuracy: pairs that are right without attack, out of all asked for.
        robust_accuracy: pairs that are right without attack and under it, out of all asked for.
        success_among_right: pairs that the attack turned, out of those that are right without it.
        wrong_under_attack: pairs that are wrong under attack, also those that were wrong before, out of all asked for.
    """

    attack: str
    method: str
    attacks: int
    attack_id: str | None
    question: str
    subject: str
    norm: str
    budget: float
    pairs: int
    quarantined: int
    missing: int
    clean_accuracy: Share
    robust_accuracy: Share
    success_among_right: Share
    wrong_under_attack: Share

    @property
    def is_worst_case(self) -> bool:
        """Whether it counts every attack with this question."""
        return self.attack_id is None and self.attack == WORST_CASE


FIGURES = ("clean_accuracy", "robust_accuracy", "success_among_right", "wrong_under_attack")
"""The shares among the fields of ``UnderAttack``."""


def under_attack(query: Query, run_id: str) -> tuple[UnderAttack, ...]:
    """The figures of one run, in the order of the view; empty without attacks.

    Args:
        query: an open query; other runs may be in it.
        run_id: the run.
    """
    rows = query.rows(f"SELECT * FROM attack_success WHERE run_id = {quote(run_id)}")
    return tuple(_figures(row) for row in rows)


def _figures(row: dict[str, Any]) -> UnderAttack:
    asked, right = row["pairs_asked"], row["right_before"]
    counts = {
        "clean_accuracy": (right, asked),
        "robust_accuracy": (row["right_after"], asked),
        "success_among_right": (row["turned"], right),
        "wrong_under_attack": (row["wrong_after"], asked),
    }
    return UnderAttack(
        attack=row["attack"],
        method=row["attack_method"],
        attacks=row["attacks"],
        attack_id=row["attack_id"],
        question=question_of(row),
        subject=row["subject"],
        norm=row["norm"],
        budget=row["budget"],
        pairs=asked,
        quarantined=row["quarantined"],
        missing=row["missing"],
        **{name: _share(row, name, *counted) for name, counted in counts.items()},
    )


def _share(row: dict[str, Any], name: str, count: int | None, of: int | None) -> Share:
    return Share(count or 0, of or 0, row[name], row[f"{name}_low"], row[f"{name}_high"])


def question_of(row: dict[str, Any]) -> str:
    """The objective and what makes it one question, in words."""
    parts = [f"{row['objective']}"]
    if row["reference"] in ("smoothed", "predicted"):
        parts.append(f"from {row['reference']}")
    if row["threshold"] is not None:
        parts.append(f"< {row['threshold']:g}")
    if row["target"]:
        parts.append(f"{row['target']}")
    return " ".join(parts)
