"""A leaderboard as a table for people, as Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.statistics import PairedDifference
from smoothcert.studies.leaderboard import Leaderboard, Line, entries

_MOST_RADII = 3
_FIGURES = {
    "accuracy": "accuracy",
    "certified_accuracy": "certified",
    "certified_share": "certified",
    "target_certified": "target",
    "certified_cosine": "cosine",
    "robust_accuracy": "robust",
    "attack_success": "attack success",
    "draws_per_pair": "draws",
    "seconds_per_pair": "s a pair",
}
"""Figures in the order of the table's columns."""
_TO = {each.name: each.quantity.name for each in CATALOGUE if each.leading and each.quantity.cosine}
_WITHOUT_LABELS = "certified_share"


@dataclass(frozen=True)
class BoardColumn:
    """One column of the table: a title, and the figure in it (a line's key without its subject)."""

    title: str
    key: tuple[object, ...]


def columns(board: Leaderboard, radii: Collection[float]) -> list[BoardColumn]:
    """Every figure for people that has a value: certificates at these radii, every target, every budget of attacks."""
    found = entries(board.lines)
    labelled = any(line.figure == "certified_accuracy" and line.pairs for line in board.lines)
    shown: dict[tuple[object, ...], str] = {}
    for line in board.lines:
        if not line.leading or line.figure not in _FIGURES or line.value is None or line.entry not in found:
            continue
        if line.figure == _WITHOUT_LABELS and (line.cosine is not None or labelled):
            continue
        if line.radius is None or line.radius in radii or line.figure == "target_certified":
            shown.setdefault(line.key[1:], _title(line))
    order = list(_FIGURES)
    return [
        BoardColumn(title, key)
        for key, title in sorted(shown.items(), key=lambda each: order.index(str(each[0][0])))
    ]


def shown_radii(board: Leaderboard) -> list[float]:
    """At most ``_MOST_RADII``, evenly spread up to the largest at which a leading certificate holds for any pair."""
    lines = [line for line in board.lines if line.leading and line.figure != "target_certified"]
    radii = sorted({line.radius for line in lines if line.radius is not None})
    largest = max((line.radius for line in lines if line.radius is not None and line.value), default=None)
    known = [radius for radius in radii if largest is None or radius <= largest]
    if len(known) <= _MOST_RADII:
        return known
    step = (len(known) - 1) / (_MOST_RADII - 1)
    return [known[round(i * step)] for i in range(_MOST_RADII)]


def table(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row for each figure, a column for each run and subject; what a run does not have is a dash."""
    found = entries(board.lines)
    rows = [
        [column.title, *(_cell(lines.get(column.key)) for lines in found.values())]
        for column in columns(board, shown_radii(board))
    ]
    return ["figure", *found], rows


def difference_table(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """Differences to the baseline on the same pairs, with 95% intervals, of the figures in ``table``."""
    found = {
        entry: lines
        for entry, lines in entries(board.lines).items()
        if any(line.difference is not None for line in lines.values())
    }
    rows = [
        [column.title, *(_difference(lines.get(column.key)) for lines in found.values())]
        for column in columns(board, shown_radii(board))
    ]
    return ["figure", *found], [row for row in rows if any(cell != "-" for cell in row[1:])]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def to_csv(board: Leaderboard) -> str:
    """Every figure of every run with its interval and its difference to the baseline, one a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [name for name in Line.__dataclass_fields__ if name != "difference"]
    writer.writerow(
        [*names, "baseline", "difference", "difference_low", "difference_high", "p_value", "paired_pairs"]
    )
    for line in board.lines:
        to = line.difference
        against = ("", "", "", "", "", "") if to is None else (
            board.baseline, to.difference, to.low, to.high, to.p_value, to.pairs
        )  # fmt: skip
        writer.writerow([*(getattr(line, name) for name in names), *against])
    return out.getvalue()


def from_csv(text: str, baseline: str) -> Leaderboard:
    """What ``to_csv`` wrote of a leaderboard with this baseline, less the counts behind differences of shares."""
    return Leaderboard(tuple(_line(row) for row in csv.DictReader(io.StringIO(text))), baseline)


_TEXTS = ("label", "run_id", "subject", "figure", "certificate", "rule", "norm", "objective")


def _line(row: Mapping[str, str]) -> Line:
    fields: dict[str, Any] = {
        name: row[name] if name in _TEXTS else float(row[name])
        for name in Line.__dataclass_fields__
        if name not in ("difference", "pairs") and row[name]
    }
    missing = {name: None for name in Line.__dataclass_fields__ if name not in fields}
    to = None
    if row["baseline"]:
        known = {name: float(row[name]) if row[name] else None for name in ("difference", "p_value")}
        to = PairedDifference(
            int(row["paired_pairs"]),
            known["difference"],
            float(row["difference_low"]),
            float(row["difference_high"]),
            known["p_value"],
        )
    return Line(**(missing | fields | {"pairs": int(row["pairs"]), "difference": to}))


def _title(line: Line) -> str:
    words = [_FIGURES[line.figure]]
    if line.figure == "certified_cosine":
        words = [f"cosine to {_TO.get(line.certificate or '', line.certificate)}"]
    elif line.certificate is not None and line.figure != "target_certified":
        what, _, way = line.certificate.rpartition("_")
        words += [what, "by", way] if what not in ("", "class") else ["by", way]
    elif line.certificate is not None:
        words.append(line.certificate if line.cosine is None else f"{line.certificate} >= {line.cosine:g}")
    if line.radius is not None:
        words.append(f"r {line.radius:g}")
    if line.norm is not None:
        words.append(f"{line.norm} {line.budget:g}")
        if line.objective != "classification":
            words.append(f"({line.objective})")
    return " ".join(words)


def _cell(line: Line | None) -> str:
    if line is None or line.value is None:
        return "-"
    if line.figure == "certified_cosine":
        return f"{line.value:.3f}"
    if line.figure in ("draws_per_pair", "seconds_per_pair"):
        return f"{line.value:,.0f}" if line.figure == "draws_per_pair" else f"{line.value:.2g}"
    return f"{line.value:.1%}"


def _difference(line: Line | None) -> str:
    to = line.difference if line is not None else None
    if line is None or to is None or to.difference is None:
        return "-"
    if line.figure == "certified_cosine":
        return f"{to.difference:+.3f} [{to.low:+.3f}, {to.high:+.3f}]"
    return f"{100 * to.difference:+.1f} [{100 * to.low:+.1f}, {100 * to.high:+.1f}]"
