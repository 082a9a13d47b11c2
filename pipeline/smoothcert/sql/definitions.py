"""What a statement can name on a connection, each made when a statement first names it.

Whoever opens a query asks for a few of some sixty views, tables and functions. DuckDB takes a millisecond or more for
each, so that making all of them costs more than most questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import duckdb

_WORD = re.compile(r"\w+")
_STRING = re.compile(r"'[^']*'")
_LOOKS_AROUND = re.compile(
    r"\b(show|describe|summarize|pragma\w*|query\w*|duckdb_\w+|information_schema|pg_\w+|sqlite_\w+)\b"
    r"|(^|[(\n]|\*/)\s*desc\b"  # elsewhere it is an order
)
"""What asks for things that it does not name."""


class Definitions:
    """Views, tables and functions by name; what they rest on comes before them, as their own SQL names it.

    Args:
        connection: where they are made.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._waiting: dict[str, Callable[[], None]] = {}
        self._unlisted: set[str] = set()

    def add(self, name: str, make: Callable[[], None], *, listed: bool = True) -> None:
        """Say how something is made.

        Args:
            name: in lower case.
            make: makes it; called again later where it raised.
            listed: whether it is among what ``provide_all`` makes.
        """
        self._waiting[name] = make
        if not listed:
            self._unlisted.add(name)

    def add_sql(self, name: str, sql: str) -> None:
        """Say by which statement something is made."""
        self.add(name, lambda: self.execute(sql))

    def execute(self, sql: str) -> None:
        """Run a statement of ours, after what it names is made."""
        self.provide(_STRING.sub("", sql))  # messages of a function name it, and others
        self.connection.execute(sql)

    def provide(self, text: str) -> None:
        """Make what a text names; a word too many only costs time.

        Raises:
            duckdb.Error: reading rows failed.
        """
        text = text.lower()
        if _LOOKS_AROUND.search(text):
            self.provide_all()
        named = self._waiting.keys() & set(_WORD.findall(text))
        for name in sorted(named):
            self._make(name)

    def provide_all(self) -> None:
        """Make everything that is listed."""
        for name in [name for name in self._waiting if name not in self._unlisted]:
            self._make(name)

    def forget(self) -> None:
        """Make nothing more, and let go of the rows that it would be made of."""
        self._waiting.clear()

    def _make(self, name: str) -> None:
        make = self._waiting.pop(name, None)
        if make is None:  # what was made before needed it
            return
        try:
            make()
        except BaseException:
            self._waiting[name] = make
            raise
