"""Attack rows that certificates were never held against, or that say what no attack can have achieved."""

import itertools
import json
import math
import runpy
from collections.abc import Sequence
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


Said = dict[str, list[list[tuple[str, str]]]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What the audit says of the pairs of each group, as (rule, detail).

    A case is what differs in a pair's certificate and in its outcome. One audit for all: what a rule says of a pair
    does not depend on the others.
    """
    groups = {
        "beaten": [case[:2] for case in BEATEN],
        "unheard": [(case[0] | TEXTS, case[1]) for case in UNHEARD],
        "not spoken of": [(case[0], case[1]) for case in NOT_SPOKEN_OF],
        "impossible": [({}, case) for case in IMPOSSIBLE],
        "certificates": [(case, {}) for case, _ in CERTIFICATES],
    }
    certificates, attacks = [], []
    for certified, attacked in itertools.chain(*groups.values()):
        pair = {"pair_id": f"a.parquet#{len(certificates)}"}
        certificates.append(certificate(2) | pair | certified)
        attacks.append(outcome(2) | pair | attacked)
    found: list[list[tuple[str, str]]] = [[] for _ in certificates]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "LISTED", 10_000)
        run = make_run(tmp_path_factory.mktemp("said") / "run", certificates, attacks, planned=len(found))
        for finding in audit.audit_run(run).findings:
            # every pair is owed every other pair's attack, of whatever budget; and how many estimates are outside
            # their bounds says nothing of one pair
            of_one = finding.rule not in ("missing-attack", "outside-bounds")
            for pair_id, detail in finding.listed if of_one else ():
                found[int(pair_id.partition("#")[2])].append((finding.rule, detail))
    of_pairs = iter(found)
    return {name: list(itertools.islice(of_pairs, len(cases))) for name, cases in groups.items()}


BEATEN = (
    # the target says 0.8 at 0.25; the row's own bound there is lower
    ({"smooth_norm_lcb": 0.4}, {"cosine_to_smoothed_ucb": 0.79, **NOTHING}, "target[1]"),
    ({}, {"cosine_to_smoothed_ucb": 0.49, **NOTHING, "perturbation_l2": 0.1}, "angular_radius[1]"),
    ({}, {"cosine_to_clean_ucb": 0.4, **NOTHING, "perturbation_l2": 0.02}, "fcsb_radius[1]"),
    # an l-infinity attack made a perturbation that has an l2 norm
    ({}, {**LINF, "cosine_to_smoothed_ucb": 0.1}, "angular"),
    ({}, {**LINF, "class_margin_ucb": -0.1, "perturbation_l2": 0.1}, "class"),
)


def test_every_certificate_is_held_against_the_perturbation(said: Said) -> None:
    findings = said["beaten"]
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


def test_no_outcome_is_left_out_of_the_comparison(said: Said) -> None:
    findings = said["unheard"]
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


def test_what_no_certificate_speaks_of_needs_no_number(said: Said) -> None:
    findings = said["not spoken of"]
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


def test_numbers_that_no_attack_achieves_are_named(said: Said) -> None:
    findings = said["impossible"]
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


def asked_run(url: Path, changes: Sequence[dict[str, Any]]) -> audit.RunAudit:
    """A run of as many pairs as changes, each with an attack row that was changed in its way."""
    section = AttackSection(attack="pgd", norm="l2", budgets=(0.25,), subjects=("smoothed",), seed=7)
    pairs = [{"pair_id": f"a.parquet#{i}"} for i in range(len(changes))]
    rows = [
        outcome(i % PAIRS) | {"attack_id": section.attack_id} | pairs[i] | change
        for i, change in enumerate(changes)
    ]
    certificates = [certificate(i % PAIRS) | pair for i, pair in enumerate(pairs)]
    run = make_run(url, certificates, rows, planned=len(pairs))
    note_asked(run, AskedTask(section.attack_id, "pgd", section.model_dump(mode="json")))
    return audit.audit_run(run)


OTHERS = (
    {"alpha": 0.9},
    {"seed": 0},
    {"evaluate_draws": 8},
    {"eot_draws": 1},
    {"attack": "apgd"},
    {"budget": 0.3},
)


def test_rows_of_another_attack_than_was_asked_for_are_named(tmp_path: Path) -> None:
    result = asked_run(tmp_path / "run", (*OTHERS, {}))
    found = {finding.rule: finding.listed for finding in result.findings}
    named = [f"a.parquet#{i}" for i in range(len(OTHERS))]
    assert sorted(pair for pair, _ in found["other-attack"]) == named, result.lines()


def test_rows_as_asked_for_are_no_finding(tmp_path: Path) -> None:
    assert asked_run(tmp_path / "run", ({},) * PAIRS).findings == ()


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
    attacked = make_run(tmp_path / "a", [certificate(i) | {"input_height": 8} for i in range(PAIRS)], rows)
    # a run's directory says which encoder it certifies
    monkeypatch.setitem(make_run.__globals__, "DIGEST", other)
    certified = make_run(tmp_path / "b", [certificate(i) | {"encoder_digest": other} for i in range(PAIRS)])
    _, result = audit.audit_runs([str(tmp_path / name) for name in "ab"])
    assert [finding.rule for finding in result.findings] == ["violation"], result.lines()
    assert {pair for pair, _ in result.findings[0].listed} == {"a.parquet#2"}
    assert all("of run audited-" in detail for _, detail in result.findings[0].listed)
    assert {"angular", "class"} <= {detail.split(" ")[0] for _, detail in result.findings[0].listed}
    assert (result.audited_pairs, result.violated_pairs) == (3, 1)
    # on other data, equal names are not equal pairs
    path = tmp_path / "a" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_digest": "c" * 64}))
    result = audit.audit_run(certified, [RunDirectory.open(attacked.url)])
    assert result.sound and result.audited_pairs == 0


def test_a_pair_in_the_place_of_another_hides_nothing(tmp_path: Path) -> None:
    """One of another file, and one beyond what was planned."""
    certificates, attacks = ([make(i) for i in range(PAIRS)] for make in (certificate, outcome))
    for place, pair_id in ((1, "zzz#1"), (2, "a.parquet#99")):
        certificates[place] |= {"pair_id": pair_id}
        attacks[place] |= {"pair_id": pair_id}
    result = audit.audit_run(make_run(tmp_path / "run", certificates, attacks))
    counted = [(finding.rule, finding.count) for finding in result.findings]
    assert counted == [("missing-pair", 2), ("foreign-pair", 2)], result.lines()


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


def test_certificates_beyond_their_draws_or_lists_are_named(said: Said) -> None:
    findings = said["certificates"]
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
