"""Figures by what pairs have in common (labels, own columns, reasons of quarantine), and by what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from smoothcert.report.answers import answer_questions
from smoothcert.report.figure import LONGEST_TEXT, Chart, FigureQuery
from smoothcert.report.headline import Headline
from smoothcert.sql.literals import quote
from smoothcert.store import RunInfo

_GROUPS = "Who is robust"
_COST = "What it cost"
_MOST_GROUPS = 40
"""Labels and values that are shown, the most frequent ones."""
_BINS = 40
_MOMENTS = 200


def breakdown_questions(infos: Sequence[RunInfo], headline: Headline | None) -> Iterator[FigureQuery]:
    """Breakdowns of some runs; the share is the headline's claim."""
    if headline is not None:
        yield _by("label", "label", infos[0], headline)
        for column in infos[0].job.data.kept:
            yield _by(f"column-{column}", column, infos[0], headline)
    yield from answer_questions(infos)
    yield _quarantine()
    yield _draws(infos)
    yield _progress()
    yield _workers()


def _by(key: str, column: str, info: RunInfo, headline: Headline) -> FigureQuery:
    name = '"' + column.replace('"', '""') + '"'
    # while a run goes on, an interval that holds at every moment
    fixed = f"(SELECT finished FROM runs WHERE run_id = {quote(info.run_id)})::INTEGER"
    counts = f"certified, pairs, {fixed}, confidence := {headline.confidence!r}"
    chosen = f", allowing for the choice among {headline.choices} radii" if headline.choices > 1 else ""
    return FigureQuery(
        key=f"by-{key}",
        section=_GROUPS,
        title=f"By {column}",
        note=f"Share of the pairs with each value for which holds: {headline.claim}. With 95% intervals{chosen}, each "
        f"of its value alone; the {_MOST_GROUPS} most frequent values of the first run.",
        sql=f"SELECT left({name}::VARCHAR, {LONGEST_TEXT}) AS value, count(*) AS pairs, "
        f"count_if({headline.condition})::BIGINT AS certified, certified / pairs AS share, "
        f"share_low({counts}) AS share_low, share_high({counts}) AS share_high, "
        "count_if(status = 'quarantined')::BIGINT AS quarantined "
        f"FROM certificates WHERE run_id = {quote(info.run_id)} AND {name} IS NOT NULL "
        f"GROUP BY 1 ORDER BY pairs DESC, value LIMIT {_MOST_GROUPS}",
        chart=Chart(
            kind="bars",
            x="share",
            y="value",
            low="share_low",
            high="share_high",
            x_title="share certified",
            scale="share",
        ),
    )


def _draws(infos: Sequence[RunInfo]) -> FigureQuery:
    step = max(1, max(info.job.certify.max_draws for info in infos) // _BINS)
    return FigureQuery(
        key="draws",
        section=_COST,
        title="Draws spent on a pair",
        note="Noisy forward passes a pair, pilots left out. Drawing stops as soon as every target is decided; without "
        "targets every pair gets the same number.",
        sql=f"SELECT run_id, draws // {step} * {step} AS draws_from, count(*) AS pairs, "
        "count(*) / sum(count(*)) OVER (PARTITION BY run_id) AS share FROM certificates WHERE status = 'ok' "
        "GROUP BY run_id, draws_from ORDER BY run_id, draws_from",
        chart=Chart(
            kind="columns",
            x="draws_from",
            y="pairs",
            x_title=f"draws (steps of {step:,})",
            y_title="pairs",
            scale="count",
        ),
    )


def _quarantine() -> FigureQuery:
    return FigureQuery(
        key="quarantine",
        section="Left out",
        title="Quarantined pairs, by reason",
        note="Pairs that could not be read, decoded or encoded. They claim nothing, and count as not "
        "certified in every "
        "share of all pairs.",
        sql="SELECT run_id, error_stage, error_class, count(*) AS pairs, "
        f"arg_min(pair_id, pair_id) AS example, left(arg_min(error_message, pair_id), {LONGEST_TEXT}) AS its_message "
        "FROM quarantine GROUP BY run_id, error_stage, error_class ORDER BY run_id, pairs DESC, error_class",
    )


def _progress() -> FigureQuery:
    return FigureQuery(
        key="progress",
        section=_COST,
        title="Pairs certified over time",
        note="Seconds since the first unit of the certification began. Flat stretches are breaks: nothing "
        "was committed.",
        sql="WITH begun AS (SELECT run_id, min(epoch(committed_at) - seconds) AS moment, "
        f"greatest(0.1, (max(epoch(committed_at)) - moment) / {_MOMENTS}) AS step FROM units GROUP BY run_id), "
        "counted AS (SELECT u.run_id, ceil((epoch(committed_at) - moment) / step) * any_value(step) AS seconds, "
        'sum("rows") AS pairs FROM units u JOIN begun b USING (run_id) '
        "GROUP BY u.run_id, ceil((epoch(committed_at) - moment) / step)) "
        "SELECT run_id, round(seconds, 1) AS seconds, "
        "(sum(pairs) OVER (PARTITION BY run_id ORDER BY seconds))::BIGINT AS pairs FROM counted ORDER BY "
        "run_id, seconds",
        chart=Chart(
            kind="curve",
            x="seconds",
            y="pairs",
            x_title="seconds",
            y_title="pairs",
            markers=False,
            scale="count",
        ),
    )


def _workers() -> FigureQuery:
    return FigureQuery(
        key="workers",
        section=_COST,
        title="Workers and devices",
        note="Seconds in which a worker had a unit; busy is their share of the time between the beginning of its first "
        "unit and the end of its last.",
        sql="WITH used AS (SELECT unit_id, run_id, any_value(device) AS device, any_value(dtype) AS dtype "
        "FROM certificates GROUP BY ALL), counted AS (SELECT run_id, worker, any_value(device) AS device, "
        'any_value(dtype) AS dtype, sum("rows")::BIGINT AS pairs '
        "FROM units LEFT JOIN used USING (run_id, unit_id) GROUP BY run_id, worker) "
        "SELECT run_id, worker, device, dtype, units, pairs, draws, seconds, seconds / pairs AS seconds_a_pair, "
        "draws / nullif(seconds, 0) AS draws_per_second, seconds / nullif(wall_seconds, 0) AS busy "
        "FROM worker_time JOIN counted USING (run_id, worker) ORDER BY run_id, worker",
    )
