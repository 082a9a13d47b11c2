"""Certificates about texts against the numbers that they rest on: class, rank, caption (docs/theory.md T4).

A row names what its binding rival's radius follows from, except that ``smooth_norm_lcb`` and ``caption_similarity_lcb``
stand there at alpha, where these certificates used a part of it. Bounds at a part are never above those at the whole,
so that what is computed here is a cap. A certificate without its numbers is a finding: rows from before those numbers
were kept cannot be audited.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from smoothcert.audit.rules import LAST_DIGIT, SLACK, Rule, number
from smoothcert.store import RunDirectory, RunInfo
from smoothcert.summary.scan import quoted

POOL = "plan/pool.json"
"""Where a run keeps its retrieval pool."""
PLANE_SEARCH = 1e-4
"""Relative precision of a radius from two directions: some 2e-5 depend on which rows are searched side by side."""

_NORM = (
    # NULL says that nothing above 0 is known
    "CASE WHEN smooth_norm_lcb IS NULL THEN 0 WHEN smooth_norm_lcb BETWEEN 0 AND 1 THEN smooth_norm_lcb END"
)


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
    ok = f"FROM certificates WHERE run_id = {quoted(info.run_id)} AND status = 'ok'"
    inner = ("caption_alignment", "class_rival_alignment", "retrieval_rival_alignment")
    margins = ("class_rival_margin_lcb", "retrieval_rival_margin_lcb")
    outside = [f"NOT {name} BETWEEN -1 AND 1" for name in margins]
    outside += [f"NOT abs({name}) <= 1 + {number(SLACK)}" for name in inner]
    yield Rule(
        "impossible-value",
        "2",
        "a margin or an inner product is outside its range, or a class is its own rival",
        f"SELECT pair_id, concat_ws(', ', 'rival ' || class_rival, {', '.join((*margins, *inner))}) AS detail {ok} "
        f"AND ({' OR '.join(outside)} OR class_rival = predicted_label)",
    )
    for kind in ("class", "retrieval"):
        yield _beyond_the_norm(kind, ok)
    sigma = number(info.job.certify.sigma)
    yield _radius("certified_radius", "class", _margin_radius("class", sigma), ok)
    yield _radius("retrieval_radius", "retrieval", _rank_radius(info, pool, sigma), ok)
    # over a rival that was not measured, the margin is the smallest that any m of norm at most 1 can have
    turned = f"acos({_NORM}) + acos(-({_alignment('class_rival_alignment')}))"
    smallest = f"coalesce({_checked('class_rival_margin_lcb')}, cos(least(pi(), {turned})))"
    yield _bound("class_margin_lcb", smallest, "class_rival_alignment", ok)
    similarity, aligned = _checked("caption_similarity_lcb"), _alignment("caption_alignment")
    for i, radius in enumerate(info.job.certify.radii, start=1):
        computed = f"similarity_bound({similarity}, {_NORM}, {aligned}, {number(radius)}, {sigma})"
        yield _bound(f"caption_bound[{i}]", computed, "caption_alignment", ok)


def _checked(name: str) -> str:
    """A projection, NULL where it is none: the functions refuse what is outside their domain."""
    return f"CASE WHEN {name} BETWEEN -1 AND 1 THEN {name} END"


def _alignment(name: str) -> str:
    """An inner product of unit vectors, which rounding may have put outside its range; NULL where it is none."""
    return f"CASE WHEN abs({name}) <= 1 + {number(SLACK)} THEN greatest(-1, least(1, {name})) END"


def _margin_radius(kind: str, sigma: str) -> str:
    margin, alignment = f"{kind}_rival_margin_lcb", f"{kind}_rival_alignment"
    # of a rival that was not measured nothing is known but that its margin is at least -1
    known = f"CASE WHEN {margin} IS NULL THEN -1 ELSE {_checked(margin)} END"
    return f"margin_radius({known}, {_NORM}, {_alignment(alignment)}, {sigma})"


def _rank_radius(info: RunInfo, pool: Sequence[str] | None, sigma: str) -> str:
    """As for a class, or infinite where the pool has fewer than k captions that are not the pair's own.

    Without the pool no rank is beyond losing.
    """
    computed, retrieval = _margin_radius("retrieval", sigma), info.job.retrieval
    if retrieval is None or pool is None:
        return computed
    own = f"len(list_intersect(list_distinct(captions), [{', '.join(map(quoted, pool))}]))"
    rivals = f"{retrieval.candidates} - coalesce({own}, 0)"
    safe = f"isinf(retrieval_radius) AND retrieval_rival_alignment IS NULL AND {rivals} < {retrieval.k}"
    return f"CASE WHEN {safe} THEN retrieval_radius ELSE {computed} END"


def _beyond_the_norm(kind: str, ok: str) -> Rule:
    """The mean of the draws is at most of length 1: what it has along the pilot direction it lacks elsewhere.

    Only positive margins: a caption with the own one's feature has no direction, and counts as aligned with the pilot.
    """
    margin, alignment = f"{kind}_rival_margin_lcb", _alignment(f"{kind}_rival_alignment")
    largest = f"cos(acos({_alignment('smooth_norm')}) - acos(-({alignment})))"
    return Rule(
        "above-estimate",
        "4.2",
        "a margin is larger than the estimated norm leaves room for",
        f"SELECT pair_id, '{margin} is ' || {margin} || ', N ' || smooth_norm || ' allows ' || {largest} AS detail "
        f"{ok} AND {margin} > greatest(0, {largest}) + {number(LAST_DIGIT)} AND {largest} IS NOT NULL",
    )


def _radius(name: str, kind: str, computed: str, ok: str) -> Rule:
    return _rounded_up(
        name,
        computed,
        f"{kind}_rival_alignment",
        f"stored * (1 - {number(PLANE_SEARCH)}) > coalesce(computed, -1)",
        ok,
    )


def _bound(name: str, computed: str, basis: str, ok: str) -> Rule:
    return _rounded_up(name, computed, basis, f"stored > coalesce(computed, -2) + {number(LAST_DIGIT)}", ok)


def _rounded_up(name: str, computed: str, basis: str, where: str, ok: str) -> Rule:
    """A stored number that does not follow from its row; ``basis`` is there whenever the others are."""
    return Rule(
        "rounded-up",
        "4.2",
        "a stored bound or radius is larger than its confidence bound allows",
        f"SELECT pair_id, '{name} is ' || stored || CASE WHEN lacking THEN ', and the row lacks what it rests on' ELSE "
        "', at most ' || coalesce(computed::VARCHAR, 'nothing') || ' follows' END AS detail FROM "
        f"(SELECT pair_id, {name} AS stored, {computed} AS computed, {basis} IS NULL AS lacking {ok}) WHERE {where}",
    )
