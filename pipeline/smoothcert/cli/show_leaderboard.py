"""A leaderboard on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.studies.leaderboard import Leaderboard


def print_leaderboard(terminal: Terminal, board: Leaderboard) -> None:
    """Print the figures, then the differences to the baseline."""
    from smoothcert.studies.tables import difference_table, table

    _print(terminal, "Leaderboard", *table(board))
    header, rows = difference_table(board)
    if rows:
        _print(
            terminal,
            f"Differences to '{board.baseline}' on the same pairs, with 95% intervals; shares in points",
            header,
            rows,
        )


def _print(terminal: Terminal, title: str, header: list[str], rows: list[list[str]]) -> None:
    """As many tables below each other as the terminal's width asks for; each has the figures' names."""
    from rich.table import Table

    names = max(len(row[0]) for row in rows) if rows else 0
    width = max((len(cell) for row in rows for cell in row[1:]), default=0)
    together = max(1, (terminal.width - names - 4) // (max(width, _NARROWEST) + 3))
    for start in range(1, len(header), together):
        shown = Table(title=title if start == 1 else None)
        shown.add_column(header[0], no_wrap=True)
        for name in header[start : start + together]:
            shown.add_column(name, justify="right")
        for row in rows:
            shown.add_row(row[0], *row[start : start + together])
        terminal.print(shown)


_NARROWEST = 9
"""Of a column; names of runs wrap inside."""
