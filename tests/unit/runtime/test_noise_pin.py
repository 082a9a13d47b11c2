"""One noise generator a task: settled by the first worker, whoever comes later is refused before it draws."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from smoothcert.datasets import UnitSpec, write_synthetic
from smoothcert.encoders import KnownEncoder
from smoothcert.errors import RunDirectoryError
from smoothcert.job import ExecutorSection, parse_job
from smoothcert.runtime import opening
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.noise_pin import pin_file, pin_noise
from smoothcert.runtime.ray_executor import RayExecutor, _Held
from smoothcert.store import RunDirectory, RunIdentity

ENCODER = KnownEncoder.rotating(1.0, input_size=(8, 8))
JOB = """
name: mini
data: {{format: parquet, uri: "{data}"}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1}}
certify: {{sigma: 0.25, alpha: 0.01, pilot_draws: 7, max_draws: 8, radii: [0.1]}}
executor: {{pairs_per_unit: 5}}
output: {{runs: "{runs}"}}
tracking: {{enabled: false}}
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    job = parse_job(JOB.format(data="nowhere", runs=tmp_path))
    return RunDirectory.create_or_open(
        tmp_path / "run", RunIdentity(job, "d", "e", "0"), [UnitSpec("u", "f", 0, 1)]
    )


def test_the_first_settles_and_others_are_refused_by_name(run: RunDirectory) -> None:
    for _ in range(2):
        pin_noise(run, "", "one")
    pin_noise(run, "a1b2", "two")  # another task draws noise of its own
    with pytest.raises(
        RunDirectoryError, match=r"begun with noise from 'one', and a worker here draws from 'two'"
    ):
        pin_noise(RunDirectory.open(run.url), "", "two")
    assert json.loads(run.read_document(pin_file("")) or b"") == {"noise": "one"}


def test_of_two_drivers_that_settle_at_once_one_is_refused(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, answers = run.read_document, iter([None])
    # what it saw before the other one wrote
    monkeypatch.setattr(run, "read_document", lambda name: next(answers, None) or read(name))
    pin_noise(RunDirectory.open(run.url), "", "one")
    with pytest.raises(RunDirectoryError, match="'one'"):
        pin_noise(run, "", "two")


def test_a_store_without_exclusive_creation_keeps_what_its_driver_settled(run: RunDirectory) -> None:
    single = RunDirectory.open(run.url, exclusive=False)
    with single.committing():
        pin_noise(single, "", "one")
        with pytest.raises(RunDirectoryError, match="'one'"):
            pin_noise(single, "", "two")


def test_a_run_is_resumed_and_retried_under_its_own_noise_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_synthetic(str(tmp_path / "data"), "parquet", pairs=20, pairs_per_shard=20, size=8, seed=1)
    job = parse_job(JOB.format(data=tmp_path / "data", runs=tmp_path / "runs"))
    monitor = Monitor(lambda result: monitor.stop.set())
    begun = Driver(job, ENCODER).work("certification", monitor)
    assert begun.stopped and 0 < begun.missing < 20
    ours = opening.generator_name
    monkeypatch.setattr(opening, "generator_name", lambda device: "cuda-132x2048")
    other = Driver(job, ENCODER)
    with pytest.raises(RunDirectoryError, match="cuda-132x2048"):
        other.work("certification", Monitor(lambda result: None))
    (unit, *_) = sorted(other.run.commits.unit_ids())
    with pytest.raises(RunDirectoryError, match="go on with the same kind of device"):
        other.retry("certification", Monitor(lambda result: None), {unit: ("p",)})
    monkeypatch.setattr(opening, "generator_name", ours)
    assert Driver(job, ENCODER).work("certification", Monitor(lambda result: None)).missing == 0


def test_on_a_cluster_unlike_workers_are_not_used_and_end_the_run_where_there_are_no_others(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    duties = SimpleNamespace(admit=lambda noise: pin_noise(run, "", noise))
    made = RayExecutor(lambda: None, ExecutorSection(kind="ray"), duties, uses_gpu=False)
    gone: list[str] = []
    monkeypatch.setattr(made, "_discard", lambda held: gone.append(held.name))
    for name in ("a", "b", "c"):
        made._held[name] = _Held(name, None, None, f"start {name}", place=("node", 1))
    made._admit(made._held["a"], "one")
    made._admit(made._held["b"], "two")
    made._admit(made._held["c"], "one")
    assert gone == ["b"] and [held.ready for held in made._held.values()] == [True, True]
    assert made._hire_after > 0  # another one is tried, but not at once
    made._held = {"d": _Held("d", None, None, "start d", place=("node", 1))}
    with pytest.raises(RunDirectoryError, match="'two'"):
        made._admit(made._held["d"], "two")
