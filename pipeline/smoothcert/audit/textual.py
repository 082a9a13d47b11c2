"""Certificates about texts against the numbers that they rest on: class, rank, caption (docs/theory.md T4).

A row names what its binding rival's radius follows from, except that ``smooth_norm_lcb`` and ``caption_similarity_lcb``
stand there at alpha, where these certificates used a part of it. Bounds at a part are never above those at the whole,
so that what is computed here is a cap. A certificate without its numbers is a finding: rows from before those numbers
were kept cannot be audited.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from smoothcert.audit.expressions import SLACK, argument, compute_sql, number
from smoothcert.audit.rules import LAST_DIGIT, Check, Failing, Rule
from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.catalogue.evidence import CLASS_RIVAL_ALIGNMENT, CLASS_RIVAL_MARGIN, NORM, Evidence
from smoothcert.catalogue.quantities import RANK_MARGIN
from smoothcert.sql.literals import quote
from smoothcert.store import RunDirectory, RunInfo

POOL = "plan/pool.json"
"""Where a run keeps its retrieval pool."""
PLANE_SEARCH = 1e-4
"""Relative precision of a radius from two directions: some 2e-5 depend on which rows are searched side by side."""

_TEXTUAL = tuple(each for each in CATALOGUE if not each.quantity.cosine)
"""Certificates whose bounds are no cosines between features."""


def pool_of(run: RunDirectory) -> tuple[str, ...] | None:
    """The captions that ranks are among, as they were drawn for the run; None where that is not kept.

    Raises:
        StoreError: reading failed.
    """
    text = None if run.info.job.retrieval is None else run.read_document(POOL)
    return None if text is None else tuple(json.loads(text))


def textual_rules(info: RunInfo, pool: Sequence[str] | None) -> Iterator[Rule]:
    """What class, rank and caption certificates of one run never show.

    Args:
        info: the run.
        pool: its retrieval pool.
    """
    ok = f"FROM certificates WHERE run_id = {quote(info.run_id)} AND status = 'ok'"
    basis = dict.fromkeys(each for certificate in _TEXTUAL for each in certificate.basis)
    inner = [each.column for each in basis if each.kind == "known"]
    margins = [each.column for each in basis if each.kind == "rival"]
    outside = [f"NOT {name} BETWEEN -1 AND 1" for name in margins]
    outside += [f"NOT abs({name}) <= 1 + {number(SLACK)}" for name in inner]
    yield Rule(
        "impossible-value",
        "2",
        "a margin or an inner product is outside its range, or a class is its own rival",
        f"SELECT pair_id, concat_ws(', ', 'rival ' || class_rival, {', '.join((*margins, *inner))}) AS detail {ok} "
        f"AND ({' OR '.join(outside)} OR class_rival = predicted_label)",
    )
    for certificate in _TEXTUAL:
        for margin in (each for each in certificate.basis if each.kind == "rival"):
            yield _beyond_the_norm(margin, _needed(certificate), ok)
    sigma = number(info.job.certify.sigma)
    # over a rival that was not measured, the margin is the smallest that any m of norm at most 1 can have
    turned = f"acos({argument(NORM)}) + acos(-({argument(CLASS_RIVAL_ALIGNMENT)}))"
    measured = f"CASE WHEN {CLASS_RIVAL_MARGIN.column} IS NOT NULL THEN {argument(CLASS_RIVAL_MARGIN)} END"
    smallest = f"coalesce({measured}, cos(least(pi(), {turned})))"
    checks = [_bound("class_margin_lcb", smallest, CLASS_RIVAL_ALIGNMENT)]
    for certificate in _TEXTUAL:
        needed = _needed(certificate)
        if certificate.radius is not None:
            follows = compute_sql(certificate, certificate.radius, sigma)
            if certificate.quantity == RANK_MARGIN:
                follows = _or_no_rival(certificate.radius.column, follows, needed, info, pool)
            checks.append(_radius(certificate.radius.column, follows, needed))
        if certificate.bound is not None:
            for i, radius in enumerate(info.job.certify.radii, start=1):
                follows = compute_sql(certificate, certificate.bound, sigma, number(radius), position=i)
                checks.append(_bound(f"{certificate.bound.column}[{i}]", follows, needed))
    yield Rule(
        "rounded-up",
        "4.2",
        "a stored bound or radius is larger than its confidence bound allows",
        Failing(checks, ok, ", ".join(dict.fromkeys(_needed(each).column for each in _TEXTUAL))),
    )


def _needed(certificate: Certificate) -> Evidence:
    """What is there whenever the rest of a certificate's basis is."""
    return next((each for each in certificate.basis if each.kind == "known"), certificate.basis[0])


def _or_no_rival(
    name: str, follows: str, alignment: Evidence, info: RunInfo, pool: Sequence[str] | None
) -> str:
    """As it follows from a rival, or infinite where the pool has fewer than k captions that are not the pair's own.

    Without the pool no rank is beyond losing.
    """
    retrieval = info.job.retrieval
    if retrieval is None or pool is None:
        return follows
    own = f"len(list_intersect(list_distinct(captions), [{', '.join(map(quote, pool))}]))"
    rivals = f"{retrieval.candidates} - coalesce({own}, 0)"
    safe = f"isinf({name}) AND {alignment.column} IS NULL AND {rivals} < {retrieval.k}"
    return f"CASE WHEN {safe} THEN {name} ELSE {follows} END"


def _beyond_the_norm(margin: Evidence, alignment: Evidence, ok: str) -> Rule:
    """The mean of the draws is at most of length 1: what it has along the pilot direction it lacks elsewhere.

    Only positive margins: a caption with the own one's feature has no direction, and counts as aligned with the pilot.
    """
    estimate = f"CASE WHEN abs({NORM.estimate}) <= 1 + {number(SLACK)} THEN greatest(-1, least(1, {NORM.estimate})) END"
    largest = f"cos(acos({estimate}) - acos(-({argument(alignment)})))"
    name = margin.column
    return Rule(
        "above-estimate",
        "4.2",
        "a margin is larger than the estimated norm leaves room for",
        f"SELECT pair_id, '{name} is ' || {name} || ', N ' || {NORM.estimate} || ' allows ' || {largest} AS detail "
        f"{ok} AND {name} > greatest(0, {largest}) + {number(LAST_DIGIT)} AND {largest} IS NOT NULL",
    )


def _radius(name: str, follows: str, needed: Evidence) -> Check:
    condition = f"{{stored}} * (1 - {number(PLANE_SEARCH)}) > coalesce({{computed}}, -1)"
    return _rounded_up(name, follows, needed, condition)


def _bound(name: str, follows: str, needed: Evidence) -> Check:
    return _rounded_up(
        name, follows, needed, f"{{stored}} > coalesce({{computed}}, -2) + {number(LAST_DIGIT)}"
    )


def _rounded_up(name: str, follows: str, needed: Evidence, condition: str) -> Check:
    """A stored number that does not follow from its row; ``needed`` is there whenever the rest of its basis is."""
    return Check(
        name,
        condition,
        f"'{name} is ' || {{stored}} || CASE WHEN {needed.column} IS NULL THEN ', and the row lacks what it rests on' "
        "ELSE ', at most ' || coalesce({computed}::VARCHAR, 'nothing') || ' follows' END",
        follows,
    )
