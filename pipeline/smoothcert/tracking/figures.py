"""What MLflow is told about a run, as plain names and numbers: no MLflow in here.

Names of metrics. A figure has its name, its 95% interval ``<name>_low`` and ``<name>_high``. Figures at a
radius are ``<figure>/r<radius>``: MLflow sorts charts into sections by what stands before the slash, so that
a section holds one figure over all radii, and tables of runs can be sorted by one of them. (Steps are no
radii: MLflow's are whole.)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from smoothcert.job import Job
from smoothcert.redaction import redact, without_secrets
from smoothcert.summary.attacked import FIGURES, UnderAttack
from smoothcert.summary.shares import Mean, Share
from smoothcert.summary.summary import Summary

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


def metrics(summary: Summary) -> dict[str, float]:
    """Every figure of the summary that has a value."""
    found: dict[str, float] = {
        "pairs": summary.pairs,
        "ok": summary.ok,
        "unknown_labels": summary.unknown_labels,
        "draws": summary.draws,
        "pilot_draws": summary.pilot_draws,
        "expected_false_certificates": summary.expected_false_certificates,
    }
    if summary.draws_per_pair is not None:
        found["draws_per_pair"] = summary.draws_per_pair
    found.update(_with_interval("quarantined", summary.quarantined))
    for name, metric in summary.metrics.items():
        found.update(_with_interval(name, metric))
    for at in summary.radii:
        here = f"r{at.radius:g}"
        for name, figure in at.cosines.items():
            found.update(_with_interval(f"{name}/{here}", figure.mean))
            found.update(_with_interval(f"{name}_vacuous/{here}", figure.vacuous))
            for each in figure.at_least:
                found.update(_with_interval(f"{name}_cosine_{each.cosine:g}/{here}", each.share))
        for name, share in at.unchanged.items():
            found.update(_with_interval(f"{name}/{here}", share))
    for name, count in summary.tables.items():
        found |= {f"{name}/rows": count.rows, f"{name}/quarantined": count.quarantined}
    for attacked in summary.attacks:
        if attacked.is_worst_case:
            for name in FIGURES:
                found.update(_with_interval(f"{name}/{attack_name(attacked)}", getattr(attacked, name)))
    for name, share in summary.answers.items():
        found.update(_with_interval(metric_name(name), share))
    for target in summary.targets:
        name = metric_name(target.name)
        for decision in ("certified", "refuted", "budget"):
            found.update(_with_interval(f"target_{decision}/{name}", getattr(target, decision)))
    return {name: float(value) for name, value in found.items()}


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
        f"{summary.alpha:g}. Of each statement at most {summary.expected_false_certificates:g} certificates "
        "are expected to be false.",
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


def _with_interval(name: str, figure: Share | Mean | None) -> dict[str, float]:
    if figure is None:
        return {}
    value = figure.share if isinstance(figure, Share) else figure.mean
    named = {name: value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return {key: number for key, number in named.items() if number is not None}


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
