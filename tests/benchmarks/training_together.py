"""A training by several processes of this machine beside the same by one: speed, and how far the losses are apart.

    python tests/benchmarks/training_together.py [--processes 2] [--steps 60] [--batch 64] [--device cuda]

Without Ray. NCCL where each process has a GPU, else gloo: then the processes share the GPU or the CPU, and show that
the numbers agree, not how fast several GPUs would be.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing

from smoothcert.datasets import write_demo_data
from smoothcert.job import Job
from smoothcert.training.team import ALONE, ProcessTeam, Team
from smoothcert.training.train import Training
from smoothcert.training.watching import Silent

WARM_UP = 10
"""Steps before the clock starts."""


class Clock(Silent):
    """Keeps times and losses."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []
        self.held_out: list[float] = []

    def step(self, stage: str, step: int, losses: Mapping[str, float]) -> None:
        """Losses are numbers here, so the device has done the step."""
        self.times.append(time.perf_counter())
        self.losses.append(losses["loss"])

    def validated(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Keep the held-out loss."""
        self.held_out.append(figures["held_out_loss"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_data(folder / "digits", "parquet", split="train")
        for method in ("purifier", "mapper", "noise"):
            job = make_job(folder, method, options)
            alone = fit(job, "alone", options.device, ALONE)
            torch.multiprocessing.spawn(member, (job, folder, options), nprocs=options.processes)
            together = Clock()
            together.__dict__.update(json.loads((folder / f"{method}.json").read_text()))
            print(
                f"{method}: {rate(alone):.1f} steps/s by one, {rate(together):.1f} by {options.processes}; "
                f"losses differ by at most {apart(alone.losses, together.losses):.1e} of themselves, "
                f"held-out losses by {apart(alone.held_out, together.held_out):.1e}"
            )


def make_job(folder: Path, method: str, options: argparse.Namespace) -> Job:
    """The bundled digits; the last validation is the end."""
    train = {"method": method, "out": str(folder / "out"), "steps": options.steps, "batch": options.batch}
    return Job.model_validate(
        {
            "name": "together",
            "data": {"format": "parquet", "uri": str(folder / "digits")},
            "encoder": {"model": "bundled:digits-clip"},
            "certify": {"sigma": 0.5},
            "tracking": {"enabled": False},
            "output": {"runs": str(folder / "runs")},
            "train": {**train, "validate_every": options.steps, "augment": True},
        }
    )


def fit(job: Job, out: str, device: str, team: Team) -> Clock:
    """Run a job into a directory of its own."""
    assert job.train is not None
    section = job.train.model_copy(update={"out": f"{job.train.out}-{out}-{job.train.method}"})
    here = job.encoder.model_copy(update={"device": device})
    clock = Clock()
    Training(job.model_copy(update={"train": section}), here, team=team).run(clock)
    return clock


def member(rank: int, job: Job, folder: Path, options: argparse.Namespace) -> None:
    """One process of the team."""
    torch.set_num_threads(1)
    gpus = torch.cuda.device_count() if options.device == "cuda" else 0
    own_gpu = gpus >= options.processes
    device = f"cuda:{rank % gpus}" if gpus else "cpu"
    if gpus:
        torch.cuda.set_device(device)
    assert job.train is not None
    meeting = f"file://{folder}/{job.train.method}.meeting"
    dist.init_process_group(
        "nccl" if own_gpu else "gloo", init_method=meeting, rank=rank, world_size=options.processes
    )
    clock = fit(job, "together", device, ProcessTeam(torch.device(device) if own_gpu else None))
    if rank == 0:
        (folder / f"{job.train.method}.json").write_text(json.dumps(vars(clock)))
    dist.destroy_process_group()


def rate(clock: Clock) -> float:
    """Steps a second after the warm-up."""
    return (len(clock.times) - WARM_UP) / (clock.times[-1] - clock.times[WARM_UP - 1])


def apart(ours: list[float], theirs: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(one - other) / abs(one) for one, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
