"""The bundled handwritten digits as image-text pairs.

1,797 real scans of 8x8 cells (``bundled/digits.md`` says where they come from), shown as 32x32 RGB images:
ink 0..16 becomes grey ``round(ink * 255 / 16)``, white on black, enlarged with Pillow's bilinear filter.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from smoothcert.errors import JobError, did_you_mean

DigitsPart = Literal["test", "train", "all"]

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_PIXELS = 32
"""Height and width of the images."""


def digit_caption(name: str) -> str:
    """The caption of a digit, e.g. ``a photo of the digit seven``."""
    return f"a photo of the digit {name}"


def load_digits_pairs(split: DigitsPart) -> list[tuple[Image.Image, str, str]]:
    """The digits of one split, in the order of the data.

    Args:
        split: ``test`` (360 held-out pairs, 36 a digit), ``train`` (the other 1,437) or ``all``.

    Returns:
        (image, caption, label) triples: RGB of 32x32, ``a photo of the digit seven``, ``seven``.

    Raises:
        JobError: there is no such split.
    """
    return [(image, caption, label) for _, image, caption, label in numbered_digits(split)]


def numbered_digits(split: DigitsPart) -> list[tuple[int, Image.Image, str, str]]:
    """Like ``load_digits_pairs``, each with its row in the bundled data (0..1796)."""
    scans, labels, _ = _bundled()
    pairs = []
    for row in split_rows(split):
        name = DIGIT_NAMES[labels[row]]
        pairs.append((int(row), digit_image(scans[row]), digit_caption(name), name))
    return pairs


def split_rows(split: DigitsPart) -> npt.NDArray[np.intp]:
    """Ascending rows of the bundled data that belong to a split."""
    if split not in get_args(DigitsPart):
        known = get_args(DigitsPart)
        raise JobError(
            f"split={split!r} does not exist{did_you_mean(str(split), known)}",
            remedy=f"use one of {', '.join(known)}",
        )
    _, labels, held_out = _bundled()
    everything = np.arange(len(labels))
    if split == "all":
        return everything
    return everything[np.isin(everything, held_out, invert=split == "train")]


def digit_image(scan: npt.NDArray[np.uint8]) -> Image.Image:
    """One scan, (8, 8) with values 0..16, as the RGB image that everything in this package uses."""
    grey = np.rint(scan * (255 / 16)).astype(np.uint8)
    size = (DIGIT_PIXELS, DIGIT_PIXELS)
    return Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")


@cache
def _bundled() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    resource = files("smoothcert.datasets") / "bundled" / "digits.npz"
    with resource.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return arrays["scans"], arrays["labels"], arrays["held_out"]
