"""Tables that fit the terminal, and pipes of 80 columns, without cutting a word: what does not fit stands below."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from rich.box import SIMPLE
from rich.table import Table

from smoothcert.cli.terminal import Terminal

_GAP = 1
"""Between two columns."""


def print_table(
    terminal: Terminal,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    names: int = 1,
    left: Collection[str] = (),
    whole: Collection[str] = (),
) -> None:
    """Print a table as several below each other where the terminal is too narrow for all columns.

    Args:
        terminal: where to.
        title: stands above the first; empty for none.
        header: names of the columns; they are wrapped between words.
        rows: cells, as many as columns.
        names: how many columns say what a row is; they begin every table.
        left: columns whose cells stand at the left.
        whole: columns whose cells are not wrapped.
    """
    natural = [max(len(name), *(len(row[at]) for row in rows), 1) for at, name in enumerate(header)]
    least = [
        natural[at] if name in whole else max(map(_longest_word, (name, *(row[at] for row in rows))))
        for at, name in enumerate(header)
    ]
    for number, columns in enumerate(split_columns(least, terminal.width, names)):
        table = Table(title=title or None if number == 0 else None, box=SIMPLE, padding=0, pad_edge=False)
        room = terminal.width - _GAP * (len(columns) + 1)
        widths = fit_widths([natural[at] for at in columns], [least[at] for at in columns], room)
        for at, width in zip(columns, widths, strict=True):
            side: Literal["left", "right"] = "left" if header[at] in left else "right"
            table.add_column(header[at], justify=side, overflow="fold", width=width)
        for row in rows:
            table.add_row(*(row[at] for at in columns))
        terminal.print(table)


def fit_widths(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of at most ``room`` in all, the widest cut first, and none below its least."""
    widths = list(natural)
    while sum(widths) > room:
        yielding = [at for at, width in enumerate(widths) if width > least[at]]
        if not yielding:
            break
        widths[max(yielding, key=lambda at: widths[at])] -= 1
    return widths


def split_columns(widths: Sequence[int], width: int, names: int) -> list[list[int]]:
    """Positions of the columns of each table: the first ``names`` in every one, of the others as many as fit, in order.

    Args:
        widths: the least width of each column.
        width: of the terminal.
        names: at the least one column stands beside them, even where it does not fit.
    """
    first = list(range(min(names, len(widths))))
    tables = [first]
    for at in range(len(first), len(widths)):
        wanted = [*tables[-1], at]
        # a space at either edge of the table, and one between columns
        if len(tables[-1]) > len(first) and sum(widths[i] for i in wanted) + _GAP * (len(wanted) + 1) > width:
            tables.append([*first, at])
        else:
            tables[-1] = wanted
    return tables


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=1)
