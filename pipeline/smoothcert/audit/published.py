"""Runs that were imported from published logs: what they may claim, and what their largest radius tells.

Everything that the audit asks of votes holds for them too: bounds against radii, and both against what so many draws
can prove at the stated alpha. They have no pilot draws, since logs do not tell them.
"""

from __future__ import annotations

from collections.abc import Iterator

from smoothcert.audit.rules import CLAIMING, Rule
from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.store import RunInfo
from smoothcert.work.published.importing import PUBLISHED
from smoothcert.work.published.reach import find_reach

_TOLD = ("vote_share_lcb", "vote_radius")
_PRINTED = 1.01
"""A radius of three digits is stored as the lower end of what rounds to it, at most so much below the upper one."""


def published_rules(info: RunInfo) -> Iterator[Rule]:
    """What rows of a log never show, for one run."""
    others = ", ".join(f"{name}::VARCHAR" for name in CLAIMING if name not in _TOLD)
    yield Rule(
        "published-claims",
        "T9",
        "a row of a published log claims what logs do not tell: anything but the vote",
        f"SELECT pair_id, 'see the row' AS detail FROM certificates WHERE run_id = {quote(info.run_id)} AND "
        f"noise = {quote(PUBLISHED)} AND coalesce({others}) IS NOT NULL",
    )


def published_notes(query: Query, info: RunInfo) -> list[str]:
    """Which (N, alpha) fit the largest radius of a log, and whether its classifier is constant."""
    (row,) = query.rows(
        "SELECT max(vote_radius / sigma) AS largest, count(DISTINCT vote_label) AS votes, count(DISTINCT label) AS "
        f"labels FROM certificates WHERE run_id = {quote(info.run_id)} AND noise = {quote(PUBLISHED)} AND sigma > 0"
    )
    notes = []
    if row["largest"] is not None:
        certify = info.job.certify
        reach = find_reach(row["largest"], _PRINTED * row["largest"])
        fits = ", ".join(f"N={draws:,} alpha={alpha:g}" for draws, alpha in reach.fits) or "no usual pair"
        notes.append(
            f"largest radius {reach.low:.4g} sigma: ln(1/alpha)/N is at most {reach.rate:.3g}; if all draws agreed "
            f"there, {fits} gives it; the run says N={certify.max_draws:,} alpha={certify.alpha:g}"
        )
    if row["votes"] == 1 and row["labels"] > 1:
        notes.append(
            "every prediction is of one class: the classifier is constant, and its radii say nothing"
        )
    return notes
