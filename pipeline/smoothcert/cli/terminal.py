"""The way to the terminal for every command: text is shown as it is, never read as markup and never obeyed.

Whatever a command prints may hold text from outside: a path, a caption, a message of another library. So no text is
markup here, and styles are given beside it.

    terminal = Terminal(stderr=True)
    terminal.say(("error: ", "bold red"), str(error))      # parts: text, or (text, style)
    terminal.print(table)                                  # cells of a rich table are shown as they are, too
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from rich.console import Console, ConsoleRenderable
from rich.logging import RichHandler
from rich.text import Text

from smoothcert.printable import printable

Styled = str | tuple[str, str]
"""Text, or text with a style."""


class Terminal(Console):
    """A console on which any text may be printed.

    Args:
        stderr: write to standard error.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def say(self, *parts: Styled) -> None:
        """Print one line of parts; it is not wrapped, so that it can be copied and searched.

        Args:
            parts: texts, shown as they are, each alone or with its style.
        """
        plain = (
            printable(part) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts
        )
        self.print(Text.assemble(*plain), soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """What rich calls for each string that it prints: also for cells and titles of tables."""
        return super().render_str(printable(text), **(options | {"markup": False, "emoji": False}))


class LogLines(RichHandler):
    """Log records as lines of a terminal."""

    def render_message(self, record: logging.LogRecord, message: str) -> ConsoleRenderable:
        """The message as it is."""
        return Text(printable(message))


def count_of(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``1 file``, ``2 files``; ``many`` where it is not ``one`` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def prepare_streams() -> None:
    """Let characters that the terminal's encoding lacks come out as escapes, where they would raise."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
