"""CONTRIBUTING.md shows these files as they are, and the rooms as they are."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```python (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SCREEN = 25


def stands_in(block: str, text: str) -> bool:
    """Whether the block's lines follow each other in a text, at any one indentation."""
    return any(f"\n{textwrap.indent(block, ' ' * depth)}" in f"\n{text}" for depth in range(0, 16, 4))


def rooms() -> tuple[str, ...]:
    """The order of the rooms, as the test of imports has it."""
    tree = ast.parse((ROOT / "tests/unit/test_import_direction.py").read_text(encoding="utf-8"))
    (order,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ORDER"
    )
    return tuple(ast.literal_eval(order))


def test_no_code_is_without_its_file() -> None:
    assert len(BLOCKS) == PAGE.count("```") / 2 >= 10


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_is_what_the_file_says(number: int) -> None:
    file, block = BLOCKS[number]
    assert stands_in(block, (HERE / file).read_text(encoding="utf-8")), f"{file} says otherwise"
    assert len(block.splitlines()) <= SCREEN


def test_a_block_that_drifted_would_be_seen() -> None:
    text = "class A:\n    def f(self):\n        return 1\n"
    assert stands_in("def f(self):\n    return 1\n", text)
    assert not stands_in("def f(self):\n    return 2\n", text)
    assert not stands_in("def f(self):\nreturn 1\n", text) and not stands_in("f(self):\n    return 1\n", text)


def test_each_thing_that_is_added_is_shown() -> None:
    shown = {file for file, _ in BLOCKS}
    for program in HERE.glob("with_*.py"):
        subject = program.stem.removeprefix("with_")
        assert any(file.partition("/")[0].removesuffix(".py") == subject for file in shown), subject


def test_the_rooms_are_those_of_the_package_in_their_order() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == rooms()


def test_the_map_of_the_readme_names_every_room() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, plan = readme.partition("## Map")
    package = ROOT / "pipeline" / "smoothcert"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert folders == {room for room in rooms() if (package / room).is_dir()}
    assert [room for room in sorted(folders) if f"`{room}`" not in plan] == []
    assert len(readme.splitlines()) <= 150
