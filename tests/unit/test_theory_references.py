"""Every mention of docs/theory.md in the package names a heading that is there, and the page is complete."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

import smoothcert

PACKAGE = Path(smoothcert.__file__).parent
REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "theory.md").read_text(encoding="utf-8")

THEOREMS = [f"T{n}" for n in range(1, 10)]
SECTIONS = [str(n) for n in range(1, 7)]

HEADING = re.compile(r"^#{2,3} (T\d+|\d+(?:\.\d+)?)\.? ", re.MULTILINE)
MENTION = re.compile(r"(\S*)theory\.md((?:,? (?:and )?(?:T\d+|section \d+(?:\.\d+)?))*)")
NAME = re.compile(r"T\d+|\d+(?:\.\d+)?")
ITEMS = re.compile(r"(?:T\d+|\d+(?:\.\d+)?)(?:, (?:T\d+|\d+(?:\.\d+)?))*")


def headings() -> list[str]:
    return HEADING.findall(PAGE)


def text_of(name: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#{{2,3}} {re.escape(name)}\.? .*?\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def mentions(source: str) -> list[tuple[str, list[str]]]:
    """(path as written before "theory.md", names after it) of every mention, also across line breaks."""
    return [(path, NAME.findall(names)) for path, names in MENTION.findall(" ".join(source.split()))]


def sources() -> dict[str, str]:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    return {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in files}


def items(source: str) -> list[str]:
    """Items of the theory that columns (``theory T3``) and audit rules (second argument) declare."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith("theory ")
        ):
            found.append(node.value.removeprefix("theory "))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Rule":
            given = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "theory")]
            # errors have rules as well, whose second argument is a sentence
            found += [
                i.value for i in given if isinstance(i, ast.Constant) and re.match(r"T?\d", str(i.value))
            ]
    return found


def test_the_page_has_its_theorems_and_sections_in_order() -> None:
    names = headings()
    assert [name for name in names if name.startswith("T")] == THEOREMS
    assert [name for name in names if name.isdigit()] == SECTIONS
    parts = [tuple(map(int, name.split("."))) for name in names if "." in name]
    assert parts[0] == (3, 1)
    for (section, part), following in pairwise(parts):
        assert following in ((section, part + 1), (section + 1, 1)), following


@pytest.mark.parametrize("name", THEOREMS)
def test_every_theorem_is_proved(name: str) -> None:
    text = text_of(name)
    assert re.search(r"\*Proof", text), "a theorem without a proof"
    assert text.count("∎") >= len(re.findall(r"\*Proof", text)), "a proof without an end"


def test_every_mention_in_the_package_names_a_heading() -> None:
    known, found, wrong = set(headings()), 0, []
    for file, source in sources().items():
        for path, names in mentions(source):
            found += 1
            wrong += [f"{file}: {name}" for name in names if name not in known]
            if not path.endswith("docs/"):
                wrong.append(f"{file}: {path}theory.md, where docs/theory.md is meant")
    assert not wrong
    assert found >= 40, "the pattern has lost them"


def test_every_item_of_a_column_or_audit_rule_names_a_heading() -> None:
    known, found, wrong = set(headings()), 0, []
    for file, source in sources().items():
        for item in items(source):
            found += 1
            named = ITEMS.match(item)
            names = NAME.findall(named[0]) if named else []
            wrong += [f"{file}: {item}"] if not names or not set(names) <= known else []
    assert not wrong
    assert found >= 60, "the pattern has lost them"


def test_pages_that_send_readers_there_name_a_heading() -> None:
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    known = set(headings())
    found = [
        (page.name, path, names)
        for page in pages
        for path, names in mentions(page.read_text(encoding="utf-8"))
        if page.name != "theory.md"
    ]
    assert {"README.md", "guarantees.md"} <= {name for name, _, _ in found}
    assert not [mention for mention in found if not set(mention[2]) <= known]


def test_a_wrong_mention_is_found() -> None:
    """The patterns see several names at once, names after a line break, and names that are nowhere."""
    assert mentions(
        "(docs/theory.md T3 and T44), docs/theory.md\n    section 3.11: x, theory.md T5, T6)"
    ) == [
        ("(docs/", ["T3", "T44"]),
        ("docs/", ["3.11"]),
        ("", ["T5", "T6"]),
    ]
    assert not {"T44", "3.11", "T10", "7"} & set(headings())
    declared = items(
        'Column("a", source="theory T9, v")\nRule("name", "4.7", "means", "sql")\nRule(28, "it is full")'
    )
    assert sorted(declared) == ["4.7", "T9, v"]
