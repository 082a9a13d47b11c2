"""The command line as a user meets it: killed, interrupted, over budget, on a full disk, resumed, and mistaken."""

from __future__ import annotations

import json
import os
import resource
import runpy
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from smoothcert.datasets import write_demo_data
from smoothcert.job import load_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor

local = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_certify_local.py")))
JOB = """
name: mini
data: {{format: parquet, uri: "{data}", limit: 24}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1}}
certify: {{sigma: 0.25, alpha: 0.01, pilot_draws: 15, max_draws: {draws}, radii: [0.0625, 0.125]}}
zero_shot:
  labels: [zero, one, two, three, four, five, six, seven, eight, nine]
  prompts: ["a photo of the digit {{label}}"]
executor: {{pairs_per_unit: 3}}
output: {{runs: "{runs}", run: mine}}
tracking: {{enabled: false}}
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("digits")
    write_demo_data(where, "parquet")
    return where


@pytest.fixture
def job_file(digits: Path, tmp_path: Path) -> Callable[..., Path]:
    def write(runs: str = "runs", draws: int = 200, data: Path | None = None) -> Path:
        path = tmp_path / f"{runs}.yaml"
        path.write_text(JOB.format(data=data or digits, runs=tmp_path / runs, draws=draws))
        return path

    return write


def commits(run: Path) -> int:
    return len(list((run / "commits").glob("*.json")))


def files_of(directory: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_room_then_killed_then_interrupted_then_resumed_equals_undisturbed(
    smoothcert, forked, job_file, tmp_path
):
    path, run = job_file(), tmp_path / "runs" / "mine"

    def no_room() -> None:
        """No file may grow beyond 6 KB: the plan fits, the rows of a unit do not."""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))

    one_unit = ("--set", "executor.units_in_flight=1")
    process = forked("certify", path, *one_unit, first=no_room)
    assert process.wait() == 3, process.err
    assert "remedy" in process.err and "File too large" in process.err
    assert not list((run / "commits").glob("*.json"))

    process = forked("certify", path)
    process.wait_for(lambda: commits(run) >= 1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = len(local.rows(str(run)))
    assert 3 <= left < 24

    process = forked("certify", path)
    process.wait_for(lambda: commits(run) > left // 3)
    found = commits(run)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130 and "run the same command again to resume" in process.err, process.err
    assert f"certification: resuming, {left} of 24 pairs are done" in process.err
    stopped_at = len(local.rows(str(run)))
    assert 3 * found <= stopped_at < 24

    code, out, err = smoothcert("certify", path)
    assert code == 0 and f"certification: resuming, {stopped_at} of 24 pairs are done" in err
    assert "24 of 24 pairs certified" in out and f"smoothcert status {run}" in out.replace("\n", "")

    undisturbed = Driver(load_job(job_file("undisturbed"))).work(
        "certification", Monitor(lambda result: None)
    )
    local.assert_same(local.rows(str(run)), local.rows(undisturbed.url))
    assert json.loads((run / "summary.json").read_text())["ok"] == 24


def test_too_many_bad_pairs_have_an_exit_code_of_their_own(smoothcert, tmp_path, job_file):
    data = tmp_path / "zoo"
    data.mkdir()
    expected = local.zoo(data)
    bad = sum(error is not None for error in expected.values())
    given = ["--set", "data.format=manifest", "--set", f"data.uri={data / 'pairs.csv'}"]
    given += ["--set", "data.max_pixels=1000000", "--set", "data.columns.label=null"]
    code, out, err = smoothcert("certify", job_file(draws=8), *given)
    text = " ".join((out + err).split())
    assert code == 6
    assert f"{bad:,} quarantined" in text and "quarantined DecodeError: 4" in text
    assert "output.quarantine_budget=0.05" in text and "FROM quarantine" in text
    # the same run within its budget: nothing to do, and no complaint
    code, out, err = smoothcert("certify", job_file(draws=8), *given, "--set", "output.quarantine_budget=0.5")
    assert code == 0 and f"certification: resuming, {len(expected)} of {len(expected)} pairs are done" in err


def test_quarantined_pairs_are_retried_by_sql(smoothcert, job_file, tmp_path):
    """Pictures that are refused stay refused, and the exit code says so."""
    run = tmp_path / "runs" / "20261101"  # a name that YAML takes for a number
    refusing = ["data.max_pixels=63", "data.limit=9", "output.run='20261101'"]
    code, _, err = smoothcert("certify", job_file(draws=8), *(f"--set={text}" for text in refusing))
    assert code == 6, err
    code, _, err = smoothcert("retry", run, "--where", "no_such_column = 1")
    assert code == 2 and "no_such_column" in err
    code, _, err = smoothcert("retry", run, "--where", "true", "--set", "certify.sigma=0.5")
    assert code == 2 and "results depend on" in err
    # through Ray: cluster/test_retry.py
    all_of_them = "error_class = 'DecodeError' -- all of them"
    code, _, err = smoothcert("retry", run, "--where", all_of_them, "--executor", "local")
    assert code == 6 and "9 quarantined pairs to run again" in err and "executor local" in err
    code, out, _ = smoothcert("query", run, "--format", "json", "SELECT unit_id FROM quarantine")
    units = [row["unit_id"] for row in json.loads(out)]
    assert len(units) == 9 and all(unit.startswith("retry-") for unit in units)
    assert smoothcert("status", run)[0] == 0


def test_a_second_signal_leaves_at_once_with_its_own_code(forked, job_file, tmp_path):
    process = forked("certify", job_file(draws=2000))
    process.wait_for(lambda: commits(tmp_path / "runs" / "mine") >= 1)
    process.send_signal(signal.SIGTERM)
    process.wait_for(lambda: "stopping" in process.err)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143 and "quitting now" in process.err, process.err
    assert "certified" not in process.out


def test_missing_rows_have_an_exit_code_of_their_own(smoothcert, tmp_path, digits, job_file):
    """A shard goes away while the run is under way."""
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    path, run = job_file(draws=100, data=data), tmp_path / "runs" / "mine"

    def take_away() -> None:
        while not commits(run):
            time.sleep(0.005)
        os.rename(sorted(data.glob("*.parquet"))[1], tmp_path / "away")

    thief = threading.Thread(target=take_away)
    thief.start()
    code, out, err = smoothcert(
        "certify", path, "--set", "data.limit=126", "--set", "executor.pairs_per_unit=20"
    )
    thief.join()
    assert code == 5
    assert "6 pairs have no row" in err and "00001-of-00003" in err and "run the same command again" in err
    assert "120 of 126 pairs certified" in out


def test_errors_before_work_leave_no_run(smoothcert, job_file, tmp_path):
    path = job_file()
    for override, words in [
        ("certify.sigma=-1", "certify.sigma=-1"),
        (f"data.uri={tmp_path}/nowhere", "nowhere"),
        ("data.columns.image=picture", "picture"),
        (f"encoder.model={tmp_path}/no-model", "no-model"),
    ]:
        code, out, err = smoothcert("certify", path, "--set", override)
        assert code == 2 and words in err and "remedy" in err and out == ""
    assert not (tmp_path / "runs").exists()
    code, out, err = smoothcert("--debug", "certify", path, "--set", "certify.sigma=-1")
    assert code == 2 and "Traceback" in err, "--debug shows where"


def test_a_run_directory_of_another_job_is_refused(smoothcert, job_file, tmp_path):
    path = job_file(draws=2)
    Driver(load_job(path, ["data.limit=3"])).work("certification", Monitor(lambda result: None))
    before = files_of(tmp_path / "runs")
    code, _, err = smoothcert("certify", path, "--set", "data.limit=3", "--set", "certify.alpha=0.02")
    assert code == 2 and "alpha" in err and "remedy" in err
    assert files_of(tmp_path / "runs") == before


def test_the_plan_changes_nothing(smoothcert, job_file, tmp_path):
    path = job_file(draws=100)
    code, out, _ = smoothcert("plan", path, "--no-probe")
    assert code == 0
    assert "24 in 1 file, 8 units" in out and "2,760 (15 pilot + 100 a pair)" in out
    target = "certify.targets=[{certificate: angular, radius: 0.1, cosine: 0.8}]"
    code, out, _ = smoothcert("plan", path, "--set", target, "--try", 5)
    assert code == 0 and "at most 2,760" in out and "draws/s)" in out
    assert "tried on 5 pairs" in out and "angular>=0.8@0.1" in out and "certify.max_draws" in out
    assert not (tmp_path / "runs").exists()


def test_the_plan_knows_what_is_done_what_it_costs_and_what_would_go_wrong(smoothcert, job_file, tmp_path):
    path = job_file(draws=20)
    job = load_job(path)
    monitor = Monitor(lambda result: monitor.stop.set())
    Driver(job).work("certification", monitor)
    priced = ("--set", "executor.price_per_worker_hour=3.6")
    code, out, _ = smoothcert("plan", path, *priced)
    assert code == 0 and "pairs are done" in out and "units are left" in out
    (cost,) = (line for line in out.splitlines() if line.startswith("cost"))
    assert "1 worker for" in cost and "at 3.6 an hour" in cost and cost.endswith(" a pair")
    many = ("--set", "executor.kind=ray", "--set", "executor.workers=500")
    code, out, _ = smoothcert("plan", path, *many)
    assert code == 0 and "(of 500: there is no work for more)" in out
    remote = ("--set", "output.runs=memory://plan-bucket", "--set", "tracking.enabled=true", "--no-probe")
    code, out, _ = smoothcert("plan", path, *remote)
    assert code == 0 and "will not be tracked" in out and "tracking.uri" in out
    code, out, _ = smoothcert("plan", path, "--no-probe", "--set", "certify.alpha=0.02")
    assert code == 0 and "belongs to another job" in out and "alpha" in out
    Driver(job).work("certification", Monitor(lambda result: None))
    code, out, _ = smoothcert("plan", path, *priced)
    assert code == 0 and "complete: 24 pairs" in out and "cost" not in out


def test_a_target_out_of_reach_is_refused_before_the_work(smoothcert, job_file, tmp_path):
    path = job_file(draws=100)
    target = ("--set", "certify.targets=[{certificate: class, radius: 0.6}]")
    for command in ("plan", "certify"):
        code, _, err = smoothcert(command, path, *target)
        assert code == 2 and "class@0.6" in err and "reach radius 0.4" in err and "certify.max_draws" in err
    assert not (tmp_path / "runs").exists()
