"""A job's format decides what reads it."""

from typing import get_args

import pytest

from smoothcert.catalogue.formats import FORMATS
from smoothcert.datasets import open_source
from smoothcert.datasets.source import FileSource
from smoothcert.job import DataSection


def test_every_format_of_a_job_can_be_opened():
    assert set(FORMATS) == set(get_args(DataSection.model_fields["format"].annotation))


@pytest.mark.parametrize("format", FORMATS)
def test_the_section_decides_the_kind(format):
    kind = FORMATS[format].source
    opened = open_source(DataSection(format=format, uri="x"))
    assert type(opened).__name__ == kind and isinstance(opened, FileSource)
