"""Which columns of a Parquet file hold what, checked before any work."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pyarrow as pa

from smoothcert.errors import SourceError, did_you_mean
from smoothcert.job import Columns

DEFAULT_LABEL = Columns().label
"""The one column name that may be absent from the data: nobody asked for it."""

Complaint = tuple[str, str]
"""What is wrong with a column, and the remedy."""


@dataclass(frozen=True, slots=True)
class ParquetColumns:
    """Names of the columns to read; ``class_names`` translate integer labels, where the file brings them."""

    image: str
    caption: str
    label: str | None
    id: str | None
    class_names: tuple[str, ...] = ()
    caption_names: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """Everything but the image."""
        return [name for name in dict.fromkeys((self.caption, self.label, self.id)) if name is not None]


def choose_columns(
    schema: pa.Schema, wanted: Columns, uri: str, image_type: Callable[[pa.DataType], Complaint | None]
) -> ParquetColumns:
    """The columns of one file.

    Args:
        schema: the file's.
        wanted: the job's ``data.columns``.
        uri: the file, for messages.
        image_type: says what is wrong with a type for the image column, if anything.

    Raises:
        SourceError: a column is missing or has a type that cannot be read.
    """
    known = schema.names
    for option in ("image", "caption", "id"):
        require(getattr(wanted, option), option, known, uri)
    label = chosen_label(wanted, known, uri)
    if complaint := image_type(schema.field(wanted.image).type):
        what, remedy = complaint
        raise SourceError(f"{uri}: column '{wanted.image}' (data.columns.image) {what}", remedy=remedy)
    caption_names = _class_names(schema, wanted.caption)
    caption_type = schema.field(wanted.caption).type
    if not (_is_text(caption_type) or _is_list_of_text(caption_type) or caption_names):
        raise SourceError(
            f"{uri}: column '{wanted.caption}' (data.columns.caption) is {caption_type}, "
            "not text or a list of texts",
            remedy="name another column in data.columns.caption; "
            f"text columns: {', '.join(_texts(schema)) or 'none'}",
        )
    return ParquetColumns(
        image=wanted.image,
        caption=wanted.caption,
        label=label,
        id=wanted.id,
        class_names=_class_names(schema, label),
        caption_names=caption_names,
    )


def require(name: str | None, option: str, known: Collection[str], uri: str) -> None:
    """Raise ``SourceError`` if a column the job names is not among the file's."""
    if name is not None and name not in known:
        hint = did_you_mean(name, known)
        raise SourceError(
            f"{uri} has no column '{name}' (data.columns.{option}){hint}; "
            f"columns: {', '.join(known) or 'none'}",
            remedy=f"set data.columns.{option} to one of them"
            + (" or to null" if option in ("label", "id") else ""),
        )


def chosen_label(wanted: Columns, known: Collection[str], uri: str) -> str | None:
    """The label column, or None; only the default name may be absent."""
    if wanted.label == DEFAULT_LABEL and wanted.label not in known:
        return None
    require(wanted.label, "label", known, uri)
    return wanted.label


def image_bytes_complaint(kind: pa.DataType) -> Complaint | None:
    """What is wrong with a type as a column of image bytes: bytes, or ``struct<bytes, path>``."""
    if _is_bytes(kind):
        return None
    other = "name the column of images in data.columns.image"
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        if "bytes" in fields and _is_bytes(fields["bytes"]):
            return None
        return f"is {kind}, without a field 'bytes' of bytes", other
    if _is_text(kind):
        return f"is {kind}, not image bytes", other + "; if it holds paths, set data.format to manifest"
    return f"is {kind}, not image bytes or struct<bytes, path>", other


def image_path_complaint(kind: pa.DataType) -> Complaint | None:
    """What is wrong with a type as a column of image paths."""
    if _is_text(kind) and not _is_bytes(kind):
        return None
    if image_bytes_complaint(kind) is None:
        return f"is {kind}: it holds the images themselves", "set data.format to parquet"
    return f"is {kind}, not text", "name the column of image paths in data.columns.image"


def _is_bytes(kind: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(check(kind) for check in checks)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return _is_bytes(kind) or any(check(kind) for check in checks)


def _is_list_of_text(kind: pa.DataType) -> bool:
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    return any(check(kind) for check in checks) and _is_text(kind.value_type)


def _texts(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if _is_text(field.type) or _is_list_of_text(field.type)]


def _class_names(schema: pa.Schema, column: str | None) -> tuple[str, ...]:
    """Names of an integer class column, as Hugging Face ``datasets`` writes them into the file."""
    if column is None or not pa.types.is_integer(schema.field(column).type):
        return ()
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[column]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
