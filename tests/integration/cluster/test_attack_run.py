"""An attack job on Ray whose workers are killed, then its driver: resumed, it has every outcome exactly once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoothcert.audit.audit import audit_run
from smoothcert.cli.running import run_job
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.sql import Query
from smoothcert.store import RunDirectory

PAIRS = 12
PGD = {
    "attack": "pgd",
    "norm": "l2",
    "budgets": [0.1, 0.2],
    "steps": 6,
    "eot_draws": 8,
    "evaluate_draws": 16,
    "settings": {"early_stop": False},
}
UNITS = 2 * PAIRS // 2
"""Two attacks, two pairs a unit."""


def job(folder: Path, data: Path, kind: str) -> str:
    return json.dumps(
        {
            "name": "struck",
            "data": {"format": "parquet", "uri": str(data), "columns": {"label": None}, "limit": PAIRS},
            "encoder": {"model": "smoothcert_faults:make_paced", "device": "cpu", "threads": 1},
            "certify": {"sigma": 0.25, "pilot_draws": 15, "max_draws": 40, "radii": [0.1]},
            "attacks": [PGD, PGD | {"seed": 1}],
            "executor": {
                "kind": kind,
                "workers": 2,
                "cpus_per_worker": 0.25,
                "gpus_per_worker": 0,
                "pairs_per_unit": 2,
            },
            "output": {"runs": str(folder / "runs"), "run": "r"},
            "tracking": {"enabled": False},
        }
    )


@pytest.fixture
def started(cluster: Any, data: Path, smoothcert_process: Any, tmp_path: Path) -> Any:
    """``smoothcert attack`` on the cluster, in a process of its own."""
    (tmp_path / "job.yaml").write_text(job(tmp_path, data, "ray"))
    return smoothcert_process("attack", tmp_path / "job.yaml", RAY_ADDRESS=cluster.address)


def until(what: Callable[[], Any], process: Any) -> Any:
    """The first true value, while the process lives and for at most four minutes."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        assert process.poll() is None, process.text
        time.sleep(0.02)
    raise AssertionError(f"nothing happened:\n{process.text}")


def attack_commits(run: Path) -> dict[str, int]:
    """The attack units that are committed, each with the process that did it."""
    found = {}
    for path in run.glob("commits/*.json"):
        if "." in path.stem.partition("-")[0]:
            found[path.stem] = int(json.loads(path.read_text())["worker"].rpartition(":")[2])
    return found


def workers(run: Path) -> set[int]:
    """The living processes that write a log of a worker."""
    said = (
        path.stem.split("-") for path in run.glob("workers/*.jsonl") if not path.stem.startswith("driver")
    )
    return {pid for words in said if living(pid := int(words[-2]))}


def living(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.timeout(600)
def test_the_workers_and_then_the_driver_are_killed(started: Any, data: Path, tmp_path: Path) -> None:
    from ray._private.state import jobs

    run = tmp_path / "runs" / "r"
    until(lambda: attack_commits(run), started)
    # all of them: one left alone could finish the job while the other's successor is still loading
    first = workers(run)
    assert first
    joined = [each for each in jobs() if each["DriverPid"] == started.pid]
    assert len(joined) == 1, "the attacks use the cluster that was joined for certification"
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    # others take their places: the work goes on with processes that were not there
    until(lambda: set(attack_commits(run).values()) - first, started)
    started.kill()
    assert started.wait(60) == -signal.SIGKILL
    # what a worker holds when its driver dies it may still commit: count when all are gone
    end = time.monotonic() + 60
    while workers(run):
        assert time.monotonic() < end, "workers outlive their driver"
        time.sleep(0.05)
    assert len(attack_commits(run)) < UNITS, "the driver was killed too late: nothing would be shown"
    assert not audit_run(RunDirectory.open(str(run))).sound, "what is missing must show"

    kept = {path.name: path.read_bytes() for path in run.glob("commits/*.json")}
    assert run_job(Driver(parse_job(job(tmp_path, data, "local")))) == 0
    assert len(attack_commits(run)) == UNITS
    assert all((run / "commits" / name).read_bytes() == text for name, text in kept.items())
    opened = RunDirectory.open(str(run))
    with Query([opened]) as query:
        rows = query.sql("SELECT pair_id, attack_id, subject, budget, unit_id, attempt, status FROM attacks")
        found = rows.to_pylist()
    assert {row["status"] for row in found} == {"ok"}
    names = [(row["pair_id"], row["attack_id"], row["subject"], row["budget"]) for row in found]
    assert len(names) == len(set(names)) == PAIRS * 2 * 2 * 2
    attempts = {(row["unit_id"], row["attempt"]) for row in found}
    assert len(attempts) == UNITS, "a unit mixes attempts"
    assert audit_run(opened).sound
