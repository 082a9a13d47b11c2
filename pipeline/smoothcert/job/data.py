"""The section ``data`` of a job: which pairs, and where their parts stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from smoothcert.catalogue.formats import FORMATS
from smoothcert.job.section import PositiveInt, Section

if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]


class Columns(Section):
    """Where a source keeps what a pair needs: column names, or tar member suffixes' JSON keys."""

    image: str = "image"
    """Parquet: column of image bytes or struct<bytes, path>. Manifest: column of image paths."""
    caption: str | None = "caption"
    """Column (or JSON key) of the caption: a string or a list of strings; null where the data has no captions."""
    label: str | None = "label"
    """Column (or JSON key) of the class name; null or absent in the data means no label."""
    id: str | None = None
    """Column of a unique key used in pair_id; without it the row number inside the file is used."""


class DataSection(Section):
    """Which pairs."""

    format: Annotated[
        FormatName,
        Field(description=". ".join(f"{name}: {entry.summary}" for name, entry in FORMATS.items()) + "."),
    ]
    uri: str | tuple[str, ...]
    """File, directory or glob, or a list of them: a path or any fsspec URL (s3://, gs://, memory://, file://)."""
    columns: Columns = Columns()
    class_names: tuple[str, ...] | None = None
    """What integers in the label column stand for, from 0 on; files written by Hugging Face datasets say it."""
    limit: PositiveInt | None = None
    """Use only this many pairs, the first in file order."""
    max_pixels: PositiveInt = 178_956_970
    """Images with more pixels than this are refused before decoding (protects against decompression bombs)."""

    @property
    def has_captions(self) -> bool:
        """Whether pairs come with captions; otherwise with images and labels alone."""
        return self.columns.caption is not None and FORMATS[self.format].captions

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs as a tuple, also when one was given."""
        return (self.uri,) if isinstance(self.uri, str) else self.uri
