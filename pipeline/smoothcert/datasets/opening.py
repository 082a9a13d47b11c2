"""Which class reads which format, and how a job's data section opens one."""

from __future__ import annotations

from importlib import import_module

from smoothcert.datasets.source import Source
from smoothcert.job import DataSection

FORMATS = {
    "parquet": "parquet_source:ParquetSource",
    "webdataset": "webdataset:WebDatasetSource",
    "manifest": "manifest:ManifestSource",
    "imagefolder": "image_folder:ImageFolderSource",
    "arrow": "arrow_source:ArrowSource",
}
"""Format -> module of this room and its class; by name, so that only what is opened is imported."""


def open_source(data: DataSection) -> Source:
    """The source that a job's data section describes. Touches no file yet."""
    module, _, kind = FORMATS[data.format].partition(":")
    source: Source = getattr(import_module(f"{__package__}.{module}"), kind)(data)
    return source
