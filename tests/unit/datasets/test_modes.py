"""Images of every mode that Pillow can write, against formulas over the numbers that were put in; and large texts."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from smoothcert.datasets import decode_image
from smoothcert.errors import DecodeError

SIZE = (6, 9)


def numbers(channels, top=256, dtype=np.uint8):
    shape = SIZE if channels == 1 else (*SIZE, channels)
    return np.random.default_rng(channels).integers(0, top, shape).astype(dtype)


def grey(values):
    return np.repeat(values[..., None], 3, axis=2)


def luma(values):
    y, blue, red = (values[..., i].astype(float) for i in range(3))
    blue, red = blue - 128, red - 128
    return np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], 2).clip(0, 255)


def inks(values):
    values = values.astype(float)
    return (255 - values[..., :3]) * (255 - values[..., 3:]) / 255


PALETTE = np.random.default_rng(5).integers(0, 256, (256, 3)).astype(np.uint8)


def paletted(values):
    image = Image.fromarray(values, "L").copy()
    image.putpalette(PALETTE.tobytes())
    return image


MODES = {
    "1": (lambda v: Image.fromarray(v > 127), lambda v: grey(np.where(v > 127, 255, 0)), numbers(1)),
    "L": (lambda v: Image.fromarray(v, "L"), grey, numbers(1)),
    "P": (paletted, lambda v: PALETTE[v], numbers(1)),
    "LA": (lambda v: Image.fromarray(v, "LA"), lambda v: grey(v[..., 0]), numbers(2)),
    "RGB": (lambda v: Image.fromarray(v, "RGB"), lambda v: v, numbers(3)),
    "RGBA": (lambda v: Image.fromarray(v, "RGBA"), lambda v: v[..., :3], numbers(4)),
    "RGBX": (lambda v: Image.fromarray(v, "RGBX"), lambda v: v[..., :3], numbers(4)),
    "CMYK": (lambda v: Image.fromarray(v, "CMYK"), inks, numbers(4)),
    "YCbCr": (lambda v: Image.fromarray(v, "YCbCr"), luma, numbers(3)),
    "I;16": (
        lambda v: Image.fromarray(v),
        lambda v: grey(v / 257),
        numbers(1, 65536, np.uint16),
    ),
}
REFUSED = {
    "I": lambda: Image.fromarray(numbers(1, 1000, np.int32)),
    "F": lambda: Image.fromarray(numbers(1, 256, np.float32)),
    "LAB": lambda: Image.frombytes("LAB", SIZE[::-1], numbers(3).tobytes()),
}
LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "GIF": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {},
    "TIFF deflate": {"compression": "tiff_adobe_deflate"},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF packbits": {"compression": "packbits"},
}


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_in_every_format(mode, format):
    make, expected, values = MODES[mode]
    stream = io.BytesIO()
    try:
        make(values).save(stream, format.split()[0], **LOSSLESS[format])
    except (OSError, KeyError, ValueError):
        pytest.skip(f"{format} has no {mode}")
    wanted = expected(values)
    if format == "WEBP" and mode in ("CMYK", "YCbCr", "I;16"):
        pytest.skip("converted by the writer")
    got = np.asarray(decode_image(stream.getvalue(), max_pixels=100)).astype(float)
    if format == "GIF" and mode not in ("1", "L", "P"):
        pytest.skip("colours are reduced by the writer")
    assert np.abs(got - wanted).max() <= 2.0


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("mode", REFUSED)
def test_modes_that_name_no_white_or_no_colour_are_refused(mode):
    stream = io.BytesIO()
    REFUSED[mode]().save(stream, "TIFF")
    with pytest.raises(DecodeError):
        decode_image(stream.getvalue(), max_pixels=100)


def picture():
    return Image.fromarray(numbers(3))


def saved(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def text(keyword, value, kind="text", **options):
    info = PngImagePlugin.PngInfo()
    getattr(info, f"add_{kind}")(keyword, value, **options)
    return info


LARGE = json.dumps({"nodes": ["x" * 100] * 12_000})


@pytest.mark.parametrize(
    "options",
    [
        {"pnginfo": text("parameters", LARGE, zip=True)},
        {"pnginfo": text("parameters", LARGE)},
        {"pnginfo": text("workflow", LARGE, "itxt", zip=True)},
        {"pnginfo": text("XML:com.adobe.xmp", f"<x>{'history ' * 200_000}</x>", "itxt", zip=True)},
        {"icc_profile": bytes(1_400_000)},
    ],
)
def test_large_texts_and_profiles_do_not_matter(options):
    data = saved(picture(), **options)
    assert np.array_equal(np.asarray(decode_image(data, max_pixels=100)), numbers(3))


def test_a_bomb_of_texts_does_not_matter():
    info = PngImagePlugin.PngInfo()
    for number in range(80):
        info.add_text(f"t{number}", "x" * 1_000_000, zip=True)
    assert np.array_equal(
        np.asarray(decode_image(saved(picture(), pnginfo=info), max_pixels=100)), numbers(3)
    )


@pytest.mark.parametrize("history", [10, 200_000])
@pytest.mark.parametrize("kind, packed", [("itxt", True), ("itxt", False), ("text", True)])
def test_xmp_still_turns_an_image(history, kind, packed):
    """Orientation 6 is a quarter turn; what Pillow does with a small XMP text is what a large one must do."""
    xmp = f'<x tiff:Orientation="6">{"history " * history}</x>'
    data = saved(picture(), pnginfo=text("XML:com.adobe.xmp", xmp, kind, zip=packed))
    small = saved(picture(), pnginfo=text("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', "itxt"))
    turned = np.rot90(numbers(3), -1)
    assert np.array_equal(np.asarray(decode_image(small, max_pixels=100)), turned)
    assert np.array_equal(np.asarray(decode_image(data, max_pixels=100)), turned)


def test_a_picture_cut_inside_a_text_is_refused():
    data = saved(picture(), pnginfo=text("parameters", LARGE))
    for length in (100, len(data) // 2, len(data) - 40):
        with pytest.raises(DecodeError):
            decode_image(data[:length], max_pixels=100)


def test_a_damaged_text_does_not_matter_and_damaged_pixels_do():
    chunk = b"tEXtparameters\0hello"
    data = saved(picture())
    broken = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk) ^ 1)
    assert decode_image(data[:33] + broken + data[33:], max_pixels=100).size == SIZE[::-1]
    at = data.index(b"IDAT") + 8
    with pytest.raises(DecodeError):
        decode_image(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :], max_pixels=100)
