"""What the data of a job holds: labels, what its digest covers, and what is no part of any pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.runtime.plan import Plan


def print_data(terminal: Terminal, plan: Plan, *, full: bool = False) -> None:
    """Print labels and everything left out; by default only what a reader must know before the run.

    Args:
        terminal: where to.
        plan: of the job.
        full: say too what is as it should be.
    """
    from smoothcert.datasets.left_out import NAMED

    def line(name: str, text: object) -> None:
        terminal.say(f"{name:<10} {str(text)}")

    labels = plan.labels
    if labels is not None and (full or labels.unknown or labels.missing or labels.refused):
        line("labels", labels)
    if full:
        line("data", f"digest {plan.data_digest[:16]} covers {plan.covers}")
    for entry in plan.left_out:
        line("beside" if entry.reason == NAMED else "left out", entry)
