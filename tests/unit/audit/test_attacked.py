"""What the audit says of attacks: beaten certificates, outcomes that were owed, made again or impossible."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from smoothcert.audit.audit import RunAudit, audit_run
from smoothcert.datasets import UnitSpec
from smoothcert.sql import Query
from smoothcert.store import ATTACKS, Commit, RunDirectory, new_attempt, rows_to_table
from smoothcert.store.asked import AskedTask, note_asked
from smoothcert.store.parts import write_part
from smoothcert.store.retry_unit import retry_unit, superseded_rows
from smoothcert.store.units import task_of, unit_under

_AUDITED = runpy.run_path(str(Path(__file__).with_name("test_audit.py")))
certificate, outcome, make_run, audited, put = (
    _AUDITED[name] for name in ("certificate", "outcome", "make_run", "audited", "put")
)
PAIRS = _AUDITED["PAIRS"]
Row = dict[str, Any]

TEXTS = put(
    certified_radius=0.3,
    retrieval_radius=0.3,
    caption_bound=(0.1, -0.3),
    **{f"{name}_distribution": None for name in ("class", "caption", "retrieval")},
)
"""Rounder numbers; lower ones than those that follow are honest too."""
HELD = {
    "class_margin_label": "two",
    "class_margin_ucb": 0.05,
    "retrieval_margin_ucb": 0.01,
    "caption_similarity_ucb": 0.3,
}


CASES: tuple[tuple[Row, str | None], ...] = (
    ({}, None),
    ({"class_margin_ucb": -0.01}, "class"),
    ({"class_margin_ucb": -0.01, "perturbation_l2": 0.31, "budget": 0.31}, None),
    ({"class_margin_ucb": -0.01, "class_margin_label": "three"}, None),
    ({"class_margin_ucb": -0.01, "subject": "bare", "sigma": 0.0}, None),
    ({"class_margin_ucb": -0.01, "norm": "linf", "perturbation_linf": 0.02}, "class"),
    (
        {"class_margin_ucb": -0.01, "norm": "linf", "perturbation_l2": 0.31, "perturbation_linf": 0.1},
        None,
    ),
    ({"retrieval_margin_ucb": -1e-3}, "retrieval"),
    ({"caption_similarity_ucb": 0.09}, "caption_bound[1]"),
    ({"caption_similarity_ucb": -0.31, "perturbation_l2": 0.4, "budget": 0.4}, "caption_bound[2]"),
    ({"caption_similarity_ucb": 0.09, "perturbation_l2": 0.4, "budget": 0.4}, None),
)
"""What an attack achieves, and the certificate that it beats."""


@pytest.fixture(scope="module")
def beaten_by_pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """All cases in one run, a pair each."""
    certificates = [certificate(pair) for pair in range(len(CASES))]
    outcomes = [outcome(pair) | HELD | achieved for pair, (achieved, _) in enumerate(CASES)]
    for row in certificates:
        TEXTS(row)
    run = make_run(tmp_path_factory.mktemp("texts") / "run", certificates, outcomes, planned=len(CASES))
    found: dict[str, set[str]] = {}
    for finding in audit_run(run).findings:
        if finding.rule == "violation":
            for pair, detail in finding.listed:
                found.setdefault(pair, set()).add(detail.split(" ")[0])
    return found


@pytest.mark.parametrize("pair", range(len(CASES)))
def test_certificates_about_texts_are_attacked_too(beaten_by_pair: dict[str, set[str]], pair: int) -> None:
    beaten = CASES[pair][1]
    assert beaten_by_pair.get(f"a.parquet#{pair}", set()) == (set() if beaten is None else {beaten})


def test_a_defence_is_never_held_against_the_certificate_of_another_encoder(tmp_path: Path) -> None:
    """Whatever it achieves: it is another encoder. Shown as certified, or as the certified one, it would be."""
    nothing = {"certified_to_clean": None, "certified_to_smoothed": None, "certified_cosine": None}
    beaten = {"cosine_to_clean_ucb": 0.0, "cosine_to_smoothed_ucb": 0.0, "class_margin_ucb": -0.5}
    beaten |= {"cosine_to_clean": 0.0, "cosine_to_smoothed": 0.0, "class_margin": -0.5, "violation": None}
    defence = {"subject": "blurred", "encoder_digest": "b" * 64}
    rows = [outcome(pair) | beaten | nothing | defence for pair in range(PAIRS)]
    rows[1] |= {"certified_to_clean": 0.1, "certified_cosine": 0.1, "violation": False}
    run = make_run(tmp_path / "shown", [certificate(i) for i in range(PAIRS)], rows)
    (finding,) = audit_run(run).findings
    assert (finding.rule, [pair for pair, _ in finding.listed]) == ("certified-beyond-l2", ["a.parquet#1"])
    rows[1] = rows[2] | {"pair_id": "a.parquet#1", "subject": "smoothed"}
    run = make_run(tmp_path / "posing", [certificate(i) for i in range(PAIRS)], rows)
    assert "other-units" in {finding.rule for finding in audit_run(run).findings}


def test_an_attack_that_was_asked_for_and_never_ran_is_owed_to_every_pair(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [certificate(i) for i in range(PAIRS)])
    (section,) = run.info.job.attacks
    before = audit_run(run)
    assert before.sound and "pgd l2 (divergence) on bare, smoothed, which was never begun" in before.notes[0]
    note_asked(run, AskedTask(section.attack_id, "pgd", section.model_dump(mode="json")))
    begun = audit_run(run)
    (finding,) = begun.findings
    # one budget on two subjects
    assert (finding.rule, finding.count) == ("missing-attack", 2 * PAIRS)
    assert finding.listed[0] == ("a.parquet#0", f"pgd {section.attack_id} l2 0.25 on bare")
    assert begun.notes == ()


def attacked_again(url: Path, first: Row) -> RunDirectory:
    """A run whose pair 2 was attacked again: ``first`` is the row that was replaced."""
    run = make_run(
        url,
        [certificate(i) for i in range(PAIRS)],
        [first if i == 2 else outcome(i) for i in range(PAIRS)],
    )
    origin = unit_under(UnitSpec("u00000-0", "a.parquet", 0, PAIRS), "1a2b3c4d")
    unit = retry_unit(origin, origin.unit_id, ("a.parquet#2",))
    assert task_of(unit.unit_id) == "1a2b3c4d"
    attempt = new_attempt()
    table = rows_to_table(
        [outcome(2) | {"unit_id": unit.unit_id}], ATTACKS, run_id=run.run_id, attempt=attempt
    )
    part = write_part(run.storage, ATTACKS, unit.unit_id, attempt, table)
    run.commits.commit(
        Commit(
            unit_id=unit.unit_id,
            attempt=attempt,
            parts=(part,),
            ok=1,
            supersedes=superseded_rows(unit),
        )
    )
    return run


def test_a_violation_that_was_attacked_again_stays_one(tmp_path: Path) -> None:
    beaten = outcome(2) | {"class_margin_label": certificate(2)["predicted_label"], "class_margin_ucb": -0.01}
    result = audit_run(attacked_again(tmp_path / "run", beaten))
    assert [(f.rule, f.listed[0][0]) for f in result.findings] == [("violation", "a.parquet#2")]
    assert result.violated_pairs == 1


def test_a_quarantined_attack_that_was_repeated_counts_no_more(tmp_path: Path) -> None:
    gone = {column.name: None for column in ATTACKS.columns if column.nullable}
    broken = outcome(2) | gone | {"status": "quarantined", "error_stage": "decode"}
    run = attacked_again(tmp_path / "run", broken)
    result = audit_run(run)
    assert (result.sound, result.attacks) == (True, PAIRS)
    with Query([run]) as query:
        assert query.sql("SELECT DISTINCT status FROM attacks").to_pylist() == [{"status": "ok"}]
        assert query.sql("SELECT committed_pairs, finished FROM runs").to_pylist() == [
            {"committed_pairs": PAIRS, "finished": True}
        ]


def test_an_encoder_that_breaks_under_attack_voids_its_certificate(tmp_path: Path) -> None:
    """Certificates assume a feature of length 1 at every image; the digest says whose."""
    nothing = {"certified_to_clean": None, "certified_to_smoothed": None, "certified_cosine": None}
    broken = nothing | {
        "status": "quarantined",
        "error_stage": "encode",
        "error_class": "NonFiniteError",
        "violation": None,
        "margin": None,
        "success": None,
    }
    attacks = [outcome(pair) for pair in range(PAIRS)]
    attacks[1] |= broken | {"encoder_digest": "b" * 64}
    attacks[2] |= broken
    attacks[3] |= broken | {"error_class": "DecodeError"}
    result = audit_run(make_run(tmp_path / "run", [certificate(i) for i in range(PAIRS)], attacks))
    assert [(f.rule, f.count, f.listed[0][0]) for f in result.findings] == [
        ("not-a-number", 1, "a.parquet#2")
    ]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> RunAudit:
    result: RunAudit = audited(tmp_path_factory.mktemp("honest") / "run")
    return result


def test_few_draws_are_noted(honest: RunAudit, tmp_path: Path) -> None:
    assert not any("fewer" in note for note in honest.notes)
    attacks = [outcome(pair) for pair in range(PAIRS)]
    attacks[0] |= {"eot_draws": 63}
    attacks[2] |= {"evaluate_draws": 999}
    result = audit_run(make_run(tmp_path / "few", [certificate(i) for i in range(PAIRS)], attacks))
    assert result.sound and "2 outcomes under noise rest on fewer" in result.notes[0]


def test_only_certificates_that_say_something_count_as_attacked(honest: RunAudit, tmp_path: Path) -> None:
    assert honest.audited_pairs == PAIRS
    empty = put(
        robustness_score_lcb=None,
        smooth_norm_lcb=None,
        exceedance_lcb=None,
        eigenvalue_ucb=None,
        escape_ucb=None,
        **{f"{name}_scalar_lcb": None for name in ("clean", "class", "caption", "retrieval")},
        **{f"{name}_distribution": None for name in ("clean", "class", "caption", "retrieval")},
        second_moment=None,
        second_moment_radius=None,
        large_radius=(None, None),
        certified_radius=None,
        retrieval_radius=None,
        caption_bound=(None, None),
        target_decision=("budget",),
        vote_radius=None,
        retrieval_vote_radius=None,
        **{f"{name}_quantile_lcb": None for name in ("clean", "pilot", "caption", "class")},
        **{f"{name}_percentile": (None, None) for name in ("clean", "pilot", "caption", "class")},
        clean_percentile_radius=(None, None),
        pilot_percentile_radius=(None, None),
    )

    def vacuous(row: Row) -> None:
        empty(row)
        row.update(
            {n: (None, None) for n in ("fcsb", "angular", "clean_reference", "fcsb_radius", "angular_radius")}
        )

    nothing = put(certified_to_clean=None, certified_to_smoothed=None, certified_cosine=None, violation=None)
    result = audited(tmp_path / "vacuous", certificate_change=vacuous, attack_change=nothing)
    assert (result.sound, result.audited_pairs) == (True, PAIRS - 1)
