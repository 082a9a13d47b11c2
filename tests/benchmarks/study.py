"""What a study costs beside the work of its runs: python tests/benchmarks/study.py [--pairs 12] [--runs 3].

A fresh study of the bundled digits with attacks and MLflow: CPU seconds (user and system, those of child processes
among them) of each thing that a study does, over all runs and for one. Work is certifying, attacking and auditing; all
else is overhead. Target: overhead below 2 s a run, and an audit at most 2 s. Apart stands what there is once however
many runs follow: imports, loading the encoder (with the imports of transformers that come with it), and making MLflow's
database where there is none.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STUDY = """
name: overhead
data: {{format: parquet, uri: "{root}/digits", limit: {pairs}}}
encoder: {{model: "bundled:digits-clip", threads: 1}}
certify: {{sigma: 0.5, max_draws: 100, radii: [0.125, 0.25, 0.5, 0.75, 1.0], cosines: [0.5, 0.8, 0.9]}}
zero_shot: {{labels: [zero, one, two, three, four, five, six, seven, eight, nine]}}
attacks:
  - {{attack: pgd, norm: l2, budgets: [0.25, 0.5], objective: classification, steps: 2, eot_draws: 2,
      evaluate_draws: 50}}
  - {{attack: pgd, norm: l2, budgets: [0.125, 0.25], objective: divergence, subjects: smoothed, steps: 2,
      eot_draws: 2, evaluate_draws: 50}}
output: {{runs: "{root}/runs"}}
tracking: {{enabled: true, uri: "sqlite:///{root}/mlflow.db"}}
study:
  grid: {{certify.sigma: [{sigmas}]}}
"""
WORK = ("certify", "attack", "audit")
ONCE = ("imports", "encoder's load", "MLflow's new database")


def cpu_s() -> float:
    """CPU seconds of this process and of its children that ended."""
    return sum(os.times()[:4])


class Meter:
    """CPU seconds by what they went into; what is inside of another counts there no more."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inside = [0.0]

    @contextmanager
    def into(self, name: str) -> Iterator[None]:
        """Count the block under this name."""
        began = cpu_s()
        self._inside.append(0.0)
        try:
            yield
        finally:
            whole = cpu_s() - began
            self.spent[name] = self.spent.get(name, 0.0) + whole - self._inside.pop()
            self._inside[-1] += whole

    def watch(self, owner: Any, attribute: str, name: Callable[..., str] | str) -> None:
        """Count every call of a function."""
        function = getattr(owner, attribute)

        def metered(*args: Any, **options: Any) -> Any:
            with self.into(name if isinstance(name, str) else name(*args, **options)):
                return function(*args, **options)

        setattr(owner, attribute, metered)


def run(root: Path, pairs: int, runs: int) -> Meter:
    """Run the study in this process."""
    meter = Meter()
    with meter.into("imports"):
        import matplotlib.pyplot
        import mlflow.store.db.utils
        import mlflow.store.tracking.sqlalchemy_store

        from smoothcert.audit import kept
        from smoothcert.cli import keeping, study
        from smoothcert.cli.running import StopSignals
        from smoothcert.cli.terminal import Terminal
        from smoothcert.datasets import write_demo_data
        from smoothcert.job import load_study
        from smoothcert.runtime.driver import Driver
        from smoothcert.sql import Query
        from smoothcert.studies import driving, tracked
        from smoothcert.summary import summary
        from smoothcert.tracking import track
    del matplotlib
    write_demo_data(root / "digits", "parquet")
    sigmas = ", ".join(f"{0.25 + 0.05 * number:.2f}" for number in range(runs))
    file = root / "study.yaml"
    file.write_text(STUDY.format(root=root, pairs=pairs, sigmas=sigmas))

    def of_phase(driver: Driver, name: str, *args: Any, **options: Any) -> str:
        return "certify" if name == "certification" else "attack"

    meter.watch(Driver, "work", of_phase)
    meter.watch(kept, "audit_run", "audit")
    meter.watch(driving, "load_encoder", "encoder's load")
    meter.watch(Query, "__init__", "opening rows for SQL")
    meter.watch(summary, "summarise_run", "summary")
    meter.watch(keeping, "pages", lambda runs, *args, **options: "page" if len(runs) == 1 else "common page")
    meter.watch(driving, "make_leaderboard", "leaderboard")
    meter.watch(track, "track_run", "MLflow, runs")
    meter.watch(tracked, "track_study", "MLflow, study")
    meter.watch(mlflow.store.db.utils, "_initialize_tables", "MLflow's new database")
    from smoothcert import tracking
    from smoothcert.cli import study_tracking

    tracking.track_run, study_tracking.pages = track.track_run, keeping.pages
    with meter.into("check, record, print"):
        driver = driving.StudyDriver(load_study(str(file), []))
        driver.check()
        code = study.run_study(driver, StopSignals(Terminal(stderr=True)))
    if code not in driving.FINISHED:
        sys.exit(f"the study ended with code {code}")
    return meter


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        meter = run(Path(root), given.pairs, given.runs)
    print(f"\n{given.runs} runs of {given.pairs} pairs, CPU seconds:\n{'':<28}{'in all':>8}{'a run':>8}")
    for name, spent in meter.spent.items():
        print(f"{name:<28}{spent:>8.2f}{spent / given.runs:>8.2f}")
    beside = sum(spent for name, spent in meter.spent.items() if name not in (*WORK, *ONCE))
    print(f"{'beside these and work':<28}{beside:>8.2f}{beside / given.runs:>8.2f}  (target 2 a run)")


if __name__ == "__main__":
    main()
