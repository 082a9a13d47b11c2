"""Stores that fail now and then, for good, or hand out half of what was asked; they have one committer, the driver."""

import json
from pathlib import Path

import pytest

from smoothcert.job import parse_job

pytestmark = pytest.mark.timeout(290)


def flaky(tmp_path, **settings):
    return {"SMOOTHCERT_FLAKY": json.dumps({"until": str(tmp_path / "mended"), **settings})}


SLOW = pytest.mark.slow
FAULTS = [
    ("error", "ray", 1),
    ("truncate", "ray", 1),
    ("timeout", "local", 1),
    *(
        pytest.param(kind, executor, first, marks=SLOW)
        for kind in ("error", "truncate", "timeout")
        for executor in ("local", "ray")
        for first in (5, 10, 15)
    ),
]


@pytest.mark.parametrize(("kind", "executor", "first"), FAULTS)
def test_every_twentieth_request_goes_wrong(driver_process, check, tmp_path, data, kind, executor, first):
    """Requests of drivers and workers alike, for pairs, plan, parts, commits and manifests."""
    run = driver_process(
        "",
        environment=flaky(tmp_path, kind=kind, every=20, first=first),
        runs=f"flaky://{tmp_path}/runs",
        data=f"flaky://{data}",
        kind=executor,
        workers=1,
    )
    code = run.end()
    (tmp_path / "mended").touch()
    assert code == 0, run.text
    check(f"{tmp_path}/runs/r")


def test_a_full_disk_ends_the_run_and_room_resumes_it(driver_process, check, tmp_path, tools, seed):
    runs = f"flaky://{tmp_path}/runs"
    # full from the moment at which the first unit (or the second, ...) is committed
    full = flaky(tmp_path, kind="full", every=1, since=f"{tmp_path}/runs/r/commits/u00000{seed - 1}-*.json")
    run = driver_process("", environment=full, runs=runs, workers=1)
    assert run.end() == 3, run.text
    assert "the disk or quota is full" in run.text
    (tmp_path / "mended").touch()
    assert tools.commits_of(f"{tmp_path}/runs/r") > 0
    again = driver_process("", environment=full, runs=runs, kind="local")
    assert again.end() == 0, again.text
    check(f"{tmp_path}/runs/r")
    assert Path(tmp_path, "runs/r/summary.json").exists()


HOLD = """
import sys, time, smoothcert_faults
from smoothcert.store import RunDirectory
with RunDirectory.open(sys.argv[1]).committing():
    print("mine", flush=True)
    time.sleep(600)
"""


def test_one_driver_at_a_time_and_a_killed_one_is_outlived(
    driver_process, forked_python, check, tools, tmp_path, plug, job_text, monkeypatch
):
    monkeypatch.setenv("SMOOTHCERT_BEAT_S", "1")
    runs = f"flaky://{tmp_path}/runs"
    url = plug.FaultyDriver(parse_job(job_text(runs=runs, kind="local")), plug.Faults()).run.url
    first = forked_python("-c", HOLD, url)
    tools.until(lambda: first.out == "mine\n")
    second = driver_process("", runs=runs, kind="local")
    assert second.end() == 2, second.text
    assert f"process {first.pid}" in second.text and "is in use by" in second.text
    first.close()
    lease = Path(tmp_path, "runs/r/driver.json")
    assert lease.exists()
    third = driver_process("", runs=runs, kind="local")
    assert third.end() == 0, third.text
    assert "waiting 2 s for a sign of life" in third.text and not lease.exists()
    check(f"{tmp_path}/runs/r")
