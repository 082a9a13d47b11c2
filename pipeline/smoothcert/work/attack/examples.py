"""The strongest examples of each attack, as lossless arrays with thumbnails, under ``<run>/examples/``.

    examples/<attack>-<attack_id>/<subject>-<budget>/<unit>-<attempt>-<pair>.npz   clean uint8, attacked float32
    examples/<attack>-<attack_id>/<subject>-<budget>/<unit>-<attempt>-<pair>.png   clean, attacked, difference
    examples/<attack>-<attack_id>/<subject>-<budget>/index.json                    the k strongest, strongest first

Nobody knows the k strongest pairs of a run before its end, and storing every image would cost far more than the rows.
So each worker stores a pair when it is among the k strongest that this worker has seen: about k ln(pairs) files,
which contain the k strongest of the whole run whatever the order. The driver keeps those and removes the others.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smoothcert.job.attacks import AttackSection
from smoothcert.storage import Storage
from smoothcert.store import RunDirectory

EXAMPLES = "examples"
_INDEX = "index.json"
_SMALLEST_SIDE = 128
"""Thumbnails of small images are enlarged to about this."""


@dataclass(frozen=True)
class _Candidate:
    margin: float
    pair_id: str
    clean: NDArray[np.uint8]
    attacked: NDArray[np.float32]


class ExampleShelf:
    """The strongest examples that one worker has seen, per attack, subject and budget.

    Args:
        storage: the run directory.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._best: dict[str, list[tuple[float, str]]] = {}
        self._waiting: dict[str, list[_Candidate]] = {}

    def offer(
        self,
        section: AttackSection,
        subject: str,
        budget: float,
        pair_id: str,
        margin: float,
        clean: NDArray[np.uint8],
        attacked: NDArray[np.float32],
    ) -> None:
        """Keep a pair if it is among the ``section.keep`` strongest so far; lower margins are stronger."""
        if not section.keep or not np.isfinite(margin):
            return
        folder = example_folder(section, subject, budget)
        best = self._best.setdefault(folder, [])
        entry = (margin, pair_id)
        if entry not in best:
            best.append(entry)
            best.sort()
            del best[section.keep :]
        if entry in best:
            self._waiting.setdefault(folder, []).append(_Candidate(margin, pair_id, clean, attacked))

    def write(self, unit_id: str, attempt: str) -> None:
        """Store what is still among the strongest; the names carry the attempt, so that nothing is overwritten.

        Raises:
            StoreError: writing failed.
        """
        waiting, self._waiting = self._waiting, {}
        for folder, candidates in waiting.items():
            for candidate in candidates:
                if (candidate.margin, candidate.pair_id) not in self._best[folder]:
                    continue
                stem = f"{folder}/{_file_stem(unit_id, attempt, candidate.pair_id)}"
                buffer = io.BytesIO()
                np.savez_compressed(buffer, clean=candidate.clean, attacked=candidate.attacked)
                self._storage.replace(f"{stem}.npz", buffer.getvalue())
                self._storage.replace(f"{stem}.png", thumbnail(candidate.clean, candidate.attacked))

    def forget(self) -> None:
        """Drop what belongs to a unit that failed; it will be offered again."""
        self._waiting = {}


def publish_examples(run: RunDirectory, section: AttackSection) -> tuple[int, int]:
    """Keep the strongest stored examples of an attack, remove the others, and write the indexes.

    Returns:
        How many examples there are, and how many there would be had ``keep`` been what it is all along: pairs that
        were attacked while it was smaller were not stored.

    Raises:
        StoreError: reading or writing failed.
    """
    if not section.keep:
        return 0, 0
    from smoothcert.sql import Query  # late: workers, who never come here, do without DuckDB

    stored = wanted = 0
    with Query([run]) as query:
        for subject in section.subjects:
            for budget in section.budgets:
                rows = query.rows(
                    "SELECT pair_id, unit_id, attempt, margin, success, perturbation_l2, perturbation_linf, "
                    "cosine_to_clean, cosine_to_smoothed, certified_cosine FROM attacks WHERE status = 'ok' "
                    f"AND attack_id = '{section.attack_id}' AND subject = '{subject}' AND budget = {budget!r}::DOUBLE "
                    f"ORDER BY margin, pair_id LIMIT {section.keep}"
                )
                wanted += len(rows)
                stored += _publish(run.storage, example_folder(section, subject, budget), rows)
    return stored, wanted


def _publish(storage: Storage, folder: str, rows: list[dict[str, object]]) -> int:
    present = set(storage.names(folder))
    index = []
    for row in rows:
        stem = _file_stem(str(row.pop("unit_id")), str(row.pop("attempt")), str(row["pair_id"]))
        if f"{stem}.npz" in present:
            index.append(row | {"arrays": f"{stem}.npz", "thumbnail": f"{stem}.png"})
    storage.replace(f"{folder}/{_INDEX}", (json.dumps(index, indent=2) + "\n").encode())
    kept = {_INDEX, *(str(entry[key]) for entry in index for key in ("arrays", "thumbnail"))}
    for name in present - kept:
        storage.remove(f"{folder}/{name}")
    return len(index)


def example_folder(section: AttackSection, subject: str, budget: float) -> str:
    """Where the examples of one attack, subject and budget are, below the run directory."""
    return f"{EXAMPLES}/{section.attack}-{section.attack_id}/{subject}-{budget!r}"


def thumbnail(clean: NDArray[np.uint8], attacked: NDArray[np.float32]) -> bytes:
    """PNG of the clean image, the attacked one, and their difference stretched to full contrast around grey.

    Args:
        clean: uint8 (3, H, W).
        attacked: float32 (3, H, W) in [0,1].
    """
    before = clean.astype(np.float64) / 255
    delta = attacked.astype(np.float64) - before
    largest = max(float(np.abs(delta).max()), 1e-12)
    panels = np.concatenate([before, attacked.astype(np.float64), 0.5 + delta / (2 * largest)], axis=2)
    pixels = np.rint(np.clip(panels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(pixels)
    factor = max(1, _SMALLEST_SIDE // clean.shape[1])
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _file_stem(unit_id: str, attempt: str, pair_id: str) -> str:
    pair = hashlib.sha256(pair_id.encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{unit_id}-{attempt}-{pair}")
