"""The trend page: what the nights of a monitor say together, to look at.

It is built like the report: one file that loads nothing, every figure with its data as CSV and the command that gives
them again. It rests on the monitor's directory alone, so it can be made where the runs of the nights are gone.
"""

from __future__ import annotations

import math
import shlex
from datetime import UTC, datetime
from typing import Any

from smoothcert.monitor.history import Night, Trend, Watched, needed_evidence, reference_share
from smoothcert.redaction import redact, without_secrets
from smoothcert.report.figure import Cell, Chart, ReportFigure
from smoothcert.report.headline import say_claim
from smoothcert.report.page import make_page
from smoothcert.statistics import share_interval
from smoothcert.summary.rounding import at_most, interval_text, share_text

_SECTION = "Night by night"
_MOST_EVIDENCE = 1e12
"""E-values beyond are shown as this: a chart needs an end."""
NOT_PROMISED = (
    "That a drop is found by some night: a quiet history does not show that there is none.",
    "Anything about drops within the tolerance.",
    "Anything where whoever makes the checkpoint knows which pairs will be drawn, or where the reference was picked as "
    "the best of several.",
    "The 95% intervals of single nights are each of its night alone: the alarm rests on the evidence, not on them.",
)


def make_trend_page(trend: Trend, url: str) -> str:
    """One HTML page about all nights of a monitor so far.

    Args:
        trend: the nights, and what they say.
        url: of the monitor's directory.
    """
    command = f"smoothcert monitor {shlex.quote(without_secrets(url))} --history --csv nights.csv"
    sentences = [_verdict(trend), *_last_night(trend)]
    name = without_secrets(url).rstrip("/").rpartition("/")[2]
    data = {
        "title": name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "runs": [{"id": "", "name": name, "facts": _facts(trend, url), "sentences": sentences}],
        "notPromised": NOT_PROMISED,
        "figures": [figure.as_mapping() for figure in _figures(trend, command)] if trend.nights else [],
        "pairs": [],
        "pairsSql": "",
        "missing": [],
        "about": "About this monitor",
        "ask": ["The history as CSV; each night is a run of its own, which can be asked in SQL.", command],
    }
    return make_page(f"{name}: smoothcert monitor", sentences, redact(data))


def _verdict(trend: Trend) -> str:
    """The first sentence: is there a drop, and how sure is that."""
    watched, nights = trend.watched, trend.nights
    if not nights:
        return "No night is done yet."
    many = f"{len(nights)} night{'s' if len(nights) > 1 else ''}"
    drop = f"more than {watched.tolerance:.1%} below that of the reference"
    if trend.alarm is None:
        return (
            f"No alarm in {many}: it is not shown that the certified share was {drop} on any of them. If it never is, "
            f"the probability of ever raising an alarm is at most {at_most(watched.alpha)}."
        )
    return (
        f"Alarm since night {nights[trend.alarm].night}: the certified share of all pairs was {drop} on that night or "
        f"on one before it. The probability that this is false is at most {at_most(watched.alpha)}, over all nights "
        "together. The alarm stands: mend what it found, then begin another monitor."
    )


def _last_night(trend: Trend) -> list[str]:
    if not trend.nights:
        return []
    night, watched = trend.nights[-1], trend.watched
    interval = interval_text(*share_interval(night.certified, night.pairs))
    if night.reference_certified is None:
        certified, pairs = watched.reference_share
        beside = f"of the reference's {pairs:,} pairs it held for {share_text(certified, pairs)}"
    else:
        beside = f"in the reference it held for {share_text(night.reference_certified, night.pairs)} of the same pairs"
    return [
        f"On the last night, {night.night}, for {share_text(night.certified, night.pairs)} of {night.pairs:,} pairs "
        f"{_claim(watched.claim)}; 95% interval {interval}; {beside}."
    ]


def _claim(claim: str) -> str:
    """A claim in words, by its name in ``certified_share``; the name where it tells nothing."""
    what, _, radius = claim.partition("@")
    name, _, cosine = what.partition(">=")
    try:
        return say_claim(name, float(radius), float(cosine) if cosine else None)
    except (KeyError, ValueError):
        return f"it holds that {claim}"


def _figures(trend: Trend, command: str) -> list[ReportFigure]:
    found = [_shares(trend, command), _evidence(trend, command)]
    if trend.watched.paired:
        found.append(_changes(trend, command))
    return [*found, _table(trend, command)]


def _shares(trend: Trend, command: str) -> ReportFigure:
    watched = trend.watched
    rows: list[tuple[Cell, ...]] = []
    for night in trend.nights:
        ends = share_interval(night.certified, night.pairs)
        rows.append((night.night, "this night", night.certified, night.pairs, night.share, *ends))
    for night in trend.nights:
        certified, pairs = _reference_counts(watched, night)
        rows.append((night.night, "reference", certified, pairs, reference_share(watched, night), None, None))
    beside = (
        "the reference on the same pairs, which are drawn anew every night"
        if watched.paired
        else "the reference on all of its own pairs"
    )
    return ReportFigure(
        "trend-share",
        _SECTION,
        "Certified share",
        f"Share of the night's pairs for which holds: {_claim(watched.claim)}. With the 95% interval of each night "
        f"alone, and {beside}.",
        command,
        ("night", "curve", "certified", "pairs", "share", "share_low", "share_high"),
        tuple(rows),
        Chart(
            kind="curve", x="night", y="share", low="share_low", high="share_high", series=("curve",),
            x_title="night", y_title="share of pairs", categories=True, scale="near", dashed="reference",
        ),
    )  # fmt: skip


def _evidence(trend: Trend, command: str) -> ReportFigure:
    needed = math.exp(needed_evidence(trend.watched))
    rows: list[tuple[Cell, ...]] = [
        (night.night, "evidence", _e_value(log))
        for night, log in zip(trend.nights, trend.evidence, strict=True)
    ]
    rows += [(night.night, "alarm", needed) for night in trend.nights]
    return ReportFigure(
        "trend-evidence",
        _SECTION,
        "Evidence of a drop",
        "How much a bet against 'no drop' would have won so far: the e-value over all nights. Without a drop it "
        f"ever reaches the line of the alarm, {needed:,.0f}, with probability at most {trend.watched.test_alpha:g}. It "
        "falls on quiet nights; an alarm stands all the same.",
        command,
        ("night", "curve", "evidence"),
        tuple(rows),
        Chart(
            kind="curve", x="night", y="evidence", series=("curve",), x_title="night",
            y_title="e-value", categories=True, scale="log", dashed="alarm",
        ),
    )  # fmt: skip


def _changes(trend: Trend, command: str) -> ReportFigure:
    rows = [
        (night.night, what, count)
        for what in ("lost", "gained")
        for night in trend.nights
        if (count := getattr(night, what)) is not None
    ]
    return ReportFigure(
        "trend-changes",
        _SECTION,
        "Pairs that lost or gained the certificate",
        "Against the reference, pair by pair. Some of both are luck of the draws of noise; a drop loses more than it "
        "gains.",
        command,
        ("night", "curve", "pairs"),
        tuple(rows),
        Chart(
            kind="columns", x="night", y="pairs", series=("curve",), x_title="night",
            y_title="pairs", categories=True, scale="count",
        ),
    )  # fmt: skip


def _table(trend: Trend, command: str) -> ReportFigure:
    columns = (
        "night", "pairs", "certified", "share", "share_low", "share_high", "reference_share", "gained", "lost",
        "evidence", "alarm", "run", "encoder_digest", "data_digest",
    )  # fmt: skip
    rows = tuple(
        (
            night.night,
            night.pairs,
            night.certified,
            night.share,
            *share_interval(night.certified, night.pairs),
            reference_share(trend.watched, night),
            night.gained,
            night.lost,
            _e_value(trend.evidence[position]),
            trend.alarm is not None and position >= trend.alarm,
            night.run_id,
            night.encoder_digest[:12],
            night.data_digest[:12],
        )
        for position, night in reversed(list(enumerate(trend.nights)))
    )
    return ReportFigure(
        "trend-nights", _SECTION, "All nights", "One row a night, the last one first.", command, columns, rows
    )


def _reference_counts(watched: Watched, night: Night) -> tuple[int, int]:
    if night.reference_certified is None:
        return watched.reference_share
    return night.reference_certified, night.pairs


def _e_value(log: float) -> float:
    return math.exp(min(log, math.log(_MOST_EVIDENCE)))


def _facts(trend: Trend, url: str) -> list[list[Any]]:
    watched = trend.watched
    certified, pairs = watched.reference_share
    return [
        ["directory", without_secrets(url)],
        ["claim", watched.claim],
        ["reference", f"{watched.reference_id} ({certified:,} of {pairs:,} pairs certified)"],
        ["compared", "pair by pair" if watched.paired else "shares of different pairs"],
        ["nights", str(len(trend.nights))],
        ["pairs a night", f"{watched.pairs:,}, drawn anew every night"],
        ["tolerance", f"{watched.tolerance:.1%}"],
        ["probability of ever raising a false alarm", f"at most {at_most(watched.alpha)}"],
    ]
