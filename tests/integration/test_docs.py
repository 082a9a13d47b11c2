"""The queries that README and docs show, over a small run of the job in docs/sql.md: they are SQL, and they answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from smoothcert.datasets import write_demo_data
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.sql import Query
from smoothcert.store import RunDirectory

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
OWN_COLUMNS = "camera"
"""A column of somebody's own data, which the run here does not have."""


def fenced(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


STATEMENTS = [
    (page.name, statement)
    for page in PAGES
    for block in fenced(page, "sql")
    for statement in (re.sub(r"--.*", "", block).split(";"))
    if statement.strip() and OWN_COLUMNS not in statement
]


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """The job of docs/sql.md with fewer pairs and draws."""
    torch.set_num_threads(1)
    where = tmp_path_factory.mktemp("docs")
    write_demo_data(where / "data", "parquet")
    (job,) = fenced(ROOT / "docs" / "sql.md", "yaml")
    changes = [
        f"data.uri={where / 'data'}",
        "data.limit=8",
        "certify.max_draws=64",
        f"output.runs={where / 'runs'}",
    ]
    driver = Driver(parse_job(job, changes))
    driver.check()
    for phase in driver.phases:
        assert driver.work(phase.name, Monitor(lambda result: None)).missing == 0
    with Query([RunDirectory.open(driver.url)]) as opened:
        yield opened


@pytest.mark.parametrize(("page", "statement"), STATEMENTS)
def test_queries_of_the_pages_run(page: str, statement: str, query: Query) -> None:
    answer = query.sql(statement)
    if page != "sql.md":
        return
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    shown = text.partition(statement)[2].partition("```")[2].partition("\n#")[0].strip().splitlines()[0]
    if shown.startswith("|"):
        assert [cell.strip() for cell in shown.strip("|").split("|")] == answer.column_names
        assert answer.num_rows or "quarantine" in statement
    else:
        assert shown.startswith("No rows") and not answer.num_rows


def test_there_are_twelve_questions() -> None:
    text = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\d+)\.", text, re.MULTILINE) == [str(n) for n in range(1, 13)]
    assert len(fenced(ROOT / "docs" / "sql.md", "sql")) == 12
