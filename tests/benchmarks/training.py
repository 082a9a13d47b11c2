"""A training step beside the bare forward and backward pass of the same modules on the same images.

    python tests/benchmarks/training.py [--steps 40] [--batch 64]

Both in turn, several times; the median of each, in CPU time of one thread. The difference is batches, noise, clipping,
the optimizer and the loop.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from smoothcert.datasets import write_demo_data
from smoothcert.job import Job
from smoothcert.storage import Storage
from smoothcert.training.batches import training_batch
from smoothcert.training.loop import Data, Fit
from smoothcert.training.train import Training
from smoothcert.training.watching import Silent

ROUNDS = 5


class Stopping(Silent):
    """Stops after some steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def stopped(self) -> bool:  # type: ignore[override]
        return self._left <= 0

    def step(self, stage: str, step: int, losses: object) -> None:
        self._left -= 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for method in ("purifier", "mapper", "noise"):
            bare, whole = measure(Path(folder), method, options.steps, options.batch)
            print(
                f"{method}: bare {1000 * bare:.1f} ms, step {1000 * whole:.1f} ms a step of {options.batch} images: "
                f"{100 * bare / whole:.0f}% of the bare speed"
            )


def measure(folder: Path, method: str, steps: int, batch: int) -> tuple[float, float]:
    """Seconds a step, bare and whole."""
    data = folder / "data"
    if not data.exists():
        write_demo_data(data, "parquet", split="train")
    training = Training(job(folder, data, method, batch))
    bare, whole = [], []
    for number in range(ROUNDS):
        place = Storage(str(folder / f"{method}-{number}"))
        held = Data(training.training, training.held_out, training.sigma, training.recipe)
        fit = Fit(training.first, held, training.section, place, dict)
        whole.append(seconds(lambda: fit.run(Stopping(steps)), steps))  # noqa: B023  # called at once
        bare.append(seconds(lambda: passes(training, steps), steps))
    return statistics.median(bare), statistics.median(whole)


def passes(training: Training, steps: int) -> None:
    """Forward and backward alone, on one batch."""
    stage, section = training.first, training.section
    batch = training_batch(training.training, section, training.sigma, stage.name, 0)
    for _ in range(steps):
        stage.module.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(stage.losses(batch).values())).sum())


def seconds(work: object, steps: int) -> float:
    """CPU seconds of one step, which a busy machine does not change much."""
    start = time.process_time()
    work()  # type: ignore[operator]
    return (time.process_time() - start) / steps


def job(folder: Path, data: Path, method: str, batch: int) -> Job:
    """The bundled encoder on the training digits; no validation within the steps that are measured."""
    return Job.model_validate(
        {
            "name": "benchmark",
            "data": {"format": "parquet", "uri": str(data)},
            "encoder": {"model": "bundled:digits-clip", "device": "cpu"},
            "certify": {"sigma": 0.5},
            "train": {
                "method": method,
                "out": str(folder / "out"),
                "steps": 100_000,
                "validate_every": 100_000,
                "batch": batch,
                "purifier": {"channels": [48], "patch": 4},
            },
        }
    )


if __name__ == "__main__":
    main()
