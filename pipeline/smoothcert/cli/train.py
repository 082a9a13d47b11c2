"""``smoothcert train``: fit a defence, or tune the encoder, and write what a job can name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from smoothcert.cli.options import JobFile, Overrides, overrides, shorten_url
from smoothcert.cli.running import StopSignals
from smoothcert.cli.tables import print_table
from smoothcert.cli.terminal import Terminal
from smoothcert.job import load_job

if TYPE_CHECKING:
    from smoothcert.job import Job
    from smoothcert.training.train import Trained, Training


def train(job_file: JobFile, set_: Overrides = None) -> None:
    """Fit what the section train of a job names: a purifier, a mapper, both, or the encoder itself.

    Checkpoints and what comes out go to train.out. Run the same command again to resume. The directory can then be
    named in encoder.purifier and encoder.mapper, its folder model in encoder.model. MLflow shows losses and held-out
    figures.

    With train.workers above 1 it runs on Ray.

    Exit codes: 0 done; 2 bad input; 3 the store failed; 5 a loss is no longer finite, a checkpoint is damaged, or
    workers failed; 130, 143 stopped by SIGINT, SIGTERM.
    """
    job = load_job(job_file, overrides(set_))
    sys.exit(
        run_training(
            open_training(job), StopSignals(Terminal(stderr=True), "the step in progress and its checkpoint")
        )
    )


def open_training(job: Job) -> Training:
    """The training of a job, as this process needs it.

    Raises:
        SmoothcertError: it cannot begin.
    """
    if job.train is not None and job.train.workers > 1:
        from smoothcert.runtime.ray_training import driver_training

        return driver_training(job)
    from smoothcert.training.train import Training

    return Training(job)


def run_training(training: Training, signals: StopSignals) -> int:
    """Run what is left of a training, show it, and return the exit code."""
    from smoothcert.cli.training_progress import TrainingProgress

    terminal = signals.terminal
    _introduce(terminal, training)
    with TrainingProgress(terminal, training, signals.event) as progress, signals.quitting():
        if training.section.workers > 1:
            from smoothcert.runtime.ray_training import train_together

            trained = train_together(training, progress)
        else:
            trained = training.run(progress)
    if not trained.finished:
        terminal.say("stopped; run the same command again to resume")
        return 128 + (signals.signal or 0)
    _show(Terminal(), trained)
    for part in progress.tracked:
        terminal.say(part)
    return 0


def _introduce(terminal: Terminal, training: Training) -> None:
    section, encoder = training.section, training.encoder
    low, high = training.sigma
    noise = f"sigma {low:g}" if low == high else f"sigma {low:g} to {high:g}"
    where = f"{section.workers} workers on Ray" if section.workers > 1 else encoder.device.type
    terminal.say(
        f"{shorten_url(training.place.url)}  ({section.method}, {noise}; {len(training.training):,} images to "
        f"train on, {len(training.held_out):,} held out; encoder {encoder.name} on {where})"
    )


def _show(terminal: Terminal, trained: Trained) -> None:
    rows = []
    for sigma, (before, after) in sorted(trained.scores.items()):
        figures = (
            (before.robustness_score, after.robustness_score),
            (before.smooth_norm, after.smooth_norm),
            (before.clean_cosine, after.clean_cosine),
            (before.accuracy, after.accuracy),
        )
        rows.append((f"{sigma:g}", *(_change(*pair) for pair in figures)))
    header = ("sigma", "robustness score", "smooth norm", "cosine to clean", "accuracy")
    print_table(terminal, "Held-out pairs, before and after (estimates, not certificates)", header, rows)
    terminal.say(f"written to {shorten_url(trained.url)}")


def _change(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{before:.3f} to {after:.3f}"
