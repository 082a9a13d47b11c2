"""What a run's data was when the run was begun, so that what differs now can be named.

    plan/files.parquet    name, pairs and digest of each source file
    plan/images.parquet   size and mark of each image that the data names by path, in the order of the files' pairs

A certificate is about the image that was read. So an image that a certified pair names must stay as it was: where it
was changed, the run is refused, and the image named; certifying it again would put rows about two data sets into one
run. An image whose pair is quarantined was never certified: a retry takes it as it is now. Images of pairs without any
row may change as they like.
"""

from __future__ import annotations

import json
import logging
import shlex
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.datasets import Source, SourceFile, UnitSpec
from smoothcert.datasets.image_versions import ImageVersions
from smoothcert.errors import RunDirectoryError
from smoothcert.job import Job
from smoothcert.runtime.moved_images import AT_ONCE, other_images
from smoothcert.runtime.plan import Plan
from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.store import TABLES, RunDirectory, RunIdentity
from smoothcert.store.runs import find_runs

log = logging.getLogger(__name__)

FILES = "plan/files.parquet"
IMAGES = "plan/images.parquet"

_URIS = b"smoothcert.uris"
_NAMED = 5
"""Files or images that a message names at most."""


def keep_data(run: RunDirectory, files: Sequence[SourceFile]) -> None:
    """Write down which files a new run has."""
    columns = {
        "name": pa.array([file.name for file in files], pa.string()),
        "pairs": pa.array([file.pairs for file in files], pa.int64()),
        "digest": pa.array([file.digest for file in files], pa.string()),
    }
    run.write_document(FILES, _to_parquet(pa.table(columns)))


def differing_files(run: RunDirectory, files: Sequence[SourceFile]) -> list[str]:
    """What differs from the files that a run was begun with, one line each; empty where that is not known."""
    text = run.read_document(FILES)
    if text is None:
        return []
    rows = pq.read_table(pa.BufferReader(text)).to_pylist()
    before = {row["name"]: (row["pairs"], row["digest"]) for row in rows}
    now = {file.name: (file.pairs, file.digest) for file in files}
    lines = [f"'{name}' is gone" for name in before if name not in now]
    lines += [f"'{name}' is new" for name in now if name not in before]
    for name in now.keys() & before.keys():
        if now[name][0] != before[name][0]:
            lines.append(f"'{name}': {before[name][0]:,} pairs before, {now[name][0]:,} now")
        elif now[name] != before[name]:
            lines.append(f"'{name}' has other content")
    shown = [f"the data: {line}" for line in sorted(lines)[:_NAMED]]
    return shown + ([f"the data: {len(lines) - _NAMED:,} more files differ"] if len(lines) > _NAMED else [])


def refuse_unmoved(url: str, identity: RunIdentity, files: Sequence[SourceFile]) -> None:
    """Say why there is no run at ``url`` to go on with, although the job says that its data was moved.

    Raises:
        RunDirectoryError: always.
    """
    job = identity.job
    try:
        runs = [RunDirectory.open(each) for each in find_runs(job.output.runs)]
    except RunDirectoryError:
        runs = []
    same = [run for run in runs if run.info.job.science() == job.science()]
    if not same:
        raise RunDirectoryError(
            f"data.moved_from is set, but '{job.output.runs}' holds no run of this job with data.uri="
            f"{json.dumps(job.data.moved_from)}",
            remedy="name the run's directory in output.run, or remove data.moved_from to start a new run",
        )
    run = max(same, key=lambda each: each.info.created)
    other_files = differing_files(run, files)
    lines = [*run.info.differences(identity), *other_files]
    mend = "copy the data again with the names it had" if other_files else "undo these changes"
    raise RunDirectoryError(
        f"data.moved_from is set, but '{run.url}' cannot go on at '{url}'; the differences are:\n  "
        + "\n  ".join(lines),
        remedy=f"{mend}, or remove data.moved_from to start a new run",
    )


def check_images(run: RunDirectory, source: Source, plan: Plan, job: Job, *, mending: bool) -> None:
    """Refuse a run whose certified images are no longer those; keep the versions as they are now.

    Where the data was moved since, contents are compared, once.

    Args:
        run: the run.
        source: of the job.
        plan: its files and units.
        job: whose ``data`` says where they are.
        mending: take images of quarantined pairs as they are now.

    Raises:
        RunDirectoryError: images of certified pairs were changed, or those of quarantined ones without ``mending``.
        StoreError: reading or writing failed.
    """
    files = plan.files
    if all(file.images is None for file in files):
        return
    text = run.read_document(IMAGES)
    if text is not None:
        before, uris = _from_parquet(text)
        moved = uris != list(job.data.uris)
        changed = dict(_find_names(source, files, list(_changed(before, files, moved=moved))))
        if moved:
            changed |= other_images(run, source, plan.units)
        if changed:
            _judge(run, changed, "their contents" if moved else source.covers, mending)
        if not changed and not moved:
            return
    elif run.commits.unit_ids():
        raise RunDirectoryError(
            f"'{run.url}' lacks {IMAGES}: nobody knows which images were certified",
            remedy="restore the file, or start a new run",
        )
    run.write_document(IMAGES, _images_to_parquet(files, job.data.uris))


def _judge(run: RunDirectory, changed: dict[str, str], covers: str, mending: bool) -> None:
    certified, quarantined = _with_rows(run, changed)
    if certified:
        raise RunDirectoryError(
            f"{_images(certified, changed)} changed since '{run.url}' certified {_them(certified)} ({covers})",
            remedy="restore what was changed, or start a new run (output.run): a certificate is about the image that "
            "was read",
        )
    if quarantined and not mending:
        raise RunDirectoryError(
            f"{_images(quarantined, changed)} changed since '{run.url}' quarantined {_them(quarantined)} ({covers})",
            remedy=f"if they were mended: smoothcert retry {shlex.quote(run.url)} --where true; else restore them",
        )
    if more := len(changed) - len(quarantined):
        log.warning(
            "%d images were changed before their pairs were at work: they are taken as they are", more
        )


def _images(pairs: Sequence[str], paths: dict[str, str]) -> str:
    named = ", ".join(f"{paths[pair]} ({pair})" for pair in pairs[:_NAMED])
    more = f" and {len(pairs) - _NAMED:,} more" if len(pairs) > _NAMED else ""
    return f"the image {named} was" if len(pairs) == 1 else f"{len(pairs):,} images were, {named}{more},"


def _them(pairs: Sequence[str]) -> str:
    return "it" if len(pairs) == 1 else "them"


def _with_rows(run: RunDirectory, pairs: dict[str, str]) -> tuple[list[str], list[str]]:
    """Those of the pairs of which some table says something, and those that are quarantined in all that have them."""
    ids = sorted(pairs)
    good: set[str] = set()
    bad: set[str] = set()
    with Query([run]) as query:
        for start in range(0, len(ids), AT_ONCE):
            wanted = ", ".join(map(quote, ids[start : start + AT_ONCE]))
            for table in TABLES:
                found = query.sql(
                    f"SELECT pair_id, bool_or(status = 'ok') AS ok FROM {table} WHERE pair_id IN ({wanted}) GROUP BY 1"
                )
                for row in found.to_pylist():
                    (good if row["ok"] else bad).add(row["pair_id"])
    return sorted(good), sorted(bad - good)


def _changed(
    before: dict[str, ImageVersions], files: Sequence[SourceFile], *, moved: bool
) -> Iterator[tuple[int, int]]:
    """(file, position in it) of every image that is not what it was."""
    for number, file in enumerate(files):
        if file.images is not None:
            yield from (
                (number, at)
                for at in before.get(file.name, ImageVersions()).changed(file.images, moved=moved)
            )


def _find_names(
    source: Source, files: Sequence[SourceFile], places: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, str]]:
    """(pair_id, path) of the images at these places."""
    of_file: dict[int, set[int]] = {}
    for number, position in places:
        of_file.setdefault(number, set()).add(position)
    for number, positions in of_file.items():
        file = files[number]
        unit = UnitSpec("", file.uri, 0, file.pairs, source_name=file.name)
        for position, named in enumerate(source.named_images(unit)):
            if position in positions:
                yield named


def _images_to_parquet(files: Sequence[SourceFile], uris: Sequence[str]) -> bytes:
    held = [(number, file.images) for number, file in enumerate(files) if file.images is not None]
    of_file = np.repeat([number for number, _ in held], [len(images) for _, images in held])
    known = pa.array([file.name for file in files], pa.string())
    columns = {
        "file": pa.DictionaryArray.from_arrays(pa.array(of_file, pa.int32()), known),
        "size": pa.array(np.concatenate([images.sizes for _, images in held]), pa.int64()),
        "mark": pa.array(np.concatenate([images.marks for _, images in held]), pa.uint64()),
    }
    table = pa.table(columns).replace_schema_metadata({_URIS: json.dumps(list(uris)).encode()})
    return _to_parquet(table)


def _from_parquet(text: bytes) -> tuple[dict[str, ImageVersions], list[str]]:
    """Versions of images by file, and where the data was."""
    table = pq.read_table(pa.BufferReader(text))
    files = table["file"].combine_chunks()
    of_file, names = files.indices.to_numpy(), files.dictionary.to_pylist()
    sizes, marks = (table[name].to_numpy() for name in ("size", "mark"))
    starts = [0, *(np.flatnonzero(np.diff(of_file)) + 1), len(of_file)]
    found = {
        names[of_file[low]]: ImageVersions(array("q", sizes[low:high]), array("Q", marks[low:high]))
        for low, high in zip(starts, starts[1:], strict=False)
        if low < high
    }
    return found, json.loads(table.schema.metadata[_URIS])


def _to_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
