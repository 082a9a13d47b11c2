"""``smoothcert report``: everything that the page shows, from committed rows to HTML."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from smoothcert.job.naming import run_title
from smoothcert.redaction import redact, without_secrets
from smoothcert.report.breakdowns import breakdown_questions
from smoothcert.report.curves import curve_questions
from smoothcert.report.differences import difference_figures
from smoothcert.report.figure import ReportFigure
from smoothcert.report.headline import headlines
from smoothcert.report.page import make_page
from smoothcert.report.pairs import shown_pairs
from smoothcert.sql import Query, asking
from smoothcert.sql.literals import quote
from smoothcert.store import RunDirectory, RunInfo

SHOWN_PAIRS = 24
"""Pairs of each kind that the page shows by default."""
NOT_PROMISED = (
    "Nothing about l-infinity budgets, patches, rotations or any other change that is not small in l2.",
    "Nothing about what happens before the image is resized to the encoder's input: sizes are of the resized image, in "
    "units of [0,1] pixels.",
    "Nothing about the encoder without noise: certificates are about the smoothed encoder, which averages "
    "noisy copies.",
    "Nothing about images that are not in the data; the 95% intervals speak of the population only as far as the pairs "
    "are a random sample of it.",
    "A pair without a certificate is not shown to be vulnerable, and an attack that fails does not show it robust.",
)


def make_report(
    runs: Sequence[RunDirectory],
    *,
    names: Sequence[str] | None = None,
    pairs: int = SHOWN_PAIRS,
    price: float | None = None,
    query: Query | None = None,
) -> str:
    """One HTML page about some runs, as of now.

    Args:
        runs: run directories, each once; the first is the one whose pairs are shown and that others are compared with.
        names: what the page calls them; default what varies between them, else their ids.
        pairs: how many of the least robust, of the most robust and of the quarantined pairs are shown.
        price: what a worker costs an hour, in any currency; default the job's ``executor.price_per_worker_hour``, and
            without one nothing is said of money.
        query: an open query with all of the runs, where there is one.

    Raises:
        QueryError: no run, or one twice.
        StoreError: reading rows failed.
    """
    infos = [run.info for run in runs]
    called = list(names) if names is not None else _names(infos)
    with asking(runs, query) as query:
        said = [headlines(query, info) for info in infos]
        questions = [
            *curve_questions(infos),
            *breakdown_questions(infos, said[0][0] if said and said[0] else None),
        ]
        figures = [figure for question in questions if (figure := question.ask(query)) is not None]
        shown, chosen_by, missing = shown_pairs(query, runs[0], pairs)
        facts = [_facts(query, run, name, price) for run, name in zip(runs, called, strict=True)]
        figures[_after_curves(figures) : 0] = list(difference_figures(query, runs, called))
    sentences = [
        [*(each.sentence for each in claims), *(f"Note: {without_secrets(note)}." for note in run.notes())]
        for claims, run in zip(said, runs, strict=True)
    ]
    title = infos[0].job.name if len({info.job.name for info in infos}) == 1 else "Several jobs"
    urls = " ".join(shlex.quote(without_secrets(run.url)) for run in runs)
    data = {
        "title": title,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "runs": [fact | {"sentences": told} for fact, told in zip(facts, sentences, strict=True)],
        "notPromised": NOT_PROMISED,
        "figures": [figure.as_mapping() for figure in figures],
        "pairs": shown,
        "pairsSql": chosen_by,
        "missing": [without_secrets(line) for line in missing],
        "about": "About this run" if len(runs) == 1 else "About these runs",
        "ask": [
            "Every figure has its data as CSV and the SQL that made it. To ask in SQL yourself:",
            f'smoothcert query {urls} "SELECT * FROM certified_share"',
        ],
    }
    return make_page(f"{title}: smoothcert report", [line for run in sentences for line in run], redact(data))


def _after_curves(figures: Sequence[ReportFigure]) -> int:
    return sum(1 for figure in figures if figure.section.startswith("Certified"))


def _names(infos: Sequence[RunInfo]) -> list[str]:
    """What varies between the runs; their ids where that does not tell them apart."""
    titles = [run_title(info.job).split(", ") for info in infos]
    if len(titles) > 1:
        same = set.intersection(*map(set, titles))
        titles = [[part for part in title if part not in same] for title in titles]
    names = [", ".join(title) for title in titles]
    return names if len(set(names)) == len(names) and all(names) else [info.run_id for info in infos]


def _facts(query: Query, run: RunDirectory, name: str, price: float | None) -> dict[str, Any]:
    info, certify = run.info, run.info.job.certify
    (row,) = query.rows(f"SELECT * FROM runs WHERE run_id = {quote(info.run_id)}")
    pairs = row["committed_pairs"] or 0
    taken = query.rows(
        f"SELECT table_name, sum(seconds) AS seconds FROM task_time WHERE run_id = {quote(info.run_id)} GROUP BY 1"
    )
    cost = say_cost(
        {each["table_name"]: each["seconds"] for each in taken},
        pairs,
        info.job.executor.price_per_worker_hour if price is None else price,
    )
    facts: Mapping[str, object] = {
        "run": info.run_id,
        "state": "finished"
        if row["finished"]
        else f"unfinished: {pairs:,} of {info.pairs:,} pairs; intervals hold at every moment, if the order of "
        "the pairs has nothing to do with what is certified of them (not if they are sorted by class)",
        "encoder": without_secrets(info.job.encoder.model),
        "data": ", ".join(without_secrets(uri) for uri in info.job.data.uris[:3]),
        "noise": f"Gaussian, sigma {certify.sigma:g} in [0,1] pixels",
        "failure probability of each certificate": f"{certify.alpha:g}",
        "draws": f"{row['draws']:,} ({row['draws'] / pairs:,.0f} a pair)" if pairs else "0",
        **cost,
        "seed": str(certify.seed),
        "created": info.created,
        "fingerprint": info.fingerprint,
        "data digest": info.data_digest,
        "encoder digest": info.encoder_digest,
        "code": info.code_version,
        **{f"note {number}": note for number, note in enumerate(run.notes(), start=1)},
    }
    parts = (
        f"{pairs:,} pairs",
        f"sigma {certify.sigma:g}",
        f"{row['draws']:,} draws",
        *(f"{what}: {value}" for what, value in cost.items()),
    )
    return {
        "id": info.run_id,
        "name": name,
        "brief": "; ".join(parts) + ".",
        "facts": [[key, value] for key, value in facts.items()],
    }


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1.0 else f"{amount:.2g}"


_WORK = {
    "certificates": "certification",
    "attacks": "attacks",
    "answers": "answers",
    "attacked_answers": "attacks on answers",
}
"""What fills each table, for people; others are called by their table."""


def say_cost(seconds: Mapping[str, float], pairs: int, price: float | None) -> dict[str, str]:
    """What each kind of work took of workers, and in money where a price is known, by the names of the facts.

    Args:
        seconds: in which workers had units, summed over workers, by the table that they filled.
        pairs: that were certified.
        price: of a worker for an hour, in any currency.
    """
    said = {"time of workers, certification": "-"}
    for table in sorted(seconds, key=[*_WORK, *seconds].index):
        work, taken = _WORK.get(table, table), seconds[table]
        if not pairs or not taken:
            continue
        said[f"time of workers, {work}"] = f"{taken:,.1f} s ({taken / pairs:.3g} s a pair)"
        if price is not None:
            total = taken / 3600 * price
            said[f"cost of the {work}"] = (
                f"{_money(total)} ({_money(total / pairs)} a pair) at {price:g} an hour of a worker, start-up and "
                "waiting left out"
            )
    return said
