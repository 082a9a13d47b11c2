"""The section ``attacks``: names, identity, and that it changes no certificate."""

from dataclasses import fields
from typing import get_args

import pytest

from smoothcert.attacks import ATTACKS, NORMS, OBJECTIVES
from smoothcert.attacks.registry import settings_type
from smoothcert.errors import JobError
from smoothcert.job import Job, fingerprint, job_json_schema, parse_job
from smoothcert.job.attacks import PUBLISHED, AttackName, AttackSection, Norm, ObjectiveName

JOB = """
name: tiny
data: {format: parquet, uri: pairs.parquet}
encoder: {model: "bundled:digits-clip"}
certify: {sigma: 0.5}
"""
PGD = "attacks=[{attack: pgd, norm: l2, budget: 0.25}]"


def section(text: str = "") -> AttackSection:
    (attack,) = parse_job(JOB, [PGD.replace("}", f", {text}}}") if text else PGD]).attacks
    return attack


def fingerprint_of(job: Job) -> str:
    return fingerprint(job, data_digest="d", encoder_digest="e", code_version="0")


def test_every_attack_objective_and_norm_can_be_named() -> None:
    assert set(get_args(AttackName)) == set(ATTACKS)
    assert set(get_args(ObjectiveName)) == set(OBJECTIVES)
    assert set(get_args(Norm)) == set(NORMS)


def test_published_norms_and_budgets_are_the_defaults() -> None:
    published = {name: (entry.norm, entry.budget) for name, entry in ATTACKS.items() if entry.budget}
    assert published == PUBLISHED

    def made(text: str) -> AttackSection:
        (attack,) = parse_job(
            JOB, [f"attacks=[{{{text}, objective: matching, target_image: a.png}}]"]
        ).attacks
        return attack

    assert (made("attack: foa").norm, made("attack: foa").budgets) == ("linf", (16 / 255,))
    assert (
        made("attack: attackvlm").attack_id
        == made(f"attack: attackvlm, norm: linf, budget: {8 / 255}").attack_id
    )
    assert made("attack: m-attack, budget: 0.1").budgets == (0.1,)
    assert made("attack: m-attack, norm: linf, budgets: [0.1, 0.2]").budgets == (0.1, 0.2)
    for text in (
        "attack: m-attack, norm: l2",
        "attack: pgd, norm: l2",
        "attack: pgd, budget: 0.1",
        "attack: [foa]",
    ):
        with pytest.raises(JobError, match="budgets|norm|attack"):
            made(text)
    schema = job_json_schema()["$defs"]["AttackSection"]
    assert schema["required"] == ["attack"] and schema["else"] == {"required": ["norm", "budgets"]}


def test_one_value_stands_for_a_list() -> None:
    assert section("subjects: bare").subjects == ("bare",)
    assert section().budgets == (0.25,)
    (listed,) = parse_job(JOB, [PGD.replace("budget: 0.25", "budgets: [0.25, 0.5]")]).attacks
    assert listed.budgets == (0.25, 0.5)


def test_attacks_change_no_certificate_and_have_an_identity_of_their_own() -> None:
    assert fingerprint_of(parse_job(JOB)) == fingerprint_of(parse_job(JOB, [PGD]))
    same = section("keep: 3")
    assert same.attack_id == section().attack_id
    others = {section(text).attack_id for text in ("seed: 1", "steps: 7", "eot_draws: 8", "threshold: 0.4")}
    assert len(others | {same.attack_id}) == 5


def test_a_default_reference_that_is_named_is_the_same_attack() -> None:
    assert section("reference: clean").attack_id == section().attack_id
    assert section("reference: smoothed").attack_id != section().attack_id


def test_skipping_the_purifiers_gradient_is_another_attack_and_goes_without_a_surrogate() -> None:
    assert section("bpda: false").attack_id == section().attack_id
    assert section("bpda: true").attack_id != section().attack_id
    with pytest.raises(JobError, match="bpda and surrogates are both given"):
        section("bpda: true, surrogates: [{model: 'bundled:digits-clip'}]")


def test_a_flag_is_no_budget() -> None:
    for budget in ("true", "[0.5, true]"):
        with pytest.raises(JobError, match="True is not a number"):
            parse_job(JOB, [PGD.replace("budget: 0.25", f"budgets: {budget}")])


def test_every_identifying_field_is_part_of_the_identity() -> None:
    names = {name for name in AttackSection.model_fields if name != "keep"}
    assert names == set(section().model_dump(exclude={"keep"}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budgets: [0.5]", "budget and budgets are both given"),
        ("threshold: 2", "threshold=2"),
        ("evaluate_draws: 2", "evaluate_draws=2"),
        ("target_caption: a cat", "does not take target_caption"),
        (
            "objective: matching, target_caption: a cat, target_image: x.png",
            "either target_caption or target_image",
        ),
        ("objective: classification", "needs the section 'zero_shot'"),
        ("subjects: [bare, bare]", "lists one more than once"),
        ("reference: label", "takes no reference 'label'; use clean or smoothed"),
        ("objective: caption, reference: smoothed", "takes no reference 'smoothed'; remove it"),
        ("reference: smothed", "did you mean 'smoothed'"),
        ("keeep: 3", "did you mean 'keep'"),
    ],
)
def test_wrong_sections_say_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(JobError) as caught:
        section(text)
    assert said in str(caught.value)


def test_steps_and_restarts_are_settings_of_the_attacks_that_take_them() -> None:
    with_steps = {name for name in ATTACKS if "steps" in {f.name for f in fields(settings_type(name))}}
    assert with_steps == set(ATTACKS)


def test_text_objectives_need_a_text_space() -> None:
    with pytest.raises(JobError, match="no text space"):
        parse_job(JOB, [PGD.replace("}", ", objective: caption}"), "encoder.feature=pooled"])
