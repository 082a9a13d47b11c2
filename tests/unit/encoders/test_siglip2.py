"""SigLIP 2 NaFlex and MetaCLIP 2, image and text, against transformers' own models."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from smoothcert.encoders import load_encoder
from smoothcert.errors import EncoderError
from smoothcert.job import EncoderSection

TEXTS = ["a photo of the cat", "a dog"]


@pytest.mark.parametrize("size", [None, (16, 32)])
def test_siglip2_is_as_transformers_has_it(size, tmp_path) -> None:
    directory = tiny_models.build_siglip2(tmp_path)
    encoder = load_encoder(EncoderSection(model=str(directory), size=size, device="cpu"))
    assert encoder.input_size == (size or (24, 24))
    pixels = np.random.default_rng(0).integers(0, 256, (*encoder.input_size, 3), dtype=np.uint8)
    seen = AutoImageProcessor.from_pretrained(directory, backend="pil")(
        images=[Image.fromarray(pixels)], return_tensors="pt"
    )
    model = AutoModel.from_pretrained(directory).eval()
    tokens = AutoTokenizer.from_pretrained(directory)(
        TEXTS, padding="max_length", max_length=24, return_tensors="pt"
    )
    with torch.no_grad():
        image = model.get_image_features(**seen).pooler_output
        text = model.get_text_features(input_ids=tokens["input_ids"]).pooler_output
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float() / 255
    torch.testing.assert_close(encoder.encode_images(x), image / image.norm(), rtol=0, atol=1e-5)
    wanted = text / text.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder.encode_texts(TEXTS), wanted, rtol=0, atol=1e-5)
    assert encoder.encode_patches(x).shape == (
        1,
        9,
        32,
    )  # padding included


def test_metaclip_2_is_as_transformers_has_it(tmp_path) -> None:
    directory = tiny_models.build_metaclip_2(tmp_path)
    encoder = load_encoder(EncoderSection(model=str(directory), device="cpu"))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    model = AutoModel.from_pretrained(directory).eval()
    seen = AutoImageProcessor.from_pretrained(directory, backend="pil")(images=[image], return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(directory)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = model.get_image_features(**seen).pooler_output
        text = model.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
    x = torch.from_numpy(encoder.prepare(image)[None]).float() / 255
    torch.testing.assert_close(encoder.encode_images(x), wanted / wanted.norm(), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        encoder.encode_texts(TEXTS), text / text.norm(dim=1, keepdim=True), rtol=0, atol=1e-5
    )


def test_metaclip_2_without_an_end_token_is_refused(tmp_path) -> None:
    directory = tiny_models.build_metaclip_2(tmp_path, end=1)
    with pytest.raises(EncoderError, match=r"no text_config\.eos_token_id=1"):
        load_encoder(EncoderSection(model=str(directory), device="cpu"))
