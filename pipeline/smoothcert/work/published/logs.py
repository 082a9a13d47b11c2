"""Reading published certification logs: those of Cohen, Salman and their heirs, and the samplings of DSRS.

    idx <tab> label <tab> predict <tab> radius <tab> correct <tab> time    one image a line, abstentions as -1
    x std 0.5 / x N 50000 / x alpha 0.0005, then  o idx p_low p_high        the probability of the true class

What is no such line is counted and told. The last line of a log whose writer was killed may be cut: one without its
end is not taken.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from smoothcert.errors import JobError
from smoothcert.work.published.rounding import Printing

TRUE_CLASS = "true class"
"""What DSRS's samplings call every label: they do not say which class it is."""
_SIGMA = re.compile(r"(?:sigma|noise|sd|std)[_=-]?(\d*\.\d+|\d+)", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_COLUMNS = 6
_WHOLE = 4
"""The largest sigma that a path may name without a point."""


@dataclass(frozen=True, slots=True)
class PublishedPair:
    """One image of a log.

    Attributes:
        idx: its number in the data set.
        label: its class, as text.
        predicted: the class that the vote is for; None where it abstains.
        low, high: between which the radius (a log of radii) or the probability (a sampling) was before it was
            printed.
        seconds: that it took; 0 where the log does not say.
    """

    idx: int
    label: str
    predicted: str | None
    low: float
    high: float
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PublishedLog:
    """A log, and what it says of itself.

    Attributes:
        path: the file.
        digest: hex sha256 of its bytes.
        kind: ``radii`` or ``probabilities``.
        pairs: in order.
        sigma, draws, alpha: by its head; None where it has none.
        sigma_of_path: that its path names; None where it names none.
        left_out: lines that are no pair: number and text.
    """

    path: str
    digest: str
    kind: str
    pairs: tuple[PublishedPair, ...]
    sigma: float | None
    draws: int | None
    alpha: float | None
    sigma_of_path: float | None = None
    left_out: tuple[tuple[int, str], ...] = field(default=())

    @property
    def constant(self) -> bool:
        """Whether every prediction is of one class, though the labels are not: the classifier sees nothing."""
        predicted = {pair.predicted for pair in self.pairs if pair.predicted is not None}
        return len(predicted) == 1 and len({pair.label for pair in self.pairs}) > 1


def read_log(path: str) -> PublishedLog | None:
    """Read a log; None where the file has no line of one, as the output of a program beside its logs.

    Raises:
        JobError: it cannot be read, contradicts itself, or its noise is not Gaussian.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise JobError(f"cannot read the log '{path}': {exc}", remedy="check the path") from exc
    text = data.decode("utf-8-sig", errors="replace")  # what is no text makes lines that are no results
    lines = list(enumerate(text.splitlines(), start=1))
    cut = [lines.pop()] if lines and not text.endswith("\n") else []
    head = {
        words[1]: words[2]
        for _, line in lines
        if (words := line.split()) and words[0] == "x" and len(words) == 3
    }
    sampling = any(line.split()[:1] == ["o"] for _, line in lines)
    if sampling:
        _refuse_other_noise(path, head)
    find = _samplings if sampling else _radii
    pairs, strange = find(path, lines)
    if not pairs:
        return None
    if len({pair.idx for pair in pairs}) < len(pairs):
        raise JobError(f"log '{path}' has an idx twice", remedy="keep one line of each image")
    return PublishedLog(
        path,
        hashlib.sha256(data).hexdigest(),
        "probabilities" if sampling else "radii",
        tuple(pairs),
        _number(head, "std"),
        int(head["N"]) if "N" in head else None,
        _number(head, "alpha"),
        _sigma_of(path),
        tuple([*strange, *cut]),
    )


def _number(head: dict[str, str], name: str) -> float | None:
    return float(head[name]) if name in head else None


def _sigma_of(path: str) -> float | None:
    """The noise that a path names; the part nearest to the file counts.

    A number without a point may stand for hundredths (sigma_025, noise_12): then the path does not say.
    """
    found = _SIGMA.findall(path)
    if not found or ("." not in found[-1] and (found[-1].startswith("0") or float(found[-1]) > _WHOLE)):
        return None
    return float(found[-1]) or None


def _refuse_other_noise(path: str, head: dict[str, str]) -> None:
    kind, power = head.get("disttype", "gaussian"), head.get("k", "None")
    if kind != "gaussian" or power != "None":
        raise JobError(
            f"log '{path}' is of noise '{kind}' with k={power}",
            remedy="import logs of plain Gaussian noise: no radius of the vote rule follows from others",
        )


def _radii(path: str, lines: list[tuple[int, str]]) -> tuple[list[PublishedPair], list[tuple[int, str]]]:
    rows, strange = [], []
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) == _COLUMNS and _is_row(cells):
            rows.append((number, cells))
        elif line.strip() and cells[0] != "idx":
            strange.append((number, line))
    printing = Printing.of(cells[3] for _, cells in rows)
    return list(_radius_pairs(path, rows, printing)), strange


def _is_row(cells: list[str]) -> bool:
    try:
        int(cells[0]), int(cells[1]), int(cells[2]), _seconds(cells[5])
        return 0 <= float(cells[3]) < float("inf") and cells[4].strip() in ("0", "1", "True", "False", "-1")
    except ValueError:
        return False


def _radius_pairs(
    path: str, rows: list[tuple[int, list[str]]], printing: Printing
) -> Iterator[PublishedPair]:
    for number, (idx, label, predict, radius, correct, time) in rows:
        if (int(predict) == int(label)) != (correct.strip() in ("1", "True")):
            raise JobError(
                f"log '{path}', line {number}: correct={correct}, but label={label} and predict={predict}",
                remedy="check that the columns are idx, label, predict, radius, correct, time",
            )
        low, high = printing.between(radius)
        predicted = None if int(predict) < 0 else predict.strip()
        yield PublishedPair(int(idx), label.strip(), predicted, low, high, _seconds(time))


def _seconds(text: str) -> float:
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None:
        if not 0.0 <= float(text) < float("inf"):
            raise ValueError(f"'{text}' is not a duration")
        return float(text)
    days, hours, minutes, seconds = clock.groups()
    return 86400.0 * int(days or 0) + 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)


def _samplings(path: str, lines: list[tuple[int, str]]) -> tuple[list[PublishedPair], list[tuple[int, str]]]:
    pairs, strange = [], []
    for number, line in lines:
        words = line.split()
        try:
            mark, idx, low, high = words
            ends = float(low), float(high)
            if mark != "o" or not 0.0 <= ends[0] <= ends[1] <= 1.0:
                raise ValueError(line)
            predicted = TRUE_CLASS if ends[0] > 0.5 else None
            pairs.append(PublishedPair(int(idx), TRUE_CLASS, predicted, *ends))
        except ValueError:
            if words and words[0] != "x":
                strange.append((number, line))
    return pairs, strange
