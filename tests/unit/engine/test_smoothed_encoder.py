"""The smoothed encoder outside of jobs: the numbers of a job, features by definition, round trips, patched models."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, LlavaConfig, LlavaForConditionalGeneration, SiglipModel

from smoothcert.datasets import load_digits_pairs, write_demo_data
from smoothcert.defences import ResidualMapper, TrainedFor, UNetPurifier, defend, save_part
from smoothcert.encoders import Encoder, KnownEncoder, load_encoder
from smoothcert.engine import SmoothedEncoder
from smoothcert.engine.smoothed_tower import content_name
from smoothcert.errors import EncoderError, JobError
from smoothcert.job import Job
from smoothcert.job.encoder import DefenceSection, EncoderSection
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor

SIGMA = 0.25


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("smoothed")
    tiny = runpy.run_path(str(Path(__file__).parents[1] / "encoders" / "tiny_models.py"))
    tiny["build_clip"](place / "clip")
    tiny["build_siglip"](place / "siglip")
    torch.manual_seed(0)
    parts = {
        "purifier": UNetPurifier((24, 24), (8,), 4),
        "mapper": ResidualMapper(20, groups=4, width=8, heads=2, blocks=1),
        "token-mapper": ResidualMapper(32, groups=4, width=8, heads=2, blocks=1, tokens=True),
    }
    (place / "psm").mkdir()
    for name, module in parts.items():
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        trained = TrainedFor(sigma=(SIGMA, SIGMA), encoder_digest="e", data_digest="d", recipe="r")
        save_part(place / "psm" / f"{name}.safetensors", module, trained)
    return place


def load(models: Path, family: str = "clip") -> Encoder:
    return load_encoder(EncoderSection(model=str(models / family), device="cpu"))


def defended(models: Path) -> Encoder:
    section = DefenceSection(purifier=str(models / "psm"), mapper=str(models / "psm"))
    return defend(load(models), section, "psm", SIGMA)


def photos(count: int = 3, size: int = 24) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(count)
    ]


def test_rows_are_those_of_a_job_with_the_same_draws(tmp_path: Path) -> None:
    """The same draws in batches of other sizes: equal up to rounding (1e-5)."""
    write_demo_data(tmp_path / "data", "parquet")
    certify = {"sigma": SIGMA, "max_draws": 64, "pilot_draws": 15, "seed": 3}
    job = Job.model_validate(
        {
            "name": "same",
            "data": {"format": "parquet", "uri": str(tmp_path / "data"), "limit": 6},
            "encoder": {"model": "bundled:digits-clip", "device": "cpu", "threads": 1},
            "certify": certify,
            "output": {"runs": str(tmp_path / "runs")},
        }
    )
    driver = Driver(job)
    driver.work(driver.phases[0].name, Monitor(on_result=lambda result: None))
    rows = {row["pair_id"]: row for row in read_rows(driver.run.url)}
    smoothed = SmoothedEncoder(load_encoder(job.encoder), **certify)
    names = sorted(rows)
    images = [
        image for image, _, _ in load_digits_pairs("test")
    ]  # a row of the first file is a place in the split
    pixels = smoothed.prepare([images[int(name.rpartition("#")[2])] for name in names])
    for name, row in zip(names, smoothed.certify(pixels, names), strict=True):
        for column in ("smooth_norm", "smooth_norm_lcb", "robustness_score", "robustness_score_lcb"):
            assert getattr(row, column) == pytest.approx(rows[name][column], abs=1e-5), column
        np.testing.assert_allclose(
            np.array(row.angular, dtype=float),
            np.array(rows[name]["angular"], dtype=float),
            atol=1e-5,
        )
        assert (row.draws, row.encoder_digest) == (rows[name]["draws"], rows[name]["encoder_digest"])


def read_rows(url: str) -> list[dict[str, Any]]:
    import duckdb

    found = duckdb.sql(f"SELECT * FROM read_parquet('{url}/certificates/*.parquet')").fetchall()
    names = [
        column[0]
        for column in duckdb.sql(f"DESCRIBE FROM read_parquet('{url}/certificates/*.parquet')").fetchall()
    ]
    return [dict(zip(names, row, strict=True)) for row in found]


def test_forward_is_the_mean_of_its_draws_and_the_same_in_any_batch(models: Path) -> None:
    """Against a larger sample of fresh draws: each of 20 coordinates within 6 standard errors (1e-7 in all)."""
    encoder = defended(models)
    smoothed = SmoothedEncoder(encoder, sigma=SIGMA, max_draws=200)
    pixels = smoothed.prepare(photos())
    with torch.no_grad():
        found = smoothed(pixels)
        alone = smoothed(pixels[1:2])
        generator = torch.Generator().manual_seed(5)
        image = torch.from_numpy(pixels[:1]).float() / 255
        draws = encoder.encode_images(image + SIGMA * torch.randn(4000, 3, 24, 24, generator=generator))
    torch.testing.assert_close(found[1:2], alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    mean = draws.mean(dim=0)
    error = draws.std(dim=0) / 200**0.5 * (1 + 200 / 4000) ** 0.5 / mean.norm()
    assert bool(((found[0] - mean / mean.norm()).abs() < 6 * error + 1e-5).all())


def test_forward_has_gradients_by_finite_differences(models: Path) -> None:
    smoothed = SmoothedEncoder(KnownEncoder.rotating(2.0), sigma=SIGMA, max_draws=64)
    pixels = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    # the noise is keyed by the image: held still here, as an attacker who knows the noise would
    held = smoothed._smoothing
    noise = torch.cat(list(held.noise_of(pixels[0])))

    def value(at: torch.Tensor) -> torch.Tensor:
        mean = smoothed.encoder.encode_images(at + noise).mean(dim=0)
        return (mean / mean.norm())[0]

    at = pixels.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(smoothed(at)[0, 0], at)
    way = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
    slope = (value(pixels + 0.01 * way) - value(pixels - 0.01 * way)) / 0.02
    assert float((gradient * way).sum()) == pytest.approx(float(slope), abs=1e-3)


def test_a_saved_encoder_is_the_same_when_it_is_read(models: Path, tmp_path: Path) -> None:
    smoothed = SmoothedEncoder(defended(models), sigma=SIGMA, max_draws=32, pilot_draws=15)
    smoothed.draws = 16
    smoothed.save_pretrained(tmp_path / "saved")
    again = SmoothedEncoder.from_pretrained(tmp_path / "saved", device="cpu")
    assert (again.draws, again.settings) == (16, smoothed.settings)
    pixels = smoothed.prepare(photos())
    with torch.no_grad():
        torch.testing.assert_close(again(pixels), smoothed(pixels), atol=1e-6, rtol=0)
    ours, theirs = smoothed.certify(pixels), again.certify(pixels)
    for one, other in zip(ours, theirs, strict=True):
        assert one.smooth_norm_lcb == pytest.approx(other.smooth_norm_lcb, abs=1e-5)
        assert one.pair_id == other.pair_id and one.status == "ok"


@pytest.mark.parametrize(("family", "kind"), [("clip", CLIPModel), ("siglip", SiglipModel)])
def test_a_patched_model_answers_with_smoothed_features(models: Path, family: str, kind: Any) -> None:
    encoder = defended(models) if family == "clip" else load(models, family)
    smoothed = SmoothedEncoder(encoder, sigma=SIGMA, max_draws=16)
    model = smoothed.patch(kind.from_pretrained(models / family).eval())
    pixels = smoothed.prepare(photos(2))
    base = smoothed._smoothing.base
    with torch.no_grad():
        normalised = base.normalised(torch.from_numpy(pixels).float() / 255)
        found = model.get_image_features(pixel_values=normalised).pooler_output
        wanted = smoothed(base.denormalised(normalised))
        ids = torch.tensor([[2, 3, 4], [5, 6, 7]])
        output = model(input_ids=ids, pixel_values=normalised)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.image_embeds, wanted, atol=1e-5, rtol=0)


def llava(models: Path, **settings: Any) -> Any:
    """A tiny one with the tower's shape of the CLIP."""
    vision = CLIPModel.from_pretrained(models / "clip").config.vision_config
    text = {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision.to_dict(), text_config=text, image_token_index=39, **settings)
    return LlavaForConditionalGeneration(config).eval()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_patched_llava_reads_means_of_noisy_tokens(models: Path, mapped: bool) -> None:
    """Each draw's tokens are mapped before the mean, as ``DefendedTower`` maps them."""
    model = llava(models, vision_feature_layer=-1) if mapped else llava(models)
    tower = model.model.vision_tower
    mapper = str(models / "psm" / "token-mapper.safetensors") if mapped else None
    section = DefenceSection(purifier=str(models / "psm"), mapper=mapper)
    smoothed = SmoothedEncoder(defend(load(models), section, "psm", SIGMA), sigma=SIGMA, max_draws=40)
    smoothed.patch(model)
    pixels = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    base, purifier = smoothed._smoothing.base, smoothed.encoder.purifier  # type: ignore[attr-defined]
    with torch.no_grad():
        normalised = base.normalised(pixels)
        found = model.model.vision_tower(normalised, output_hidden_states=True)
        for number, image in enumerate(base.denormalised(normalised)):
            noise = torch.cat(list(smoothed._smoothing.noise_of(image)))
            wanted = tower(base.normalised(purifier(image + noise)), output_hidden_states=True)
            layers = list(wanted.hidden_states)
            if mapped:
                tokens = smoothed.encoder.token_mapper(layers[-1][:, 1:])  # type: ignore[attr-defined, operator]
                assert float((tokens - layers[-1][:, 1:]).abs().max()) > 1e-3, (
                    "a mapper that does nothing shows nothing"
                )
                layers[-1] = torch.cat((layers[-1][:, :1], tokens), dim=1)
            for ours, theirs in zip(found.hidden_states, layers, strict=True):
                torch.testing.assert_close(ours[number], theirs.mean(dim=0), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(
                found.last_hidden_state[number], layers[-1].mean(dim=0), atol=1e-4, rtol=1e-4
            )
        ids = torch.full((2, 12), 39)
        ids[:, 9:] = 5
        assert bool(torch.isfinite(model(input_ids=ids, pixel_values=normalised).logits).all())


def test_a_mapper_that_a_patched_model_would_not_read_is_refused(models: Path) -> None:
    with pytest.raises(
        EncoderError, match="maps whole features, and LlavaForConditionalGeneration reads tokens"
    ):
        SmoothedEncoder(defended(models), sigma=SIGMA).patch(llava(models))
    section = DefenceSection(mapper=str(models / "psm" / "token-mapper.safetensors"))
    smoothed = SmoothedEncoder(defend(load(models), section, "tokens", SIGMA), sigma=SIGMA)
    with pytest.raises(EncoderError, match="last layer, and LlavaForConditionalGeneration reads layer -2"):
        smoothed.patch(llava(models))


def test_what_cannot_be_is_refused(models: Path, tmp_path: Path) -> None:
    known = SmoothedEncoder(KnownEncoder.rotating(), sigma=SIGMA, max_draws=8)
    with pytest.raises(JobError, match="sigma"):
        SmoothedEncoder(KnownEncoder.rotating(), sigma=-1)
    with pytest.raises(ValueError, match="not of 8 bits"):
        known.certify(torch.full((1, 3, 4, 4), 0.3))
    with pytest.raises(ValueError, match="have shape"):
        known.certify(torch.zeros((1, 3, 5, 4), dtype=torch.uint8))
    with pytest.raises(ValueError, match="different"):
        known.certify(torch.zeros((2, 3, 4, 4), dtype=torch.uint8))
    with pytest.raises(EncoderError, match="cannot be saved"):
        known.save_pretrained(tmp_path / "x")
    with pytest.raises(EncoderError, match="holds no smoothed encoder"):
        SmoothedEncoder.from_pretrained(tmp_path)
    clip = SmoothedEncoder(load(models), sigma=SIGMA)
    with pytest.raises(EncoderError, match="nothing can be replaced"):
        clip.patch(torch.nn.Linear(2, 2))


def test_names_of_images_follow_their_numbers_alone() -> None:
    one = np.zeros((3, 4, 4), dtype=np.uint8)
    assert content_name(one) == content_name(one.copy()) != content_name(one + 1)
