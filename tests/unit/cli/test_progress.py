"""The line of progress: how far a run is and how long it still takes, by its draws."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from smoothcert.cli.progress import ProgressLine
from smoothcert.runtime.progress import Progress


def told(monkeypatch: pytest.MonkeyPatch, updates: list[Progress], **settings: float) -> list[str]:
    """The lines of updates that come every 20 seconds."""
    clock = [0.0]
    monkeypatch.setattr("smoothcert.cli.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    said = io.StringIO()
    line = ProgressLine(Console(file=said, width=200), **{"pairs": 100, "done": 0, **settings})  # type: ignore[arg-type]
    with line:
        for update in updates:
            clock[0] += 20.0
            line.update(update)
    return said.getvalue().splitlines()


def test_draws_of_pairs_that_end_together_are_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 of 100 pairs are worked on at once: the share grows by their draws, at 50 a second of 10,000."""
    updates = [Progress(1000, 0, 0), Progress(2000, 0, 0), Progress(4000, 40, 1), Progress(5000, 40, 1)]
    lines = told(monkeypatch, updates, draws_per_pair=100)
    assert [line.split()[0] for line in lines] == ["10%", "20%", "40%", "50%"]
    assert [line.split()[1] for line in lines] == ["0/100", "0/100", "40/100", "40/100"]
    assert lines[0].endswith("about 3 min 00 s left") and "50 draws/s" in lines[0]
    # of 4,000 draws in 40 pairs the draws of those that are worked on since take nothing away
    assert lines[-1].endswith("about 1 min 20 s left")


def test_what_pairs_took_corrects_what_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = told(monkeypatch, [Progress(1000, 50, 0)], draws_per_pair=400)
    assert line.startswith("50%  50/100 pairs") and line.endswith("about 20 s left")


def test_nothing_is_whole_before_every_pair_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """More draws than expected, some pairs of an earlier session, and no estimate at all."""
    more, whole = told(
        monkeypatch, [Progress(9000, 0, 0), Progress(9500, 10, 0)], draws_per_pair=100, done=90
    )
    assert more.startswith("99%  90/100 pairs") and not more.endswith("left")
    assert whole.startswith("100%  100/100 pairs")
    (line,) = told(monkeypatch, [Progress(500, 5, 0)], draws_per_pair=0)
    assert line.startswith("5%  5/100 pairs") and "left" not in line
