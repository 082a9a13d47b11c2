"""What ``smoothcert status`` says of a run that is over, and of one that is not."""

from __future__ import annotations

import pytest

from smoothcert.runtime.status import RunStatus
from smoothcert.store.events import WorkerState

PENDING = "1 worker is pending: it needs 1 CPU and no node has one free"


def status(committed: int, kind: str) -> str:
    driver = WorkerState("driver:h:1", 100.0, False, False, ("u1",), 0, 0, PENDING, 90.0, kind)
    worker = WorkerState("h:2", 100.0, False, False, ("u1", "u2"), 50, 3, None, 0.0, "")
    run = RunStatus("r", "runs/r", 8, committed, 0, 2, 2, 100, None, None, (worker,), (driver,), now=160.0)
    return "\n".join(run.lines())


@pytest.mark.parametrize(
    ("committed", "kind", "shown"), [(7, "warning", True), (8, "warning", False), (8, "error", True)]
)
def test_warnings_of_a_complete_run_are_over_and_errors_are_not(
    committed: int, kind: str, shown: bool
) -> None:
    assert (PENDING in status(committed, kind)) == shown


def test_who_is_gone_has_nothing_in_flight() -> None:
    told = status(8, "warning")
    assert "h:2  not responding, 3 units done\n" in f"{told}\n" and "2 in flight" not in told
