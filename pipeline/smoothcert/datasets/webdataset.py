"""Pairs in tar archives as image downloaders write them: ``key.jpg`` with ``key.txt``, ``key.json``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from smoothcert.datasets.captions import captions_from
from smoothcert.datasets.files import ListedFile, open_binary, store_trouble
from smoothcert.datasets.identity import sampled_digest
from smoothcert.datasets.kept import kept_values
from smoothcert.datasets.labels import LabelTally, label_from
from smoothcert.datasets.layout import Checkpoints
from smoothcert.datasets.left_out import LeftOuts
from smoothcert.datasets.partitions import partition_values
from smoothcert.datasets.records import Pair, UnitSpec, broken_pair, pair_id
from smoothcert.datasets.source import FileSource, Scan
from smoothcert.datasets.tar_content import member_bytes
from smoothcert.datasets.tar_members import DamagedTarError, Member, read_members
from smoothcert.datasets.tar_samples import Sample, group_members
from smoothcert.errors import CaptionError, LabelError, PairError, ReadError, SourceError
from smoothcert.job import Columns, DataSection

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


class WebDatasetSource(FileSource):
    """A ``Source`` of tar archives.

    - The caption is ``key.txt``, or the JSON's ``columns.caption`` if there is no text member or the job
      names another key than the default. The label is ``key.cls``, else the JSON's ``columns.label``,
      else what a folder ``label=...`` says.
    - The key is the path up to the last dot (see ``group_members`` for names with more dots).
    - Of several images of one key the first counts. Other members are left out, counted and named.
    - A hard link is the member it names; a sparse member is read as the file it stands for.
    - A sample's members must be neighbours. A key that comes back with a complete sample of its own is
      another pair, its id ending in ``~<position>``.
    - In an archive that was cut, everything before the cut is whole, and the sample at the cut is a pair with
      ``ReadError``; so is the last sample of an archive without an end mark. A header damaged in the middle
      hides what follows: a ``SourceError`` before any work.
    - Planning reads the headers only. Compressed archives cannot be read from the middle and are refused.
    """

    suffixes = (".tar", *PACKED)

    def __init__(self, data: DataSection) -> None:
        super().__init__(data)
        if data.columns.id is not None:
            raise SourceError(
                f"data.columns.id='{data.columns.id}' does not apply to webdataset, where the member keys are the ids",
                remedy="remove it",
            )

    def scan(self, file: ListedFile, at_most: int | None) -> Scan:
        """Walk over the headers."""
        if file.uri.lower().endswith(PACKED):
            raise SourceError(
                f"'{file.uri}' is compressed: its pairs cannot be read from the middle",
                remedy="unpack it to .tar (images are compressed already)",
            )
        with store_trouble(file.uri, "read the archive"), open_binary(file.uri) as stream:
            if not (size := stream.seek(0, os.SEEK_END)):
                raise SourceError(f"'{file.uri}' has 0 bytes", remedy="restore the archive or remove it")
            total = hashlib.sha256(sampled_digest(stream).encode())
            layout, left = Checkpoints(), LeftOuts()
            try:
                members = read_members(stream, 0, size, on_header=total.update)
                samples = group_members(
                    members, lambda m, why: left.add("member", f"{file.name}#{m.name}", why)
                )
                _index(samples, layout, file.uri, at_most, self.data.columns)
            except DamagedTarError as exc:
                raise SourceError(
                    f"'{file.uri}' is not a complete tar archive: {exc}",
                    remedy="restore the archive or remove it",
                ) from exc
        return Scan(layout, total.hexdigest(), tuple(left))

    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        """See ``Source.read``."""
        with store_trouble(unit.source_uri, "read the archive"):
            for stream, identity, sample in self._samples(unit):
                if only is None or identity in only:
                    yield self._pair(stream, identity, sample, unit.source_uri)

    def read_captions(self, unit: UnitSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Read the text members alone."""
        with store_trouble(unit.source_uri, "read the archive"):
            for stream, identity, sample in self._samples(unit):
                try:
                    captions = _captions(stream, sample, self.data.columns)
                except PairError:
                    continue
                yield identity, captions

    def count_labels(self, unit: UnitSpec, tally: LabelTally) -> None:
        """Read the members that hold labels alone."""
        with store_trouble(unit.source_uri, "read the archive"):
            for stream, _, sample in self._samples(unit):
                try:
                    tally.add(_label(stream, sample, unit.source_uri, self.data))
                except PairError:
                    tally.refused += 1

    def _samples(self, unit: UnitSpec) -> Iterator[tuple[BinaryIO, str, Sample]]:
        """(open archive, pair_id, sample) for each pair of the unit."""
        uri = unit.source_uri
        position = unit.offset_pair
        with open_binary(uri) as stream:
            size = stream.seek(0, os.SEEK_END)
            try:
                for sample in group_members(read_members(stream, unit.offset, size)):
                    if position >= unit.start:
                        key = f"{sample.key}~{position}" if position in unit.repeated else sample.key
                        yield stream, pair_id(unit.name, key), sample
                    position += 1
                    if position == unit.stop:
                        return
            except DamagedTarError as exc:
                raise _changed(uri, str(exc)) from exc
        raise _changed(uri, f"it ends after {position} pairs, but the plan has pairs up to {unit.stop}")

    def _pair(self, stream: BinaryIO, identity: str, sample: Sample, uri: str) -> Pair:
        captions: tuple[str, ...] = ()
        label: str | None = None
        kept: tuple[str | None, ...] = ()
        try:
            if sample.problem:
                raise ReadError(f"sample '{sample.key}': {sample.problem}", remedy="restore the archive")
            kept = _kept(stream, sample, uri, self.data)
            captions = _captions(stream, sample, self.data.columns)
            label = _label(stream, sample, uri, self.data)
            if sample.image is None:
                others = f", only .{', .'.join(sample.others)}" if sample.others else ""
                raise ReadError(
                    f"sample '{sample.key}' has no image member{others}", remedy="use JPEG or PNG"
                )
            return Pair(identity, uri, member_bytes(stream, sample.image), captions, label, None, kept)
        except PairError as exc:
            return broken_pair(identity, uri, exc, captions=captions, label=label, kept=kept)


def _index(
    samples: Iterator[Sample], layout: Checkpoints, uri: str, at_most: int | None, columns: Columns
) -> None:
    """Note where samples begin, and which keys come back."""
    seen: dict[str, bool] = {}
    for sample in samples:
        whole = sample.image is not None and (sample.has_caption or columns.caption is None)
        if (before := seen.get(sample.key)) is None:
            seen[sample.key] = whole
            layout.add(sample.start, begins=sample.begins)
        elif not before and not whole and not sample.problem:
            raise SourceError(
                f"'{uri}': the members of sample '{sample.key}' are not next to each other",
                remedy="pack the archive again sorted by name, e.g. with tar --sort=name",
            )
        else:
            seen[f"{sample.key}~{layout.count}"] = True
            layout.add(sample.start, repeated=True, begins=sample.begins)
        if layout.count == at_most:
            return


def _captions(stream: BinaryIO, sample: Sample, columns: Columns) -> tuple[str, ...]:
    if columns.caption is None:
        return ()
    text, meta = sample.members.get("txt"), sample.members.get("json")
    if text is not None and columns.caption == Columns().caption:
        return captions_from(member_bytes(stream, text), f"member '{text.name}'")
    if meta is not None:
        fields = _json(stream, meta, CaptionError)
        return captions_from(fields.get(columns.caption), f"key '{columns.caption}' in '{meta.name}'")
    raise CaptionError(
        f"sample '{sample.key}' has no member for the caption",
        remedy=f"add {sample.key}.txt, or {sample.key}.json with the key '{columns.caption}'",
    )


def _label(stream: BinaryIO, sample: Sample, uri: str, data: DataSection) -> str | None:
    """From ``key.cls``, else the JSON, else the folders of the archive."""
    column, names = data.columns.label, data.class_names or ()
    if column is None:
        return None
    cls, meta = sample.members.get("cls"), sample.members.get("json")
    if cls is not None:
        return label_from(member_bytes(stream, cls), f"member '{cls.name}'", names)
    if meta is not None:
        fields = _json(stream, meta, LabelError)
        if column in fields:
            return label_from(fields[column], f"key '{column}' in '{meta.name}'", names)
    return label_from(partition_values(uri).get(column), f"folder '{column}='", names)


def _kept(stream: BinaryIO, sample: Sample, uri: str, data: DataSection) -> tuple[str | None, ...]:
    """From the JSON, else the folders of the archive; a key that is in neither is nothing."""
    if not data.keep:
        return ()
    meta = sample.members.get("json")
    fields = partition_values(uri) | ({} if meta is None else _json(stream, meta, ReadError))
    return kept_values(data, fields.get)


def _json(stream: BinaryIO, member: Member, error: type[PairError]) -> dict[str, Any]:
    try:
        fields = json.loads(member_bytes(stream, member))
    except (ValueError, RecursionError) as exc:
        raise error(f"member '{member.name}' is not valid JSON: {exc}", remedy="write it again") from None
    if not isinstance(fields, dict):
        raise error(f"member '{member.name}' is not a JSON object", remedy="write it again")
    return fields


def _changed(uri: str, what: str) -> SourceError:
    return SourceError(
        f"'{uri}' is not the archive that was planned: {what}",
        remedy="the file changed after planning: restore it, or start a new run",
    )
