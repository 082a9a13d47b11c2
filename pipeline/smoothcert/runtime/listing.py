"""The runs of a directory side by side: how far each is, and what makes it another run than its neighbours."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smoothcert.errors import SmoothcertError
from smoothcert.store import RunDirectory, RunInfo
from smoothcert.store.events import read_workers
from smoothcert.store.runs import find_runs

ABSENT = "absent"
_DIGESTS = {"data_digest": "data.", "encoder_digest": "encoder."}
"""What is left unsaid where fields of the job say why it differs."""
_SHOWN = 4
"""Differences in one line."""


@dataclass(frozen=True)
class RunEntry:
    """A run of a directory.

    Attributes:
        name: of its folder.
        url: its directory.
        job: the job's name.
        created: when it began, ISO 8601.
        pairs, committed, quarantined: pairs planned, with a row, with a row that claims nothing.
        seen_s: seconds since a driver or worker was heard of; None where none ever was.
        alive: whether one is at work.
        varies: fields in which it differs from other runs of that job here, with its value.
        trouble: why it cannot be read; then nothing else is known.
    """

    name: str
    url: str
    job: str = ""
    created: str = ""
    pairs: int = 0
    committed: int = 0
    quarantined: int = 0
    seen_s: float | None = None
    alive: bool = False
    varies: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""

    @property
    def state(self) -> str:
        """For people: complete, running, incomplete, or unreadable."""
        if self.trouble:
            return "unreadable"
        if self.committed >= self.pairs:
            return "complete"
        if self.alive:
            return "running"
        if self.seen_s is None:
            return "incomplete"
        return f"incomplete, last seen {_ago(self.seen_s)} ago"

    def as_mapping(self) -> Mapping[str, Any]:
        """For ``--json``."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {"state": self.state, "varies": dict(self.varies)}

    def cells(self) -> tuple[str, str, str, str]:
        """Name, state, pairs and what varies, for a table."""
        if self.trouble:
            return self.name, self.state, "", self.trouble
        pairs = f"{self.committed:,}" + (f" of {self.pairs:,}" if self.committed < self.pairs else "")
        if self.quarantined:
            pairs += f", {self.quarantined:,} quarantined"
        parts = [f"{key}={value}" for key, value in self.varies.items()]
        more = [f"and {len(parts) - _SHOWN} more"] if len(parts) > _SHOWN else []
        return self.name, self.state, pairs, "  ".join(parts[:_SHOWN] + more)


def list_runs(url: str | os.PathLike[str]) -> list[RunEntry]:
    """The runs at a place, the oldest first; one that cannot be read says why.

    Raises:
        RunDirectoryError: there is no run.
        StoreError: listing failed.
    """
    entries, infos = [], {}
    for run_url in find_runs(url):
        entry, info = _read(run_url)
        entries.append(entry)
        if info is not None:
            infos[run_url] = info
    varying = what_varies(list(infos.values()))
    differences = dict(zip(infos, varying, strict=True))
    entries = [replace(entry, varies=differences.get(entry.url, {})) for entry in entries]
    return sorted(entries, key=lambda entry: (entry.created, entry.name))


def _read(url: str) -> tuple[RunEntry, RunInfo | None]:
    name = url.rstrip("/").rpartition("/")[2]
    try:
        run = RunDirectory.open(url)
        committed = run.commits.load()
        now = time.time()
        said = read_workers(run.storage, now=now)
    except SmoothcertError as exc:
        return RunEntry(name, url, trouble=exc.message), None
    entry = RunEntry(
        name=name,
        url=url,
        job=run.info.job.name,
        created=run.info.created,
        pairs=run.info.pairs,
        committed=committed.pairs,
        quarantined=committed.certification.quarantined,
        seen_s=max(0.0, now - max(each.said_at for each in said)) if said else None,
        alive=any(each.alive for each in said),
    )
    return entry, run.info


def what_varies(infos: Sequence[RunInfo]) -> list[dict[str, str]]:
    """For each run the fields in which runs of its job differ, with its value; the plain ones come first."""
    of_job: dict[str, list[int]] = defaultdict(list)
    for position, info in enumerate(infos):
        of_job[info.job.name].append(position)
    found: list[dict[str, str]] = [{} for _ in infos]
    for positions in of_job.values():
        flat = [dict(_fields(infos[position])) for position in positions]
        keys = dict.fromkeys(key for each in flat for key in each)
        differing = [key for key in keys if len({each.get(key, ABSENT) for each in flat}) > 1]
        said = [
            key
            for key in differing
            if not any(other.startswith(_DIGESTS.get(key, "\0")) for other in differing)
        ]
        # lists often follow from a number: radii from sigma
        said.sort(key=lambda key: any(each.get(key, "").startswith("[") for each in flat))
        for position, each in zip(positions, flat, strict=True):
            found[position] = {key: each.get(key, ABSENT) for key in said}
    return found


def _fields(info: RunInfo) -> Iterator[tuple[str, str]]:
    """What determines a run, by dotted name."""
    yield from _leaves(info.job.science(), "")
    yield "data_digest", info.data_digest[:8]
    yield "encoder_digest", info.encoder_digest[:8]
    yield "code_version", info.code_version


def _leaves(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
