"""Which TIFF files Pillow shows in their true colours, and what it leaves to do.

Found by comparison with files written from the specification (TIFF 6.0); what is not understood is refused, as a wrong
image is worse than none. Not applied, as common loaders do not: transfer functions, grey response curves and colour
profiles.
"""

from __future__ import annotations

from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from smoothcert.errors import DecodeError

_WHITE_IS_ZERO, _PALETTE, _CMYK, _YCBCR, _UNSIGNED = 0, 3, 5, 6, 1
_UNDERSTOOD = (_WHITE_IS_ZERO, 1, 2, _PALETTE, _CMYK, _YCBCR)
_UNCOMPRESSED = 1
_JPEG = (6, 7)
_PLANAR_CONFIGURATION, _COLOUR_MAP, _INK_SET, _SAMPLE_FORMAT = 284, 320, 332, 339
_COEFFICIENTS, _SUBSAMPLING, _REFERENCE = 529, 530, 532


def check_colours(image: TiffImageFile) -> None:
    """Refuse what would come out in wrong colours.

    Raises:
        DecodeError: the file's way of storing pixels is not understood.
    """
    if complaint := _complaint(image):
        raise DecodeError(f"TIFF {complaint}", remedy="save the image as RGB with 8 bits")


def bits_of(image: TiffImageFile) -> int:
    """Bits of the first sample."""
    return _numbers(image, TiffImagePlugin.BITSPERSAMPLE, (1,))[0]


def is_inverted(image: TiffImageFile) -> bool:
    """Whether the pixels that Pillow gives are still inverted: it turns white-is-zero over up to 8 bits only."""
    return _photometric(image) == _WHITE_IS_ZERO and bits_of(image) > 8


def _complaint(image: TiffImageFile) -> str:
    photometric, bits = _photometric(image), bits_of(image)
    compression = _numbers(image, TiffImagePlugin.COMPRESSION, (_UNCOMPRESSED,))[0]
    if photometric not in _UNDERSTOOD:
        return f"has the photometric interpretation {photometric}, which is not supported"
    if bits < 32 and any(each != _UNSIGNED for each in _numbers(image, _SAMPLE_FORMAT, (_UNSIGNED,))):
        return "has samples that are signed or floating, which name no white"
    planar = _numbers(image, _PLANAR_CONFIGURATION, (1,))[0]
    if planar != 1 and bits > 8 and compression == _UNCOMPRESSED:
        return f"keeps {bits}-bit colours in separate planes, which is not supported"
    if planar != 1 and image.mode == "La":
        return "keeps grey and its transparency in separate planes, which is not supported"
    if photometric == _CMYK and _numbers(image, _INK_SET, (1,))[0] != 1:
        return "has inks other than CMYK"
    if photometric == _PALETTE and 0 < max(_numbers(image, _COLOUR_MAP, (0,))) < 256:
        return "has a palette that may be of 8 or of 16 bits"
    if photometric == _YCBCR and compression not in _JPEG:
        return _luma_complaint(image)
    return ""


def _luma_complaint(image: TiffImageFile) -> str:
    if _numbers(image, _SUBSAMPLING, (2, 2)) != (1, 1):
        return "has subsampled YCbCr colours without JPEG, which are not supported"
    # what Pillow's formulas stand for, whatever the file says
    told = {
        _COEFFICIENTS: (0.299, 0.587, 0.114),
        _REFERENCE: (0.0, 255.0, 128.0, 255.0, 128.0, 255.0),
    }
    for tag, usual in told.items():
        values = image.tag_v2.get(tag, usual)
        if len(values) != len(usual) or any(
            abs(float(a) - b) > 1e-3 for a, b in zip(values, usual, strict=True)
        ):
            return "has YCbCr colours with formulas of its own, which are not supported"
    return ""


def _photometric(image: TiffImageFile) -> int:
    return _numbers(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, (0,))[0]


def _numbers(image: TiffImageFile, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, default)
    return tuple(int(each) for each in value) if isinstance(value, tuple) else (int(value),)
