"""How a job's data section opens a source."""

from __future__ import annotations

from importlib import import_module

from smoothcert.catalogue.formats import FORMATS
from smoothcert.datasets.source import Source
from smoothcert.job import DataSection


def open_source(data: DataSection) -> Source:
    """The source that a job's data section describes. Touches no file yet, and imports that format only."""
    entry = FORMATS[data.format]
    source: Source = getattr(import_module(f"{__package__}.{entry.module}"), entry.source)(data)
    return source
