"""``<runs>/<name>.monitor/``: what is watched, and one row for every night.

    monitor.json              what is compared with what, at which levels; made once and never changed
    nights/<night>.parquet    the night's row, made exclusively: the first to finish a night counts, and stays
    trend.html                the page of all nights so far, made again whenever they are shown

A night that was killed has no file: the same command goes on with its run, draws the same pairs, and makes the row. A
night that has its file is not done again.
"""

from __future__ import annotations

import csv
import io
import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.errors import JobError, RunDirectoryError
from smoothcert.statistics import first_alarm, log_evidence, share_interval
from smoothcert.storage import Storage, join

_SETTINGS, _NIGHTS, _PAGE, _FORMAT = "monitor.json", "nights", "trend.html", 1

NIGHT = pa.schema(
    [
        pa.field("night", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("run_url", pa.string(), nullable=False),
        pa.field("encoder_digest", pa.string(), nullable=False),
        pa.field("data_digest", pa.string(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("certified", pa.int64(), nullable=False),
        pa.field("reference_certified", pa.int64()),
        pa.field("gained", pa.int64()),
        pa.field("lost", pa.int64()),
    ],
    {"table": "nights", "version": str(_FORMAT)},
)
"""One row a night; the last three columns are NULL where the pairs are not those of the reference."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched.

    Attributes:
        reference: URL of the run that nights are compared with.
        reference_id: its id.
        claim: what is claimed of each pair, by its name in ``certified_share``.
        paired: whether the pairs are those of the reference, and compared one by one.
        reference_share: share of the reference's pairs that were certified.
        tolerance: a drop of the share up to this is none.
        alpha: probability of ever raising an alarm, if there is no larger drop on any night.
        pairs: certified a night.
        seed: the pairs of each night follow from it.
    """

    reference: str
    reference_id: str
    claim: str
    paired: bool
    reference_share: tuple[int, int]
    tolerance: float
    alpha: float
    pairs: int
    seed: int

    @property
    def test_alpha(self) -> float:
        """What the test over nights may use: half, where the other half is spent on the reference's own share."""
        return self.alpha if self.paired else self.alpha / 2.0

    @property
    def most(self) -> float:
        """The largest mean score of a night without a drop.

        Scores are (reference - night + 1) / 2 of a pair, or 1 where a new pair is not certified. New pairs are held
        against the lower end of what the reference's share may be, at alpha / 2.
        """
        if self.paired:
            return (1.0 + self.tolerance) / 2.0
        low, _ = share_interval(*self.reference_share, 1.0 - self.alpha)  # two-sided: each end at alpha / 2
        return 1.0 - max(0.0, low - self.tolerance)


@dataclass(frozen=True, slots=True)
class Night:
    """One night; attributes as in ``NIGHT``."""

    night: str
    run_id: str
    run_url: str
    encoder_digest: str
    data_digest: str
    pairs: int
    certified: int
    reference_certified: int | None = None
    gained: int | None = None
    lost: int | None = None

    @property
    def share(self) -> float:
        """Of its pairs that are certified."""
        return self.certified / self.pairs

    def scores(self) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """Distinct scores and how many pairs have each (``Watched.most``)."""
        if self.gained is None or self.lost is None:
            return (0.0, 1.0), (self.certified, self.pairs - self.certified)
        return (0.0, 0.5, 1.0), (self.gained, self.pairs - self.gained - self.lost, self.lost)


@dataclass(frozen=True, slots=True)
class Trend:
    """All nights, and what they say.

    Attributes:
        watched: what is watched.
        nights: in order.
        evidence: log e-value against "no drop" after each.
        alarm: position of the night that raised the alarm, which stands from then on; None for none.
    """

    watched: Watched
    nights: tuple[Night, ...]
    evidence: tuple[float, ...]
    alarm: int | None

    def to_csv(self) -> str:
        """The history as CSV: the columns of ``nights``, then shares, evidence and alarm."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            [*NIGHT.names, "share", "reference_share", "log_evidence", "log_evidence_needed", "alarm"]
        )
        for position, night in enumerate(self.nights):
            writer.writerow(
                [
                    *("" if value is None else value for value in asdict(night).values()),
                    night.share,
                    reference_share(self.watched, night),
                    self.evidence[position],
                    needed_evidence(self.watched),
                    self.alarm is not None and position >= self.alarm,
                ]
            )
        return out.getvalue()


def needed_evidence(watched: Watched) -> float:
    """The log e-value that raises the alarm."""
    return math.log(1.0 / watched.test_alpha)


def reference_share(watched: Watched, night: Night) -> float:
    """What the night's share is compared with: the reference's on the same pairs, or on all of its own."""
    certified, pairs = watched.reference_share
    return certified / pairs if night.reference_certified is None else night.reference_certified / night.pairs


class MonitorDirectory:
    """A monitor's directory.

    Args:
        url: its place, a path or URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._storage = Storage(url)

    def settle(self, wanted: Watched) -> Watched:
        """Begin to watch, or find that the same is watched here already; its seed is that of the first night.

        Raises:
            JobError: something else is watched here.
            RunDirectoryError: the directory is damaged.
            StoreError: reading or writing failed.
        """
        self._storage.make_directory()
        text = json.dumps({"format": _FORMAT, **asdict(wanted)}, indent=2) + "\n"
        self._storage.create(_SETTINGS, text.encode())
        there = self.watched()
        for each in fields(Watched):
            old, new = getattr(there, each.name), getattr(wanted, each.name)
            if each.name not in ("seed", "reference") and old != new:
                raise JobError(
                    f"monitor '{self.url}' watches {each.name}={old}, not {new}",
                    remedy="begin another one (--directory): levels that change with what was seen hold no promise",
                )
        return there

    def watched(self) -> Watched:
        """What is watched here.

        Raises:
            RunDirectoryError: nothing, or the file is damaged.
        """
        text = self._storage.read_if_present(_SETTINGS)
        if text is None:
            raise RunDirectoryError(
                f"'{self.url}' is not a monitor", remedy="check the path, or begin one with a job"
            )
        try:
            data = json.loads(text)
            if data.pop("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT}")
            data["reference_share"] = tuple(data["reference_share"])
            return Watched(**data)
        except (ValueError, KeyError, TypeError) as exc:
            raise RunDirectoryError(
                f"'{join(self.url, _SETTINGS)}' is damaged: {exc}", remedy="begin another monitor"
            ) from exc

    def night(self, name: str) -> Night | None:
        """A night that is done; None for others."""
        data = self._storage.read_if_present(f"{_NIGHTS}/{name}.parquet")
        return None if data is None else _read(data, f"{self.url}/{_NIGHTS}/{name}.parquet")

    def add(self, night: Night) -> Night:
        """Record a night, unless it is recorded already; what counts is what is there then."""
        rows = pa.Table.from_pylist([asdict(night)], NIGHT)
        out = io.BytesIO()
        pq.write_table(rows.replace_schema_metadata({**NIGHT.metadata, "attempt": secrets.token_hex(8)}), out)
        self._storage.create(f"{_NIGHTS}/{night.night}.parquet", out.getvalue())
        found = self.night(night.night)
        assert found is not None
        return found

    def keep_page(self, html: str) -> str:
        """Put the trend page in place of the last one, and return its URL.

        Raises:
            StoreError: writing failed.
        """
        self._storage.replace(_PAGE, html.encode())
        return join(self.url, _PAGE)

    def names(self) -> list[str]:
        """Nights that are done, in order."""
        names = self._storage.names(_NIGHTS)
        return sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))

    def trend(self) -> Trend:
        """All nights that are done, and what they say together."""
        watched = self.watched()
        nights = tuple(night for name in self.names() if (night := self.night(name)) is not None)
        return make_trend(watched, nights)


def make_trend(watched: Watched, nights: Sequence[Night]) -> Trend:
    """What nights say together."""
    evidence = log_evidence([night.scores() for night in nights], watched.most) if watched.most < 1.0 else []
    evidence = evidence or [0.0] * len(nights)  # a share that cannot drop by more than the tolerance
    return Trend(watched, tuple(nights), tuple(evidence), first_alarm(evidence, watched.test_alpha))


def _read(data: bytes, name: str) -> Night:
    try:
        (row,) = pq.read_table(io.BytesIO(data)).to_pylist()
        return Night(**row)
    except (ValueError, TypeError, pa.ArrowException) as exc:
        raise RunDirectoryError(
            f"'{name}' is damaged: {exc}", remedy="delete it to do that night again"
        ) from exc
