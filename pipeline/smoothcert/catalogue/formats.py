"""Every format of data, one entry each: its name and where the code that reads it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class FormatEntry:
    """A format of data.

    Attributes:
        module: of ``smoothcert.datasets``.
        source: its class there: section ``data`` of a job -> ``Source``.
        summary: one line for people.
        captions: whether its pairs can have captions.
        numbered: whether the key of a pair is its position in the file, unless ``data.columns.id`` names a column:
            then the audit can tell from a row alone which unit it belongs to.
    """

    module: str
    source: str
    summary: str
    captions: bool = True
    numbered: bool = False


FORMATS: Mapping[str, FormatEntry] = MappingProxyType(
    {
        "parquet": FormatEntry(
            "parquet_source", "ParquetSource", "Parquet files with images inside", numbered=True
        ),
        "webdataset": FormatEntry("webdataset", "WebDatasetSource", "tar shards"),
        "manifest": FormatEntry(
            "manifest", "ManifestSource", "CSV, JSONL or Parquet files of image paths", numbered=True
        ),
        "imagefolder": FormatEntry(
            "image_folder", "ImageFolderSource", "folders of images: class/name.jpg", captions=False
        ),
        "arrow": FormatEntry(
            "arrow_source",
            "ArrowSource",
            "what save_to_disk of Hugging Face datasets writes",
            numbered=True,
        ),
    }
)
"""By name."""
