"""decode_image against pixels known by construction, and every bad image with its reason."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from smoothcert.datasets import decode_image
from smoothcert.errors import DecodeError, SourceError

LIMIT = 1_000_000


def saved(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def decoded(data, max_pixels=LIMIT):
    image = decode_image(data, max_pixels=max_pixels)
    assert type(image) is Image.Image and image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)


def png_header(width, height, depth=8, colour=2):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "format, options", [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_lossless_formats_keep_every_pixel(rgb, format, options):
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(rgb), format, **options)), rgb)


def test_jpeg_is_what_the_common_loader_shows(rgb):
    data = saved(Image.fromarray(rgb), "JPEG")
    np.testing.assert_array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_one_pixel_is_an_image():
    assert decoded(saved(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).tolist() == [[[1, 2, 3]]]


def test_grey_and_bilevel():
    assert decoded(saved(Image.new("L", (2, 1), 77), "PNG")).tolist() == [[[77] * 3] * 2]
    assert decoded(saved(Image.new("1", (2, 1), 1), "PNG")).tolist() == [[[255] * 3] * 2]


def test_cmyk_uses_the_plain_formula():
    pixel = decoded(saved(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "TIFF"))[8, 8]
    assert pixel.tolist() == [0, 255, 255]
    jpeg = decoded(saved(Image.new("CMYK", (16, 16), (0, 255, 0, 0)), "JPEG", quality=100))[8, 8]
    np.testing.assert_allclose(jpeg, [255, 0, 255], atol=3)


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
def test_palette_colours_survive_transparency(transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    options = {} if transparency is None else {"transparency": transparency}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoded(saved(image, "PNG", **options)).tolist() == [
            [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
        ]


def test_alpha_is_dropped_not_composited():
    assert decoded(saved(Image.new("RGBA", (1, 1), (9, 8, 7, 0)), "PNG")).tolist() == [[[9, 8, 7]]]
    assert decoded(saved(Image.new("LA", (1, 1), (9, 0)), "PNG")).tolist() == [[[9, 9, 9]]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format):
    values = np.array([[0, 128, 129, 257, 32768, 65278, 65406, 65535]], np.uint16)
    got = decoded(saved(Image.fromarray(values), format))
    expected = np.rint(values / 65535 * 255)
    np.testing.assert_array_equal(got, np.repeat(expected[..., None], 3, axis=2))


def test_big_endian_sixteen_bit_tiff():
    data = saved(
        Image.fromarray(np.array([[0, 65535, 25700]], ">u2").astype(np.uint16)), "TIFF", big_endian=True
    )
    assert decoded(data)[0, :, 0].tolist() == [0, 255, 100]


@pytest.mark.parametrize("values", [np.array([[70000]], np.int32), np.array([[0.5]], np.float32)])
def test_32_bit_pixels_are_refused(values):
    with pytest.raises(DecodeError, match="32-bit pixels.*\n.*convert the image to 8 or 16 bits"):
        decoded(saved(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], duration=50, **options)
    assert decoded(data)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    "orientation, upright",
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(rgb, format, orientation, upright):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    data = saved(Image.fromarray(rgb), format, exif=exif.tobytes(), **options)
    np.testing.assert_array_equal(decoded(data), upright(rgb))


def test_unreadable_exif_leaves_the_image(rgb):
    data = saved(Image.fromarray(rgb), "WEBP", exif=b"Exif\0\0garbage", lossless=True, exact=True)
    np.testing.assert_array_equal(decoded(data), rgb)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF"])
def test_cut_images_are_refused_at_every_length(rgb, format):
    data = saved(Image.fromarray(np.tile(rgb, (5, 5, 1))), format)
    whole = decoded(data)
    refused = 0
    for length in range(1, len(data), max(1, len(data) // 60)):
        try:
            got = decoded(data[:length])
        except DecodeError as error:
            refused += 1
            assert f"{length} bytes" in str(error) and error.remedy
        else:  # only trailing metadata was lost
            np.testing.assert_array_equal(got, whole)
    assert refused > 30


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "the image has 0 bytes"),
        (b"hello world", "11 bytes that begin with b'hello world' are not an image"),
        (b"<!DOCTYPE html><html>404", "but a web page"),
        (b'{"error": 1}', "but JSON"),
        (b"%PDF-1.7 ....", "but a PDF"),
        (b"\0\0\0\x20ftypavif....", "AVIF"),
        (b"RIFF\0\0\0\0WEBPVP9 ", "no readable header"),
        (b"\xff\xd8\xff", "JPEG of 3 bytes cannot be decoded"),
    ],
)
def test_what_is_no_image_is_named(data, said):
    with pytest.raises(DecodeError, match=".*remedy: .+") as caught:
        decoded(data)
    assert said in str(caught.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_max_pixels_is_exact(format):
    data = saved(Image.new("RGB", (20, 10)), format)
    assert decoded(data, max_pixels=200).shape == (10, 20, 3)
    with pytest.raises(DecodeError, match="20x10 = 200 pixels, more than max_pixels=199"):
        decoded(data, max_pixels=199)


def test_bombs_are_refused_by_their_declared_size_without_warning(recwarn):
    lossless_webp = (
        b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f" + (0x3FFF | 0x3FFF << 14).to_bytes(4, "little") + bytes(9)
    )
    for bomb in (png_header(200_000, 200_000), lossless_webp):
        with pytest.raises(DecodeError, match=r"declares(.|\n)*raise data\.max_pixels"):
            decode_image(bomb, max_pixels=178_956_970)
    assert not recwarn.list


def test_a_limit_above_pillows_own_is_honoured_without_warning(recwarn):
    assert Image.MAX_IMAGE_PIXELS < 14_000 * 14_000
    with pytest.raises(DecodeError, match="cannot be decoded: image file is truncated"):
        decode_image(png_header(14_000, 14_000, depth=1, colour=0), max_pixels=200_000_000)
    assert not recwarn.list


def test_empty_canvas():
    with pytest.raises(DecodeError):
        decoded(png_header(0, 5))


def test_threads_with_different_limits_do_not_mix():
    data = saved(Image.new("RGB", (20, 10)), "PNG")
    wrong = []

    def work(limit):
        for _ in range(200):
            try:
                decode_image(data, max_pixels=limit)
                fine = True
            except DecodeError:
                fine = False
            if fine != (limit >= 200):
                wrong.append(limit)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (100, 200, 199, 10_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_damaged_bytes_never_raise_anything_else(rgb):
    rng = np.random.default_rng(1)
    for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        good = np.frombuffer(saved(Image.fromarray(rgb), format), np.uint8)
        for _ in range(150):
            bad = good.copy()
            bad[rng.integers(len(bad), size=4)] = rng.integers(256, size=4)
            try:
                decoded(bad.tobytes())
            except DecodeError as error:
                assert error.remedy


def test_a_process_that_hides_truncation_is_refused(monkeypatch, rgb):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(SourceError, match="LOAD_TRUNCATED_IMAGES"):
        decoded(saved(Image.fromarray(rgb), "PNG"))
