"""The bundled model: reads plainly, is small, and is as good as its card says."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from smoothcert.datasets import DIGIT_NAMES, load_digits_pairs
from smoothcert.encoders import load_encoder
from smoothcert.job import EncoderSection

DIRECTORY = Path(str(files("smoothcert.encoders"))) / "bundled" / "digits-clip"


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu"))


def zero_shot(encoder, wording: str) -> float:
    pairs = load_digits_pairs("test")
    pixels = torch.from_numpy(np.stack([encoder.prepare(image) for image, _, _ in pairs])).float() / 255
    classes = encoder.encode_texts([wording.format(label=name) for name in DIGIT_NAMES])
    predicted = (encoder.encode_images(pixels) @ classes.T).argmax(dim=1)
    truth = torch.tensor([DIGIT_NAMES.index(label) for _, _, label in pairs])
    return (predicted == truth).float().mean().item()


def test_held_out_accuracy(encoder):
    accuracy = zero_shot(encoder, "a photo of the digit {label}")
    assert accuracy >= 0.97
    assert f"**{accuracy:.4f}**" in (DIRECTORY / "README.md").read_text(encoding="utf-8")


def test_other_wordings_work_too(encoder):
    assert zero_shot(encoder, "{label}") >= 0.97
    assert zero_shot(encoder, "THE NUMBER {label}") >= 0.97


def test_transformers_reads_it_without_us(encoder):
    model = CLIPModel.from_pretrained(DIRECTORY).eval()
    tokenizer = AutoTokenizer.from_pretrained(DIRECTORY)
    processor = AutoImageProcessor.from_pretrained(DIRECTORY, backend="pil")
    images = [image for image, _, _ in load_digits_pairs("test")[:8]]
    with torch.no_grad():
        whole = model(
            **tokenizer(["a photo of the digit seven"], return_tensors="pt"),
            **processor(images=images, return_tensors="pt"),
        )
    pixels = torch.from_numpy(np.stack([encoder.prepare(image) for image in images])).float() / 255
    torch.testing.assert_close(encoder.encode_images(pixels), whole.image_embeds, rtol=0, atol=1e-5)
    texts = encoder.encode_texts(["a photo of the digit seven"])
    torch.testing.assert_close(texts, whole.text_embeds, rtol=0, atol=1e-5)


def test_its_images_are_canonical_already(encoder):
    image = load_digits_pairs("test")[0][0]
    np.testing.assert_array_equal(encoder.prepare(image), np.asarray(image).transpose(2, 0, 1))


def test_any_text_has_a_feature(encoder):
    features = encoder.encode_texts(["", "an Ünïcode ☃ caption", "seven " * 100, "nine"])
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
    assert (features[1] - features[3]).norm() > 0.1


def test_it_is_small():
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) < 2e6
