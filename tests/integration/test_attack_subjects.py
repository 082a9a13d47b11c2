"""Attack jobs on defences, through surrogates and towards several targets; identity by content; retried pairs."""

import hashlib
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smoothcert.attacks import BareSubject, ClassificationMargin, make_attack
from smoothcert.audit.audit import audit_run
from smoothcert.cli.running import run_job
from smoothcert.datasets import DIGIT_NAMES, load_digits_pairs
from smoothcert.defences import ConvolutionalPurifier, defend, save_module
from smoothcert.encoders import Encoder, KnownEncoder, load_encoder
from smoothcert.errors import EncoderError, JobError
from smoothcert.job import EncoderSection, parse_job
from smoothcert.job.encoder import DefenceSection
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.retry import choose
from smoothcert.sql import Query
from smoothcert.store import CERTIFICATES, RunDirectory
from smoothcert.store.units import task_of

PAIRS = 3
QUICK = {"steps": 2, "eot_draws": 4, "evaluate_draws": 16}
PGD = {"attack": "pgd", "norm": "l2", "budget": 0.1, **QUICK}
MATCH = {
    "attack": "attackvlm",
    "norm": "linf",
    "budget": 0.1,
    "objective": "matching",
    "subjects": "bare",
    **QUICK,
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.set_num_threads(1)
    return load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three digits listed in a manifest, two targets and a blur."""
    lines = ["image,caption,label"]
    for number, (image, caption, label) in enumerate(load_digits_pairs("test")[: PAIRS + 2]):
        name = f"{number}.png" if number < PAIRS else f"target-{number - PAIRS}.png"
        image.save(tmp_path / name)
        if number < PAIRS:
            lines.append(f"{name},{caption},{label}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    kernel = torch.zeros(3, 3, 3, 3)
    for channel in range(3):
        kernel[channel, channel] = 1 / 9
        kernel[channel, channel, 1, 1] -= 1
    save_module(tmp_path / "blur.safetensors", ConvolutionalPurifier.kind, {"layers.0.weight": kernel})
    return tmp_path


@pytest.fixture
def driver(folder: Path, encoder: Encoder) -> Callable[..., Driver]:
    def make(attacks: list[dict[str, Any]], *overrides: str, base: Encoder | None = encoder) -> Driver:
        job = {
            "name": "attacked",
            "data": {"format": "manifest", "uri": str(folder / "pairs.csv")},
            "encoder": {"model": "bundled:digits-clip", "device": "cpu", "threads": 1},
            "certify": {"sigma": 0.25, "pilot_draws": 15, "max_draws": 100, "radii": [0.1]},
            "zero_shot": {"labels": list(DIGIT_NAMES), "prompts": ["a photo of the digit {label}"]},
            "defences": {"blurred": {"purifier": str(folder / "blur.safetensors")}},
            "attacks": attacks,
            "executor": {"pairs_per_unit": 8},
            "output": {"runs": str(folder / "runs"), "run": "r", "quarantine_budget": 1.0},
            "tracking": {"enabled": False},
        }
        return Driver(parse_job(json.dumps(job), overrides), base)

    return make


def quiet() -> Monitor:
    return Monitor(on_result=lambda result: None)


def attack(made: Driver) -> None:
    """Certify and attack to the end: the rows of ``run_job``, without what it says at the end of each phase."""
    made.check()
    for phase in ("certification", "attacks"):
        assert made.work(phase, quiet()).missing == 0


def rows(run: RunDirectory, sql: str) -> list[dict[str, Any]]:
    with Query([run]) as query:
        return list(query.sql(sql).to_pylist())


def test_defences_surrogates_and_several_targets_in_one_job(
    driver: Callable[..., Driver], folder: Path, encoder: Encoder
) -> None:
    blur = {"model": "bundled:digits-clip", "device": "cpu", "purifier": str(folder / "blur.safetensors")}
    plain = {"model": "bundled:digits-clip", "device": "cpu"}
    targets = [str(folder / f"target-{number}.png") for number in range(2)]
    made = driver(
        [
            PGD | {"subjects": ["bare", "smoothed", "blurred"]},
            PGD | {"objective": "classification", "subjects": "bare", "surrogates": [blur]},
            MATCH | {"target_image": targets[0]},
            MATCH | {"target_image": targets[1]},
            MATCH | {"attack": "foa", "target_image": targets[0], "surrogates": [plain, blur]},
        ]
    )
    attack(made)
    run = made.run
    assert audit_run(run).sound
    found = rows(run, "SELECT * FROM attacks")
    assert len(found) == PAIRS * 7 and {row["status"] for row in found} == {"ok"}
    assert all(
        row["clean_label"] and row["attacked_label"] and row["caption_similarity_ucb"] for row in found
    )

    section = DefenceSection(purifier=str(folder / "blur.safetensors"))
    blurred = defend(encoder, section, "any name")
    digests = {row["subject"]: row["encoder_digest"] for row in found}
    assert digests == {"bare": encoder.digest, "smoothed": encoder.digest, "blurred": blurred.digest}
    for row in found:
        assert (row["certified_cosine"] is not None) == (row["subject"] == "smoothed")
    subjects = {
        row["subject"]: row for row in rows(run, "SELECT * FROM robustness_gap WHERE reference = 'clean'")
    }
    assert set(subjects) == {"blurred", "smoothed"} and subjects["blurred"]["certified_pairs"] == 0

    transferred = [row for row in found if row["objective"] == "classification"]
    assert {tuple(row["surrogates"]) for row in transferred} == {
        (f"bundled:digits-clip with purifier blur {blurred.digest[:12]}",)
    }
    again, names = by_hand(made, blurred, encoder, folder)
    assert {row["pair_id"]: row["margin"] for row in transferred} == pytest.approx(
        dict(zip(names, again, strict=True)), abs=1e-4
    )

    matched = [row for row in found if row["attack"] == "attackvlm"]
    assert {row["target_digest"] for row in matched} == {
        hashlib.sha256(Path(target).read_bytes()).hexdigest() for target in targets
    }
    assert len({row["attack_id"] for row in matched}) == 2
    worst = rows(run, "SELECT * FROM worst_pairs WHERE objective = 'matching'")
    assert sorted(row["target"] for row in worst) == sorted(targets * PAIRS)
    rates = rows(run, "SELECT * FROM attack_success WHERE attack = 'worst case' AND objective = 'matching'")
    assert [row["pairs"] for row in rates] == [PAIRS, PAIRS]
    assert {len(row["surrogates"]) for row in found if row["attack"] == "foa"} == {2}


def by_hand(made: Driver, surrogate: Encoder, judge: Encoder, folder: Path) -> tuple[list[float], list[str]]:
    """The same transfer without the job: perturbed against one encoder, judged on another."""
    (section,) = (each for each in made.job.attacks if each.objective == "classification")
    pairs = [pair for unit in made.plan.units for pair in made.source.read(unit)]
    images = [judge.prepare(Image.open(BytesIO(pair.image or b""))) for pair in pairs]
    pixels = torch.from_numpy(np.stack(images)).float() / 255
    classes = judge.encode_texts([f"a photo of the digit {name}" for name in DIGIT_NAMES])
    labels = torch.tensor([DIGIT_NAMES.index(pair.label or "") for pair in pairs])
    goal, names = ClassificationMargin(classes, labels), [pair.pair_id for pair in pairs]
    outcome = make_attack("pgd", steps=2).run(
        BareSubject(surrogate), goal, pixels, names, norm="l2", budget=section.budgets[0]
    )
    return goal.margin(judge.encode_images(outcome.images)).tolist(), names


def test_an_attack_is_known_by_the_content_of_its_target(driver: Callable[..., Driver], folder: Path) -> None:
    first, second = folder / "target-0.png", folder / "target-1.png"
    made = driver([MATCH | {"target_image": str(first)}])
    made.work("certification", quiet())
    assert made.work("attacks", quiet()).missing == 0
    (digest,) = (row["target_digest"] for row in rows(made.run, "SELECT DISTINCT target_digest FROM attacks"))

    moved = folder / "moved.png"
    first.rename(moved)
    report = driver([MATCH | {"target_image": str(moved)}]).work("attacks", quiet())
    assert (report.resumed, report.pairs, report.missing, report.draws) == (PAIRS, PAIRS, 0, 0)
    moved.write_bytes(second.read_bytes())
    report = driver([MATCH | {"target_image": str(moved)}]).work("attacks", quiet())
    assert (report.resumed, report.pairs, report.missing) == (0, PAIRS, 0) and report.draws

    pinned = MATCH | {"target_image": str(moved), "contents": {"target_image": digest}}
    with pytest.raises(JobError, match=r"attacks\.0\.contents\.target_image"):
        driver([pinned]).check()
    with pytest.raises(JobError, match="same attack as one before it"):
        driver([MATCH | {"target_image": str(path)} for path in (moved, second)]).check()


def test_a_defended_encoder_is_certified_and_attacked_as_a_whole(
    driver: Callable[..., Driver], folder: Path, encoder: Encoder
) -> None:
    made = driver([PGD], f"encoder.purifier={folder / 'blur.safetensors'}", base=None)
    attack(made)
    blurred = defend(encoder, DefenceSection(purifier=str(folder / "blur.safetensors")), "any name")
    found = rows(made.run, "SELECT * FROM attacks WHERE subject = 'smoothed'")
    assert {row["encoder_digest"] for row in found} == {blurred.digest}
    assert {row["violation"] for row in found} == {False}
    certified = rows(made.run, "SELECT DISTINCT encoder_digest FROM certificates")
    assert certified == [{"encoder_digest": blurred.digest}]
    assert audit_run(made.run).sound


ROUNDED = """
import torch

class Rounding(torch.nn.Module):
    def forward(self, pixels):
        return torch.round(8 * pixels) / 8

def rounding(encoder):
    return Rounding()
"""


def test_bpda_turns_what_hides_its_gradient(driver: Callable[..., Driver], folder: Path) -> None:
    (folder / "rounded.py").write_text(ROUNDED)
    purifier = f"encoder.purifier={folder / 'rounded.py'}:rounding"
    pgd = PGD | {"budget": 2.0, "steps": 10, "objective": "classification", "subjects": "bare"}
    with pytest.raises(EncoderError, match="gives no gradients"):
        run_job(driver([pgd], purifier, base=None))
    made = driver([pgd | {"bpda": True}], purifier, base=None)
    attack(made)
    found = rows(made.run, "SELECT * FROM attacks")
    assert len(found) == PAIRS and all(row["success"] and row["clean_margin"] > 0 for row in found)
    with pytest.raises(JobError, match="bpda skips the gradient of a purifier, and subject 'bare' has none"):
        run_job(driver([pgd | {"bpda": True}], "output.run=other"))


def test_a_pair_that_a_retry_certified_is_attacked_again(driver: Callable[..., Driver], folder: Path) -> None:
    broken = folder / "1.png"
    good = broken.read_bytes()
    broken.write_bytes(b"x" * len(good))
    made = driver([PGD])
    attack(made)
    run = made.run
    assert [row["error_class"] for row in rows(run, "SELECT * FROM quarantine")] == ["DecodeError"]
    broken.write_bytes(good)
    again = driver([PGD])
    report = again.retry("certification", quiet(), choose(run, CERTIFICATES, "true", option="--where"))
    assert (report.missing, report.failed) == (0, {})
    attacked = again.work("attacks", quiet())
    # one unit holds all pairs, and one of retries the pair that was certified again
    assert (attacked.resumed, attacked.pairs, attacked.missing) == (PAIRS - 1, PAIRS, 0)
    units = sorted(unit for unit in run.commits.unit_ids() if task_of(unit))
    assert len(units) == 1 + 1 and attacked.draws
    found = rows(run, "SELECT * FROM attacks WHERE pair_id LIKE '%1' OR pair_id LIKE '%1.png'")
    assert {row["status"] for row in rows(run, "SELECT status FROM attacks")} == {"ok"}
    assert len(rows(run, "SELECT * FROM attacks")) == PAIRS * 2
    assert all(row["violation"] is False for row in found if row["subject"] == "smoothed")
    assert audit_run(run).sound
    once_more = driver([PGD]).work("attacks", quiet())
    assert (once_more.resumed, once_more.missing, once_more.draws) == (PAIRS, 0, 0)
    assert sorted(unit for unit in run.commits.unit_ids() if task_of(unit)) == units


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (PGD | {"subjects": ["blured"]}, "did you mean 'blurred'"),
        (PGD | {"surrogates": [{"model": "a"}, {"model": "b"}]}, "searches one surrogate, not 2"),
        (PGD | {"surrogates": [{"modle": "a"}]}, "did you mean 'model'"),
        (PGD | {"surrogates": [{"model": "/nowhere"}]}, "encoder.model='/nowhere' does not exist"),
        (PGD | {"settings": {"surrogates": "a"}}, "settings.surrogates is not a setting"),
    ],
)
def test_bad_subjects_and_surrogates_fail_before_anything_is_made(
    driver: Callable[..., Driver], folder: Path, attack: dict[str, Any], said: str
) -> None:
    with pytest.raises((JobError, EncoderError)) as caught:
        run_job(driver([attack]))
    assert said in str(caught.value)
    assert not (folder / "runs").exists()


def test_bad_defences_fail_before_anything_is_made(driver: Callable[..., Driver], folder: Path) -> None:
    for override, said in (
        ("defences.bare={mapper: a.safetensors}", "'bare' is not a valid defence name"),
        ("defences.empty={}", "names neither purifier nor mapper"),
        ("defences.blurred.purifier=blur.pt", "neither a .safetensors file nor of the form module:callable"),
        ("defences.blurred.purifier=gone.safetensors", "purifier='gone.safetensors' cannot be loaded"),
    ):
        with pytest.raises((JobError, EncoderError)) as caught:
            run_job(driver([PGD | {"subjects": "blurred"}], override))
        assert said in str(caught.value)
    assert not (folder / "runs").exists()


def test_foa_needs_an_encoder_with_patches(driver: Callable[..., Driver], folder: Path) -> None:
    foa = MATCH | {"attack": "foa", "target_image": str(folder / "target-0.png")}
    with pytest.raises(EncoderError, match="'foa' needs patch features, but encoder 'known' has none"):
        run_job(driver([foa], base=KnownEncoder.rotating(input_size=(8, 8))))
    assert not (folder / "runs").exists()
