"""What README and docs tell people to type: every command is read by the program, every job by the job model, every
import is there, every link leads somewhere. Queries run in tests/integration/test_docs.py, commands in
test_docs_commands.py beside it, and Python in test_api.py.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from smoothcert.cli.main import app
from smoothcert.job import Job, parse_job

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "infra").rglob("*.md")))
BLOCK = re.compile(r"^```(\w+)(?: [^\n]*)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
STUDY = {"study", "tune"}
"""Sections that a study has and a job has not."""


def blocks(kind: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block of a kind."""
    return [
        (page.relative_to(ROOT).as_posix(), text)
        for page in PAGES
        for found, text in BLOCK.findall(page.read_text(encoding="utf-8"))
        if found == kind
    ]


def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of every command of ours that stands behind a prompt."""
    for page, text in blocks("console"):
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("$ smoothcert "):
                yield page, shlex.split(line[2:], comments=True)[1:]


def read(words: list[str]) -> dict[str, Any]:
    """Arguments as the program itself reads them; raises what it would complain of."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group.commands[words[0]].make_context(words[0], list(words[1:])).params


@pytest.mark.parametrize(("page", "words"), list(commands()))
def test_commands_are_ours(page: str, words: list[str]) -> None:
    assert read(words)
    for word in words[1:]:
        if word.startswith(("jobs/", "recipes/")):
            assert (ROOT / word).is_file(), f"{page}: {word}"


def test_commands_can_be_wrong() -> None:
    with pytest.raises(Exception, match="No such option"):
        read(["certify", "jobs/digits.yaml", "--no-such"])
    with pytest.raises(KeyError):
        read(["certifi", "jobs/digits.yaml"])


def test_mentioned_commands_exist() -> None:
    """``smoothcert <word>`` in running text names a command."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for page in PAGES:
        for word in re.findall(r"`smoothcert ([a-z][a-z-]+)", page.read_text(encoding="utf-8")):
            assert word in group.commands, f"{page.name}: smoothcert {word}"


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_yaml_is_of_the_job_model(page: str, text: str) -> None:
    """A whole job or study parses; a piece of one has sections that are there, and fields that they have."""
    data = yaml.safe_load(text)
    assert isinstance(data, dict), page
    if {"name", "data", "encoder", "certify"} <= data.keys() and not STUDY & data.keys():
        parse_job(text)
        return
    schema = Job.model_json_schema()
    for section, value in data.items():
        if section in STUDY or "." in section:
            continue
        assert section in schema["properties"], f"{page}: {section}"
        fields = _fields(schema, schema["properties"][section])
        if isinstance(value, dict) and fields:
            assert value.keys() <= fields, f"{page}: {section}: {sorted(value.keys() - fields)}"


def _fields(schema: dict[str, Any], node: dict[str, Any]) -> set[str]:
    """Fields of a section, whichever of its forms."""
    found: set[str] = set(node.get("properties", ()))
    if "$ref" in node:
        found |= _fields(schema, schema["$defs"][node["$ref"].rpartition("/")[2]])
    for each in (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())):
        found |= _fields(schema, each)
    return found


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_parses_and_imports_what_is_there(page: str, text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smoothcert"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{page}: {node.module}.{alias.name}"


def headings(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in headings(there), f"{page.name}: {target}"


OUTSIDE = {"https://semver.org"}
"""Pages of others that ours link to. Tests have no network: who adds one looks at it, and names it here."""


def test_links_to_others_are_known() -> None:
    found = {
        target
        for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
        for target in re.findall(r"\]\(([a-z]+:[^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8")))
    }
    assert found == OUTSIDE
    assert all(re.fullmatch(r"https://[a-z0-9.-]+\.[a-z]{2,}(/\S*)?", target) for target in found)


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for targets in re.findall(
            r"\]\(([^)\s]+)\)|^([\w./-]+\.md)$", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        for target in targets
        if target and not re.match(r"[a-z]+:", target)
    }
    assert [
        page.name for page in PAGES if page.name not in ("README.md", "index.md") and page not in linked
    ] == []
