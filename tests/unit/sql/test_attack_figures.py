"""Clean and robust accuracy, success among the right and what is wrong: counted by hand against the view."""

import itertools
import random
import runpy
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import beta

from smoothcert.cli.show_attacks import rows_by_rule
from smoothcert.report.curves import curve_questions
from smoothcert.sql import Query
from smoothcert.summary.attack_rules import rules_under_attack
from smoothcert.summary.attacked import under_attack
from smoothcert.tracking.figures import attack_name

_AUDITED = runpy.run_path(str(Path(__file__).parents[1] / "audit" / "test_audit.py"))
certificate, make_run = (_AUDITED[name] for name in ("certificate", "make_run"))
Row = dict[str, Any]


def outcome(pair: int, attack: str, before: float | None, after: float | None) -> Row:
    """The row of one attack; margins below 0 are wrong, and None is quarantined."""
    gone = {"status": "quarantined", "error_stage": "decode", "error_class": "DecodeError"}
    return (
        _AUDITED["outcome"](pair % 4)
        | {"pair_id": f"a.parquet#{pair}"}
        | {"attack": attack, "attack_id": attack, "objective": "classification", "reference": "label"}
        | {"clean_margin": before, "margin": after, "success": None if after is None else after < 0}
        | ({} if after is not None else gone)
    )


def figures(url: Path, attacks: list[Row], pairs: int) -> dict[str, Row]:
    """The view by name of the attack."""
    run = make_run(
        url, [certificate(i % 4) | {"pair_id": f"a.parquet#{i}"} for i in range(pairs)], attacks, pairs
    )
    with Query([run]) as query:
        return {row["attack"]: row for row in query.sql("SELECT * FROM attack_success").to_pylist()}


def counts(row: Row) -> tuple[int, int, int, int, int]:
    return tuple(
        row[name] for name in ("pairs_asked", "right_before", "right_after", "turned", "wrong_after")
    )  # type: ignore[return-value]


def test_an_attack_that_turns_no_right_pair_has_success_zero_though_half_are_wrong(tmp_path: Path) -> None:
    sides = [0.5, -0.5] * 3
    found = figures(tmp_path / "run", [outcome(i, "weak", side, side) for i, side in enumerate(sides)], 6)
    assert set(found) == {"weak", "worst case"}
    for row in found.values():
        assert counts(row) == (6, 3, 3, 0, 3)
        assert (row["clean_accuracy"], row["robust_accuracy"]) == (0.5, 0.5)
        assert (row["success_among_right"], row["wrong_under_attack"]) == (0.0, 0.5)
        # Clopper and Pearson, from the quantiles of beta distributions
        assert row["robust_accuracy_low"] == pytest.approx(beta.ppf(0.025, 3, 4), abs=1e-6)
        assert row["robust_accuracy_high"] == pytest.approx(beta.ppf(0.975, 4, 3), abs=1e-6)
        assert row["success_among_right_high"] == pytest.approx(beta.ppf(0.975, 1, 3), abs=1e-6)


def test_of_the_worst_case_a_pair_must_stand_every_attack(tmp_path: Path) -> None:
    """All ways in which two attacks can end on a pair that is right or wrong before; counted anew in plain Python."""
    ends = list(itertools.product((0.5, -0.5), (0.4, -0.4), (0.3, -0.3)))
    rows = []
    for pair, (before, first, second) in enumerate(ends):
        rows += [outcome(pair, "first", before, first), outcome(pair, "second", before, second)]
    found = figures(tmp_path / "run", rows, len(ends))
    right = [(a, b) for before, a, b in ends if before > 0]
    assert counts(found["worst case"]) == (
        len(ends),
        len(right),
        sum(min(each) > 0 for each in right),
        sum(min(each) < 0 for each in right),
        sum(min(first, second) < 0 for _, first, second in ends),
    )
    assert counts(found["first"])[1:4] == (4, 2, 2)


METHODS = {
    "pgd": {"attack": "pgd"},
    "pgd with BPDA": {"attack": "pgd", "settings": '{"attack":"pgd","bpda":true}'},
    "pgd from bundled:digits-clip": {
        "attack": "pgd",
        "settings": '{"attack":"pgd","bpda":false}',
        "surrogates": ["bundled:digits-clip 82b86b08ae8f"],
    },
    "foa from a and b with purifier blur": {
        "attack": "foa",
        "surrogates": ["a 0123456789ab", "b with purifier blur abcdef012345"],
    },
    "square": {"attack": "square", "settings": '{"note":"\\"bpda\\":true"}'},
}


def test_the_worst_case_of_five_attacks_is_their_or_and_each_goes_by_its_method(tmp_path: Path) -> None:
    """Random margins of 40 pairs; what is counted is told by a set of pairs that any attack turned."""
    random.seed(5)
    before = [random.choice((0.5, 0.5, 0.5, -0.5)) for _ in range(40)]
    after = {name: [random.choice((0.4, 0.4, 0.4, -0.4)) for _ in before] for name in METHODS}
    rows = [
        outcome(pair, name, before[pair], margin) | settings
        for name, settings in METHODS.items()
        for pair, margin in enumerate(after[name])
    ]
    run = make_run(
        tmp_path / "run", [certificate(i % 4) | {"pair_id": f"a.parquet#{i}"} for i in range(40)], rows, 40
    )
    with Query([run]) as query:
        found = {row["attack_method"]: row for row in query.sql("SELECT * FROM attack_success").to_pylist()}
        board = query.sql("SELECT * FROM leaderboard WHERE figure = 'attack_success'").to_pylist()
    assert set(found) == {*METHODS, "worst case"}
    assert [found[name]["attacks"] for name in (*METHODS, "worst case")] == [1] * 5 + [5]
    right = {pair for pair, margin in enumerate(before) if margin > 0}
    turned = {name: {pair for pair in right if after[name][pair] < 0} for name in METHODS}
    for name, pairs in turned.items():
        assert found[name]["turned"] == len(pairs)
    any_turned = set().union(*turned.values())
    assert max(map(len, turned.values())) < len(any_turned) < len(right)
    assert counts(found["worst case"])[1:4] == (len(right), len(right) - len(any_turned), len(any_turned))
    (line,) = board
    assert line["value"] == pytest.approx(len(any_turned) / len(right)) and line["pairs"] == len(right)
    low, high = (
        beta.ppf(0.025, len(any_turned), len(right) - len(any_turned) + 1),
        beta.ppf(0.975, len(any_turned) + 1, len(right) - len(any_turned)),
    )
    assert (line["low"], line["high"]) == pytest.approx((low, high), abs=1e-6)


def test_pairs_without_an_outcome_are_neither_right_nor_wrong_and_intervals_leave_them_open(
    tmp_path: Path,
) -> None:
    """Of 8 pairs one is quarantined by both attacks, one by the second alone; one lacks the second, one both."""
    rows = [outcome(i, "first", 0.5, 0.4) for i in range(4)] + [outcome(4, "first", None, None)]
    rows += [outcome(5, "first", 0.5, 0.4), outcome(6, "first", 0.5, 0.4)]
    rows += [outcome(i, "second", 0.5, -0.4 if i == 0 else 0.4) for i in range(4)]
    rows += [outcome(4, "second", None, None), outcome(5, "second", None, None)]
    found = figures(tmp_path / "run", rows, 8)
    first, second, worst = found["first"], found["second"], found["worst case"]
    assert (first["missing"], first["quarantined"], counts(first)) == (1, 1, (8, 6, 6, 0, 0))
    assert (second["missing"], second["quarantined"], counts(second)) == (2, 2, (8, 4, 3, 1, 1))
    # robust for sure: pairs 1, 2, 3; pairs 5 and 6 stood the attack that they have, 4 and 7 are not known at all
    assert counts(worst) == (8, 6, 3, 1, 1)
    assert worst["robust_accuracy_low"] == pytest.approx(beta.ppf(0.025, 3, 6), abs=1e-6)
    assert worst["robust_accuracy_high"] == pytest.approx(beta.ppf(0.975, 8, 1), abs=1e-6)
    assert worst["success_among_right_high"] == pytest.approx(beta.ppf(0.975, 4, 3), abs=1e-6)
    assert worst["clean_accuracy_high"] == 1.0


def test_rows_from_before_the_clean_margin_have_the_share_that_is_wrong_alone(tmp_path: Path) -> None:
    older = [outcome(i, "pgd", None, -0.4) | {"status": "ok"} for i in range(4)]
    for row in figures(tmp_path / "run", older, 4).values():
        assert row["wrong_under_attack"] == 1.0
        assert [
            row[name] for name in ("clean_accuracy", "robust_accuracy", "success_among_right", "turned")
        ] == [None] * 4


def test_the_summary_says_the_same_and_names_it_for_mlflow(tmp_path: Path) -> None:
    rows = [outcome(i, "first", 0.5, (0.4, -0.4)[i % 2]) for i in range(4)]
    run = make_run(tmp_path / "run", [certificate(i) for i in range(4)], rows)
    with Query([run]) as query:
        single, worst = under_attack(query, run.run_id)
    assert (single.is_worst_case, worst.is_worst_case) == (False, True)
    for each in (single, worst):
        assert (each.success_among_right.count, each.success_among_right.of) == (2, 4)
        assert each.robust_accuracy.share == 0.5 and each.clean_accuracy.share == 1.0
        assert attack_name(each) == "classification_smoothed_l2_0.25"


def test_what_is_left_by_vote_and_by_percentile_is_counted_by_their_own_rules(tmp_path: Path) -> None:
    """Four labelled pairs and one without; the mean's success plays no part, and the worst attack on a pair counts."""
    by_rules = [
        # label, (vote under attack, class asked about, its percentile) of two attacks
        ("cat", ("cat", "cat", 0.2), ("cat", "cat", 0.1)),
        ("cat", ("cat", "cat", 0.2), ("dog", "cat", -0.1)),
        ("cat", ("cat", "dog", 0.3), ("cat", "dog", 0.3)),
        ("cat", ("cat", "cat", -0.2), ("cat", "cat", 0.4)),
        (None, ("cat", "cat", 0.2), ("cat", "cat", 0.2)),
    ]
    certificates, attacks = [], []
    for i, (label, *outcomes) in enumerate(by_rules):
        certificates.append(certificate(i % 4) | {"pair_id": f"a.parquet#{i}", "label": label})
        for attack, (vote, asked, percentile) in zip(("one", "two"), outcomes, strict=True):
            attacks.append(
                outcome(i, attack, 0.5, 0.5)
                | {"attacked_vote": vote, "vote_share_label": asked, "class_percentile": percentile}
                | {
                    "clean_percentile": 0.1 * i + (0.05 if attack == "one" else 0.0),
                    "caption_percentile": None,
                }
            )
    with Query([make_run(tmp_path / "run", certificates, attacks, 5)]) as query:
        (row,) = query.sql("SELECT * FROM attack_rules").to_pylist()
        (found,) = rules_under_attack(query, row["run_id"])
        figures = {each.key: each.ask(query) for each in curve_questions([])}
    assert (row["pairs"], row["vote_right"], row["vote_pairs"]) == (5, 3, 4)
    assert (row["percentile_right"], row["percentile_pairs"]) == (1, 4)
    assert found.vote_accuracy.share == 0.75 and found.percentile_accuracy.share == 0.25
    assert found.vote_accuracy.low == pytest.approx(beta.ppf(0.025, 3, 2), abs=1e-6)
    assert found.clean_percentile.mean == pytest.approx(0.2) and found.caption_percentile.mean is None
    # the terminal and the page
    assert rows_by_rule([found]) == [
        {
            "subject": "smoothed",
            "budget": "l2 0.25",
            "right by vote": "75.0% [19%, 99%]",
            "by percentile": "25.0% [1%, 81%]",
            "to clean": "0.2",
        }
    ]
    assert rows_by_rule([]) == []
    by_rule, percentiles = figures["attacks-by-rule"], figures["attacked-percentiles"]
    assert by_rule is not None and percentiles is not None
    assert [(cells[1], cells[4], cells[-2], cells[-1]) for cells in by_rule.rows] == [
        ("by percentile, smoothed", 0.25, 1, 4),
        ("by vote, smoothed", 0.75, 3, 4),
    ]
    ((_, curve, _, budget, cosine, pairs),) = percentiles.rows
    assert (curve, budget, pairs) == ("to the clean feature, smoothed", 0.25, 5)
    assert cosine == pytest.approx(0.2)
