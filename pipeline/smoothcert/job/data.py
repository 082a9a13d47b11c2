"""The section ``data`` of a job: which pairs, and where their parts stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

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


class PartSection(Section):
    """Some of the pairs: those that were set aside, spread evenly over all of them, or the rest.

    For choosing on the one part and certifying the other; ``smoothcert tune`` makes both.
    """

    set_aside: Annotated[int, Field(ge=2)]
    """How many pairs are set aside; at most half of all."""
    use: Literal["set_aside", "rest"]
    """Which part this job is about."""
    first: PositiveInt | None = None
    """Of the pairs set aside only so many, spread evenly over them."""

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> PartSection:
        if self.first is not None and (self.use == "rest" or self.first > self.set_aside):
            raise ValueError(
                f"first={self.first} is about pairs that are set aside, at most set_aside={self.set_aside} of them"
            )
        return self


class SampleSection(Section):
    """Some of the pairs, drawn uniformly without replacement; ``smoothcert monitor`` draws them anew every night."""

    pairs: PositiveInt
    """How many; all, where there are fewer."""
    seed: Annotated[int, Field(ge=0, lt=2**53)]
    """Fixes which."""


class DataSection(Section):
    """Which pairs."""

    format: Annotated[
        FormatName,
        Field(description=". ".join(f"{name}: {entry.summary}" for name, entry in FORMATS.items()) + "."),
    ]
    uri: str | tuple[str, ...]
    """File, directory or glob, or a list of them: a path or any fsspec URL (s3://, gs://, memory://, file://)."""
    moved_from: str | tuple[str, ...] | None = None
    """What uri was when the run was begun, for data that was moved or copied since: the run goes on where digests,
    names and sizes are the same."""
    columns: Columns = Columns()
    class_names: tuple[str, ...] | None = None
    """What integers in the label column stand for, from 0 on; files written by Hugging Face datasets say it."""
    keep: tuple[str, ...] | dict[str, Literal["text", "integer", "number", "boolean"]] = ()
    """Own columns of the data (JSON keys, folders name=value) to carry into rows, where SQL has them by name: a list of
    names, each as text, or names with types."""
    limit: PositiveInt | None = None
    """Use only this many pairs, the first in file order."""
    part: PartSection | None = None
    """Use only a part of them; by default all."""
    sample: SampleSection | None = None
    """Use only a random sample of them; by default all."""
    max_pixels: PositiveInt = 178_956_970
    """Images with more pixels than this are refused before decoding (protects against decompression bombs)."""

    @property
    def has_captions(self) -> bool:
        """Whether pairs come with captions; otherwise with images and labels alone."""
        return self.columns.caption is not None and FORMATS[self.format].captions

    @field_validator("keep")
    @classmethod
    def _each_once(cls, keep: tuple[str, ...] | dict[str, str]) -> tuple[str, ...] | dict[str, str]:
        for number, name in enumerate(keep):
            if name in tuple(keep)[:number]:
                raise ValueError(f"'{name}' is listed twice; keep one")
        return keep

    @model_validator(mode="after")
    def _part_or_sample(self) -> DataSection:
        if self.part is not None and self.sample is not None:
            raise ValueError("part and sample are both given; keep one")
        return self

    @property
    def kept(self) -> dict[str, str]:
        """Names and types of the columns to keep."""
        return dict(self.keep) if isinstance(self.keep, dict) else dict.fromkeys(self.keep, "text")

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs as a tuple, also when one was given."""
        return (self.uri,) if isinstance(self.uri, str) else self.uri
