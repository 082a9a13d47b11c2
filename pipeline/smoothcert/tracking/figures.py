"""What MLflow is told about a run, as plain names and numbers: no MLflow in here.

Metrics are the figures that runs are compared by, without their intervals; every figure with its interval is a row of
``figures.csv``, which MLflow shows as a table. Figures at a radius are ``<figure>/r<radius>``, those under attack
``<figure>/<question>_<subject>_<norm>_<budget>``: MLflow sorts charts into sections by what stands before the slash, so
that a section holds one figure, and tables of runs can be sorted by one of them. (Steps are no radii: MLflow's are
whole.)
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.job import Job
from smoothcert.redaction import redact, without_secrets
from smoothcert.summary.attack_rules import RULE_FIGURES
from smoothcert.summary.attacked import FIGURES, UnderAttack
from smoothcert.summary.rounding import at_most
from smoothcert.summary.shares import Mean, Share
from smoothcert.summary.summary import AtRadius, Summary

PARAM_LIMIT = 500
"""Characters of a parameter; the shortest limit among MLflow's backends. job.yaml has the whole."""

SOURCE_LIMIT = 65_535
"""Bytes of a data set's source, in MySQL the narrowest of MLflow's backends."""
NOTE_LIMIT = 5_000
"""Characters of a tag, and so of the description, in servers of some age."""


def parameters(job: Job) -> dict[str, str]:
    """The resolved job, a dotted name for each field; without credentials and the tracking section."""
    data = redact(job.model_dump(mode="json", exclude={"tracking"}))
    data["certify"]["targets"] = [target.name for target in job.certify.targets]
    return {key: shorten(_text(value)) for key, value in _leaves(data)}


def job_document(job: Job) -> str:
    """``job.yaml`` as an artifact: the resolved job without credentials."""
    return yaml.safe_dump(redact(job.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def dataset_source(job: Job) -> str:
    """Where the data are, as JSON for MLflow's data set: every URI, or where they are too many the first ones.

    Then it says how many there are and their digest; job.yaml has the whole list.
    """
    uris = redact(list(job.data.uris))
    source: dict[str, Any] = {"uri": uris[0] if len(uris) == 1 else uris, "format": job.data.format}
    text = json.dumps(source)
    shown = len(uris)
    while len(text) > SOURCE_LIMIT:
        shown //= 2
        digest = hashlib.sha256(json.dumps(uris).encode()).hexdigest()
        text = json.dumps(source | {"uri": uris[:shown], "uris": len(uris), "sha256": digest})
    return text


def summary_document(summary: Summary) -> str:
    """``summary.json`` as an artifact."""
    return without_secrets(summary.to_json())


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a run under the name that MLflow knows it by.

    Attributes:
        name: of the metric.
        value: of the figure.
        low, high: its 95% interval; None where it has none.
        leading: whether it is a metric too, and not only a row of the table.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    leading: bool = False


def metrics(summary: Summary) -> dict[str, float]:
    """The leading figures, those at a radius and under attack first: MLflow's comparison draws the first one it has."""
    leading = [each for each in figures(summary) if each.leading]
    return {each.name: each.value for each in sorted(leading, key=lambda each: "/" not in each.name)}


def figures_document(summary: Summary) -> str:
    """``figures.csv`` as an artifact: every figure with its interval, empty where there is none."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(("figure", "value", "low", "high"))
    lines.writerows((each.name, each.value, each.low, each.high) for each in figures(summary))
    return out.getvalue()


def figures(summary: Summary) -> Iterator[Figure]:
    """Every figure of the summary that has a value, the leading ones of each kind first."""
    yield Figure("pairs", summary.pairs, leading=True)
    yield from _to_figures("quarantined", summary.quarantined, leading=True)
    if summary.draws_per_pair is not None:
        yield Figure("draws_per_pair", summary.draws_per_pair, leading=True)
    for name in ("ok", "unknown_labels", "draws", "pilot_draws", "expected_false_certificates"):
        yield Figure(name, getattr(summary, name))
    for name, metric in summary.metrics.items():
        yield from _to_figures(name, metric, leading=True)
    for at in summary.radii:
        yield from _at_radius(at)
    for each in summary.attacks:
        if each.is_worst_case:
            here = attack_name(each)
            for name in FIGURES:
                yield from _to_figures(f"{name}/{here}", getattr(each, name), leading=name in _ATTACKED)
        else:
            method = re.sub(r"[^A-Za-z0-9.]+", "_", each.method).strip("_.")[:60]
            name = f"success_among_right/{attack_name(each)}/{method}_{each.attack_id}"
            yield from _to_figures(name, each.success_among_right)
    for left in summary.attack_rules:
        here = f"{left.subject}_{left.norm}_{left.budget:g}"
        for name in RULE_FIGURES:
            yield from _to_figures(f"attacked_{name}/{here}", getattr(left, name))
    for name, figure in summary.answers.items():
        head, _, rest = name.partition("/")
        leads = isinstance(figure, Share) or "_" not in rest or head == "answers_cider"
        yield from _to_figures(
            f"{head}/{re.sub(_NO_LETTERS, '_', rest)[:_LONGEST_KIND]}", figure, leading=leads
        )
    for target in summary.targets:
        name = metric_name(target.name)
        yield from _to_figures(f"target_certified/{name}", target.certified, leading=True)
        yield from _to_figures(f"target_refuted/{name}", target.refuted)
        yield from _to_figures(f"target_budget/{name}", target.budget)
    for name, count in summary.tables.items():
        yield Figure(f"{name}/rows", count.rows)
        yield Figure(f"{name}/quarantined", count.quarantined)


_NO_LETTERS = r"[^\w.-]+"
"""What MLflow takes in no name, or takes for a folder; kinds of questions have it, such as yes/no."""
_LONGEST_KIND = 200
_ATTACKED = ("robust_accuracy", "success_among_right")
"""What attacks are compared by."""


_SHARES_OF = "angular"
"""The certificate whose shares at each cosine are metrics; those of others are rows of the table."""


def _at_radius(at: AtRadius) -> Iterator[Figure]:
    here = f"r{at.radius:g}"
    right = {each.figure: each.right_figure for each in CATALOGUE if each.right_figure}
    leading = {each.figure for each in CATALOGUE if each.leading} | {
        each.right_figure for each in CATALOGUE if each.leading
    }
    for name, share in at.unchanged.items():
        # of a prediction that is right and one that is not, the right one leads where labels tell
        better = at.unchanged.get(right.get(name, ""))
        yield from _to_figures(
            f"{name}/{here}", share, leading=name in leading and (better is None or better.share is None)
        )
    for name, figure in at.cosines.items():
        leads = any(each.leading for each in CATALOGUE if each.name == name)
        yield from _to_figures(f"certified_cosine_{name}/{here}", figure.mean, leading=leads)
        for each in figure.at_least:
            yield from _to_figures(
                f"certified_share_{name}_{each.cosine:g}/{here}", each.share, leading=name == _SHARES_OF
            )
        yield from _to_figures(f"vacuous_{name}/{here}", figure.vacuous)


def metric_name(target: str) -> str:
    """A target's name in letters that MLflow takes: ``angular>=0.8@0.25`` is ``angular_0.8_r0.25``."""
    return target.replace(">=", "_").replace("@", "_r")


def attack_name(each: UnderAttack) -> str:
    """What was asked, of whom and with how much, in letters that MLflow takes: ``classification_bare_l2_0.5``."""
    words = f"{each.question} {each.subject} {each.norm} {each.budget:g}"
    short = re.sub(r"[^A-Za-z0-9.]+", "_", words).strip("_")
    if len(short) <= 100 and not re.search(r"[^A-Za-z0-9.<> _-]", words):
        return short
    # a target may be any path or text
    return f"{short[:90]}_{hashlib.sha256(words.encode()).hexdigest()[:8]}"


def description(summary: Summary) -> str:
    """Markdown that MLflow shows on the run's page; radii that are too many for it are counted."""
    header, rows = summary.table()
    lines = [
        f"{summary.ok:,} of {summary.pairs:,} pairs have certificates, at sigma {summary.sigma:g} and alpha "
        f"{summary.alpha:g}. Of each statement at most {at_most(summary.expected_false_certificates)} certificates "
        "are expected to be false.",
        *(f"\nNote: {note}" for note in summary.notes),
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
    ]
    told = "\n".join(lines)
    for number, row in enumerate(rows):
        line = "\n| " + " | ".join(row) + " |"
        end = f"\n\n{len(rows) - number} more radii are in summary.json"
        if len(told) + len(line) + len(end) > NOTE_LIMIT:
            return told + end
        told += line
    return told


def shorten(text: str) -> str:
    """The text, or its head, length and digest where it is longer than a parameter may be."""
    if len(text) <= PARAM_LIMIT:
        return text
    tail = f"... [{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()}]"
    return text[: PARAM_LIMIT - len(tail)] + tail


def _to_figures(name: str, figure: Share | Mean | None, *, leading: bool = False) -> Iterator[Figure]:
    value = figure.share if isinstance(figure, Share) else figure.mean if figure is not None else None
    if figure is not None and value is not None:
        yield Figure(name, float(value), figure.low, figure.high, leading)


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
