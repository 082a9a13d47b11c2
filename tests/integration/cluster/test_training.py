"""A training that two workers of Ray Train share, and what is left of it when a worker or the driver is killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

pytestmark = [
    pytest.mark.timeout(600),
    # Ray Train makes Ray Data's settings, which warn of themselves
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

STEPS = 24
JOB = """
name: shared
data: {{format: parquet, uri: "{data}", columns: {{label: null}}}}
encoder: {{model: "{nets}:make", threads: 1}}
certify: {{sigma: 0.25, alpha: 0.01, pilot_draws: 15, max_draws: 32}}
executor: {{cpus_per_worker: {cpus}, gpus_per_worker: 0}}
output: {{runs: "{runs}"}}
tracking: {{enabled: false}}
train: {{method: purifier, out: "{out}", steps: {steps}, batch: 7, validate_every: 3, validation: 0.25,
  workers: {workers}, purifier: {{channels: [8], patch: 4}}}}
"""
NETS = """
import time
from pathlib import Path
from smoothcert.encoders import KnownEncoder

class Paced(KnownEncoder):
    def _image_features(self, pixels):
        if Path({flag!r}).exists():
            time.sleep(0.05)
        return super()._image_features(pixels)

def make():
    return Paced.rotating(0.8, input_size=(16, 16), feature_dim=4, seed=3)
"""


class Place:
    """A folder with the code of a slow encoder, which is slow while a flag stands, and jobs on it."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self._data, self.flag = folder, data, folder / "slow"
        (folder / "nets.py").write_text(NETS.format(flag=str(self.flag)))

    def job_file(self, out: str, workers: int = 2, cpus: float = 0.25, steps: int = STEPS) -> Path:
        path = self.folder / f"{out}.yaml"
        told = {"data": self._data, "nets": self.folder / "nets.py", "runs": self.folder / "runs"}
        told |= {"out": self.folder / out, "workers": workers, "cpus": cpus, "steps": steps}
        path.write_text(JOB.format(**told))
        return path

    def weights(self, out: str) -> dict[str, torch.Tensor]:
        return safetensors.torch.load_file(self.folder / out / "purifier.safetensors")

    def checkpoint(self, out: str) -> Path:
        return self.folder / out / "checkpoint-purifier.safetensors"


@pytest.fixture
def place(tmp_path: Path, data: Path, cluster: Any) -> Place:
    return Place(tmp_path, data)


def listener(strike: Callable[[], None] | None = None) -> Any:
    """A watcher that keeps what it hears, and strikes at the first validation."""
    from smoothcert.training.watching import Silent

    class Listener(Silent):
        def __init__(self) -> None:
            self.begun: list[int] = []
            self.losses: dict[int, float] = {}
            self.held_out: dict[int, float] = {}

        def begin(self, stage: str, step: int, steps: int) -> None:
            self.begun.append(step)

        def step(self, stage: str, step: int, losses: Any) -> None:
            self.losses[step] = losses["loss"]

        def validated(self, stage: str, step: int, figures: Any) -> None:
            if not self.held_out and strike is not None:
                strike()
            self.held_out[step] = figures["held_out_loss"]

    return Listener()


def train_worker() -> int:
    """Process id of the last worker of Ray Train on this cluster."""
    from ray._private.state import actors

    living = [each for each in actors().values() if each["State"] == "ALIVE"]
    found = [each["Pid"] for each in living if each["ActorClassName"] == "RayTrainWorker"]
    assert len(found) == 2, [each["ActorClassName"] for each in living]
    return int(found[-1])


def alone(place: Place, out: str, steps: int = STEPS) -> tuple[Any, Any]:
    """The same training in this process."""
    from smoothcert.job import load_job
    from smoothcert.training.train import Training

    heard = listener()
    return heard, Training(load_job(place.job_file(out, workers=1, steps=steps))).run(heard)


def agree(place: Place, heard: Any, trained: Any, out: str) -> None:
    """Float32 sums in another order: losses to 1e-4 of themselves, scores to 1e-4, weights to 1e-3."""
    calm, wanted = alone(place, "alone")
    assert {step: pytest.approx(loss, rel=1e-4) for step, loss in calm.losses.items()} == heard.losses
    assert {step: pytest.approx(loss, rel=1e-4) for step, loss in calm.held_out.items()} == heard.held_out
    for ours, theirs in zip(trained.scores[0.25], wanted.scores[0.25], strict=True):
        assert ours.robustness_score == pytest.approx(theirs.robustness_score, abs=1e-4)
        assert ours.smooth_norm == pytest.approx(theirs.smooth_norm, abs=1e-4)
    one, other = place.weights("alone"), place.weights(out)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-3)


def test_workers_that_ask_for_nothing_are_refused_by_the_field_that_says_so() -> None:
    from smoothcert.errors import ExecutorError
    from smoothcert.runtime.ray_cluster import WorkerShare
    from smoothcert.runtime.ray_training import _refuse_no_room

    with pytest.raises(ExecutorError, match=r"executor\.cpus_per_worker=0 ") as caught:
        _refuse_no_room(WorkerShare(0.0, 0.0, None), 2)
    assert "executor.cpus_per_worker" in str(caught.value.remedy)


def test_two_workers_train_what_one_does_though_one_is_killed(place: Place, tools: Any) -> None:
    """Also: more workers than the cluster holds are refused before one is started."""
    from smoothcert.errors import ExecutorError
    from smoothcert.job import load_job
    from smoothcert.runtime.ray_training import driver_training, train_together

    large = driver_training(load_job(place.job_file("large", cpus=1000)))
    with pytest.raises(ExecutorError, match=r"train\.workers=2 .* 1000 CPUs .* room for 0 of them"):
        train_together(large, listener())
    assert not (place.folder / "large").exists()

    place.flag.touch()

    def strike() -> None:
        tools.kill(train_worker())
        place.flag.unlink()

    heard = listener(strike)
    trained = train_together(driver_training(load_job(place.job_file("shared"))), heard)
    assert trained.finished and len(heard.begun) == 2 and heard.begun[0] == 0
    assert 3 <= heard.begun[1] < STEPS and heard.begun[1] % 3 == 0, "it went on at its last checkpoint"
    agree(place, heard, trained, "shared")


@pytest.mark.slow
def test_a_driver_that_is_killed_or_stopped_goes_on(
    place: Place, cluster: Any, tools: Any, smoothcert_process: Any
) -> None:
    from smoothcert.job import load_job
    from smoothcert.runtime.ray_training import driver_training, train_together

    job = place.job_file("parted")

    def driver() -> Any:
        return smoothcert_process("train", job, RAY_ADDRESS=cluster.address)

    place.flag.touch()
    first = driver()
    tools.until(lambda: place.checkpoint("parted").exists() or first.poll() is not None, timeout=300)
    first.kill()
    assert first.wait(60) == -signal.SIGKILL
    written = place.checkpoint("parted").stat().st_mtime_ns

    second = driver()
    tools.until(
        lambda: place.checkpoint("parted").stat().st_mtime_ns > written or second.poll() is not None,
        timeout=300,
    )
    second.send_signal(signal.SIGTERM)
    assert second.wait(120) == 143, second.text
    assert "run the same command again to resume" in second.err and "goes on at step" in second.err

    place.flag.unlink()
    heard = listener()
    trained = train_together(driver_training(load_job(job)), heard)
    assert trained.finished and heard.begun[0] >= 3
    calm = listener()
    train_together(driver_training(load_job(place.job_file("whole"))), calm)
    one, other = place.weights("whole"), place.weights("parted")
    assert all(torch.equal(one[name], other[name]) for name in one), "a resume changes nothing at all"
    assert {step: calm.losses[step] for step in heard.losses} == heard.losses
