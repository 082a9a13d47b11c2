"""Each way to be dishonest is named with its pair, and no honest pair beside it."""

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from smoothcert.audit.audit import audit_run
from smoothcert.certificates import second_moment_radius, vote_radius

_AUDITED = runpy.run_path(str(Path(__file__).with_name("test_audit.py")))
certificate, outcome, make_run, put, raised = (
    _AUDITED[name] for name in ("certificate", "outcome", "make_run", "put", "raised")
)
EXCEEDANCE, QUANTILES, SHARE, SIGMA, PAIRS = (
    _AUDITED[name] for name in ("EXCEEDANCE", "QUANTILES", "SHARE", "SIGMA", "PAIRS")
)
Row = dict[str, Any]
Change = Callable[[Row], None]

DISHONEST_CERTIFICATES: tuple[tuple[Change, str], ...] = (
    (raised("angular", 0.05), "rounded-up"),
    (raised("angular", 1e-6), "rounded-up"),
    (raised("fcsb", 0.05), "rounded-up"),
    (raised("clean_reference", 0.25), "rounded-up"),
    (raised("angular_radius", 0.05), "rounded-up"),
    (raised("large_radius", 0.5, 1), "rises-with-radius"),
    (raised("large_radius", 1e-6), "rounded-up"),
    (raised("clean_percentile", 0.05), "rounded-up"),
    (raised("clean_percentile_radius", 0.05), "rounded-up"),
    (raised("pilot_percentile", 0.05), "rounded-up"),
    (raised("pilot_percentile_radius", 0.05), "rounded-up"),
    (raised("caption_percentile", 0.05), "rounded-up"),
    (raised("class_percentile", 0.05), "rounded-up"),
    (raised("class_quantile_lcb", 0.05, 3), "impossible-value"),
    (put(vote_radius=float(vote_radius(SHARE, SIGMA)) + 0.05), "rounded-up"),
    (put(retrieval_vote_radius=float(vote_radius(SHARE, SIGMA)) + 0.05), "rounded-up"),
    (put(vote_share_lcb=None), "rounded-up"),
    (put(vote_share_lcb=SHARE + 0.05), "above-estimate"),
    (put(retrieval_vote_share_lcb=1.0, retrieval_vote_share=1.0), "beyond-draws"),
    (put(caption_quantile_lcb=QUANTILES[:24]), "impossible-value"),
    (put(exceedance_lcb=(*EXCEEDANCE[:5], 0.9, 0.9, 0.9)), "above-estimate"),
    (raised("second_moment", 0.05), "rounded-up"),
    (raised("second_moment_radius", 0.05), "rounded-up"),
    (put(eigenvalue_ucb=0.03), "above-estimate"),
    (put(escape_ucb=0.001), "beyond-draws"),
    (put(escape_ucb=1.2), "impossible-value"),
    (raised("clean_distribution", 1e-6), "rounded-up"),
    (raised("clean_distribution", 0.05), "rounded-up"),
    (raised("class_distribution", 0.05), "rounded-up"),
    (raised("class_distribution", 0.05, 1), "rises-with-radius"),
    (raised("caption_distribution", 0.05), "rounded-up"),
    (raised("retrieval_distribution", 0.05), "rounded-up"),
    (raised("clean_scalar_lcb", 0.05), "above-estimate"),
    (raised("class_scalar_lcb", 0.05), "above-estimate"),
    (raised("caption_scalar_lcb", 0.05), "above-estimate"),
    (raised("retrieval_scalar_lcb", 0.05), "above-estimate"),
    (put(clean_scalar_lcb=None), "rounded-up"),
    (put(clean_scalar=(0.5,) * 9), "impossible-value"),
    (raised("class_scalar", 50.0), "impossible-value"),
    (put(exceedance_lcb=(1.5, *EXCEEDANCE[1:])), "impossible-value"),
    (put(fcsb=(None, 0.1)), "rises-with-radius"),
    (put(fcsb=(-0.2, None)), "impossible-value"),
    (put(smooth_norm_lcb=0.95), "above-estimate"),
    (put(robustness_score_lcb=0.99), "above-estimate"),
    (put(smooth_norm_lcb=1.2), "impossible-value"),
    (put(pilot_draws=0), "impossible-value"),
    (put(draws=1001), "impossible-value"),
    (put(sigma=0.25), "other-question"),
    (put(seed=1), "other-question"),
    (put(input_width=16), "other-question"),
    (put(encoder_digest="f" * 64), "other-question"),
    (put(noise="another"), "mixed-noise"),
    (put(log_e_value=(6.0,)), "target-without-evidence"),
    (put(log_e_value=()), "target-without-evidence"),
    (put(smooth_norm=None), "above-estimate"),
    (put(class_margin=5.0), "above-estimate"),
    (put(status="quarantined", error_stage="read", error_class="ReadError"), "quarantined-claims"),
)


def found_of(
    folder: Path, certificates: Sequence[Change] = (), attacks: Sequence[Change] = ()
) -> dict[str, set[str]]:
    """Pairs that each rule names in a run whose pair PAIRS + k suffered change k; the first pairs are honest.

    One audit for all: what each rule says of a row does not depend on the others.
    """
    places = range(PAIRS + max(len(certificates), len(attacks)))
    rows, outcomes = (
        [make(i % PAIRS) | {"pair_id": f"a.parquet#{i}"} for i in places] for make in (certificate, outcome)
    )
    for changed, changes in ((rows, certificates), (outcomes, attacks)):
        for row, change in zip(changed[PAIRS:], changes, strict=False):
            change(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smoothcert.audit.audit.LISTED", len(places))
        result = audit_run(make_run(folder / "run", rows, outcomes, planned=len(places)))
    return {
        rule: {pair for each in result.findings if each.rule == rule for pair, _ in each.listed}
        for rule in {each.rule for each in result.findings}
    }


def named(change: int) -> str:
    return f"a.parquet#{PAIRS + change}"


HONEST = {f"a.parquet#{pair}" for pair in range(PAIRS)}


@pytest.fixture(scope="module")
def found_among_certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    changes = [change for change, _ in DISHONEST_CERTIFICATES]
    return found_of(tmp_path_factory.mktemp("certificates"), certificates=changes)


@pytest.mark.parametrize(
    ("number", "rule"), [(number, rule) for number, (_, rule) in enumerate(DISHONEST_CERTIFICATES)]
)
def test_a_dishonest_certificate_is_named(
    found_among_certificates: dict[str, set[str]], number: int, rule: str
) -> None:
    assert named(number) in found_among_certificates.get(rule, set()), found_among_certificates


def test_no_honest_certificate_is_named_beside_them(found_among_certificates: dict[str, set[str]]) -> None:
    assert not HONEST & set().union(*found_among_certificates.values())


DISHONEST_ATTACKS: tuple[tuple[Change, str], ...] = (
    (put(perturbation_l2=0.26), "over-budget"),
    (put(perturbation_l2=None), "over-budget"),
    (put(norm="linf", perturbation_linf=0.02), "certified-beyond-l2"),
    (put(subject="bare", sigma=0.0), "certified-beyond-l2"),
    (put(input_height=16), "other-units"),
    (put(sigma=0.25), "other-units"),
    (put(certify_seed=3), "other-units"),
    (put(violation=True), "violation"),
    (put(subject="other"), "missing-attack"),
    (put(cosine_to_clean_ucb=None), "not-a-number"),
    (put(cosine_to_smoothed_ucb=None), "not-a-number"),
    (put(violation=None), "not-a-number"),
    (put(margin=None), "not-a-number"),
    (put(vote_share_ucb=0.49), "violation"),
    (put(retrieval_vote_share_ucb=0.49), "violation"),
    (put(clean_percentile_ucb=QUANTILES[4] - 0.01), "violation"),
    (put(caption_percentile_ucb=QUANTILES[4] - 0.01), "violation"),
    (put(class_percentile_ucb=QUANTILES[4] - 0.01), "violation"),
    (put(vote_share_ucb=None), "not-compared"),
    (put(vote_share_label="three"), "not-compared"),
    (put(caption_percentile_ucb=None), "not-compared"),
    (put(vote_share=1.1), "impossible-value"),
    # above the second moment's bound too, which is the larger one
    (lambda row: row.update(certified_to_smoothed=row["certified_to_smoothed"] + 0.15), "rounded-up"),
    (lambda row: row.update(certified_to_clean=row["certified_to_clean"] + 0.5), "rounded-up"),
)


@pytest.fixture(scope="module")
def found_among_attacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    return found_of(tmp_path_factory.mktemp("attacks"), attacks=[change for change, _ in DISHONEST_ATTACKS])


@pytest.mark.parametrize(
    ("number", "rule"), [(number, rule) for number, (_, rule) in enumerate(DISHONEST_ATTACKS)]
)
def test_a_dishonest_attack_row_is_named(
    found_among_attacks: dict[str, set[str]], number: int, rule: str
) -> None:
    assert named(number) in found_among_attacks.get(rule, set()), found_among_attacks


def test_no_honest_outcome_is_named_beside_them(found_among_attacks: dict[str, set[str]]) -> None:
    # an attack on a subject that one row shows is owed to every pair
    others = [pairs for rule, pairs in found_among_attacks.items() if rule != "missing-attack"]
    assert not HONEST & set().union(*others)


def test_a_radius_that_the_search_proves_beyond_its_bound_is_honest(tmp_path: Path) -> None:
    """The search for a radius may prove a little more than that for a cosine, at N = 0.94 some 4e-4 of the cosine."""
    facts = {"smooth_norm": 0.95, "smooth_norm_lcb": 0.94, "eigenvalue_ucb": 0.061, "escape_ucb": 0.012}
    radii = tuple(
        float(second_moment_radius(0.94, 0.061, cosine, SIGMA, escape=0.012)) for cosine in (0.5, 0.8)
    )
    rows = [certificate(pair) for pair in range(PAIRS)]
    rows[1] |= facts | {"second_moment_radius": radii}
    rows[2] |= facts | {"second_moment_radius": (radii[0] * 1.001, radii[1])}
    (finding,) = audit_run(make_run(tmp_path / "run", rows)).findings
    ((pair, detail),) = finding.listed
    assert (finding.rule, pair) == ("rounded-up", "a.parquet#2") and "second_moment_radius[1]" in detail
