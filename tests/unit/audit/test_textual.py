"""Certificates about texts that do not follow from their rows, and rows from before those numbers were kept."""

import itertools
import json
import math
import runpy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.audit import audit
from smoothcert.audit import textual as audit_textual
from smoothcert.certificates import margin_radius
from smoothcert.datasets import UnitSpec
from smoothcert.job import parse_job
from smoothcert.sql import Query
from smoothcert.store import CERTIFICATES, Commit, RunDirectory, RunIdentity, rows_to_table
from smoothcert.store.compact import compact
from smoothcert.store.parts import PartFile, new_attempt

_AUDITED = runpy.run_path(str(Path(__file__).with_name("test_audit.py")))
certificate, make_run, put, raised = (_AUDITED[name] for name in ("certificate", "make_run", "put", "raised"))
SIGMA = _AUDITED["SIGMA"]
ADDED = {
    "exceedance_lcb",
    *(f"{name}_scalar_lcb" for name in ("clean", "class", "caption", "retrieval")),
    *(f"{name}_scalar" for name in ("clean", "class", "caption", "retrieval")),
    "eigenvalue",
    "eigenvalue_ucb",
    "escape_ucb",
    "caption_alignment",
    "class_rival",
    "class_rival_margin_lcb",
    "class_rival_alignment",
    "retrieval_rival_margin_lcb",
    "retrieval_rival_alignment",
    *("vote_label", "vote_share", "vote_share_lcb", "vote_radius"),
    *("retrieval_vote_share", "retrieval_vote_share_lcb", "retrieval_vote_radius"),
    *(f"{name}_quantile_lcb" for name in ("clean", "pilot", "caption", "class")),
    *(f"{name}_percentile" for name in ("clean", "pilot", "caption", "class")),
    *("clean_percentile_radius", "pilot_percentile_radius"),
}


Said = list[list[tuple[str, str]]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """What the audit says of the pairs of each group, every one changed in its own way: (rule, detail).

    One audit for all: what a rule says of a pair does not depend on the others.
    """
    groups = {
        "too much": [change for change, _ in (*TOO_MUCH, *LACKING)],
        "impossible": [change for change, _ in IMPOSSIBLE],
        "honest": list(HONEST),
        "unmeasured": [put(**UNMEASURED | {name: UNMEASURED[name] + 1e-3}) for name in CAPPED],
    }
    changes = list(itertools.chain(*groups.values()))
    rows = [certificate(2) | {"pair_id": f"a.parquet#{i}"} for i in range(len(changes))]
    for row, change in zip(rows, changes, strict=True):
        change(row)
    run = make_run(tmp_path_factory.mktemp("said") / "run", rows, planned=len(rows))
    run.write_document(audit_textual.POOL, json.dumps(["a", "b", "elsewhere"]).encode())
    found: Said = [[] for _ in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "LISTED", 10_000)
        for finding in audit.audit_run(run).findings:
            for pair, detail in finding.listed:
                found[int(pair.partition("#")[2])].append((finding.rule, detail))
    of_pairs = iter(found)
    return {name: list(itertools.islice(of_pairs, len(each))) for name, each in groups.items()}


def grown(name: str, factor: float) -> Any:
    return lambda row: row.update({name: row[name] * factor})


EXCEEDANCE = _AUDITED["EXCEEDANCE"]
TOO_MUCH = (
    # what the audit let pass before: a radius of 50 on a margin of next to nothing
    (put(certified_radius=50.0, class_margin_lcb=0.01), "certified_radius"),
    (grown("certified_radius", 1.02), "certified_radius"),
    (put(certified_radius=math.inf), "certified_radius"),
    (grown("class_rival_margin_lcb", 0.97), "certified_radius"),
    (put(class_rival_margin_lcb=None), "certified_radius"),
    (put(smooth_norm_lcb=None, angular=None, angular_radius=None), "certified_radius"),
    (put(class_rival_margin_lcb=0.0, class_margin_lcb=0.0), "certified_radius"),
    (put(class_margin_lcb=0.551), "class_margin_lcb"),
    (grown("retrieval_radius", 1.02), "retrieval_radius"),
    (put(retrieval_radius=math.inf), "retrieval_radius"),
    # two of three candidates are rivals: enough for rank 2 to be lost
    (put(retrieval_radius=math.inf, captions=("a",)), "retrieval_radius"),
    (put(retrieval_radius=math.inf, captions=("a", "a")), "retrieval_radius"),
    # of the own captions only those that the pool holds are no rivals
    (
        put(
            retrieval_radius=math.inf,
            captions=("a", "outside"),
            retrieval_rival_margin_lcb=None,
            retrieval_rival_alignment=None,
        ),
        "retrieval_radius",
    ),
    # a rival that was measured is one
    (put(retrieval_radius=math.inf, captions=("a", "b")), "retrieval_radius"),
    (put(angular_radius=(math.inf, math.inf)), "angular_radius[1]"),
    (put(fcsb_radius=(math.inf, math.inf)), "fcsb_radius[2]"),
    (put(fcsb_radius=(-1.0, -1.0)), "fcsb_radius[1]"),
    (put(retrieval_rival_margin_lcb=None), "retrieval_radius"),
    (raised("caption_bound", 0.02), "caption_bound[1]"),
    (raised("caption_bound", 0.02, 1), "caption_bound[2]"),
    (put(caption_similarity_lcb=0.4), "caption_bound[1]"),
    (raised("large_radius", 0.003, 1), "large_radius[2]"),
    (put(exceedance_lcb=(*EXCEEDANCE[:3], 0.7, 0.6, 0.3, 0.1, 0.02)), "large_radius[1]"),
)
LACKING = (
    (put(class_rival_alignment=None), "certified_radius"),
    (put(retrieval_rival_alignment=None), "retrieval_radius"),
    (put(caption_alignment=None), "caption_bound[1]"),
    (put(caption_similarity_lcb=None), "caption_bound[1]"),
    (put(exceedance_lcb=None), "large_radius[1]"),
    (put(exceedance_lcb=(*EXCEEDANCE[:7], None)), "large_radius[1]"),
)


def test_what_does_not_follow_from_the_row_is_named(said: dict[str, Said]) -> None:
    cases = zip((*TOO_MUCH, *LACKING), said["too much"], strict=True)
    for number, ((_, named), findings) in enumerate(cases):
        assert {rule for rule, _ in findings} == {"rounded-up"}, (number, named, findings)
        assert named in {detail.split(" ")[0] for _, detail in findings}, (number, named, findings)
        if number >= len(TOO_MUCH):
            assert all("lacks" in detail or "at most nothing" in detail for _, detail in findings), findings


IMPOSSIBLE = (
    (put(class_rival="two"), "impossible-value"),
    (put(class_rival_alignment=-1.1, certified_radius=None, class_margin_lcb=None), "impossible-value"),
    (put(retrieval_rival_margin_lcb=1.1, retrieval_radius=None), "impossible-value"),
    (put(caption_alignment=-2.0, caption_bound=None), "impossible-value"),
    # with a norm of 0.64 along the pilot direction, which leans 0.4 away from the rival: at most 0.96 of margin
    (put(class_rival_margin_lcb=0.98), "above-estimate"),
    (put(retrieval_rival_margin_lcb=0.95), "above-estimate"),
)


def test_numbers_that_cannot_be_are_named(said: dict[str, Said]) -> None:
    for number, ((_, rule), findings) in enumerate(zip(IMPOSSIBLE, said["impossible"], strict=True)):
        assert rule in {found for found, _ in findings}, (number, rule, findings)


UNMEASURED = {
    "class_rival": None,
    "class_rival_margin_lcb": None,
    "class_rival_alignment": -0.9,
    # arccos 0.62 + arccos 0.9 is 77.5 degrees, whose cosine is 0.2161
    "class_margin_lcb": 0.216,
    "certified_radius": float(margin_radius(None, 0.62, -0.9, SIGMA)),
}


HONEST = (
    put(**UNMEASURED),
    put(certified_radius=None, class_rival_margin_lcb=-0.2, class_rival_alignment=0.1, class_margin_lcb=-0.2),
    # a caption with the own one's feature: no direction, and no bound above 0
    put(retrieval_radius=None, retrieval_rival_margin_lcb=-0.1, retrieval_rival_alignment=1.0),
    # rounding may put the inner product of two equal vectors above 1
    put(retrieval_radius=None, retrieval_rival_margin_lcb=-0.1, retrieval_rival_alignment=1.0 + 4e-16),
    # both captions of the pair stand in the pool of three: one rival is no threat to rank 2
    put(
        captions=("a", "b"),
        retrieval_radius=math.inf,
        retrieval_rival_margin_lcb=None,
        retrieval_rival_alignment=None,
    ),
    # nothing is known of the norm: then the margin alone is what there is
    put(
        smooth_norm_lcb=None,
        angular=None,
        angular_radius=None,
        clean_reference=None,
        second_moment=None,
        second_moment_radius=None,
        certified_radius=float(margin_radius(0.55, 0.0, -0.4, SIGMA)),
        retrieval_radius=float(margin_radius(0.45, -0.1, -0.3, SIGMA)),
        caption_bound=None,
    ),
)


def test_what_follows_is_no_finding(said: dict[str, Said]) -> None:
    assert said["honest"] == [[]] * len(HONEST)


CAPPED = ("class_margin_lcb", "certified_radius")


def test_rivals_that_were_not_measured_have_their_own_cap(said: dict[str, Said]) -> None:
    for name, findings in zip(CAPPED, said["unmeasured"], strict=True):
        ((rule, detail),) = findings
        assert rule == "rounded-up" and detail.startswith(name)


def test_rows_from_before_are_read_compacted_and_found_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two parts, one without the columns that were added since: their certificates cannot be audited."""
    monkeypatch.setattr(audit, "LISTED", 1000)
    units = [UnitSpec(f"u{i:05d}-0", "a.parquet", 2 * i, 2 * i + 2) for i in range(2)]
    identity = RunIdentity(parse_job(_AUDITED["JOB"]), "d" * 64, _AUDITED["DIGEST"], "0.1")
    run = RunDirectory.create_or_open(str(tmp_path / "run"), identity, units)
    for number, unit in enumerate(units):
        attempt = new_attempt()
        rows = [certificate(i) | {"unit_id": unit.unit_id} for i in range(unit.start, unit.stop)]
        if number == 1:
            part = run.write_rows(CERTIFICATES, unit.unit_id, attempt, rows)
        else:
            table: pa.Table = rows_to_table(rows, CERTIFICATES, run_id=run.run_id, attempt=attempt)
            file = f"certificates/{unit.unit_id}-{attempt}.parquet"
            path = tmp_path / "run" / file
            path.parent.mkdir(exist_ok=True)
            pq.write_table(table.drop_columns(sorted(ADDED)), path)
            part = PartFile("certificates", file, len(rows), path.stat().st_size)
        run.commits.commit(Commit(unit_id=unit.unit_id, attempt=attempt, parts=(part,), ok=len(rows)))
    for _ in range(2):
        with Query([run]) as query:
            found = query.sql(
                f"SELECT pair_id, {', '.join(sorted(ADDED))} FROM certificates ORDER BY pair_id"
            )
        assert [row["class_rival"] for row in found.to_pylist()] == [None, None, "three", "three"]
        assert [all(row[name] is None for name in ADDED) for row in found.to_pylist()] == [True] * 2 + [
            False
        ] * 2
        result = audit.audit_run(run)
        assert {finding.rule for finding in result.findings} == {"rounded-up"}
        (finding,) = result.findings
        assert {pair for pair, _ in finding.listed} == {"a.parquet#0", "a.parquet#1"}
        named = {detail.split(" ")[0].partition("[")[0] for _, detail in finding.listed}
        assert named == {
            "certified_radius",
            "retrieval_radius",
            "class_margin_lcb",
            "caption_bound",
            "large_radius",
            *(f"{name}_distribution" for name in ("clean", "class", "caption", "retrieval")),
            "second_moment",
            "second_moment_radius",
        }
        compact(run)
