"""What each phase shows at its end, by the name of the phase."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from smoothcert.cli.keeping import track, write_summary
from smoothcert.cli.show_answers import show_answers
from smoothcert.cli.show_attacked_answers import show_attacked_answers
from smoothcert.cli.show_attacks import show_attacks
from smoothcert.cli.show_certificates import show_certificates
from smoothcert.cli.show_rows import show_rows
from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.work.tasks import Phase


_CERTIFICATION = "certification"
SHOW: dict[str, Callable[[Driver, PhaseReport, Terminal], int]] = {
    _CERTIFICATION: show_certificates,
    "attacks": show_attacks,
    "answers": show_answers,
    "attacked answers": show_attacked_answers,
}
"""Phases with a display of their own; any other shows how many rows it has."""


def show_phase(driver: Driver, phase: Phase, report: PhaseReport, terminal: Terminal) -> int:
    """Show what a phase did, bring summary.json and MLflow up to date; returns the exit code that its rows deserve."""
    show = SHOW.get(phase.name)
    code = show_rows(driver, phase, report, terminal) if show is None else show(driver, report, terminal)
    if phase.name != _CERTIFICATION:
        last = phase.name == driver.phases[-1].name
        track(driver, write_summary(driver), report, terminal, last=last)
    return code
