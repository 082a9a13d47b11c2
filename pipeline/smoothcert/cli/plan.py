"""``smoothcert plan``: what a job would do, how many draws its targets take, how long that is here, what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli.data_report import print_data
from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides, shorten_url
from smoothcert.cli.plan_answers import print_questions
from smoothcert.cli.terminal import Terminal, count_of
from smoothcert.cli.time_span import span
from smoothcert.job import Job, load_job

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver
    from smoothcert.runtime.plan import Plan
    from smoothcert.runtime.remaining import Remaining
    from smoothcert.work.certify.trial import Trial

_TRIAL_S = 20.0


def plan(
    job_file: JobFile,
    set_: Overrides = None,
    executor: ExecutorKind = None,
    probe: Annotated[
        bool,
        typer.Option(
            help="Load the encoder, measure this device for a few seconds and try the targets, to estimate draws and "
            "time."
        ),
    ] = True,
    tried: Annotated[
        int | None,
        typer.Option(
            "--try",
            min=1,
            help="Pairs to try the targets on; by default as many as take about 20 s, 32 at most.",
        ),
    ] = None,
) -> None:
    """Show pairs, units, draws, expected time and cost, without certifying anything."""
    job = load_job(job_file, overrides(set_, executor))
    if job.certify.targets:
        from smoothcert.work.certify.reach import check_reach

        check_reach(job.certify)
    if probe:
        _with_encoder(job, tried)
    else:
        _without_encoder(job)


def _without_encoder(job: Job) -> None:
    """Nothing is loaded that computes: neither the model nor torch."""
    from smoothcert.datasets import open_source
    from smoothcert.runtime.plan import make_plan
    from smoothcert.runtime.remaining import remaining_if_same_encoder

    terminal, source = Terminal(), open_source(job.data)
    made = make_plan(job, source)
    _print_plan(terminal, job, made, f"{job.encoder.model} (--no-probe: not loaded, taken as unchanged)")
    if job.answer is not None:
        print_questions(terminal, job.answer, source, made.units)
    _print_run(terminal, job, remaining_if_same_encoder(job, made))


def _with_encoder(job: Job, tried: int | None) -> None:
    from smoothcert.runtime.driver import Driver
    from smoothcert.runtime.remaining import remaining_work
    from smoothcert.work.certify.probe import measure_draws_per_second

    driver = Driver(job)
    terminal, made, encoder = Terminal(), driver.plan, driver.encoder
    _print_plan(terminal, job, made, f"{encoder.name}, {encoder.device.type}, {encoder.dtype}")
    if job.answer is not None:
        print_questions(terminal, job.answer, driver.source, made.units, driver.inputs)
    left = remaining_work(driver)
    _print_run(terminal, job, left)
    if not left.pairs:
        return
    rate = measure_draws_per_second(job, driver.source, made.units[0], encoder)
    together = _try(driver, rate, tried, terminal) if job.certify.targets else None
    _estimate(driver, left, rate, together, terminal)


def _print_plan(terminal: Terminal, job: Job, made: Plan, encoder: str) -> None:
    terminal.say(f"job        {job.name}")
    terminal.say(f"encoder    {encoder}")
    terminal.say(
        f"pairs      {made.pairs:,} in {count_of(len(made.files), 'file')}, {count_of(len(made.units), 'unit')}"
    )
    print_data(terminal, made, full=True)
    limit = "at most " if job.certify.targets else ""
    per_pair = f"{job.certify.pilot_draws} pilot + {limit}{job.certify.max_draws}"
    terminal.say(f"draws      {limit}{made.draws(job):,} ({per_pair} a pair)")


def _print_run(terminal: Terminal, job: Job, left: Remaining) -> None:
    """Where the run is, how far, and what would stop the job, or leave it untracked, once it runs."""
    from smoothcert.errors import TrackingError
    from smoothcert.storage import join
    from smoothcert.tracking.destination import destination

    terminal.say(f"run        {shorten_url(left.url or job.output.runs)}{_state(left)}")
    warning = ("warning    ", "yellow")
    if left.differences:
        terminal.say(warning, f"that directory belongs to another job: {left.differences[0]}")
    if job.tracking.enabled:
        try:
            destination(left.url or join(job.output.runs, "run"), job.tracking)
        except TrackingError as exc:
            terminal.say(warning, f"the run will not be tracked: {exc}")


def _state(left: Remaining) -> str:
    if left.url is None:
        return "  (new; the encoder is part of its name)"
    if not left.exists or left.differences:
        return ""
    if not left.pairs:
        return f"  (complete: {left.done:,} pairs)"
    return f"  ({left.done:,} pairs are done, {left.pairs:,} in {left.units:,} units are left)"


def _try(driver: Driver, rate: float, tried: int | None, terminal: Terminal) -> Trial | None:
    """Try each target, the same statements under other rules, and all together; None where that takes too long."""
    from smoothcert.cli.show_trial import show_trials
    from smoothcert.work.certify.trial import LEAST_PAIRS, MOST_PAIRS, choose_pairs, rivals_of, try_targets

    job, certify = driver.asked, driver.asked.certify
    rivals = {target: list(rivals_of(target)) for target in certify.targets}
    trials = sum(1 + len(others) for others in rivals.values()) + (len(rivals) > 1)
    draws_a_pair = trials * (certify.pilot_draws + certify.max_draws)
    count = tried or min(MOST_PAIRS, int(_TRIAL_S * rate / draws_a_pair))
    if not tried and count < LEAST_PAIRS:
        terminal.say(
            f"targets    not tried: {LEAST_PAIRS} pairs would take up to "
            f"{span(LEAST_PAIRS * draws_a_pair / rate)} here; --try {LEAST_PAIRS} tries them",
        )
        return None
    texts, pairs = driver.inputs.texts, choose_pairs(driver.source, driver.plan.units, count)
    rules = [
        [try_targets(job, driver.encoder, texts, pairs, (each,)) for each in (target, *rivals[target])]
        for target in certify.targets
    ]
    together = rules[0][0]
    if len(rules) > 1:
        together = try_targets(job, driver.encoder, texts, pairs, certify.targets)
    if not len(together.draws):
        terminal.say("targets    not tried: none of the pairs that were looked at can be encoded")
        return None
    show_trials(terminal, certify, [(own, others) for own, *others in rules], together)
    return together


def _estimate(
    driver: Driver, left: Remaining, rate: float, together: Trial | None, terminal: Terminal
) -> None:
    """Draws, time and cost of what is left."""
    job = driver.asked
    certify, price = job.certify, job.executor.price_per_worker_hour
    a_pair: float = certify.pilot_draws + certify.max_draws
    known = ""
    if left.draws_per_pair is not None:
        a_pair, known = left.draws_per_pair, "as the pairs that are done took"
    elif together is not None:
        a_pair, known = certify.pilot_draws + float(together.draws.mean()), "as the pairs tried took"
    limit = "at most " if certify.targets and not known else ""
    draws = left.pairs * a_pair
    if certify.targets and known:
        terminal.say(f"left       about {draws:,.0f} draws, {a_pair:,.0f} a pair, {known}")
    asked = 1 if job.executor.kind == "local" else job.executor.workers or 1
    workers = left.busy_workers(asked, draws)
    seconds = draws / (rate * workers)
    few = f" (of {asked}: there is no work for more)" if workers < asked else ""
    terminal.say(
        f"time       {limit}about {span(seconds)} on {workers} worker{'' if workers == 1 else 's'}{few} at this "
        f"device's speed ({rate:,.0f} draws/s)",
    )
    if price is not None:
        cost = seconds * asked / 3600 * price
        terminal.say(
            f"cost       {limit}about {cost:,.2f} ({asked} worker{'' if asked == 1 else 's'} for {span(seconds)} at "
            f"{price:g} an hour), {cost / left.pairs:.2g} a pair",
        )
