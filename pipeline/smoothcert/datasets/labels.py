"""Class names from whatever value a file holds for a label, and how many labels name a class of the job."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from smoothcert.datasets.captions import text_from
from smoothcert.errors import LabelError, did_you_mean

_INTEGER = re.compile(r"-?[0-9]+(\.0+)?")
_MOST_NAMES = 100_000


def label_from(value: object, where: str, class_names: Sequence[str] = ()) -> str | None:
    """The class name in a cell.

    Args:
        value: text, UTF-8 bytes, a number or None.
        where: what the value is called in messages, e.g. ``column 'label'``.
        class_names: what integers stand for, from 0 on; -1 is no label, as published sets mark it. Text that is
            an integer, as CSV files and ``.cls`` members have it, is looked up too, unless it is a name itself.

    Returns:
        The name, or None where the cell is empty (null, NaN or blank).

    Raises:
        LabelError: the label is a list or a structure, is not valid UTF-8, or its number has no name.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (str, bytes)):
        text = text_from(value, where, LabelError)
        if not class_names or text in class_names or not _INTEGER.fullmatch(text):
            return text or None
        value = int(text.partition(".")[0])
    if isinstance(value, (list, tuple, dict, set)):
        raise LabelError(
            f"{where} is {value!r:.40}, not one class", remedy="give each pair the name of one class as text"
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if class_names and isinstance(value, int) and not isinstance(value, bool):
        if value == -1:
            return None
        if not 0 <= value < len(class_names):
            raise LabelError(
                f"{where} is {value}, but there are names for {len(class_names)} classes",
                remedy="correct the label or the names (data.class_names, or the file's own)",
            )
        return class_names[value]
    return str(value)


@dataclass(slots=True)
class LabelTally:
    """Counts the labels of pairs.

    Attributes:
        names: pairs by class name.
        missing: pairs without a label.
        refused: pairs whose label cannot be read; they become quarantined rows.
    """

    names: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    refused: int = 0

    def add(self, label: str | None, count: int = 1) -> None:
        """Count pairs of one label. Beyond 100,000 names, further ones are counted under one."""
        if label is None:
            self.missing += count
        elif label in self.names or len(self.names) < _MOST_NAMES:
            self.names[label] += count
        else:
            self.names["(further names)"] += count

    def merge(self, other: LabelTally) -> None:
        """Count what another tally has."""
        for name, count in other.names.items():
            self.add(name, count)
        self.missing += other.missing
        self.refused += other.refused


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How the labels of a source fit the classes of a job.

    Attributes:
        known: pairs whose label is one of the classes.
        unknown: pairs with another label: no prediction can be right or wrong.
        missing: pairs without a label.
        refused: pairs whose label cannot be read.
        examples: the most frequent unknown labels.
        hint: which class an unknown label looks like, e.g. ``" (did you mean 'zero'?)"``.
    """

    known: int
    unknown: int
    missing: int
    refused: int
    examples: tuple[str, ...]
    hint: str

    def __str__(self) -> str:
        said = f"{self.known:,} with a class of the job, {self.unknown:,} unknown, {self.missing:,} missing"
        if self.refused:
            said += f", {self.refused:,} unreadable"
        if self.examples:
            said += f"; unknown: {', '.join(repr(name) for name in self.examples)}{self.hint}"
        return said


def count_known(tally: LabelTally, classes: Collection[str]) -> LabelCount:
    """Compare what was counted with the classes of a job."""
    classes = frozenset(classes)
    unknown = Counter({name: count for name, count in tally.names.items() if name not in classes})
    examples = tuple(name for name, _ in unknown.most_common(5))
    hints = (_same_but_for_case(name, classes) or did_you_mean(name, sorted(classes)) for name in examples)
    return LabelCount(
        known=sum(tally.names.values()) - sum(unknown.values()),
        unknown=sum(unknown.values()),
        missing=tally.missing,
        refused=tally.refused,
        examples=examples,
        hint=next((hint for hint in hints if hint), ""),
    )


def _same_but_for_case(name: str, classes: Collection[str]) -> str:
    near = next((each for each in sorted(classes) if each.casefold() == name.casefold()), None)
    return f" (did you mean '{near}'?)" if near is not None else ""
