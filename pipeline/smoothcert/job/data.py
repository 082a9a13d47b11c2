"""The section ``data`` of a job: which pairs, and where their parts stand."""

from __future__ import annotations

from typing import Literal

from smoothcert.job.section import PositiveInt, Section


class Columns(Section):
    """Where a source keeps what a pair needs: column names, or tar member suffixes' JSON keys."""

    image: str = "image"
    """Parquet: column of image bytes or struct<bytes, path>. Manifest: column of image paths."""
    caption: str = "caption"
    """Column (or JSON key) of the caption: a string or a list of strings."""
    label: str | None = "label"
    """Column (or JSON key) of the class name; null or absent in the data means no label."""
    id: str | None = None
    """Column of a unique key used in pair_id; without it the row number inside the file is used."""


class DataSection(Section):
    """Which pairs."""

    format: Literal["parquet", "webdataset", "manifest"]
    """parquet: images inside. webdataset: tar shards. manifest: CSV, JSONL or Parquet of paths."""
    uri: str | tuple[str, ...]
    """Path, directory or glob, or a list of them; any fsspec URL (s3://, gs://, memory://, file://)."""
    columns: Columns = Columns()
    class_names: tuple[str, ...] | None = None
    """What integers in the label column stand for, from 0 on; files written by Hugging Face datasets say it."""
    limit: PositiveInt | None = None
    """Only the first so many pairs, in file order."""
    max_pixels: PositiveInt = 178_956_970
    """Images that declare more pixels than this are refused before they are decoded (decompression bombs)."""

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs as a tuple, also when one was given."""
        return (self.uri,) if isinstance(self.uri, str) else self.uri
