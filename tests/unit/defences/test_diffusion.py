"""A diffusion model in one step: against a Gaussian's posterior mean, against diffusers' own step, and from disk."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smoothcert.defences import load_defended
from smoothcert.defences.diffusion import DiffusionPurifier, read_diffusion
from smoothcert.errors import EncoderError
from smoothcert.job import EncoderSection

diffusers = pytest.importorskip("diffusers")
SIDE = 16


class Ideal(torch.nn.Module):
    """What a model would say that was trained to the end on images N(mean, deviation^2) in [-1,1] units."""

    def __init__(self, alphas: torch.Tensor, mean: float, deviation: float, prediction: str) -> None:
        super().__init__()
        self.alphas, self.mean, self.deviation, self.prediction = alphas, mean, deviation, prediction

    def forward(self, noisy: torch.Tensor, timestep: int) -> Any:
        a = float(self.alphas[timestep])
        pull = a**0.5 * self.deviation**2 / (a * self.deviation**2 + 1 - a)
        clean = self.mean + pull * (noisy - a**0.5 * self.mean)
        noise = (noisy - a**0.5 * clean) / (1 - a) ** 0.5
        said = {"epsilon": noise, "sample": clean, "v_prediction": a**0.5 * noise - (1 - a) ** 0.5 * clean}
        return SimpleNamespace(sample=said[self.prediction])


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.5, 1.0])
def test_one_step_of_an_ideal_model_is_the_posterior_mean(prediction: str, sigma: float) -> None:
    alphas = diffusers.DDPMScheduler(num_train_timesteps=1000).alphas_cumprod
    purifier = DiffusionPurifier(Ideal(alphas, 0.2, 0.3, prediction), alphas, prediction, sigma)
    pixels = 0.6 + 0.2 * torch.randn((4, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    # in units of [0,1]: x ~ N(0.6, 0.15^2), y = x + sigma n, and E(x | y) by the formula for Gaussians
    shrink = 0.15**2 / (0.15**2 + sigma**2)
    expected = (0.6 + shrink * (pixels - 0.6)).clamp(0, 1)
    # neighbouring timesteps of 1,000 differ by at most 1.2% in noise here, hence by 2.4% in the slope
    torch.testing.assert_close(
        purifier(pixels), expected, atol=0.024 * float((pixels - 0.6).abs().max()), rtol=0
    )
    assert float((purifier(pixels) - expected).abs().mean()) < 2e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as ``diffusers`` saves its pipelines."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("ddpm")
    unet = diffusers.UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(place)
    return place


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_saved_model_says_what_its_scheduler_makes_of_it(
    folder: Path, tmp_path: Path, prediction: str
) -> None:
    place = copy_of(folder, tmp_path, "scheduler/scheduler_config.json", prediction_type=prediction)
    purifier, _ = read_diffusion(str(place), 0.25)
    unet = diffusers.UNet2DModel.from_pretrained(place / "unet", low_cpu_mem_usage=False).eval()
    scheduler = diffusers.DDPMScheduler.from_pretrained(place / "scheduler")
    # the noise of the timestep, in proportion, is twice sigma, since [-1,1] is twice as long as [0,1]
    ratios = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    t = purifier.timestep
    assert ratios[t - 1] < 0.5 < ratios[t + 1] and purifier.input_size == (SIDE, SIDE)
    pixels = torch.rand((2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    noisy = scheduler.alphas_cumprod[t].sqrt() * (2 * pixels - 1)
    with torch.no_grad():
        step = scheduler.step(unet(noisy, t).sample, t, noisy).pred_original_sample
        torch.testing.assert_close(purifier(pixels), (step + 1) / 2, atol=1e-5, rtol=0)


def copy_of(folder: Path, to: Path, name: str, **changes: Any) -> Path:
    place = to / "copy"
    shutil.copytree(folder, place)
    data = json.loads((place / name).read_text()) | changes
    (place / name).write_text(json.dumps(data))
    return place


def test_what_cannot_be_a_purifier_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for number, (name, change, said) in enumerate(
        [
            ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "takes pixels and no text"),
            ("unet/config.json", {"num_class_embeds": 10}, "told a class"),
            ("unet/config.json", {"in_channels": 4}, "4 channels"),
            ("scheduler/scheduler_config.json", {"_class_name": "Nothing"}, "'Nothing' is not in diffusers"),
            (
                "scheduler/scheduler_config.json",
                {"_class_name": "FlowMatchEulerDiscreteScheduler"},
                "no alphas",
            ),
        ]
    ):
        place = copy_of(folder, tmp_path / str(number), name, **change)
        with pytest.raises(ValueError, match=said):
            read_diffusion(str(place), 0.25)
    with pytest.raises(ValueError, match="sigma=1e-05 is not one of its noise levels: they go from 0.0"):
        read_diffusion(str(folder), 1e-5)


def test_without_diffusers_it_is_said_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        EncoderError, match="^defence '.*': purifier='.*' is a model of diffusers, which is not installed"
    ) as caught:
        load_defended(section(folder), 0.25)
    assert "smoothcert[diffusion]" in str(caught.value.remedy)


def test_weights_cut_short_are_refused(folder: Path, tmp_path: Path) -> None:
    place = copy_of(folder, tmp_path, "model_index.json")
    weights = place / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(EncoderError, match=r"purifier='.*copy' cannot be loaded"):
        load_defended(section(place), 0.25)


def section(place: Path) -> EncoderSection:
    return EncoderSection(model="bundled:digits-clip", device="cpu", purifier=str(place))


def test_a_job_names_the_folder(folder: Path, tmp_path: Path) -> None:
    from smoothcert.encoders import load_encoder

    side = load_encoder(section(folder)).input_size[0]
    with pytest.raises(EncoderError, match=f"was made for images of {SIDE}x{SIDE}.*reads {side}x{side}"):
        load_defended(section(folder), 0.25)
    fitting = copy_of(folder, tmp_path, "unet/config.json", sample_size=side)
    encoder = load_defended(section(fitting), 0.25)
    pixels = torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(2))
    base = load_encoder(section(folder))
    purifier, _ = read_diffusion(str(fitting), 0.25)
    torch.testing.assert_close(encoder.encode_images(pixels), base.encode_images(purifier(pixels)))
    assert encoder.digest != load_defended(section(fitting), 0.26).digest, "the noise level is part of it"
    moved = copy_of(fitting, tmp_path / "moved", "model_index.json")
    assert encoder.digest == load_defended(section(moved), 0.25).digest, "the place is not"
