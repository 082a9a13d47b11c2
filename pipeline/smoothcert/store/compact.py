"""``smoothcert compact``: merges many small part files into few large ones, and never shows a row twice or none.

New files are written beside the old ones; then one new manifest, made exclusively, says where each unit's rows
are now. Readers hold one manifest or the other, so they see the old files or the new ones. The old files stay
until ``smoothcert gc`` finds that no reader can still hold the old manifest. Rows are copied unchanged, replaced
ones (``smoothcert retry``) included; every merged file is read back before it counts, and looked at again when the
manifest is made: a compaction that slept longer than the grace of ``smoothcert gc`` may find its files deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.errors import RunDirectoryError, StoreError
from smoothcert.store.commits import COMMITS
from smoothcert.store.manifest import Committed
from smoothcert.store.parts import PartFile, find_missing, new_attempt, verify_part
from smoothcert.store.run_directory import RunDirectory
from smoothcert.store.tables.columns import TableSchema
from smoothcert.store.tables.registry import TABLES

_ROW_GROUP = 131_072
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Numbers of committed files before and after."""

    files_before: int
    files_after: int


def compact(run: RunDirectory, *, target_rows: int = 1_000_000) -> CompactReport:
    """Merge committed parts into files of about ``target_rows`` rows.

    Safe while others read, commit, fold or compact; on a store that cannot create files exclusively it is done as
    the one driver, and refused while there is another. Memory is bounded by one row group and one part.

    Args:
        run: the run directory.
        target_rows: files with at least half as many rows are left alone.

    Raises:
        StoreError: reading or writing failed, others made manifests all the time, or merged files were deleted
            meanwhile; what is committed is as before.
        RunDirectoryError: a committed part does not hold the rows that were committed, or a driver works on a
            run whose store cannot create files exclusively; nothing was written then.
    """
    with run.committing():
        return _compact(run, target_rows)


def _compact(run: RunDirectory, target_rows: int) -> CompactReport:
    before = run.commits.load()
    merged = [
        (frozenset(part.file for part in group), _merge(run, schema, group))
        for table, schema in TABLES.items()
        for group in _groups(_files(before.parts(table)), target_rows)
    ]
    count = _count(before)
    if not merged:
        return CompactReport(count, count)
    wholes = [whole for _, whole in merged]
    for _ in range(_ATTEMPTS):
        state = run.commits.load()
        _refuse_gone(run, find_missing(run.storage, wholes))
        if run.commits.publish(state.manifest, _moved(state, merged)):
            lost = find_missing(run.storage, wholes)
            if lost:
                _point_back(run, state, frozenset(lost))
            _refuse_gone(run, lost)
            return CompactReport(count, _count(run.commits.load()))
    raise _never_quiet(run)


def _refuse_gone(run: RunDirectory, lost: list[str]) -> None:
    if lost:
        raise StoreError(
            f"'{run.storage.full_url(lost[0])}' was deleted before it was committed; the previous files still count",
            remedy="give 'smoothcert gc' a longer --grace-s than compaction takes, then compact again",
        )


def _point_back(run: RunDirectory, before: Committed, lost: frozenset[str]) -> None:
    """Make a manifest that has the files of ``before`` again in place of lost ones.

    Raises:
        StoreError: it could not be made, or these files are gone too.
    """
    was = {
        (unit_id, part["table"]): part
        for unit_id, parts in zip(*_columns(before.table), strict=True)
        for part in parts
    }
    for _ in range(_ATTEMPTS):
        state = run.commits.load()
        rows = [
            [was.get((unit_id, part["table"]), part) if part["file"] in lost else part for part in parts]
            for unit_id, parts in zip(*_columns(state.table), strict=True)
        ]
        if run.commits.publish(state.manifest, _with_parts(state.table, rows)):
            break
    else:
        raise _never_quiet(run)
    missing = find_missing(run.storage, (part for table in TABLES for part in before.parts(table)))
    if missing:
        raise StoreError(
            f"'{run.storage.full_url(missing[0])}' and {len(missing) - 1:,} more files are committed and deleted",
            remedy=f"restore them from a backup, or delete the files of their units in "
            f"'{run.storage.full_url(COMMITS)}' and run the same command again",
        )


def _never_quiet(run: RunDirectory) -> StoreError:
    return StoreError(
        f"'{run.url}' is constantly being compacted by other processes",
        remedy="try again when fewer processes use the run",
    )


def _count(state: Committed) -> int:
    return sum(len(state.files(table)) for table in TABLES)


def _files(parts: Iterable[PartFile]) -> list[PartFile]:
    """Each file once with all its rows: units that share a file after an earlier compaction are added up."""
    files: dict[str, PartFile] = {}
    for part in parts:
        known = files.get(part.file)
        files[part.file] = part if known is None else replace(known, rows=known.rows + part.rows)
    return list(files.values())


def _groups(files: Iterable[PartFile], target_rows: int) -> Iterator[list[PartFile]]:
    group: list[PartFile] = []
    rows = 0
    for part in files:
        if 2 * part.rows >= target_rows:
            continue
        group.append(part)
        rows += part.rows
        if rows >= target_rows:
            yield group
            group, rows = [], 0
    if len(group) > 1:
        yield group


def _merge(run: RunDirectory, schema: TableSchema, group: list[PartFile]) -> PartFile:
    """One file with the rows of all, verified. If this is interrupted, nothing refers to it."""
    file = f"{schema.name}/merged-{new_attempt()}.parquet"
    rows = sum(part.rows for part in group)
    with run.storage.open_output(file) as stream:
        with pq.ParquetWriter(stream, schema.arrow, compression="zstd") as writer:
            for table in _row_groups(run, schema, group):
                writer.write_table(table, row_group_size=_ROW_GROUP)
    whole = PartFile(schema.name, file, rows, run.storage.size(file))
    verify_part(run.storage, schema, whole)
    return whole


def _row_groups(run: RunDirectory, schema: TableSchema, group: list[PartFile]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for part in group:
        with run.storage.open_input(part.file) as stream:
            table = pq.read_table(stream, schema=schema.arrow)
        if table.num_rows != part.rows:
            raise RunDirectoryError(
                f"'{run.storage.full_url(part.file)}' holds {table.num_rows} rows where {part.rows} were "
                "committed",
                remedy="restore the file from a backup; nothing was changed",
            )
        waiting.append(table)
        if sum(table.num_rows for table in waiting) >= _ROW_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _moved(state: Committed, merged: list[tuple[frozenset[str], PartFile]]) -> pa.Table:
    """The commits of ``state``, with the files that were merged replaced by what they are in now."""
    present = {file for table in TABLES for file in state.files(table)}
    # where another compaction took one file of a group, the group's rows would show twice: all or nothing
    moved = {file: whole for files, whole in merged if files <= present for file in files}
    rows = state.table["parts"].to_pylist()
    for parts in rows:
        for part in parts:
            whole = moved.get(part["file"])
            if whole is not None:
                part["file"], part["size_bytes"] = whole.file, whole.size_bytes
    return _with_parts(state.table, rows)


def _columns(table: pa.Table) -> tuple[list[str], list[list[dict[str, Any]]]]:
    return table["unit_id"].to_pylist(), table["parts"].to_pylist()


def _with_parts(table: pa.Table, parts: list[list[dict[str, Any]]]) -> pa.Table:
    index = table.schema.get_field_index("parts")
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(parts, field.type))
