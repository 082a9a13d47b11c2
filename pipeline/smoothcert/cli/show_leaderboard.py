"""A leaderboard on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.cli.tables import print_table
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
    print_table(terminal, title, header, rows, left=header[:1], whole=header[:1])
