"""One pair of a run certified once more, beside its stored row: same image, encoder, texts and noise, same numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from smoothcert.datasets import Pair, UnitSpec, open_source
from smoothcert.errors import QueryError, RunDirectoryError, SourceError
from smoothcert.job import Job
from smoothcert.runtime.code_version import code_version
from smoothcert.runtime.driver import POOL_FILE
from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.store import CERTIFICATES, RunDirectory, rows_to_table
from smoothcert.work.certify.task import CertifyTask
from smoothcert.work.inputs import Inputs, load_checked
from smoothcert.work.published.importing import PUBLISHED
from smoothcert.work.task import Assignment

CLOSE = 1e-5
"""Numbers that differ by no more are the same: sums on another device, or beside other pairs, end in other digits."""
_OTHERWISE = ("run_id", "unit_id", "attempt", "device", "error_message")
"""What may differ between two attempts at one pair."""


@dataclass(frozen=True)
class Reproduction:
    """A stored row, and the row that came of the same pair now.

    Attributes:
        stored: the row of the run.
        made: the row made now, of the same columns.
        differing: columns in which they differ.
        notes: what may be behind a difference, a line each.
    """

    stored: dict[str, Any]
    made: dict[str, Any]
    differing: tuple[str, ...]
    notes: tuple[str, ...]


def reproduce(run: RunDirectory, pair_id: str, job: Job) -> Reproduction:
    """Certify one pair again; nothing is written.

    Args:
        run: the run.
        pair_id: the pair.
        job: the run's job, with the device and threads to use here.

    Raises:
        QueryError: the run has no row of this pair.
        RunDirectoryError: the encoder here is another one than the run's.
        SourceError: the source no longer has the pair.
    """
    stored = _stored_row(run, pair_id)
    if stored["noise"] == PUBLISHED:
        raise RunDirectoryError(
            f"the row of '{pair_id}' was read from a published log: its image, encoder and noise are not known",
            remedy="compare it with a run on the same pairs: 'smoothcert compare'",
        )
    encoder = load_checked(job)
    if encoder.digest != stored["encoder_digest"]:
        raise RunDirectoryError(
            f"the encoder '{job.encoder.model}' here has digest {encoder.digest[:16]}, the row of '{pair_id}' was made "
            f"with {stored['encoder_digest'][:16]}",
            remedy="provide the weights, purifier and mapper that the run was made with",
        )
    unit, pair = _find(run, job, pair_id, stored)
    pool = run.read_document(POOL_FILE)
    inputs = Inputs(job, encoder, tuple(json.loads(pool or "[]")))
    worker = CertifyTask().open(inputs, run)
    try:
        outcomes = list(worker.run(iter([Assignment("again", unit, [pair])])))
        (row,) = worker.rows(stored["unit_id"], outcomes)
    finally:
        worker.close()
    own = {"run_id": stored["run_id"], "attempt": stored["attempt"]}
    (made,) = rows_to_table([asdict(row)], CERTIFICATES, **own).to_pylist()
    differing = tuple(
        column.name
        for column in CERTIFICATES.columns
        if column.name not in _OTHERWISE and not _same(stored.get(column.name), made[column.name])
    )
    return Reproduction(stored, made, differing, tuple(_notes(run, stored, made)))


def _stored_row(run: RunDirectory, pair_id: str) -> dict[str, Any]:
    with Query([run]) as query:
        rows = query.rows(f"SELECT * FROM certificates WHERE pair_id = {quote(pair_id)}")
    if not rows:
        raise QueryError(
            f"run '{run.run_id}' has no row of the pair '{pair_id}'",
            remedy=f'list pairs with: smoothcert query {run.url} "SELECT pair_id FROM certificates"',
        )
    return dict(rows[0])


def _find(run: RunDirectory, job: Job, pair_id: str, stored: dict[str, Any]) -> tuple[UnitSpec, Pair]:
    """The pair as its source has it now, and the unit that holds it."""
    source = open_source(job.data)
    of_file = [unit for unit in run.plan() if unit.source_uri == stored["source_uri"]]
    for unit in sorted(of_file, key=lambda unit: unit.unit_id != stored["unit_id"]):
        for pair in source.read(unit, only={pair_id}):
            if pair.pair_id == pair_id:
                return unit, pair
    raise SourceError(
        f"'{stored['source_uri']}' no longer has the pair '{pair_id}'",
        remedy="restore the data that the run was made from",
    )


def _same(stored: Any, made: Any) -> bool:
    if isinstance(stored, list) and isinstance(made, list):
        return len(stored) == len(made) and all(map(_same, stored, made))
    if isinstance(stored, float) and isinstance(made, float):
        return math.isclose(stored, made, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(stored == made)


def _notes(run: RunDirectory, stored: dict[str, Any], made: dict[str, Any]) -> Iterator[str]:
    if stored["noise"] != made["noise"]:
        yield f"the noise came from '{stored['noise']}' and here comes from '{made['noise']}': draws differ"
    if stored["device"] != made["device"]:
        yield f"the run used {stored['device']}, this is {made['device']}"
    if run.info.code_version != code_version():
        yield f"the run was made by code {run.info.code_version}, this is {code_version()}"
