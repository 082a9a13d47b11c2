"""A job's format decides what reads it; the modules of the room import each other in one direction."""

import ast
from pathlib import Path
from typing import get_args

import pytest

import smoothcert.datasets
from smoothcert.datasets import open_source
from smoothcert.datasets.opening import FORMATS
from smoothcert.datasets.source import FileSource
from smoothcert.job import DataSection

ROOM = Path(smoothcert.datasets.__file__).parent


def test_every_format_of_a_job_can_be_opened():
    assert set(FORMATS) == set(get_args(DataSection.model_fields["format"].annotation))


@pytest.mark.parametrize("format", FORMATS)
def test_the_section_decides_the_kind(format):
    kind = FORMATS[format].partition(":")[2]
    opened = open_source(DataSection(format=format, uri="x"))
    assert type(opened).__name__ == kind and isinstance(opened, FileSource)


def test_modules_of_the_room_import_in_one_direction():
    """No circle, not even by way of imports inside functions."""
    prefix = "smoothcert.datasets."
    imports = {}
    for path in ROOM.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        imports[path.stem] = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    done = set()
    while free := {name for name in imports if name not in done and imports[name] <= done}:
        done |= free
    assert not set(imports) - done, f"in a circle, or behind one: {sorted(set(imports) - done)}"
