"""``smoothcert reproduce``: certify one pair of a run once more and compare it with its row."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from smoothcert.cli import exit_codes
from smoothcert.cli.options import Overrides, RunDir, overrides, shorten_url
from smoothcert.cli.stored_job import job_of_run
from smoothcert.cli.terminal import Terminal

_LEADING = (
    "status", "error_class", "draws", "stop_reason", "smooth_norm", "smooth_norm_lcb", "robustness_score_lcb",
    "angular", "fcsb", "predicted_label", "certified_radius", "vote_label", "vote_radius", "caption_similarity_lcb",
    "retrieval_radius", "target_decision",
)  # fmt: skip


def reproduce(
    run_url: RunDir,
    pair_id: Annotated[str, typer.Argument(metavar="PAIR", help="A pair_id of the run.", show_default=False)],
    set_: Overrides = None,
) -> None:
    """Certify one pair of a run once more and compare every number with its row. Nothing is written.

    The job is the run's own; --set may change where it runs (encoder.device, slots, threads), not what it computes. The
    source and the encoder must still be there. Exit codes: 0 the same to 1e-5; 1 something differs; 2 no such pair.
    """
    from smoothcert.runtime.reproduce import CLOSE
    from smoothcert.runtime.reproduce import reproduce as certify_again
    from smoothcert.store import CERTIFICATES, RunDirectory

    run = RunDirectory.open(run_url)
    found = certify_again(run, pair_id, job_of_run(run, overrides(set_)))
    terminal = Terminal()
    terminal.say(f"{pair_id} of {shorten_url(run.url)}")
    shown = [name for name in _LEADING if found.stored[name] not in (None, []) or name in found.differing]
    for name in (*shown, *(name for name in found.differing if name not in _LEADING)):
        told = f"  {name:<24} {_cell(found.stored[name])}"
        if name in found.differing:
            terminal.say((f"{told}   again: {_cell(found.made[name])}", "yellow"))
        else:
            terminal.say(told)
    for note in found.notes:
        terminal.say(f"note: {note}")
    if found.differing:
        terminal.say((f"{len(found.differing)} columns differ by more than {CLOSE:g}", "red"))
        sys.exit(exit_codes.NOT_SOUND)
    terminal.say(f"the same in all {len(CERTIFICATES.columns)} columns, numbers to {CLOSE:g}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return "NULL" if value is None else str(value)
