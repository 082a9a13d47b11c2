"""Which columns of a Parquet file hold what, checked before any work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from smoothcert.datasets.partitions import partition_values
from smoothcert.errors import SourceError, did_you_mean
from smoothcert.job import Columns, DataSection

DEFAULT_LABEL = Columns().label
"""The one column name that may be absent from the data: nobody asked for it."""

Complaint = tuple[str, str]
"""What is wrong with a column, and the remedy."""


@dataclass(frozen=True, slots=True)
class ParquetColumns:
    """Names of the columns to read.

    Attributes:
        image: of images.
        caption: of captions, if any.
        label: of labels, if any.
        id: of ids, if any.
        class_names: what integer labels stand for, where the job or the file says it.
        caption_names: what integer captions stand for, where the file says it.
        fixed: values of columns that are not in the file, but in its path.
        kept: own columns to carry into rows.
    """

    image: str
    caption: str | None
    label: str | None
    id: str | None
    class_names: tuple[str, ...] = ()
    caption_names: tuple[str, ...] = ()
    fixed: Mapping[str, str | None] = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """Captions, labels and ids, where the file has them."""
        return self._in_file((self.caption, self.label, self.id))

    @property
    def everything(self) -> list[str]:
        """What a pair is made of, where the file has it."""
        return self._in_file((self.image, self.caption, self.label, self.id, *self.kept))

    def _in_file(self, names: Sequence[str | None]) -> list[str]:
        return [name for name in dict.fromkeys(names) if name is not None and name not in self.fixed]


def choose_columns(
    schema: pa.Schema, data: DataSection, uri: str, image_type: Callable[[pa.DataType], Complaint | None]
) -> ParquetColumns:
    """The columns of one file.

    Args:
        schema: the file's.
        data: the job's data section.
        uri: the file, for messages and for the columns that its folders spell.
        image_type: says what is wrong with a type for the image column, if anything.

    Raises:
        SourceError: a column is missing or has a type that cannot be read.
    """
    wanted = data.columns
    folders = partition_values(uri)
    fixed = {name: value for name, value in folders.items() if name not in schema.names}
    known = [*schema.names, *fixed]
    for option in ("image", "id"):
        require(getattr(wanted, option), option, schema.names, uri)
    require(wanted.caption, "caption", known, uri)
    label = chosen_label(wanted, known, uri)
    if complaint := image_type(schema.field(wanted.image).type):
        what, remedy = complaint
        raise SourceError(f"{uri}: column '{wanted.image}' (data.columns.image) {what}", remedy=remedy)
    caption_names: tuple[str, ...] = ()
    if wanted.caption is not None and wanted.caption not in fixed:
        caption_names = _class_names(schema, wanted.caption)
        kind = schema.field(wanted.caption).type
        if not (_is_text(kind) or _is_list_of_text(kind) or caption_names):
            raise SourceError(
                f"{uri}: column '{wanted.caption}' (data.columns.caption) is {kind}, not text or a list of texts",
                remedy="name another column in data.columns.caption; "
                f"text columns: {', '.join(_texts(schema)) or 'none'}",
            )
    if label is not None and label not in fixed and pa.types.is_nested(schema.field(label).type):
        raise SourceError(
            f"{uri}: column '{label}' (data.columns.label) is {schema.field(label).type}, not one class a row",
            remedy="name a column with the name of one class, or set data.columns.label to null",
        )
    names = data.class_names or (() if label in fixed else _class_names(schema, label))
    require_kept(data, known, uri)
    return ParquetColumns(
        wanted.image, wanted.caption, label, wanted.id, names, caption_names, fixed, tuple(data.kept)
    )


def require_kept(data: DataSection, known: Sequence[str], uri: str) -> None:
    """Raise ``SourceError`` if a column of ``data.keep`` is not among the file's, or is there twice."""
    for name in data.kept:
        if known.count(name) != 1:
            found = f"{known.count(name)} columns" if name in known else "no column"
            raise SourceError(
                f"{uri} has {found} '{name}' (data.keep){did_you_mean(name, known)}; columns: "
                f"{', '.join(known) or 'none'}",
                remedy="name others in data.keep, or give each column its own name",
            )


def require(name: str | None, option: str, known: Sequence[str], uri: str) -> None:
    """Raise ``SourceError`` if a column the job names is not among the file's, or is there twice."""
    if name is not None and known.count(name) > 1:
        raise SourceError(
            f"{uri} has {known.count(name)} columns '{name}' (data.columns.{option})",
            remedy="give every column that is used its own name",
        )
    if name is not None and name not in known:
        hint = did_you_mean(name, known)
        raise SourceError(
            f"{uri} has no column '{name}' (data.columns.{option}){hint}; "
            f"columns: {', '.join(known) or 'none'}",
            remedy=f"set data.columns.{option} to one of them" + (" or to null" if option != "image" else ""),
        )


def chosen_label(wanted: Columns, known: Sequence[str], uri: str) -> str | None:
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
    if pa.types.is_null(kind) or (_is_text(kind) and not _is_bytes(kind)):
        return None
    if image_bytes_complaint(kind) is None:
        return f"is {kind}: it holds the images themselves", "set data.format to parquet"
    return f"is {kind}, not text", "name the column of image paths in data.columns.image"


def _is_bytes(kind: pa.DataType) -> bool:
    """Also true of the type of columns without any value, which says nothing about them."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return pa.types.is_null(kind) or any(check(kind) for check in checks)


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
    if isinstance(names, dict):  # {"0": "zero", ...}, as data set cards have it
        numbers = [str(number) for number in range(len(names))]
        names = [names[number] for number in numbers] if names.keys() == set(numbers) else None
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
