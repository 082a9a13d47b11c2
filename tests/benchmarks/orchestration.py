"""How busy actors are: python tests/benchmarks/orchestration.py [--actors 16] [--units 1000] [--seconds 0.5].

Units that only sleep, on real Ray actors under the real executor. Prints the share of the time between the first start
and the last end in which an actor had a unit in work, and the driver's time per unit. Target: 95%, below 3 ms.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import ray

from smoothcert.datasets import UnitSpec
from smoothcert.errors import PairError
from smoothcert.job import ExecutorSection
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.progress import Progress
from smoothcert.runtime.ray_executor import RayExecutor
from smoothcert.runtime.results import UnitResult
from smoothcert.store import Commit, PartFile


class SleepingSession:
    """A session whose device is busy for a fixed time per unit, one unit after the other."""

    broken = None
    noise = "none"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._device = ThreadPoolExecutor(1)
        self._done = 0

    def submit(self, unit: UnitSpec) -> Future[UnitResult]:
        """Queue a unit."""
        return self._device.submit(self._work, unit)

    def _work(self, unit: UnitSpec) -> UnitResult:
        began = time.time()
        time.sleep(self._seconds)
        self._done += 1
        part = PartFile("certificates", "none", 1, 1)
        worker = f"{os.getpid()}:{began}:{time.time()}"
        return UnitResult(
            unit.unit_id,
            Commit(unit_id=unit.unit_id, attempt="a", parts=(part,), ok=1, worker=worker),
            done=True,
        )

    def progress(self) -> Progress:
        """Counts."""
        return Progress(self._done, self._done, 0)

    def close(self) -> None:
        """Nothing to end."""

    abandon = close


@dataclass(frozen=True)
class Opening:
    """Opens a sleeping session."""

    seconds: float

    def __call__(self) -> SleepingSession:
        """The session."""
        return SleepingSession(self.seconds)


class NoDuties:
    """Nothing dies here."""

    def admit(self, noise: str) -> None:
        """Any."""

    def commit(self, result: UnitResult) -> None:
        """Never called."""

    def split(self, unit: UnitSpec, parts: tuple[UnitSpec, ...]) -> bool:
        """Never called."""
        raise AssertionError

    def convict(self, unit: UnitSpec, error: PairError) -> UnitResult:
        """Never called."""
        raise AssertionError


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, default=16)
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.5)
    given = parser.parse_args()
    ray.init(
        address="local",
        num_cpus=given.actors,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    # all actors are to be measured at work, not at their imports: they start on units that do not count
    warm_up = [UnitSpec(f"w{i}", "f", i, i + 1) for i in range(given.actors)]
    units = [UnitSpec(f"u{i}", "f", i, i + 1) for i in range(given.units)]
    spans: dict[str, list[tuple[float, float]]] = {}
    marks: list[float] = []

    def on_result(result: UnitResult) -> None:
        pid, began, ended = result.commit.worker.split(":")
        spans.setdefault(pid, []).append((float(began), float(ended)))
        if len(spans) == given.actors and not marks:
            marks.append(max(held[0][0] for held in spans.values()))
            marks.extend((time.thread_time(), time.process_time(), float(sum(map(len, spans.values())))))

    section = ExecutorSection(kind="ray", workers=given.actors, cpus_per_worker=1, gpus_per_worker=0)
    executor = RayExecutor(Opening(given.seconds), section, NoDuties(), uses_gpu=False)
    report = executor.run([*warm_up, *units], Monitor(on_result))
    loop, whole = time.thread_time() - marks[1], time.process_time() - marks[2]
    assert not report.failed
    start, counted = marks[0], sum(map(len, spans.values())) - marks[3]
    end = max(span[-1][1] for span in spans.values())
    busy = sum(max(0.0, e - max(b, start)) for span in spans.values() for b, e in span)
    # copies of the last units do not count as work, so a unit is counted once
    print(f"{given.actors} actors, {counted:.0f} units of {given.seconds} s in {end - start:.1f} s")
    print(f"busy {busy / (given.actors * (end - start)):.1%} (target 95%)")
    print(
        f"driver {loop / counted * 1e3:.2f} ms a unit in its loop (target 3), {whole / counted * 1e3:.2f} ms with Ray's"
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
