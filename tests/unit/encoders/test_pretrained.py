"""CLIP and SigLIP adapters against the same models, called as their documentation says."""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
import sentencepiece
import tiny_models
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, SiglipModel

from smoothcert.encoders import KnownEncoder, load_encoder
from smoothcert.errors import EncoderError
from smoothcert.job import EncoderSection

TEXTS = ["a photo of the cat", "seven", "the tall red house in the photo", "words that nobody knows"]


@pytest.fixture(params=["clip", "siglip"])
def family(request):
    directory = request.getfixturevalue(f"{request.param}_directory")
    model_class = {"clip": CLIPModel, "siglip": SiglipModel}[request.param]
    return directory, model_class.from_pretrained(directory).eval()


def pictures(count: int = 5) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (30 + 7 * i, 41, 3), dtype=np.uint8)) for i in range(count)]


def as_pixels(encoder, images) -> torch.Tensor:
    return torch.from_numpy(np.stack([encoder.prepare(image) for image in images])).float() / 255


def load(directory, **settings):
    return load_encoder(EncoderSection(model=str(directory), device="cpu", **settings))


def normalised(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def test_image_features_equal_the_whole_models(family):
    directory, model = family
    encoder = load(directory)
    pixel_values = AutoImageProcessor.from_pretrained(directory, backend="pil")(
        images=pictures(), return_tensors="pt"
    )
    with torch.no_grad():
        expected = normalised(model.get_image_features(**pixel_values).pooler_output)
    features = encoder.encode_images(as_pixels(encoder, pictures()))
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)
    assert encoder.feature_dim == expected.shape[1] and encoder.input_size == (24, 24)


def test_pooled_features_are_the_vision_towers(family):
    directory, model = family
    encoder = load(directory, feature="pooled")
    pixel_values = AutoImageProcessor.from_pretrained(directory, backend="pil")(
        images=pictures(), return_tensors="pt"
    )
    with torch.no_grad():
        expected = normalised(model.vision_model(**pixel_values).pooler_output)
    torch.testing.assert_close(
        encoder.encode_images(as_pixels(encoder, pictures())), expected, rtol=0, atol=1e-5
    )
    with pytest.raises(EncoderError, match="no text space"):
        encoder.encode_texts(["a"])


def test_patch_features_are_the_vision_towers_tokens_one_a_patch(family):
    directory, model = family
    encoder = load(directory)
    pixel_values = AutoImageProcessor.from_pretrained(directory, backend="pil")(
        images=pictures(), return_tensors="pt"
    )
    with torch.no_grad():
        tokens = model.vision_model(**pixel_values).last_hidden_state
    # CLIP puts its class token first, SigLIP has none: 24 / 8 patches a side
    pixels = as_pixels(encoder, pictures()).requires_grad_(True)
    patches = encoder.encode_patches(pixels)
    torch.testing.assert_close(patches.detach(), tokens[:, -9:], rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(patches[2].sum(), pixels)
    assert gradient[2].abs().max() > 0 and gradient[[0, 1, 3, 4]].abs().max() == 0
    with pytest.raises(EncoderError, match="pixels of shape"):
        encoder.encode_patches(pixels[:, :, :8])


def test_an_encoder_without_patches_says_so():
    encoder = KnownEncoder.rotating()
    with pytest.raises(EncoderError, match="'known' has no patch features"):
        encoder.encode_patches(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("text", TEXTS)
def test_clip_text_features_equal_the_text_alone(clip_directory, text):
    encoder = load(clip_directory)
    model, tokenizer = (
        CLIPModel.from_pretrained(clip_directory).eval(),
        AutoTokenizer.from_pretrained(clip_directory),
    )
    with torch.no_grad():
        expected = normalised(
            model.get_text_features(tokenizer(text, return_tensors="pt")["input_ids"]).pooler_output
        )
    features = encoder.encode_texts(TEXTS)
    torch.testing.assert_close(features[TEXTS.index(text)], expected[0], rtol=0, atol=1e-5)


def test_siglip_texts_are_padded_to_full_length_unmasked_and_lower_case(siglip_directory):
    encoder = load(siglip_directory)
    model = SiglipModel.from_pretrained(siglip_directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(siglip_directory)
    ids = tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    assert ids.shape == (4, 16)
    with torch.no_grad():
        expected = normalised(model.get_text_features(input_ids=ids).pooler_output)
    torch.testing.assert_close(encoder.encode_texts(TEXTS), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder.encode_texts([TEXTS[0].upper()])[0], expected[0], rtol=0, atol=1e-5)


def test_siglips_own_tokenizer_is_read(sentencepiece_siglip):
    encoder = load(sentencepiece_siglip)
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_siglip / "spiece.model"))
    # by the book: lower case, the pieces, the end (1), then padding, which SigLIP's tokenizer makes of the same token
    texts = ["A Photo of the CAT", "seven"]
    ids = torch.ones((2, 16), dtype=torch.int64)
    for row, text in zip(ids, texts, strict=True):
        pieces = vocabulary.encode(text.lower())
        row[: len(pieces)] = torch.tensor(pieces)
    assert [list(text.content) for text in encoder.read_texts(texts)] == [
        [*vocabulary.encode(text.lower()), 1] for text in texts
    ]
    model = SiglipModel.from_pretrained(sentencepiece_siglip).eval()
    with torch.no_grad():
        expected = normalised(model.get_text_features(input_ids=ids).pooler_output)
    torch.testing.assert_close(encoder.encode_texts(texts), expected, rtol=0, atol=1e-5)


def test_long_texts_are_cut_and_many_texts_are_batched(family):
    directory, _ = family
    encoder = load(directory)
    texts = [" ".join(["cat", "dog"][(i >> k) & 1] for k in range(8)) for i in range(200)]
    together = encoder.encode_texts(texts)
    for index in (0, 127, 128, 199):
        torch.testing.assert_close(
            together[index], encoder.encode_texts([texts[index]])[0], rtol=0, atol=1e-5
        )
    assert torch.isfinite(encoder.encode_texts(["house " * 500])).all()
    cut = encoder.encode_texts(["house " * 30, "house " * 40])
    torch.testing.assert_close(cut[0], cut[1], rtol=0, atol=1e-5)


def test_noise_outside_the_unit_interval_is_not_clamped(family):
    directory, _ = family
    encoder = load(directory)
    pixels = torch.rand(2, 3, 24, 24) * 3 - 1
    difference = (encoder.encode_images(pixels) - encoder.encode_images(pixels.clamp(0, 1))).norm(dim=1)
    assert (difference > 1e-3).all()


def test_an_images_feature_does_not_depend_on_its_batch(family):
    directory, _ = family
    encoder = load(directory)
    pixels = torch.rand(7, 3, 24, 24)
    alone = torch.cat([encoder.encode_images(pixels[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(encoder.encode_images(pixels), alone, rtol=0, atol=1e-5)


def test_pixels_get_gradients_through_the_whole_encoder(family):
    directory, _ = family
    encoder = load(directory)
    pixels = torch.rand(2, 3, 24, 24, requires_grad=True)
    target = torch.randn(encoder.feature_dim)
    (encoder.encode_images(pixels) @ target).sum().backward()
    step = 0.02 * pixels.grad / pixels.grad.norm()
    with torch.no_grad():
        ahead, behind = (encoder.encode_images(pixels + sign * step) for sign in (1, -1))
        gained = ((ahead - behind) @ target).sum() / 2
    assert torch.isclose(gained, (pixels.grad * step).sum(), rtol=0.02)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_the_encoders_and_normalisation_stays_float32(family, dtype):
    directory, _ = family
    exact, encoder = load(directory), load(directory, dtype=dtype)
    pixels = torch.rand(3, 3, 24, 24)
    features = encoder.encode_images(pixels)
    assert encoder.dtype == getattr(torch, dtype) and features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3), rtol=0, atol=1e-6)
    assert 0 < (features - exact.encode_images(pixels)).norm(dim=1).max() < 0.1
    assert encoder.encode_texts(TEXTS).dtype == torch.float32


def test_switching_the_model_to_training_is_noticed(clip_directory):
    encoder = load(clip_directory)
    encoder._model.vision_model.encoder.layers[1].train()
    with pytest.raises(EncoderError, match="training mode"):
        encoder.encode_images(torch.rand(1, 3, 24, 24))


def compiles_as_shipped():
    scale = int(os.environ.get("SMOOTHCERT_TEST_SCALE", "1"))
    return pytest.param("inductor", marks=pytest.mark.skipif(scale < 5, reason="set SMOOTHCERT_TEST_SCALE=5"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", compiles_as_shipped()])
def test_a_compiled_tower_gives_the_same_features(tmp_path, monkeypatch, request, backend):
    """Traced and taken apart as for any compiler; with kernels, which take a minute, at a scale of 5."""
    if backend == "inductor":
        request.getfixturevalue("own_kernels")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    directory = tiny_models.build_clip(tmp_path / "model", layers=1)
    plain, compiled = load(directory), load(directory, compile=True, slots=2, chunk=3)
    pixels = torch.rand(6, 3, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(
            compiled.encode_images(pixels), plain.encode_images(pixels), rtol=0, atol=1e-5
        )
