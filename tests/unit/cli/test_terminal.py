"""Text from outside on a terminal: shown as it is, never read as markup, never obeyed."""

from __future__ import annotations

import ast
import io
import logging
import os
import pty
import runpy
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from smoothcert import cli
from smoothcert.cli.terminal import LogLines, Terminal
from smoothcert.printable import printable
from smoothcert.store import RunDirectory

SMOOTHCERT = str(Path(sys.executable).parent / "smoothcert")
CLI = Path(cli.__file__).parent
Outcome = tuple[int, str]
"""Exit code, and all that was said."""
make = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "store" / "builders.py")))
HOSTILE = "[/x] [bold]b[/bold] :smile: \x1b[31mred\x1b]0;title\x07 a\rb \u202egnp.exe \udcff"
SHOWN = r"[/x] [bold]b[/bold] :smile: \x1b[31mred\x1b]0;title\x07 a\rb \u202egnp.exe \udcff"


def printed(monkeypatch: pytest.MonkeyPatch, act: object) -> str:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "400")
    act(Terminal())
    return stream.getvalue()


def test_what_is_said_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told = printed(monkeypatch, lambda terminal: terminal.say(("error: ", "bold red"), HOSTILE))
    assert told == f"error: {SHOWN}\n"
    assert printed(monkeypatch, lambda terminal: terminal.print(HOSTILE)) == f"{SHOWN}\n"


def test_tables_show_cells_titles_and_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(title="title [/t]\x1b[0m")
    table.add_column("name [/c]\x07")
    table.add_row(HOSTILE)
    told = printed(monkeypatch, lambda terminal: terminal.print(table))
    for text in (r"title [/t]\x1b[0m", r"name [/c]\x07", SHOWN):
        assert text in told
    assert "\x1b" not in told and "\x07" not in told


@given(st.text(st.characters(codec=None), max_size=40))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text)
    # an independent list: what Unicode calls control characters and surrogates, and what its bidi classes name
    for character in shown:
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        assert unicodedata.bidirectional(character) not in (
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        )  # fmt: skip
    shown.encode("utf-8")
    assert printable(shown) == shown


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"]), max_size=40))
def test_letters_and_signs_of_all_scripts_stay(text: str) -> None:
    assert printable(text) == text


def test_log_lines_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "400")
    handler = LogLines(console=Terminal(stderr=True), show_path=False)
    handler.emit(logging.LogRecord("smoothcert", logging.WARNING, "", 1, "%s", (HOSTILE,), None))
    assert SHOWN in stream.getvalue()


def own_ways(path: Path) -> list[str]:
    """Calls by which a file writes to the terminal other than by ``Terminal``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        # JSON escapes control characters itself; the version is ours
        allowed = ("json", "smoothcert {VERSION}")
        told = ast.unparse(node)
        if name in ("Console", "print", "RichHandler", "typer.secho") or (
            name == "typer.echo" and not any(word in told for word in allowed)
        ):
            found.append(told)
    return found


@pytest.mark.parametrize("path", sorted(CLI.glob("*.py")), ids=lambda path: path.name)
def test_commands_have_no_other_way_to_the_terminal(path: Path) -> None:
    if path.name == "terminal.py":
        pytest.skip("it is the way")
    assert own_ways(path) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in a directory, with captions, ids and errors, that a terminal would obey or rich would read."""
    where = tmp_path_factory.mktemp("terminal") / "out" / "[" / "x]\x1b[31m"
    directory = RunDirectory.create_or_open(str(where), make.identity(), make.units(2, 4))
    for unit in make.units(2, 4)[:1]:
        rows = [make.ok_row(unit.unit_id, f"[/{i}]\x1b[5m", caption="[b]\x1b]0;t\x07[/]") for i in range(3)]
        rows.append({**make.quarantined_row(unit.unit_id, "[/3]"), "error_message": "cut [/]\x1b[2J"})
        assert directory.commits.commit(make.attempt_unit(directory, unit.unit_id, rows))
    workers = where / "workers"
    workers.mkdir(exist_ok=True)
    line = (
        '{"time": 1.0, "worker": "far[/w]\\u001b[1m", "event": "error", "message": "boom [/e]\\u001b[0m"}\n'
    )
    (workers / "far.jsonl").write_text(line)
    return where


@pytest.fixture
def smoothcert(smoothcert: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """The command, whose output a terminal has nothing to obey in."""

    def call(*arguments: object) -> Outcome:
        code, out, err = smoothcert(*arguments)
        both = out + err
        assert "MarkupError" not in both and "This is a bug" not in both, both
        assert "\x1b" not in both and "\x07" not in both, both
        return code, both

    return call


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status", "RUN"), 1),
        (("status", "RUN/none"), 2),
        (("query", "RUN", "SELECT * FROM certificates"), 0),
        (("query", "RUN", "SELECT * FROM quarantine"), 0),
        (("query", "RUN", "SELECT '[/a]\x1b[0m' AS \"[/b]\x1b[0m\" FROM nothing[/]"), 2),
        (("query", "RUN/none", "SELECT 1"), 2),
        (("gc", "RUN", "--dry-run"), 0),
        (("compact", "RUN"), 0),
        (("audit", "RUN"), 1),
        (("retry", "RUN", "--where", "no[/such]\x1b[0m"), 2),
        (("doctor", "--store", "RUN"), 0),
        (("plan", "RUN/no[/job].yaml"), 2),
        (("certify", "RUN/no[/job].yaml", "--set", "a[/b]\x1b[0m=1"), 2),
    ],
    ids=lambda value: value[0] + "-" + str(len(value)) if isinstance(value, tuple) else "",
)
def test_every_command_with_hostile_text(
    smoothcert: Callable[..., Outcome], run: Path, arguments: tuple[str, ...], code: int
) -> None:
    ended, told = smoothcert(*(each.replace("RUN", str(run)) for each in arguments))
    assert ended == code, told


def test_a_run_shows_its_hostile_text_in_full(smoothcert: Callable[..., Outcome], run: Path) -> None:
    _, told = smoothcert("query", run, "SELECT pair_id, caption FROM certificates ORDER BY 1")
    assert r"[/0]\x1b[5m" in told and r"[b]\x1b]0;t\x07[/]" in told
    assert r"boom [/e]\x1b[0m" in smoothcert("status", run)[1]


def test_data_goes_unchanged_into_a_pipe_and_is_shown_on_a_terminal(run: Path) -> None:
    sql = "SELECT caption FROM certificates WHERE pair_id LIKE '[/0]%'"
    arguments = [SMOOTHCERT, "query", str(run), sql, "--format", "csv"]
    raw = subprocess.run(arguments, capture_output=True, timeout=120).stdout
    assert raw == b"caption\r\n[b]\x1b]0;t\x07[/]\r\n"
    mine, theirs = pty.openpty()
    done = subprocess.run(arguments, stdout=theirs, stderr=subprocess.PIPE, timeout=120)
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert (
        os.read(mine, 10_000).replace(b"\r\n", b"\n") == rb"caption" + b"\n" + rb"[b]\x1b]0;t\x07[/]" + b"\n"
    )
    os.close(mine)
    mine, theirs = pty.openpty()
    done = subprocess.run([*arguments[:-1], "parquet"], stdout=theirs, stderr=subprocess.PIPE, timeout=120)
    os.close(mine)
    os.close(theirs)
    assert done.returncode == 2 and b"--output" in done.stderr


def test_certify_into_a_directory_that_reads_like_markup(
    smoothcert: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert smoothcert("demo-data", "pairs", "--synthetic", 6, "--size", 16)[0] == 0
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: markup\ndata: {format: parquet, uri: pairs}\ncertify: {sigma: 0.25, max_draws: 32}\n"
        'encoder: {model: "bundled:digits-clip", threads: 1}\ntracking: {enabled: false}\n'
    )
    code, told = smoothcert("certify", job, "--set", "output.runs=out/[/x]")
    assert code == 0 and "out/[/x]/markup-" in told
