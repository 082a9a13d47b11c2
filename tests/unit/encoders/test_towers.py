"""Towers of multimodal models: x against the family's own processor, tokens against transformers' own model."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from smoothcert.encoders import load_encoder
from smoothcert.encoders.layout import GridPreparation, resizing_weights
from smoothcert.errors import EncoderError
from smoothcert.job import EncoderSection

_spec = importlib.util.spec_from_file_location("tiny_towers", Path(__file__).with_name("tiny_towers.py"))
tiny_towers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_towers)

FAMILIES = sorted(tiny_towers.FAMILIES)
GRIDS = {
    "llava_next": [(16, 32), (32, 32)],
    "llava_onevision": [(32, 16)],
    "idefics2": [(16, 12)],
    "idefics3": [(32, 16)],
    "smolvlm": [(16, 32)],
    "qwen2_vl": [(8, 24)],
    "qwen2_5_vl": [(16, 8)],
    "qwen3_vl": [(16, 16)],
    "internvl": [(16, 32), (32, 32)],
}
"""Grids besides the default, by family."""
CALLS: dict[str, dict[str, Any]] = {"internvl": {"crop_to_patches": True}}
"""How the model's own processor calls its image processor."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("towers")

    @cache
    def build(family: str) -> str:
        return str(tiny_towers.build_tower(family, root / family))

    return build


def picture(size: tuple[int, int], seed: int = 1) -> np.ndarray:
    """uint8 (H, W, 3), of middling greys: where resizing overshoots 0..255 Pillow cuts, and noise is not cut."""
    return np.random.default_rng(seed).integers(70, 185, (*size, 3), dtype=np.uint8)


def processed(path: str, family: str, pixels: np.ndarray) -> dict[str, Any]:
    processor = AutoImageProcessor.from_pretrained(path, backend="pil")
    return processor(images=[Image.fromarray(pixels)], return_tensors="pt", **CALLS.get(family, {}))


def inputs_of(encoder, pixels: np.ndarray) -> dict[str, torch.Tensor]:
    x = torch.from_numpy(np.stack([encoder.prepare(Image.fromarray(pixels))])).float() / 255
    return encoder._preparation.lay_out(encoder._normalised(x))


def own_tokens(path: str, family: str, seen: dict[str, Any]) -> torch.Tensor:
    """The image tokens of transformers' own model of its own processor's output: (T, d)."""
    model = AutoModelForImageTextToText.from_pretrained(path).eval()
    names = ("pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask")
    given = {name: seen[name] for name in names if name in seen}
    with torch.no_grad():
        if family == "blip":
            return model.vision_model(**given).last_hidden_state[0]
        if family == "instructblip":
            given["qformer_input_ids"] = torch.zeros((1, 0), dtype=torch.long)
        output = model.get_image_features(**given)
        tokens = output.pooler_output
    tokens = tokens if isinstance(tokens, torch.Tensor) else torch.cat(list(tokens))
    if family == "qwen3_vl":  # tokens of an earlier layer enter the language model as well
        return torch.cat((tokens, *(torch.cat(list(each)) for each in output.deepstack_features)), dim=-1)
    return tokens.reshape(-1, tokens.shape[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_model_itself(family: str, directory) -> None:
    path = directory(family)
    for feature in ("tokens", "projection"):
        encoder = load_encoder(EncoderSection(model=path, feature=feature, device="cpu"))
        pixels = picture(encoder.input_size)
        seen = processed(path, family, pixels)
        for name, value in inputs_of(encoder, pixels).items():
            # a smaller copy is rounded to 8 bits by the processor: 1.5 grey levels of 255, over a deviation of 0.22
            assert value.shape == seen[name].shape
            assert float((value - seen[name]).abs().max()) <= 3 / 255 / 0.22
        tokens = own_tokens(path, family, inputs_of(encoder, pixels))
        wanted = tokens.flatten() if feature == "tokens" else tokens.mean(dim=0)
        x = torch.from_numpy(np.stack([encoder.prepare(Image.fromarray(pixels))] * 2)).float() / 255
        x[1] = 1 - x[1]
        found = encoder.encode_images(x)
        assert found.shape == (2, encoder.feature_dim) and encoder.feature_dim == wanted.numel()
        torch.testing.assert_close(found[0], wanted / wanted.norm(), rtol=0, atol=1e-4)
        assert not encoder.has_texts


@pytest.mark.parametrize(("family", "size"), [(name, grid) for name in GRIDS for grid in GRIDS[name]])
def test_any_grid_is_laid_out_as_the_processor_does(family: str, size: tuple[int, int], directory) -> None:
    path = directory(family)
    encoder = load_encoder(EncoderSection(model=path, feature="tokens", size=size, device="cpu"))
    assert encoder.input_size == size
    pixels = picture(size)
    seen, found = processed(path, family, pixels), inputs_of(encoder, pixels)
    copied = encoder._preparation.sources.reshape(found["pixel_values"].shape) >= 0
    off = (found["pixel_values"] - seen["pixel_values"]).abs()
    assert copied.any() and float(off[torch.from_numpy(copied)].max()) < 1e-5
    assert float(off.max()) <= 3 / 255 / 0.22
    for name in found.keys() - {"pixel_values"}:
        assert torch.equal(found[name], seen[name])


@pytest.mark.parametrize("family", ["qwen2_vl", "llava_next", "idefics3", "internvl"])
def test_a_pixel_has_one_value_of_noise_wherever_it_is_shown(family: str, directory) -> None:
    size = (16, 32) if family == "internvl" else None
    encoder = load_encoder(EncoderSection(model=directory(family), feature="tokens", size=size, device="cpu"))
    height, width = encoder.input_size
    noisy = 0.5 + 0.25 * torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(0))
    normalised = encoder._normalised(noisy)
    shown = encoder._preparation.lay_out(normalised)["pixel_values"].flatten()
    sources = torch.from_numpy(encoder._preparation.sources).flatten()
    copied = sources >= 0
    assert torch.equal(shown[copied], normalised.flatten()[sources[copied]])
    times = torch.bincount(sources[copied], minlength=3 * height * width)
    assert set(times.tolist()) == ({2} if family == "qwen2_vl" else {1})
    if family == "qwen2_vl":  # both frames of the film are one picture
        frames = shown.reshape(-1, 3, 2, 4, 4)
        assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    else:  # the smaller copy is made of the same noise
        small = shown[sources == -2].reshape(3, 16, 16)
        rows = torch.from_numpy(resizing_weights(height, 16, encoder._preparation._resample)).float()
        columns = torch.from_numpy(resizing_weights(width, 16, encoder._preparation._resample)).float()
        torch.testing.assert_close(small, rows @ normalised[0] @ columns.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "llava_next", "blip-2"])
def test_features_are_differentiable_in_x(family: str, directory) -> None:
    encoder = load_encoder(EncoderSection(model=directory(family), device="cpu"))
    x = torch.rand((1, 3, *encoder.input_size), requires_grad=True)
    encoder.encode_images(x)[0, 0].backward()
    assert torch.isfinite(x.grad).all() and (x.grad.flatten(2).abs().sum(-1) > 0).all()


def test_pooled_is_the_mean_of_the_towers_tokens(directory) -> None:
    path = directory("llava-siglip")
    encoder = load_encoder(EncoderSection(model=path, feature="pooled", device="cpu"))
    pixels = picture(encoder.input_size)
    model = AutoModelForImageTextToText.from_pretrained(path).eval()
    with torch.no_grad():
        seen = model.model.vision_tower(processed(path, "llava-siglip", pixels)["pixel_values"])
    wanted = seen.last_hidden_state[0].mean(dim=0)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float() / 255
    torch.testing.assert_close(encoder.encode_images(x)[0], wanted / wanted.norm(), rtol=0, atol=1e-5)


def test_the_language_model_is_not_kept(directory) -> None:
    encoder = load_encoder(EncoderSection(model=directory("qwen2_vl"), device="cpu"))
    names = {type(module).__name__ for module in encoder.modules}
    assert "Qwen2VisionTransformerPretrainedModel" in names
    assert not any("TextModel" in name or "DecoderLayer" in name for name in names)


def test_images_of_other_shapes_are_cropped_to_the_grid(directory) -> None:
    encoder = load_encoder(EncoderSection(model=directory("qwen2_vl"), size=(8, 16), device="cpu"))
    wide = np.zeros((16, 64, 3), dtype=np.uint8)
    wide[:, 16:48] = 255  # what is left of it
    assert encoder.prepare(Image.fromarray(wide)).min() > 200


def test_a_grid_that_the_processor_resizes_is_refused(directory) -> None:
    with pytest.raises(EncoderError, match=r"(?s)grid of 9x16 pixels.*encoder\.size"):
        load_encoder(EncoderSection(model=directory("qwen2_vl"), size=(9, 16), device="cpu"))


def test_a_size_for_a_model_of_one_size_is_refused(directory) -> None:
    with pytest.raises(EncoderError, match=r"(?s)encoder\.size=\[32, 32\].*\[16, 16\].*remove encoder\.size"):
        load_encoder(EncoderSection(model=directory("llava"), size=(32, 32), device="cpu"))


def test_the_size_is_part_of_what_is_certified(directory) -> None:
    path = directory("qwen2_vl")
    digests = {
        load_encoder(EncoderSection(model=path, size=size, feature=feature, device="cpu")).digest
        for size in (None, (8, 16), (16, 8))
        for feature in ("tokens", "projection")
    }
    assert len(digests) == 6


def test_an_unknown_family_is_named_with_its_nearest(directory, tmp_path: Path) -> None:
    import json
    import shutil

    shutil.copytree(directory("llava"), tmp_path / "odd")
    config = json.loads((tmp_path / "odd/config.json").read_text())
    (tmp_path / "odd/config.json").write_text(json.dumps(config | {"model_type": "lava_next"}))
    with pytest.raises(EncoderError, match="did you mean 'llava_next'"):
        load_encoder(EncoderSection(model=str(tmp_path / "odd"), device="cpu"))


def test_padding_and_resizing_are_learnt_and_other_work_is_refused() -> None:
    class Odd:
        """A processor that turns the picture by a quarter, which is a rearrangement, or brightens it, which is none."""

        do_rescale = do_normalize = do_convert_rgb = True
        rescale_factor, image_mean, image_std, resample = 1 / 255, [0.5] * 3, [0.25] * 3, 3

        def __init__(self, brighten: int) -> None:
            self.brighten = brighten

        def __call__(self, images, return_tensors, do_rescale=True, do_normalize=True):
            grid = np.rot90(np.asarray(images[0], dtype=np.float64).transpose(2, 0, 1), axes=(1, 2))
            grid = np.minimum(grid + self.brighten, 255)
            grid = (grid / 255 - 0.5) / 0.25 if do_normalize else grid
            return {"pixel_values": np.pad(grid, ((0, 0), (0, 2), (0, 0)))[None]}

    turned = GridPreparation(Odd(0), (6, 8), model="odd", wanted={"pixel_values"})
    x = torch.rand((2, 3, 6, 8))
    laid = turned.lay_out(x)["pixel_values"]
    assert laid.shape == (2, 3, 10, 6) and torch.equal(laid[:, :, 8:], torch.zeros(2, 3, 2, 6))
    assert torch.equal(laid[:, :, :8], torch.rot90(x, dims=(2, 3)))
    with pytest.raises(EncoderError, match="something else than tiles"):
        GridPreparation(Odd(20), (6, 8), model="odd", wanted={"pixel_values"})
