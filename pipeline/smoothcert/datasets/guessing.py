"""A look at data that nobody has described yet: which format it is, and which columns hold what.

A guess, to start a job file from: whoever reads the file decides, and ``smoothcert plan`` checks it.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from smoothcert.datasets.files import list_files, open_binary, store_trouble
from smoothcert.errors import SourceError

_KINDS = (
    ("webdataset", (".tar", ".tar.gz", ".tgz")),
    ("arrow", (".arrow",)),
    ("parquet", (".parquet", ".pq")),
    ("manifest", (".csv", ".tsv", ".jsonl", ".ndjson")),
    ("imagefolder", (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")),
)
"""By what files end in, the surest first: manifests lie beside the images that they name."""
_CAPTIONS = (
    "caption",
    "captions",
    "text",
    "texts",
    "txt",
    "title",
    "sentence",
    "description",
    "alt",
    "prompt",
)
_LABELS = ("label", "labels", "class", "class_name", "category", "cls", "target", "y")
_IMAGES = (
    "image",
    "img",
    "jpg",
    "png",
    "picture",
    "image_path",
    "path",
    "file",
    "filename",
    "file_name",
    "url",
)
_HEAD = 1 << 16
"""Bytes of a text file that are looked at."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What data looks like.

    Attributes:
        format: of ``data.format``.
        image, caption, label: names of columns; None where nothing looks like it.
        columns: those that were seen, with their types; empty where the format has none.
        files: how many files of the format there are.
        others: files of other formats, by what they end in.
    """

    format: str
    image: str | None
    caption: str | None
    label: str | None
    columns: tuple[str, ...]
    files: int
    others: tuple[tuple[str, int], ...] = ()


def guess_data(uri: str) -> Guess:
    """Look at a file, folder or glob.

    Raises:
        SourceError: it is not there, cannot be read, or holds nothing that any format is of.
    """
    every = [suffix for _, suffixes in _KINDS for suffix in suffixes]
    files = list_files([uri], every)
    kinds = Counter(kind for file in files if (kind := _kind_of(file.name)) is not None)
    if not kinds:
        raise SourceError(
            f"'{uri}' is of no format that is known", remedy=f"give files that end in {', '.join(every)}"
        )
    format = next(kind for kind, _ in _KINDS if kinds[kind])
    first = next(file.uri for file in files if _kind_of(file.name) == format)
    others = tuple((kind, count) for kind, count in kinds.items() if kind != format)
    if format in ("webdataset", "imagefolder"):
        caption, label = ("caption", "label") if format == "webdataset" else (None, "label")
        return Guess(format, "image", caption, label, (), kinds[format], others)
    with store_trouble(first, "read the columns"):
        schema = _schema(first, format)
    return _of_columns(format, schema, kinds[format], others)


def _kind_of(name: str) -> str | None:
    return next((kind for kind, suffixes in _KINDS if name.lower().endswith(suffixes)), None)


def _schema(uri: str, format: str) -> pa.Schema:
    if format == "manifest":
        return _text_schema(uri)
    with open_binary(uri) as stream:
        if format == "parquet":
            return pq.read_schema(stream)
        # datasets writes streams, others files
        try:
            return pyarrow.ipc.open_stream(stream).schema
        except pa.ArrowInvalid:
            stream.seek(0)
            return pyarrow.ipc.open_file(stream).schema


def _text_schema(uri: str) -> pa.Schema:
    with open_binary(uri) as stream:
        text = stream.read(_HEAD).decode("utf-8-sig", errors="replace")
    first = text.splitlines()[0] if text else ""
    if uri.lower().endswith((".jsonl", ".ndjson")):
        try:
            record = json.loads(first)
        except ValueError:
            record = None
        names: Sequence[str] = list(record) if isinstance(record, dict) else []
    else:
        names = next(
            csv.reader(io.StringIO(first), delimiter="\t" if uri.lower().endswith(".tsv") else ","), []
        )
    return pa.schema([(name, pa.string()) for name in names])


def _of_columns(format: str, schema: pa.Schema, files: int, others: tuple[tuple[str, int], ...]) -> Guess:
    bytes_ = [field.name for field in schema if _holds_images(field.type)]
    texts = [field.name for field in schema if _holds_text(field.type)]
    if format == "parquet" and not bytes_ and _first(texts, _IMAGES) is not None:
        format = "manifest"  # paths in Parquet
    image = _first(bytes_, _IMAGES) or (bytes_[0] if bytes_ else None)
    if format == "manifest":
        image = _first(texts, _IMAGES)
    rest = [field.name for field in schema if field.name != image and not _holds_images(field.type)]
    return Guess(
        format,
        image,
        _first([name for name in rest if _holds_text(schema.field(name).type)], _CAPTIONS),
        _first(rest, _LABELS),
        tuple(f"{field.name} ({field.type})" for field in schema),
        files,
        others,
    )


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _first(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first wanted name that is among the names, whatever its case."""
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[each] for each in wanted if each in by_lower), None)
