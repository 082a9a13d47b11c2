"""Whether images that data names by path are, at another place, those that a run's rows were made from.

Times and entity tags say nothing about a copy, and sizes too little. So each image that some row is about is read once,
and its digest compared with the row's (``image_digest`` of certificates).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from smoothcert.datasets import Source, UnitSpec
from smoothcert.errors import RunDirectoryError
from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.store import CERTIFICATES, RunDirectory

log = logging.getLogger(__name__)

AT_ONCE = 10_000
"""Pairs asked for in one query."""


def other_images(run: RunDirectory, source: Source, units: Iterable[UnitSpec]) -> dict[str, str]:
    """Path by pair_id of the images that are not those of the run's rows, byte for byte.

    An image that could not be read then and cannot be read now is the same. Rows of pairs that made workers fail say
    nothing about their image; pairs without a row have nothing to compare.

    Args:
        run: the run.
        source: where its data is now.
        units: of all pairs, at that place.

    Raises:
        RunDirectoryError: a certified row keeps no digest.
        SourceError: a source file cannot be read.
        StoreError: rows cannot be read.
    """
    found: dict[str, str] = {}
    compared = 0
    for batch in _batches(units):
        paths = {name: path for unit in batch for name, path in source.named_images(unit)}
        before = _digests(run, tuple(paths))
        if not before:
            continue
        if not compared:
            log.info("data.moved_from: comparing the contents of all images that rows are about")
        compared += len(before)
        for unit in batch:
            for pair in source.read(unit, before.keys()):
                if pair.without_image().image_digest != before[pair.pair_id]:
                    found[pair.pair_id] = paths[pair.pair_id]
    return found


def _digests(run: RunDirectory, pairs: Sequence[str]) -> dict[str, str | None]:
    """Digest of the image of each of these pairs that has a row which says something about it."""
    if not pairs:
        return {}
    wanted = ", ".join(map(quote, pairs))
    with Query([run]) as query:
        rows = query.rows(
            f"SELECT pair_id, status, image_digest FROM {CERTIFICATES.name} WHERE pair_id IN ({wanted}) "
            "AND coalesce(error_stage, '') <> 'worker'"
        )
    for row in rows:
        if row["status"] == "ok" and row["image_digest"] is None:
            raise RunDirectoryError(
                f"'{run.url}' keeps no digest of the image of {row['pair_id']}: nobody knows whether it is the same at "
                "another place",
                remedy="put the data where it was and remove data.moved_from, or start a new run",
            )
    return {row["pair_id"]: row["image_digest"] for row in rows}


def _batches(units: Iterable[UnitSpec]) -> Iterator[list[UnitSpec]]:
    batch: list[UnitSpec] = []
    pairs = 0
    for unit in units:
        if batch and pairs + len(unit) > AT_ONCE:
            yield batch
            batch, pairs = [], 0
        batch.append(unit)
        pairs += len(unit)
    if batch:
        yield batch
