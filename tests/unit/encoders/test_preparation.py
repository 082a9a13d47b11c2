"""x must be what the model's own processor makes: compared with the whole, unsplit processor."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from smoothcert.encoders.preparation import Preparation
from smoothcert.errors import DecodeError, EncoderError

PROCESSORS = {
    "clip": CLIPImageProcessorPil(),
    "clip, small, no crop": CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False),
    "clip, crop larger than edge": CLIPImageProcessorPil(
        size={"shortest_edge": 30}, crop_size={"height": 40, "width": 36}
    ),
    "siglip": SiglipImageProcessorPil(),
    "siglip, not normalised": SiglipImageProcessorPil(do_normalize=False),
    "to [-1, 1] by rescaling": SiglipImageProcessorPil(
        rescale_factor=1 / 127.5, image_mean=1.0, image_std=1.0
    ),
    "no conversion of its own": SiglipImageProcessorPil(do_convert_rgb=False),
}


def picture(width: int, height: int, mode: str) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "LA":
        return Image.fromarray(pixels).convert("LA")
    if mode == "P":
        return Image.fromarray(pixels[..., :3]).quantize(16)
    return Image.fromarray(pixels if mode == "RGBA" else pixels[..., :3]).convert(mode)


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_normalised_x_equals_the_processors_pixel_values(processor, mode):
    preparation = Preparation(processor, model="test")
    for size in ((224, 224), (640, 480), (31, 257), (300, 20), (1, 1), (3, 2)):
        image = picture(*size, mode)
        x = preparation.prepare(image)
        assert x.dtype == np.uint8 and x.shape == (3, *preparation.input_size)
        # A processor that does not convert cannot be given anything but RGB.
        whole = processor(images=image if processor.do_convert_rgb else image.convert("RGB"))
        ours = x / np.float64(255) * preparation.scale[:, None, None] + preparation.shift[:, None, None]
        np.testing.assert_allclose(ours, whole["pixel_values"][0], rtol=0, atol=1e-6)


def test_a_photo_of_the_input_size_passes_unchanged():
    image = picture(224, 224, "RGB")
    x = Preparation(CLIPImageProcessorPil(), model="test").prepare(image)
    np.testing.assert_array_equal(x, np.asarray(image).transpose(2, 0, 1))


def test_a_processor_without_fixed_size_is_refused():
    with pytest.raises(EncoderError, match="no fixed output size"):
        Preparation(CLIPImageProcessorPil(do_center_crop=False), model="test")


def test_a_processor_that_does_more_than_an_affine_map_is_refused():
    class Gamma(SiglipImageProcessorPil):
        def normalize(self, image, mean, std, **kwargs):
            return super().normalize(image**0.5, mean, std, **kwargs)

    with pytest.raises(EncoderError, match="cannot tell where to add the noise"):
        Preparation(Gamma(), model="test")


def test_a_processor_that_makes_floats_before_rescaling_is_refused():
    class Floats(SiglipImageProcessorPil):
        def resize(self, image, **kwargs):
            return super().resize(image, **kwargs).astype(np.float32) + 0.5

    with pytest.raises(EncoderError, match="8-bit"):
        Preparation(Floats(), model="test")


def test_an_elongated_image_is_refused_before_memory_is_spent():
    preparation = Preparation(CLIPImageProcessorPil(), model="test")
    with pytest.raises(DecodeError, match="too elongated"):
        preparation.prepare(Image.new("RGB", (1, 100_000)))
    assert preparation.prepare(Image.new("RGB", (20, 20_000))).shape == (3, 224, 224)
