"""Every way to store a TIFF's pixels comes out right or is refused, by a writer and formulas that know no decoder."""

from dataclasses import replace

import numpy as np
import pytest
from tiff_by_hand import BLACK_IS_ZERO, CMYK, PALETTE, RGB, WHITE_IS_ZERO, YCBCR, Tiff

from smoothcert.datasets import decode_image
from smoothcert.errors import DecodeError

EXTRAS = ((0,), (1,), (2,), (0, 0), (1, 0), (2, 0))
FULL_RANGE = ((530, 3, (1, 1)),)

KINDS = [
    *(Tiff(grey, bits, 1) for grey in (WHITE_IS_ZERO, BLACK_IS_ZERO) for bits in (1, 2, 4, 8, 12, 16)),
    *(
        Tiff(grey, bits, 2, e)
        for grey in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        for bits in (8, 16)
        for e in EXTRAS[:3]
    ),
    *(Tiff(RGB, bits, 3 + len(e), e) for bits in (8, 16) for e in ((), *EXTRAS)),
    *(Tiff(PALETTE, bits, 1) for bits in (1, 2, 4, 8)),
    *(Tiff(PALETTE, 8, 2, e) for e in EXTRAS[:3]),
    *(Tiff(CMYK, bits, 4 + len(e), e) for bits in (8, 16) for e in ((), (0,))),
    *(Tiff(YCBCR, bits, 3, more=FULL_RANGE) for bits in (8, 16)),
]
MUST_DECODE = {
    *((grey, bits, 1) for grey in (WHITE_IS_ZERO, BLACK_IS_ZERO) for bits in (1, 2, 4, 8)),
    *((PALETTE, bits, 1) for bits in (1, 2, 4, 8)),
    *((RGB, bits, samples) for bits in (8, 16) for samples in (3, 4)),
    *((BLACK_IS_ZERO, 8, 2), (BLACK_IS_ZERO, 16, 1), (CMYK, 8, 4), (YCBCR, 8, 3)),
}


def named(kind):
    return f"photometric{kind.photometric}-{kind.bits}bit-{kind.samples}-{kind.extra}"


def decoded(tiff, seed=0):
    """The largest error of a channel in 8-bit steps, or None where the file is refused."""
    values = tiff.pixels(seed)
    try:
        image = decode_image(tiff.encoded(values), max_pixels=10_000)
    except DecodeError as exc:
        assert exc.remedy
        return None
    return float(np.abs(np.asarray(image) - 255 * tiff.expected(values)).max())


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_right_or_refused(kind):
    """In both byte orders, with and without planes, compression and strips."""
    # high bytes are taken of 16-bit colours, and premultiplied ones are divided after that
    tolerance = 3.0 if kind.bits == 16 and kind.extra[:1] == (1,) else 1.6
    for order in "<>":
        for planar in (1, 2) if kind.samples > 1 else (1,):
            for compression in (1, 8):
                for rows in (5, 2):
                    tiff = replace(
                        kind, order=order, planar=planar, compression=compression, rows_per_strip=rows
                    )
                    error = decoded(tiff)
                    assert error is None or error < tolerance, tiff
                    plain = (planar, order) == (1, "<") and (kind.photometric, kind.bits, kind.samples)
                    assert error is not None or plain not in MUST_DECODE, tiff


@pytest.mark.parametrize("compression", [1, 8])
def test_white_is_zero_over_16_bits(compression):
    tiff = Tiff(WHITE_IS_ZERO, 16, 1, compression=compression)
    values = np.zeros((5, 7, 1), dtype=int)
    values[1], values[2] = 65535, 32768
    image = np.asarray(decode_image(tiff.encoded(values), max_pixels=100))
    assert [image[row, 0, 0] for row in (0, 1, 2)] == [255, 0, 127]


@pytest.mark.parametrize(
    "tiff, said",
    [
        (Tiff(BLACK_IS_ZERO, 8, 1, sample_format=2), "signed or floating"),
        (Tiff(BLACK_IS_ZERO, 16, 1, sample_format=2), "signed or floating"),
        (Tiff(YCBCR, 8, 3), "subsampled"),
        (Tiff(YCBCR, 8, 3, more=((530, 3, (2, 1)),)), "subsampled"),
        (
            Tiff(YCBCR, 8, 3, more=(*FULL_RANGE, (532, 5, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1)))),
            "formulas of its own",
        ),
        (Tiff(YCBCR, 8, 3, more=(*FULL_RANGE, (529, 5, (2126, 10000, 7152, 10000, 722, 10000)))), "formulas"),
        (Tiff(CMYK, 8, 4, more=((332, 3, (2,)),)), "inks other than CMYK"),
        (Tiff(RGB, 16, 3, planar=2), "separate planes"),
        (Tiff(8, 8, 3), "photometric interpretation 8"),
        (Tiff(32803, 8, 1), "cannot be decoded|photometric interpretation 32803"),
    ],
)
def test_what_is_not_understood_is_refused(tiff, said):
    with pytest.raises(DecodeError, match=said) as caught:
        decode_image(tiff.encoded(tiff.pixels()), max_pixels=100)
    assert "RGB with 8 bits" in caught.value.remedy


def test_a_palette_of_8_bit_numbers_is_refused(monkeypatch):
    tiff = Tiff(PALETTE, 8, 1)
    monkeypatch.setattr(Tiff, "colour_map", lambda self: np.arange(768).reshape(3, 256) % 256)
    with pytest.raises(DecodeError, match="palette that may be of 8 or of 16 bits"):
        decode_image(tiff.encoded(tiff.pixels()), max_pixels=100)
