"""Training from a job to parts that another job loads: what it learns, resumes, refuses and leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from smoothcert.defences import defend, load_defended, read_part
from smoothcert.encoders import load_encoder
from smoothcert.errors import JobError, SourceError, StoreError, TrainingError
from smoothcert.job import Job
from smoothcert.job.encoder import DefenceSection, EncoderSection
from smoothcert.training import loop
from smoothcert.training.batches import Batch, BatchShare, training_batch
from smoothcert.training.checkpoint import load_checkpoint
from smoothcert.training.loop import rate
from smoothcert.training.stages import MapperStage, PurifierStage
from smoothcert.training.team import ALONE
from smoothcert.training.train import Training
from smoothcert.training.watching import Silent

MakeJob = Callable[..., Job]


class Recorder(Silent):
    """Keeps what it hears, and stops after some steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.losses: list[float] = []
        self.figures: list[Mapping[str, float]] = []
        self._stop_after = stop_after

    @property
    def stopped(self) -> bool:  # type: ignore[override]
        return self._stop_after is not None and len(self.losses) >= self._stop_after

    def step(self, stage: str, step: int, losses: Mapping[str, float]) -> None:
        self.losses.append(losses["loss"])

    def validated(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        self.figures.append(figures)


def weights(place: Path, part: str) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(place / f"{part}.safetensors")


def read_tensors(file: Path) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in safetensors.torch.load_file(file).items()}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_psm_is_trained_written_and_loaded_by_another_job(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(sigma=[0.1, 0.25])
    training = Training(job)
    assert not set(training.training.pair_ids) & set(training.held_out.pair_ids)
    assert len(training.training) + len(training.held_out) == 40
    recorder = Recorder()
    trained = training.run(recorder)
    assert trained.finished and len(recorder.losses) == 12 and set(trained.scores) == {0.1, 0.175, 0.25}
    out = tmp_path / "out"
    for part in ("purifier", "mapper"):
        held = read_part(str(out), part).trained
        assert held is not None and held.sigma == (0.1, 0.25)
        assert held.encoder_digest == training.encoder.digest and held.data_digest == training.data_digest
    card = (out / "README.md").read_text()
    assert "encoder.purifier" in card and "| 0.25 |" in card
    assert set(json.loads((out / "scores.json").read_text())) == {"0.1", "0.175", "0.25"}
    assert not list(out.glob("*.pt")) and not list(out.glob("*.bin"))
    section = EncoderSection(model=job.encoder.model, device="cpu", purifier=str(out), mapper=str(out))
    assert load_defended(section, 0.2).notes == ()


def test_training_lowers_the_held_out_loss(make_job: MakeJob) -> None:
    """A purifier learns to see its noise: 40 steps take more than a tenth off the loss at the first validation."""
    recorder = Recorder()
    shape = {"channels": [16], "patch": 2}
    Training(make_job("purifier", steps=40, validate_every=4, learning_rate=1e-2, purifier=shape)).run(
        recorder
    )
    first, last = recorder.figures[0]["held_out_loss"], recorder.figures[-1]["held_out_loss"]
    assert last < 0.9 * first
    assert {"held_out_denoising", "held_out_consistency", "robustness_score_s0.25"} <= set(
        recorder.figures[0]
    )


def test_a_stopped_training_goes_on_as_if_it_never_had(make_job: MakeJob, tmp_path: Path) -> None:
    """Bit by bit: the same sums in the same order, in one process or two; stopped in either of both parts."""
    Training(make_job(out=str(tmp_path / "whole"))).run(Silent())
    for stop_after in (1, 7):
        place = tmp_path / f"parted-{stop_after}"
        parted = make_job(out=str(place))
        assert not Training(parted).run(Recorder(stop_after)).finished
        assert Training(parted).run(Silent()).finished
        for part in ("purifier", "mapper"):
            assert same(weights(tmp_path / "whole", part), weights(place, part)), (stop_after, part)


@pytest.mark.parametrize(
    ("method", "lost"),
    [("psm", "purifier.safetensors"), ("psm", "mapper.safetensors"), ("noise", "model/config.json")],
)
def test_what_was_lost_of_a_finished_training_is_written_again(
    make_job: MakeJob, tmp_path: Path, method: str, lost: str
) -> None:
    job = make_job(method)
    Training(job).run(Silent())
    file = tmp_path / "out" / lost
    read = read_tensors if lost.endswith("safetensors") else Path.read_text  # their headers have no order
    before = read(file)
    assert Training(job).finished
    file.unlink()
    again, recorder = Training(job), Recorder()
    assert not again.finished
    assert again.run(recorder).finished and recorder.losses == [], "no step is taken again"
    assert read(file) == before and again.finished


KILLED = """
import os, signal, sys
import yaml
from smoothcert.job import Job
from smoothcert.training.train import Training
from smoothcert.training.watching import Silent
class Killer(Silent):
    def step(self, stage, step, losses):
        if step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
import torch
torch.set_num_threads(1)
Training(Job.model_validate(yaml.safe_load(open(sys.argv[1]).read()))).run(Killer())
"""


def test_a_killed_training_goes_on_as_if_it_never_had(make_job: MakeJob, tmp_path: Path) -> None:
    Training(make_job("purifier", out=str(tmp_path / "whole"))).run(Silent())
    job = make_job("purifier", out=str(tmp_path / "killed"))
    (tmp_path / "job.yaml").write_text(job.to_yaml())
    command = [sys.executable, "-c", KILLED, str(tmp_path / "job.yaml"), "5"]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -9
    assert (tmp_path / "killed" / "checkpoint-purifier.safetensors").exists()
    recorder = Recorder()
    assert Training(job).run(recorder).finished
    assert len(recorder.losses) == 2, "the checkpoint of step 4 of 6 was not used"
    assert same(weights(tmp_path / "whole", "purifier"), weights(tmp_path / "killed", "purifier"))


def test_accumulated_batches_make_the_step_of_one_large_batch(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient, as AdamW's first moment tells it, is that of the next two batches' rows in one batch.

    Not the weights: a first step of AdamW has the gradient's signs, whatever its length. Of two steps, so that each is
    seen to take batches of its own.
    """
    monkeypatch.setattr(loop, "_LARGEST_GRADIENT", 1e9)  # a gradient that is cut has any length before
    job = make_job("purifier", accumulate=2, steps=2)
    training = Training(job)
    stage, examples = training.first, training.training
    moments = [torch.zeros_like(each) for each in stage.module.parameters()]
    for step in range(2):
        drawn = [
            training_batch(examples, training.section, training.sigma, stage.name, 2 * step + part)
            for part in range(2)
        ]
        images, noise, sigma, classes = (
            torch.cat([getattr(each, name) for each in drawn])
            for name in ("images", "noise", "sigma", "classes")
        )
        large = Batch(images, noise, sigma, classes, 0, BatchShare(ALONE, len(images)))
        loss = torch.stack(list(stage.losses(large).values())).sum()
        gradient = torch.autograd.grad(loss, list(stage.module.parameters()))
        moments = [0.9 * moment + 0.1 * each for moment, each in zip(moments, gradient, strict=True)]
        recorder = Recorder(1)
        Training(job).run(recorder)
        assert recorder.losses == pytest.approx([loss.item()], rel=1e-5)
        kept = load_checkpoint(training.place, stage.name, training.recipe)
        assert kept is not None and kept.progress.step == step + 1
        found = torch.cat([kept.optimizer[f"{number}.exp_avg"].flatten() for number in range(len(moments))])
        expected = torch.cat([moment.flatten() for moment in moments])
        assert (found - expected).norm() < 1e-5 * expected.norm()
        stage.module.load_state_dict(kept.module)


def test_bfloat16_rounds_the_work_of_a_step_and_nothing_that_is_kept(
    make_job: MakeJob, tmp_path: Path
) -> None:
    """Of both parts: losses move by less than one rounding, weights and moments are float32, a resume changes no bit.

    The root of a loss is a distance between vectors with entries or lengths of about one. A rounding moves an entry by
    at most half of ``eps`` of it, and so a vector by that much of its length. There are many roundings in a row, but
    most of them cancel in the sums.
    """
    losses = {}
    for precision in ("float32", "bfloat16"):
        recorder = Recorder()
        training = Training(make_job(precision=precision, out=str(tmp_path / precision)))
        training.run(recorder)
        losses[precision] = torch.tensor(recorder.losses)
    rounding = torch.finfo(torch.bfloat16).eps / 2
    for stage in (slice(0, 6), slice(6, 12)):
        rounded, exact = losses["bfloat16"][stage], losses["float32"][stage]
        assert len(rounded) == 6 and (rounded.sqrt() - exact.sqrt()).abs().max() < rounding
        assert (rounded - exact).abs().max() > 1e-5, "float32 rounds these to 1e-7"
    place = tmp_path / "parted"
    parted = make_job(precision="bfloat16", out=str(place))
    assert not Training(parted).run(Recorder(1)).finished
    assert not Training(parted).run(Recorder(6)).finished, "stopped in the mapper's first step"
    assert Training(parted).run(Silent()).finished
    for part in ("purifier", "mapper"):
        assert same(weights(tmp_path / "bfloat16", part), weights(place, part)), part
        kept = weights(place, f"checkpoint-{part}")
        assert {name.partition("/")[0] for name in kept} == {"module", "best", "optimizer"}
        assert {each.dtype for each in kept.values()} == {torch.float32}


def test_early_stopping_keeps_the_best_weights(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "rate", lambda step, steps: 1.0 if step < 2 else 200.0)
    recorder = Recorder()
    Training(make_job("purifier", steps=40, patience=2, learning_rate=0.01)).run(recorder)
    held = [figures["held_out_loss"] for figures in recorder.figures]
    best = held.index(min(held))
    assert len(held) == best + 1 + 2 < 20, "it stops after two validations without a better loss"
    kept = safetensors.torch.load_file(tmp_path / "out" / "checkpoint-purifier.safetensors")
    at_best = {name.removeprefix("best/"): t for name, t in kept.items() if name.startswith("best/")}
    assert same(at_best, weights(tmp_path / "out", "purifier"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = PurifierStage.losses
    count = iter(range(100))

    def broken(stage: PurifierStage, batch: object) -> Mapping[str, torch.Tensor]:
        found = losses(stage, batch)  # type: ignore[arg-type]
        return {**found, "denoising": found["denoising"] * (float("nan") if next(count) >= 4 else 1.0)}

    monkeypatch.setattr(PurifierStage, "losses", broken)
    with pytest.raises(TrainingError) as caught:
        Training(make_job("purifier")).run(Silent())
    assert "denoising, gradient are nan at step 2" in str(caught.value) and "holds step 2" in str(
        caught.value
    )
    assert not (tmp_path / "out" / "purifier.safetensors").exists()


def test_a_full_disk_keeps_the_checkpoint_before(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    real, written = os.fsync, iter(range(100))

    def full(descriptor: int) -> None:
        real(descriptor)
        if next(written) >= 2:  # of each checkpoint the file and its directory are flushed
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError, match="disk or quota is full.*checkpoint-purifier.safetensors' holds step 2"
    ):
        Training(make_job("purifier")).run(Silent())
    monkeypatch.undo()
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["checkpoint-purifier.safetensors"]
    recorder = Recorder()
    assert Training(make_job("purifier")).run(recorder).finished and len(recorder.losses) == 4


def test_a_checkpoint_cut_short_is_named(make_job: MakeJob, tmp_path: Path) -> None:
    Training(make_job("purifier")).run(Recorder(2))
    path = tmp_path / "out" / "checkpoint-purifier.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TrainingError, match="damaged or cut short"):
        Training(make_job("purifier")).run(Silent())


def test_another_recipe_does_not_go_on_from_a_checkpoint(make_job: MakeJob) -> None:
    Training(make_job("purifier")).run(Recorder(2))
    with pytest.raises(JobError, match=r"other settings, data or encoder \(its"):
        Training(make_job("purifier", learning_rate=0.1)).run(Silent())


def test_too_few_images_are_refused_before_training(make_job: MakeJob) -> None:
    with pytest.raises(SourceError, match="too few"):
        Training(make_job(validation=0.9))
    job = make_job()
    few = job.model_copy(update={"data": job.data.model_copy(update={"limit": 5})})
    with pytest.raises(SourceError, match="are too few"):
        Training(few)


def test_wrong_shapes_are_errors_of_the_job(make_job: MakeJob) -> None:
    for settings, said in (
        ({"purifier": {"channels": [12]}}, "train.purifier: channels"),
        ({"purifier": {"channels": [8], "patch": 5}}, "not a multiple of patch=5"),
        ({"method": "mapper", "mapper": {"groups": 7}}, "train.mapper: feature_dim=20"),
    ):
        with pytest.raises(JobError, match=said):
            Training(make_job(**settings))


def test_a_mapper_is_trained_behind_a_given_purifier(make_job: MakeJob, tmp_path: Path) -> None:
    Training(make_job("purifier", out=str(tmp_path / "first"))).run(Silent())
    job = make_job("mapper", out=str(tmp_path / "second"))
    behind = job.model_copy(
        update={"encoder": job.encoder.model_copy(update={"purifier": str(tmp_path / "first")})}
    )
    training = Training(behind)
    assert isinstance(training.first, MapperStage)
    assert training.recipe != Training(job).recipe
    training.run(Silent())
    section = DefenceSection(purifier=str(tmp_path / "first"), mapper=str(tmp_path / "second"))
    defend(training.encoder, section, "both", 0.25)


def test_tokens_have_a_mapper_of_their_own(make_job: MakeJob, tmp_path: Path) -> None:
    training = Training(make_job("token-mapper"))
    training.run(Silent())
    defended = defend(training.encoder, DefenceSection(mapper=str(tmp_path / "out")), "tokens", 0.25)
    pixels = training.held_out.images(slice(0, 2))
    assert defended.encode_patches(pixels).shape == training.encoder.encode_patches(pixels).shape
    assert not torch.equal(defended.encode_patches(pixels), training.encoder.encode_patches(pixels))


@pytest.mark.parametrize("method", ["noise", "fare", "tecoa"])
def test_a_tuned_encoder_is_a_model_that_a_job_loads(make_job: MakeJob, tmp_path: Path, method: str) -> None:
    job = make_job(method, learning_rate=1e-3)
    training = Training(job)
    before = training.encoder.encode_images(training.held_out.images(slice(0, 2)))
    training.run(Silent())
    torch.testing.assert_close(training.encoder.encode_images(training.held_out.images(slice(0, 2))), before)
    tuned = load_encoder(EncoderSection(model=str(tmp_path / "out" / "model"), device="cpu"))
    after = tuned.encode_images(training.held_out.images(slice(0, 2)))
    assert float((after - before).norm(dim=1).min()) > 1e-4
    texts = ["a photo of the cat", "a photo of the dog"]
    torch.testing.assert_close(tuned.encode_texts(texts), training.encoder.encode_texts(texts))


def test_a_defence_on_top_of_a_tuned_encoder_is_trained_for_that_one(
    make_job: MakeJob, tmp_path: Path
) -> None:
    Training(make_job("fare", learning_rate=1e-2, steps=2, out=str(tmp_path / "tuned"))).run(Silent())
    model, out = str(tmp_path / "tuned" / "model"), str(tmp_path / "out")
    job = make_job(steps=2)
    behind = job.model_copy(update={"encoder": job.encoder.model_copy(update={"model": model})})
    training = Training(behind)
    assert training.recipe != Training(job).recipe
    training.run(Silent())
    sections = {
        name: EncoderSection(model=name, device="cpu", purifier=out, mapper=out)
        for name in (model, job.encoder.model)
    }
    tuned, untuned = (load_encoder(EncoderSection(model=name, device="cpu")) for name in sections)
    assert tuned.digest != untuned.digest
    for part in ("purifier", "mapper"):
        held = read_part(out, part).trained
        assert held is not None and held.encoder_digest == tuned.digest
    assert f"{model} (digest {tuned.digest[:16]})" in (tmp_path / "out" / "README.md").read_text()
    defended = load_defended(sections[model], 0.25)
    assert defended.notes == () and defended.base.digest == tuned.digest
    pixels = training.held_out.images(slice(0, 4))
    learned_with, without = (each.encode_images(pixels) for each in (training.encoder, untuned))
    torch.testing.assert_close(learned_with, defended.base.encode_images(pixels))
    assert (learned_with - without).norm(dim=1).min() > 1e-4
    notes = load_defended(sections[job.encoder.model], 0.25).notes
    assert len(notes) == 2 and all("trained for another encoder" in note for note in notes)


def test_a_purifier_learns_from_attacked_images_what_makes_attacks_fail(make_job: MakeJob) -> None:
    """What is added stays within its budget and the pixels' range, counts as noise, and turns features away."""
    training = Training(make_job("purifier", attacked=True, adversary={"budget": 0.5, "steps": 4}))
    stage = training.first
    assert isinstance(stage, PurifierStage)
    for parameter in stage.module.leave.parameters():  # as made, the purifier changes nothing
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    batch = training_batch(training.training, training.section, training.sigma, stage.name, 0)
    assert training.section.adversary.steps == 4 and stage._adversary is not None
    attacked = stage._attacked(batch, stage._adversary)
    added = attacked.noisy - batch.noisy
    assert float(added.flatten(1).norm(dim=1).max()) <= 0.5 + 1e-5
    assert float(added.flatten(1).norm(dim=1).min()) > 0.1
    moved = batch.images + added
    assert -1e-5 <= float(moved.min()) and float(moved.max()) <= 1 + 1e-5
    wanted = training.encoder.encode_images(batch.images)
    with torch.no_grad():
        before, after = (
            float(1 - (stage.features(each.noisy, batch.sigma) * wanted).sum(dim=1).mean())
            for each in (batch, attacked)
        )
    assert after > 1.2 * before
    calm = Training(make_job("purifier"))
    assert calm.recipe != training.recipe and isinstance(calm.first, PurifierStage)
    assert calm.first._adversary is None
    recorder = Recorder()
    assert training.run(recorder).finished and len(recorder.losses) == 6


def test_only_a_purifier_can_learn_from_attacked_images(make_job: MakeJob) -> None:
    with pytest.raises(
        ValidationError, match="attacked=true is for a purifier, and method=mapper trains none"
    ):
        make_job("mapper", attacked=True)


def test_the_rate_rises_then_falls() -> None:
    rates = [rate(step, 100) for step in range(100)]
    assert rates[:5] == sorted(rates[:5]) and rates[5:] == sorted(rates[5:], reverse=True)
    assert max(rates) == 1.0 and 0 <= rates[-1] < 0.01
