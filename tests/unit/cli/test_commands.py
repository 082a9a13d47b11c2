"""The light commands: exit codes, formats, and messages instead of tracebacks."""

from __future__ import annotations

import csv
import inspect
import io
import json
import re
import runpy
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from smoothcert import __version__
from smoothcert.cli.main import app
from smoothcert.cli.query import HELP as QUERY_HELP
from smoothcert.cli.query import query
from smoothcert.datasets import open_source
from smoothcert.errors import RunDirectoryError, StoreError, did_you_mean
from smoothcert.job import parse_job
from smoothcert.runtime.code_version import code_version
from smoothcert.store import RunDirectory

SMOOTHCERT = str(Path(sys.executable).parent / "smoothcert")
make = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "store" / "builders.py")))


@pytest.fixture
def smoothcert(smoothcert):
    """The command with the exit code that is expected of it."""

    def call(*arguments, expect=0):
        outcome = smoothcert(*arguments)
        assert outcome.code == expect, outcome
        return outcome

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three units committed: eight rows."""
    where = tmp_path_factory.mktemp("runs") / "mine"
    directory = RunDirectory.create_or_open(str(where), make.identity(), make.units(3, 4))
    for unit in make.units(3, 4)[:2]:
        rows = [make.ok_row(unit.unit_id, f"pair {unit.start + i}") for i in range(4)]
        assert directory.commits.commit(make.attempt_unit(directory, unit.unit_id, rows))
    return where


def test_query_in_every_format(smoothcert, run, tmp_path):
    sql = "SELECT pair_id, smooth_norm_lcb, caption FROM certificates ORDER BY pair_id"
    expected = [(f"pair {i}", 0.85, "a cat") for i in range(8)]
    table = smoothcert("query", run, sql).out
    assert all(name in table for name in ("pair_id", "pair 7", "0.85"))
    rows = list(csv.reader(io.StringIO(smoothcert("query", run, sql, "--format", "csv").out)))
    assert rows[0] == ["pair_id", "smooth_norm_lcb", "caption"]
    assert [(r[0], float(r[1]), r[2]) for r in rows[1:]] == expected
    text = smoothcert("query", run, sql, "--format", "json").out
    try:
        records = json.loads(text)
    except json.JSONDecodeError:
        records = [json.loads(line) for line in text.splitlines()]
    assert [tuple(record.values()) for record in records] == expected
    smoothcert("query", run, sql, "--format", "parquet", "-o", tmp_path / "out.parquet")
    assert [tuple(row.values()) for row in pq.read_table(tmp_path / "out.parquet").to_pylist()] == expected


def test_several_runs_at_once(smoothcert, run, tmp_path):
    other = tmp_path / "other"
    directory = RunDirectory.create_or_open(str(other), make.identity("certify.seed=1"), make.units(1, 4))
    rows = [make.ok_row("u00000-0", f"pair {i}") for i in range(4)]
    assert directory.commits.commit(make.attempt_unit(directory, "u00000-0", rows))
    sql = "SELECT run_id, count(*) AS n FROM certificates GROUP BY 1 ORDER BY 2"
    answer = list(csv.reader(io.StringIO(smoothcert("query", run, other, sql, "--format", "csv").out)))
    assert [row[1] for row in answer] == ["n", "4", "8"]
    assert "given twice" in smoothcert("query", run, run, sql, expect=2).err


def test_queries_that_cannot_be_answered(smoothcert, run, tmp_path):
    for arguments, words in [
        ((run, "SELECT nonsense FROM certificates"), "nonsense"),
        ((run, "DELETE FROM certificates"), "remedy"),
        ((run,), "at least one run directory"),
        ((tmp_path / "nowhere", "SELECT 1"), "nowhere"),
    ]:
        assert words in smoothcert("query", *arguments, expect=2).err


def test_the_status_of_a_run_that_is_not_complete(smoothcert, run, tmp_path):
    told = smoothcert("status", run, "--json", expect=1)
    status = json.loads(told.out)
    assert (status["pairs"], status["committed"], status["units_done"], status["complete"]) == (
        12,
        8,
        2,
        False,
    )
    people = smoothcert("status", run, expect=1).out
    assert "8 of 12 committed" in people and "2 of 3 committed" in people
    assert "nowhere" in smoothcert("status", tmp_path / "nowhere", expect=2).err


def test_demo_data_is_what_a_job_reads(smoothcert, tmp_path):
    written = smoothcert("demo-data", tmp_path / "digits", "--format", "webdataset", "--split", "test").out
    assert "360 pairs in 3 files" in written
    job = parse_job(make.JOB, [f"data.uri={tmp_path / 'digits'}", "data.format=webdataset"])
    assert sum(file.pairs for file in open_source(job.data).files()) == 360
    shapes = ["demo-data", tmp_path / "shapes", "--synthetic", 25, "--pairs-per-shard", 10, "--size", 16]
    assert "25 pairs in 3 files" in smoothcert(*shapes).out
    again = smoothcert("demo-data", tmp_path / "digits", "--format", "gif", expect=2).err
    assert "gif" in again and "parquet" in again


def test_the_doctor_names_what_is_there(smoothcert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = smoothcert("doctor", "--store", tmp_path / "results").out
    for word in (
        __version__,
        code_version(),
        "torch",
        "duckdb",
        "cpu",
        f"{tmp_path / 'results'}: writable",
        "no problems found",
    ):
        assert word in told
    assert list(tmp_path.iterdir()) == [], "it only asks"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@tracking")
    monkeypatch.setenv("RAY_ADDRESS", "ray://token@head:10001")
    told = smoothcert("doctor").out
    assert "http://tracking" in told and "ray://head:10001" in told
    assert not re.search("hunter2|token@", told)
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    told = smoothcert("doctor", "--store", blocked / "below", expect=1).out
    assert "problem: store" in told and "1 problem" in told


def test_help_version_and_mistakes(smoothcert, tmp_path):
    assert __version__ in smoothcert("--version").out
    help_text = smoothcert("--help").out
    for command in ("plan", "certify", "status", "query", "track", "demo-data", "doctor"):
        assert command in help_text
    assert "certfy" in smoothcert("certfy", expect=2).err
    missing = smoothcert("certify", tmp_path / "none.yaml", expect=2).err
    assert "none.yaml" in missing and "remedy" in missing


@pytest.mark.parametrize("command", app.registered_commands, ids=lambda command: command.name)
def test_a_commands_help_fills_the_terminal(smoothcert, monkeypatch, command):
    """Paragraphs break where the terminal ends, not where the source does. Nothing sticks out, or is cut from 80 on."""
    text = QUERY_HELP if command.callback is query else inspect.getdoc(command.callback)
    for width in (60, 80, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        told = smoothcert(command.name, "--help").out
        lines = [line.rstrip() for line in told.splitlines()]
        assert max(map(len, lines)) <= width and ("…" not in told or width < 80)
        assert re.search(rf"^ Usage: .*smoothcert {command.name} ", told, re.MULTILINE)
        said = "\n".join(line.removeprefix(" ") for line in lines)
        for paragraph in text.split("\n\n"):
            # one column is left free on both sides
            broken = textwrap.wrap(" ".join(paragraph.split()), width - 2, break_on_hyphens=False)
            assert "\n\n" + "\n".join(broken) + "\n\n" in said


@pytest.mark.parametrize("width", [60, 100])
def test_the_help_of_attack_has_one_option_more_than_that_of_certify(smoothcert, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    certify, attack = (smoothcert(name, "--help").out for name in ("certify", "attack"))
    assert "Exit codes: 0 every pair has its row" in " ".join(certify.split())
    assert "Exit codes are those of certify." in " ".join(attack.split())
    few, more = (told[told.index("╭─ Arguments") :].splitlines() for told in (certify, attack))
    first, end = (
        next(at for at, line in enumerate(more) if f"│ {option} " in line) for option in ("--retry", "--help")
    )
    assert more[:first] + more[end:] == few and "--retry" not in certify
    told = " ".join(" ".join(line.strip("│ ") for line in more[first:end]).split())
    assert told.startswith("--retry SQL Also attack quarantined pairs again: ")
    assert told.endswith(" The same command resumes.")


def test_a_reader_that_goes_away_is_no_error(run):
    """``smoothcert query ... | head -1``: quiet, like other tools."""
    sql = "SELECT repeat('x', 1000) FROM range(2000)"
    done = subprocess.run(
        f"'{SMOOTHCERT}' query '{run}' \"{sql}\" --format csv | head -1",
        shell=True,
        capture_output=True,
        timeout=120,
    )
    assert done.stderr == b"" and done.stdout.count(b"\n") == 1


def test_did_you_mean_is_quiet_when_nothing_is_near():
    assert did_you_mean("sgima", ["sigma", "alpha"]) == " (did you mean 'sigma'?)"
    assert did_you_mean("xyzzy", ["sigma", "alpha"]) == ""


def test_gc_takes_a_short_grace_only_when_nothing_else_runs(smoothcert, tmp_path):
    directory = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(1, 4))
    stray = make.attempt_unit(directory, "u00000-0", [make.ok_row("u00000-0", "pair 0")]).parts[0].file
    refused = smoothcert("gc", tmp_path / "run", "--grace-s", "10", expect=2).err
    assert "grace_s=10 is less than an hour" in refused and "--nothing-else-runs" in refused
    line = {"time": time.time(), "worker": "far:7", "event": "progress"}
    (tmp_path / "run" / "workers").mkdir()
    (tmp_path / "run" / "workers" / "far-7.jsonl").write_text(json.dumps(line) + "\n")
    arguments = ("gc", tmp_path / "run", "--grace-s", "0", "--nothing-else-runs")
    assert "'far:7' was at work" in smoothcert(*arguments, expect=2).err
    assert directory.storage.exists(stray)
    (tmp_path / "run" / "workers" / "far-7.jsonl").write_text(json.dumps(line | {"event": "end"}) + "\n")
    assert "1 file" in smoothcert(*arguments).out
    assert not directory.storage.exists(stray)


def test_a_watcher_waits_for_a_run_and_for_its_store(tmp_path, monkeypatch, capsys):
    from smoothcert.cli.status import status
    from smoothcert.runtime import status as status_module

    where = tmp_path / "run"
    real = status_module.read_status
    reads = 0

    def read(url: str) -> object:
        nonlocal reads
        reads += 1
        if reads == 5:
            directory = RunDirectory.create_or_open(url, make.identity(), make.units(1, 4))
            rows = [make.ok_row("u00000-0", f"pair {i}") for i in range(4)]
            assert directory.commits.commit(make.attempt_unit(directory, "u00000-0", rows))
        if reads in (3, 4):
            raise StoreError("the store is away")
        return real(url)

    monkeypatch.setattr(status_module, "read_status", read)
    with pytest.raises(SystemExit) as caught:
        status(str(where), watch=True, interval=0.01, json_=True)
    told = capsys.readouterr()
    assert caught.value.code == 0 and json.loads(told.out.splitlines()[-1])["complete"]
    assert told.err.count("yet; waiting") == 1 and told.err.count("the store is away; waiting") == 1
    with pytest.raises(RunDirectoryError):
        status(str(tmp_path / "none"), watch=False, interval=0.01, json_=True)
    reads = 10
    (where / "run.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="damaged"):
        status(str(where), watch=True, interval=0.01, json_=True)
