"""Attack rows that certificates were never held against, or that say what no attack can have achieved."""

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest

from smoothcert.audit import audit
from smoothcert.certificates import angular_bound
from smoothcert.job.attacks import AttackSection
from smoothcert.store import RunDirectory
from smoothcert.store.asked import AskedTask, note_asked

_AUDITED = runpy.run_path(str(Path(__file__).with_name("test_audit.py")))
certificate, outcome, make_run, put = (
    _AUDITED[name] for name in ("certificate", "outcome", "make_run", "put")
)
SIGMA, PAIRS = _AUDITED["SIGMA"], _AUDITED["PAIRS"]
NOTHING = {
    "certified_to_clean": None,
    "certified_to_smoothed": None,
    "certified_cosine": None,
    "violation": None,
}
LINF = {**NOTHING, "norm": "linf", "budget": 0.02, "perturbation_linf": 0.02}


def said(
    url: Path, cases: list[tuple[dict[str, Any], dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> list[list[tuple[str, str]]]:
    """What the audit says of each pair, as (rule, detail); a case is what differs in certificate and outcome."""
    monkeypatch.setattr(audit, "LISTED", 10_000)
    certificates, attacks = [], []
    for i, (certified, attacked) in enumerate(cases):
        certificates.append(certificate(2) | {"pair_id": f"a.parquet#{i}"} | certified)
        attacks.append(outcome(2) | {"pair_id": f"a.parquet#{i}"} | attacked)
    result = audit.audit_run(make_run(url, certificates, attacks, planned=len(cases)))
    found: list[list[tuple[str, str]]] = [[] for _ in cases]
    for finding in result.findings:
        # every pair is owed every other pair's attack, of whatever budget
        for pair, detail in finding.listed if finding.rule != "missing-attack" else ():
            found[int(pair.partition("#")[2])].append((finding.rule, detail))
    return found


BEATEN = (
    # the target says 0.8 at 0.25; the row's own bound there is lower
    ({"smooth_norm_lcb": 0.4}, {"cosine_to_smoothed_ucb": 0.79, **NOTHING}, "target[1]"),
    ({}, {"cosine_to_smoothed_ucb": 0.49, **NOTHING, "perturbation_l2": 0.1}, "angular_radius[1]"),
    ({}, {"cosine_to_clean_ucb": 0.4, **NOTHING, "perturbation_l2": 0.02}, "fcsb_radius[1]"),
    # an l-infinity attack made a perturbation that has an l2 norm
    ({}, {**LINF, "cosine_to_smoothed_ucb": 0.1}, "angular"),
    ({}, {**LINF, "class_margin_ucb": -0.1, "perturbation_l2": 0.1}, "class"),
)


def test_every_certificate_is_held_against_the_perturbation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = said(tmp_path / "run", [case[:2] for case in BEATEN], monkeypatch)
    for (_, _, named), found in zip(BEATEN, findings, strict=True):
        beaten = {detail.split(" ")[0] for rule, detail in found if rule == "violation"}
        assert named in beaten, (named, found)


UNHEARD = (
    ({}, {"class_margin_ucb": None}, "not-compared", "class"),
    (
        {},
        {"class_margin_label": "three", "class_margin_ucb": -0.5, "class_margin": -0.5},
        "not-compared",
        "class",
    ),
    ({}, {"caption_similarity_ucb": None}, "not-compared", "caption_bound[1]"),
    ({}, {"retrieval_margin_ucb": None}, "not-compared", "retrieval"),
    ({}, NOTHING, "other-certificate", "pgd"),
    ({}, {"certified_cosine": 1.0}, "other-certificate", "pgd"),
    ({}, {"certified_cosine": None, "violation": None}, "other-certificate", "pgd"),
    ({}, {"certified_to_clean": None}, "other-certificate", "pgd"),
)
TEXTS = {
    "certified_radius": 0.3,
    "retrieval_radius": 0.3,
    "caption_bound": (0.1, -0.3),
    **{f"{name}_distribution": None for name in ("class", "caption", "retrieval")},
}


def test_no_outcome_is_left_out_of_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = said(tmp_path / "run", [(case[0] | TEXTS, case[1]) for case in UNHEARD], monkeypatch)
    for (_, attacked, rule, named), found in zip(UNHEARD, findings, strict=True):
        assert (rule, named) in {(name, detail.split(" ")[0]) for name, detail in found}, (attacked, found)


NOT_SPOKEN_OF = (
    # beyond every certificate about texts
    (
        {},
        {
            "perturbation_l2": 0.6,
            "perturbation_linf": 0.2,
            "class_margin_ucb": None,
            "caption_similarity_ucb": None,
        },
    ),
    (
        {"certified_radius": None, "class_distribution": None, "class_margin_lcb": None},
        {"class_margin_ucb": None, "class_margin_label": "three"},
    ),
    ({"caption_bound": (None, None), "caption_distribution": None}, {"caption_similarity_ucb": None}),
    ({"retrieval_radius": None, "retrieval_distribution": None}, {"retrieval_margin_ucb": None}),
    # an l-infinity outcome far away
    ({}, {**LINF, "perturbation_l2": 0.27, "cosine_to_smoothed_ucb": 0.95, "budget": 0.25}),
)


def test_what_no_certificate_speaks_of_needs_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = said(tmp_path / "run", [(case[0], case[1]) for case in NOT_SPOKEN_OF], monkeypatch)
    for number, found in enumerate(findings):
        assert {rule for rule, _ in found} <= {"over-budget"}, (number, found)


IMPOSSIBLE = (
    {"cosine_to_clean": 1.7, "cosine_to_clean_ucb": 5.0},
    {"cosine_to_clean_lcb": -1.2},
    {"cosine_to_clean_lcb": 0.99, "cosine_to_clean_ucb": 0.985},
    {"class_margin": 1.2},
    {"retrieval_margin_ucb": 2.0},
    {"perturbation_l2": -0.1},
    # 192 pixels of at most 0.01 each
    {"perturbation_linf": 0.01},
    {"perturbation_linf": 0.26},
    # nothing is random without noise
    {"sigma": 0.0, "subject": "bare", **NOTHING, "cosine_to_clean_ucb": 0.99},
    {"success": True},
    {"margin": -0.1},
    {"success": None},
)


def test_numbers_that_no_attack_achieves_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = said(tmp_path / "run", [({}, case) for case in IMPOSSIBLE], monkeypatch)
    for case, found in zip(IMPOSSIBLE, findings, strict=True):
        wanted = "success-without-margin" if {"success", "margin"} & case.keys() else "impossible-value"
        assert wanted in {rule for rule, _ in found}, (case, found)


def test_estimates_outside_their_bounds_are_counted(tmp_path: Path) -> None:
    """One of 36 at alpha = 0.001 is luck, eight are none."""
    one = [outcome(i) | ({"cosine_to_smoothed": 0.9995} if i == 1 else {}) for i in range(PAIRS)]
    result = audit.audit_run(make_run(tmp_path / "one", [certificate(i) for i in range(PAIRS)], one))
    assert result.sound and any(
        note.startswith("1 estimates of outcomes are outside") for note in result.notes
    )
    many = [outcome(i) | {"cosine_to_smoothed": 0.9995, "class_margin": 0.06} for i in range(PAIRS)]
    result = audit.audit_run(make_run(tmp_path / "many", [certificate(i) for i in range(PAIRS)], many))
    ((rule, count),) = [(finding.rule, finding.count) for finding in result.findings]
    assert (rule, count) == ("outside-bounds", 8)


def asked_run(url: Path, change: dict[str, Any]) -> audit.RunAudit:
    section = AttackSection(attack="pgd", norm="l2", budgets=(0.25,), subjects=("smoothed",), seed=7)
    rows = [outcome(i) | {"attack_id": section.attack_id} for i in range(PAIRS)]
    rows[2] |= change
    run = make_run(url, [certificate(i) for i in range(PAIRS)], rows)
    note_asked(run, AskedTask(section.attack_id, "pgd", section.model_dump(mode="json")))
    return audit.audit_run(run)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.9},
        {"seed": 0},
        {"evaluate_draws": 8},
        {"eot_draws": 1},
        {"attack": "apgd"},
        {"budget": 0.3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rows_of_another_attack_than_was_asked_for_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    result = asked_run(tmp_path / "run", change)
    found = {finding.rule: finding.listed for finding in result.findings}
    assert [pair for pair, _ in found["other-attack"]] == ["a.parquet#2"], result.lines()


def test_rows_as_asked_for_are_no_finding(tmp_path: Path) -> None:
    assert asked_run(tmp_path / "run", {}).findings == ()


def test_attacks_of_another_run_are_held_against_certificates_of_the_same_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run A attacks the encoder b as a defence; run B certifies b."""
    other = "b" * 64
    below = float(angular_bound(0.62, 0.25, SIGMA)) - 1e-3
    rows = [
        outcome(i)
        | NOTHING
        | {"subject": "blurred", "encoder_digest": other, "cosine_to_smoothed_ucb": 0.9995}
        for i in range(PAIRS)
    ]
    rows[2] |= {"cosine_to_smoothed_ucb": below, "cosine_to_smoothed": below - 0.01, "class_margin_ucb": -0.1}
    rows[1] |= {"input_height": 16, "cosine_to_smoothed_ucb": 0.0, "cosine_to_smoothed": 0.0}
    make_run(tmp_path / "a", [certificate(i) | {"input_height": 8} for i in range(PAIRS)], rows)
    # a run's directory says which encoder it certifies
    monkeypatch.setitem(make_run.__globals__, "DIGEST", other)
    make_run(tmp_path / "b", [certificate(i) | {"encoder_digest": other} for i in range(PAIRS)])
    alone = audit.audit_runs([str(tmp_path / "b")])[0]
    assert alone.sound and alone.audited_pairs == 0
    _, result = audit.audit_runs([str(tmp_path / name) for name in "ab"])
    assert [finding.rule for finding in result.findings] == ["violation"], result.lines()
    assert {pair for pair, _ in result.findings[0].listed} == {"a.parquet#2"}
    assert all("of run audited-" in detail for _, detail in result.findings[0].listed)
    assert {"angular", "class"} <= {detail.split(" ")[0] for _, detail in result.findings[0].listed}
    assert (result.audited_pairs, result.violated_pairs) == (3, 1)
    # on other data, equal names are not equal pairs
    path = tmp_path / "a" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_digest": "c" * 64}))
    assert audit.audit_runs([str(tmp_path / name) for name in "ab"])[1].sound


def test_a_pair_in_the_place_of_another_hides_nothing(tmp_path: Path) -> None:
    attacks = [outcome(i) for i in range(PAIRS)]

    def rules(name: str, pair_id: str) -> list[tuple[str, int]]:
        rows = [certificate(i) for i in range(PAIRS)]
        rows[2] |= {"pair_id": pair_id}
        made = [row | {"pair_id": pair_id} if i == 2 else row for i, row in enumerate(attacks)]
        result = audit.audit_run(make_run(tmp_path / name, rows, made))
        return [(finding.rule, finding.count) for finding in result.findings]

    assert rules("own", "a.parquet#2") == []
    assert rules("file", "zzz#2") == [("missing-pair", 1), ("foreign-pair", 1)]
    assert rules("row", "a.parquet#99") == [("missing-pair", 1), ("foreign-pair", 1)]


def test_an_attack_on_a_pair_without_a_row_is_named(tmp_path: Path) -> None:
    rows = [outcome(i) for i in range(PAIRS)] + [outcome(0) | {"pair_id": "a.parquet#17"}]
    (finding,) = audit.audit_run(
        make_run(tmp_path / "run", [certificate(i) for i in range(PAIRS)], rows)
    ).findings
    assert (finding.rule, finding.listed[0][0]) == ("foreign-pair", "a.parquet#17")


def test_attack_rows_of_several_attempts_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    run: RunDirectory = make_run(
        tmp_path / "run", [certificate(i) for i in range(PAIRS)], [outcome(i) for i in range(PAIRS)]
    )
    (part,) = (tmp_path / "run" / "attacks").glob("*.parquet")
    table = pq.read_table(part)
    place = table.schema.get_field_index("attempt")
    attempts = [*table["attempt"].to_pylist()[1:], "another"]
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(attempts)), part)
    assert [finding.rule for finding in audit.audit_run(run).findings] == ["merged-attempts"]


CERTIFICATES = (
    # 40 draws that are all ones show a mean of 0.841 at alpha = 0.001
    ({"draws": 40, "smooth_norm": 0.99, "smooth_norm_lcb": 0.7}, "beyond-draws"),
    ({"draws": 40, "robustness_score": 0.99, "robustness_score_lcb": 0.85}, "beyond-draws"),
    ({"draws": 8}, "beyond-draws"),
    ({"fcsb": (0.3, 0.1, 0.0)}, "impossible-value"),
    ({"target_decision": ()}, "impossible-value"),
    ({"log_e_value": (1e9,)}, "impossible-value"),
    ({"log_e_value": (math.inf,)}, "impossible-value"),
)


def test_certificates_beyond_their_draws_or_lists_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = said(tmp_path / "run", [(case, {}) for case, _ in CERTIFICATES], monkeypatch)
    for (case, rule), found in zip(CERTIFICATES, findings, strict=True):
        assert rule in {name for name, _ in found}, (case, found)


def test_a_certified_target_above_its_row_is_a_note(tmp_path: Path) -> None:
    """It was tested by itself; that the row's own bound is lower proves nothing."""
    norm = 0.55
    bound = float(angular_bound(norm, 0.25, SIGMA))
    assert 0 < bound < 0.8
    row = certificate(2) | {
        "smooth_norm_lcb": norm,
        "angular": (bound, None),
        "angular_radius": (0.0, 0.0),
        "clean_reference": (0.0, None),
        "second_moment": None,
        "second_moment_radius": None,
        "certified_radius": None,
        **{f"{name}_distribution": None for name in ("class", "caption", "retrieval")},
        "retrieval_radius": None,
        "caption_bound": (None, None),
        "class_margin_lcb": -1.0,
    }
    run = make_run(tmp_path / "run", [row if i == 2 else certificate(i) for i in range(PAIRS)])
    result = audit.audit_run(run)
    assert result.sound, result.lines()
    assert any(note.startswith("1 pairs have a certified target") for note in result.notes)
