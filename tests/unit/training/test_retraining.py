"""The same seed gives the same scores: of every method, with accumulated batches, in one go or stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from smoothcert.job import Job
from smoothcert.training.train import Training
from smoothcert.training.watching import Silent

MakeJob = Callable[..., Job]


class StopsAfter(Silent):
    """Stops after some steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def stopped(self) -> bool:  # type: ignore[override]
        return self._left <= 0

    def step(self, stage: str, step: int, losses: Mapping[str, float]) -> None:
        self._left -= 1


def figures(scores: Mapping[float, tuple[object, object]], at: int) -> list[float]:
    return [
        getattr(each[at], name)
        for each in scores.values()
        for name in ("robustness_score", "smooth_norm", "clean_cosine")
    ]


@pytest.mark.parametrize("method", ["psm", "fare", "tecoa", "noise"])
def test_retraining_gives_the_same_scores(make_job: MakeJob, tmp_path: Path, method: str) -> None:
    def training(name: str) -> Training:
        recipe = {"steps": 3, "validate_every": 1, "accumulate": 2, "sigma": 0.25}
        recipe["learning_rate"] = 2e-2 if method == "psm" else 3e-3
        return Training(make_job(method, out=str(tmp_path / name), **recipe))

    first = training("first").run(Silent()).scores
    assert not training("second").run(StopsAfter(2)).finished
    resumed = training("second").run(Silent()).scores
    assert figures(resumed, 1) == pytest.approx(figures(first, 1), abs=1e-3)
    moved = [abs(new - old) for old, new in zip(figures(first, 0), figures(first, 1), strict=True)]
    assert max(moved) > 3e-3, "the scores would tell another training apart"
