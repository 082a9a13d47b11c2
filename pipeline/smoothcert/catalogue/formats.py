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
    """

    module: str
    source: str
    summary: str


FORMATS: Mapping[str, FormatEntry] = MappingProxyType(
    {
        "parquet": FormatEntry("parquet_source", "ParquetSource", "Parquet files with images inside"),
        "webdataset": FormatEntry("webdataset", "WebDatasetSource", "tar shards"),
        "manifest": FormatEntry("manifest", "ManifestSource", "CSV, JSONL or Parquet files of image paths"),
        "imagefolder": FormatEntry("image_folder", "ImageFolderSource", "folders of images: class/name.jpg"),
        "arrow": FormatEntry(
            "arrow_source", "ArrowSource", "what save_to_disk of Hugging Face datasets writes"
        ),
    }
)
