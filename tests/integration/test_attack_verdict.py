"""What an attack job says at its end, and what it refuses before its beginning: nothing may pass for robustness."""

import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from smoothcert.attacks.campaign import Campaign
from smoothcert.attacks.pgd import PGD as ProjectedGradientDescent
from smoothcert.audit.audit import audit_run
from smoothcert.audit.kept import kept_audit
from smoothcert.certificates import angular_bound, angular_radius
from smoothcert.cli import exit_codes
from smoothcert.cli.attack import choose_again
from smoothcert.cli.running import run_job
from smoothcert.datasets import UnitSpec
from smoothcert.encoders import Encoder, KnownEncoder
from smoothcert.errors import EncoderError, JobError, SourceError
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.retry import choose
from smoothcert.sql import Query
from smoothcert.store import ATTACKS, RunDirectory

PAIRS = 5
LABELS = ("even", "odd")
PGD = {
    "attack": "pgd",
    "norm": "l2",
    "budget": 0.5,
    "threshold": 0.9,
    "steps": 3,
    "eot_draws": 8,
    "evaluate_draws": 64,
}
BARE = {"attack": "pgd", "norm": "l2", "budget": 0.5, "steps": 2, "subjects": "bare"}


def png(number: int) -> bytes:
    """A nearly flat image with one bright corner."""
    image, buffer = Image.new("RGB", (8, 8), (60 + 10 * (number % 15),) * 3), BytesIO()
    image.putpixel((0, 0), (250, 10, 10))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def known(kind: type[KnownEncoder] = KnownEncoder) -> KnownEncoder:
    return kind.rotating(0.8, input_size=(8, 8))


Made = Callable[..., Driver]


@pytest.fixture
def driver(tmp_path: Path) -> Made:
    def make(
        attacks: list[dict[str, Any]],
        *given: str,
        encoder: Encoder | None = None,
        images: list[bytes] | None = None,
        labels: list[str | None] | None = None,
    ) -> Driver:
        torch.set_num_threads(1)
        images = images or [png(number) for number in range(PAIRS)]
        columns = {"image": images, "caption": [f"grey {number}" for number in range(len(images))]}
        if labels is not None:
            columns["label"] = labels  # type: ignore[assignment]
        pq.write_table(pa.table(columns), tmp_path / "grey.parquet")
        job = {
            "name": "attacked",
            "data": {"format": "parquet", "uri": str(tmp_path / "grey.parquet")},
            "encoder": {"model": "bundled:digits-clip", "device": "cpu", "threads": 1},
            "certify": {"sigma": 0.25, "pilot_draws": 15, "max_draws": 150, "radii": [0.0625, 0.125]},
            "attacks": attacks,
            "executor": {"pairs_per_unit": 2, "units_in_flight": 1},
            "output": {"runs": str(tmp_path / "runs"), "run": "r", "quarantine_budget": 0.0},
            "tracking": {"enabled": False},
        }
        if labels is not None:
            job["zero_shot"] = {"labels": list(LABELS), "prompts": ["{label}"]}
        return Driver(parse_job(json.dumps(job), given), encoder or known())

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


def fails(monkeypatch: pytest.MonkeyPatch, error: type[Exception] = RuntimeError) -> None:
    """Give PGD a bug."""

    def search(self: ProjectedGradientDescent, campaign: Campaign) -> None:
        raise error("a bug")

    monkeypatch.setattr(ProjectedGradientDescent, "search", search)


def test_what_fails_on_every_pair_is_no_pairs_fault(
    driver: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(monkeypatch)
    made = driver([BARE], images=[png(number) for number in range(4)])
    assert run_job(made) == exit_codes.MISSING_ROWS
    assert rows(made.run, "SELECT * FROM attacks") == []
    said = capsys.readouterr().err
    # two units of two pairs
    assert "4 pairs have no row" in said and "a bug" in said
    # mended, the same command goes on
    monkeypatch.undo()
    attack(driver([BARE], images=[png(number) for number in range(4)]))
    assert {row["status"] for row in rows(made.run, "SELECT status FROM attacks")} == {"ok"}


def test_a_retry_that_fails_does_not_end_green_and_leaves_the_rows_as_they_were(
    driver: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made() -> Driver:
        return driver([BARE], "output.quarantine_budget=1.0", images=[png(number) for number in range(4)])

    shown = "SELECT pair_id, status, error_class, unit_id FROM attacks ORDER BY ALL"
    fails(monkeypatch, FloatingPointError)  # no number: quarantined, however many pairs have it
    attack(made())
    first = rows(made().run, shown)
    assert [row["status"] for row in first] == ["quarantined"] * 4
    fails(monkeypatch)
    capsys.readouterr()
    assert run_job(made(), choose_again(made(), "true")) == exit_codes.MISSING_ROWS
    said = capsys.readouterr().err
    assert "attacking 4 quarantined pairs again" in said and "a bug" in said
    assert rows(made().run, shown) == first
    report = made().work("attacks", quiet(), choose(made().run, ATTACKS, "true", option="--retry"))
    # a unit of retries for each of the two units of two pairs
    assert (report.pairs, report.missing, report.units_missing, len(report.failed)) == (4, 4, 2, 2)
    monkeypatch.undo()
    assert made().work("attacks", quiet(), choose_again(made(), "true")).missing == 0
    assert {row["status"] for row in rows(made().run, shown)} == {"ok"}


def test_quarantined_attacks_count_against_the_budget(
    driver: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(monkeypatch)
    alone = "executor.pairs_per_unit=1"
    made = driver([PGD, BARE | {"attack": "square"}], alone)
    assert run_job(made) == exit_codes.OVER_QUARANTINE_BUDGET
    out, err = capsys.readouterr()
    assert f"{PAIRS} of {PAIRS} pairs (100.0%) are quarantined" in err
    assert "output.quarantine_budget=0 allows" in err and "attack pgd" in err and "attack square" not in err
    assert "strongest examples" not in err, "none were to be kept"
    failed = next(line for line in out.splitlines() if " pgd " in line)
    assert "%" not in failed and failed.count(" - ") == 4 and "quaran" in out
    assert run_job(driver([PGD], alone, "output.quarantine_budget=1.0")) == 0


def test_an_encoder_whose_gradients_are_zero_is_refused_but_for_square(driver: Made, tmp_path: Path) -> None:
    class Rounding(KnownEncoder):
        def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
            return super()._image_features(torch.round(pixels * 255) / 255)

    for each in (PGD | {"subjects": "smoothed"}, BARE, BARE | {"attack": "autoattack"}):
        with pytest.raises(EncoderError, match="zero everywhere"):
            run_job(driver([each], encoder=known(Rounding)))
    assert not (tmp_path / "runs").exists()
    square = BARE | {
        "attack": "square",
        "subjects": ["bare", "smoothed"],
        "eot_draws": 4,
        "evaluate_draws": 32,
    }
    attack(driver([square], encoder=known(Rounding)))


def test_rates_are_over_all_pairs_asked_for_while_some_have_no_outcome(driver: Made) -> None:
    made = driver([BARE | {"threshold": 0.999}, BARE | {"threshold": 0.999, "seed": 1}])
    made.work("certification", quiet())
    stop = threading.Event()
    report = made.work("attacks", Monitor(on_result=lambda result: stop.set(), stop=stop))
    assert report.stopped and report.missing
    found = rows(made.run, "SELECT * FROM attack_success")
    done = rows(made.run, "SELECT attack_id, count(*) AS pairs FROM attacks GROUP BY 1")
    for row in found[:-1]:
        pairs = next(each["pairs"] for each in done if each["attack_id"] == row["attack_id"])
        assert (row["pairs_asked"], row["pairs"], row["missing"]) == (PAIRS, pairs, PAIRS - pairs)
        assert row["wrong_after"] == pairs and row["wrong_under_attack"] == pairs / PAIRS
        assert row["wrong_under_attack_low"] < row["wrong_under_attack"], "the missing ones may all be right"
        assert row["wrong_under_attack_high"] == 1, "or all wrong"
    assert found[-1]["attack"] == "worst case" and found[-1]["pairs_asked"] == PAIRS
    made.work("attacks", quiet())
    assert {row["missing"] for row in rows(made.run, "SELECT missing FROM attack_success")} == {0}


def test_of_the_worst_case_a_pair_is_known_once_all_attacks_are(driver: Made) -> None:
    harmless = BARE | {"threshold": -0.9}
    made = driver([harmless])
    made.work("certification", quiet())
    made.work("attacks", quiet())
    second = driver([harmless | {"seed": 1}], "executor.units_in_flight=1")
    stop = threading.Event()
    second.work("attacks", Monitor(on_result=lambda result: stop.set(), stop=stop))
    *single, worst = rows(made.run, "SELECT * FROM attack_success")
    partial = max(row["missing"] for row in single)
    assert sorted(row["missing"] for row in single) == [0, partial] and 0 < partial < PAIRS
    assert worst["attack"] == "worst case"
    assert (worst["missing"], worst["pairs"], worst["wrong_after"]) == (partial, PAIRS - partial, 0)


def test_missing_outcomes_stand_in_the_table(
    driver: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One unit of two fails: its pairs are asked for all the same."""
    images = [png(number) for number in range(4)]
    search = ProjectedGradientDescent.search

    def some(self: ProjectedGradientDescent, campaign: Campaign) -> None:
        if campaign.pair_ids[0].endswith(("#2", "#3")):
            raise RuntimeError("a bug")
        search(self, campaign)

    monkeypatch.setattr(ProjectedGradientDescent, "search", some)
    assert run_job(driver([BARE], images=images)) == exit_codes.MISSING_ROWS
    out = " ".join(capsys.readouterr().out.split())
    assert "Pairs without an outcome yet count as neither" in out and "missing" in out


def test_a_number_that_the_certified_encoder_lacks_on_crops_is_a_finding(
    driver: Made, tmp_path: Path
) -> None:
    class FlatNaN(KnownEncoder):
        """NaN on images without any contrast: most crops of the pairs here."""

        def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
            features = super()._image_features(pixels)
            return torch.where(pixels.flatten(1).std(1, keepdim=True) < 1e-6, torch.nan, features)

    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "target.png")
    crops = {
        "attack": "m-attack",
        "budget": 1e-7,
        "objective": "matching",
        "target_image": str(tmp_path / "target.png"),
        "steps": 6,
        "eot_draws": 4,
        "evaluate_draws": 64,
        "subjects": "smoothed",
    }
    made = driver([crops], encoder=known(FlatNaN))
    assert run_job(made) == exit_codes.NOT_SOUND
    bad = rows(made.run, "SELECT * FROM attacks WHERE status = 'quarantined'")
    assert bad and {row["error_class"] for row in bad} == {"NonFiniteError"}
    audited = kept_audit(made.run)
    assert audited is not None and [finding.rule for finding in audited.findings] == ["not-a-number"]


class Early(logging.Handler):
    """Notes each warning, and whether there was a run directory by then."""

    def __init__(self, runs: Path) -> None:
        super().__init__(logging.WARNING)
        self.runs = runs
        self.heard: list[tuple[str, bool]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append((record.getMessage(), self.runs.exists()))


def test_few_draws_are_said_before_work(driver: Made, tmp_path: Path) -> None:
    listener, logger = Early(tmp_path / "runs"), logging.getLogger("smoothcert.work.attack.checking")
    logger.addHandler(listener)
    try:
        attack(driver([BARE, PGD]))
    finally:
        logger.removeHandler(listener)
    assert listener.runs.exists()
    warning = "attacks.1 (pgd): eot_draws=8 (use at least 64) and evaluate_draws=64 (use at least 1,000)"
    ((said, late),) = listener.heard
    assert said.startswith(warning) and not late, "once, of the attack under noise, before anything is made"


def test_units_that_another_driver_splits_are_still_done(driver: Made) -> None:
    ours = driver([PGD])
    ours.work("certification", quiet())
    run = ours.run
    split: list[tuple[UnitSpec, ...]] = []

    def on_result(result: Any) -> None:
        if not split:
            unit = list(ours.units_left(ours.phase("attacks"), run.commits.load()))[-2]
            parts = tuple(unit.part(at, at + 1) for at in range(unit.start, unit.stop))
            assert run.commits.split(unit.unit_id, parts)
            split.append(parts)

    report = ours.work("attacks", Monitor(on_result=on_result))
    assert (report.missing, report.failed) == (0, {}) and len(split[0]) == 2
    assert {part.unit_id for part in split[0]} <= run.commits.load().unit_ids
    assert audit_run(run).sound


def test_a_signal_between_certifying_and_attacking_is_heeded(
    driver: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = driver([PGD])
    whole, handler = Driver.work, signal.getsignal(signal.SIGTERM)
    begun: list[str] = []

    def work(self: Driver, phase_name: str, *given: Any) -> Any:
        begun.append(phase_name)
        report = whole(self, phase_name, *given)
        os.kill(os.getpid(), signal.SIGTERM)  # all units are done: nothing asks for the signal any more
        return report

    monkeypatch.setattr(Driver, "work", work)
    try:
        assert run_job(ours) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert begun == ["certification"]
    state = ours.run.commits.load()
    assert list(ours.units_left(ours.phase("certification"), state)) == []
    assert len(list(ours.units_left(ours.phase("attacks"), state))) == 3


def test_examples_that_were_not_kept_are_said(driver: Made, capsys: pytest.CaptureFixture[str]) -> None:
    attack(driver([BARE]))
    said = " ".join(driver([BARE | {"keep": 2}]).work("attacks", quiet()).notes)
    assert "0 strongest examples are stored under" in said and "keep asks for 2" in said
    assert run_job(driver([BARE | {"keep": 9, "seed": 1}])) == 0
    said = capsys.readouterr().err
    assert f"{PAIRS} strongest examples are stored under" in said and "keep asks" not in said


class Gradless(KnownEncoder):
    """Like an exported model: numbers, but no gradients."""

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return super()._image_features(pixels.detach())


class Worded(KnownEncoder):
    """Knows two classes."""

    def _text_features(self, texts: Any) -> torch.Tensor:
        return torch.eye(self.feature_dim)[: len(texts)]


def test_gradients_are_tried_though_no_pair_can_be_decoded(driver: Made, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="gives no gradients"):
        driver([PGD], encoder=known(Gradless), images=[b"no image"] * 20).check()
    assert not (tmp_path / "runs").exists()


def test_one_pair_with_a_label_is_enough_wherever_it_is(driver: Made) -> None:
    images = [png(number) for number in range(40)]
    labels: list[str | None] = [None] * 40
    wins = BARE | {"objective": "classification"}

    def check(*given: str) -> None:
        driver([wins], *given, encoder=known(Worded), images=images, labels=labels).check()

    with pytest.raises(SourceError, match="no pair has a label"):
        check()
    labels[37] = "odd"
    check("executor.pairs_per_unit=32")
    with pytest.raises(JobError, match="none of the first 16 pairs has what objective"):
        check("data.columns.label=null")
    images[:37] = [b"no image"] * 37
    check()
    with pytest.raises(JobError, match="did you mean|takes|needs"):
        bad = {"attack": "apgd-t", "norm": "l2", "budget": 0.5, "subjects": "bare"}
        driver([bad], encoder=known(Worded), images=images, labels=labels).check()


def test_only_an_attack_reveals_bounds_that_were_raised_with_all_that_follows_from_them(
    driver: Made,
) -> None:
    """Arithmetic has nothing to object; an outcome below the certified cosine has."""
    strong = PGD | {
        "steps": 10,
        "settings": {"early_stop": False},
        "subjects": "smoothed",
        "evaluate_draws": 1000,
    }
    # it turns by 1.6 * 0.5 at this budget, to a cosine of 0.7, where a smooth norm of 0.997 would promise more
    turning = KnownEncoder.rotating(1.6, input_size=(8, 8))
    made = driver([strong], "certify.max_draws=5000", encoder=turning, images=[png(0), png(1)])
    made.work("certification", quiet())
    run = made.run
    assert audit_run(run).sound
    for file in run.commits.load().files("certificates"):
        raise_norms(Path(run.url) / file, run.info.job.certify.radii, run.info.job.certify.cosines)
    assert audit_run(run).findings == (), "as far as arithmetic goes"
    assert run_job(made) == exit_codes.NOT_SOUND
    audited = kept_audit(run)
    assert audited is not None and {finding.rule for finding in audited.findings} == {"violation"}


def raise_norms(path: Path, radii: tuple[float, ...], cosines: tuple[float, ...]) -> None:
    """Claim far more of every pair than was measured, consistently."""
    table = pq.read_table(path)
    norm = 0.997  # the most that 5,000 draws can show is 0.9972
    count = table.num_rows
    claimed: dict[str, list[Any]] = {
        "smooth_norm": [norm] * count,
        "smooth_norm_lcb": [norm] * count,
        "angular": [[float(angular_bound(norm, radius, 0.25)) for radius in radii]] * count,
    }
    if cosines:
        claimed["angular_radius"] = [
            [float(angular_radius(norm, cosine, 0.25)) for cosine in cosines]
        ] * count
    for name, values in claimed.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(values, field.type))
    pq.write_table(table, path)
