"""Synthetic pairs without end: coloured shapes, and captions composed of what is to be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smoothcert.datasets.png import encode_pngs
from smoothcert.errors import JobError

if TYPE_CHECKING:
    from smoothcert.datasets.shards import Format, NewSample, WrittenDataset

SHAPES = ("circle", "square", "triangle", "diamond", "cross")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (240, 220, 50),
    "purple": (150, 50, 190),
    "orange": (250, 140, 30),
    "cyan": (50, 210, 220),
    "white": (245, 245, 245),
}
SIZES = {"small": 0.1, "large": 0.2}
"""Half the extent of an object, as a share of the image's side."""
PLACES = {
    "in the upper left": (0.27, 0.27),
    "in the upper right": (0.73, 0.27),
    "in the centre": (0.5, 0.5),
    "in the lower left": (0.27, 0.73),
    "in the lower right": (0.73, 0.73),
}
RELATIONS = {
    "left of": ((0.27, 0.5), (0.73, 0.5)),
    "right of": ((0.73, 0.5), (0.27, 0.5)),
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "below": ((0.5, 0.73), (0.5, 0.27)),
}
JITTER = 0.05
"""Objects stand up to so far from their place, in each direction."""

ROWS_PER_GROUP = 1000
_CHUNK = 500
"""Pairs drawn at once; each chunk has a random stream of its own, so that more pairs leave earlier ones as
they are."""

_Mask = npt.NDArray[np.bool_]
_PixelGrid = npt.NDArray[np.float32]


def write_synthetic(
    directory: str | PathLike[str],
    format: Format,
    *,
    pairs: int,
    pairs_per_shard: int = 10_000,
    size: int = 32,
    seed: int = 0,
) -> WrittenDataset:
    """Write any number of pairs like ``a small red circle left of a large blue square``; label ``circle``.

    Half of the images hold one object, half hold two; the label is the shape named first. A shard depends on
    ``seed``, ``size``, its number and ``pairs_per_shard`` only.

    Args:
        directory: path or fsspec URL.
        format: ``parquet``, ``webdataset`` or ``manifest``.
        pairs: how many.
        pairs_per_shard: how many in each file but the last.
        size: height and width of the images in pixels.
        seed: 0 or more.

    Raises:
        JobError: an argument is out of range, or the directory holds other data of this format.
        StoreError: writing failed.
    """
    from smoothcert.datasets.shards import write_shards

    for name, value, least in (
        ("pairs", pairs, 1),
        ("pairs_per_shard", pairs_per_shard, 1),
        ("size", size, 8),
        ("seed", seed, 0),
    ):
        if value < least:
            raise JobError(f"{name}={value} is too small", remedy=f"use {least} or more")
    shards: list[tuple[str, Callable[[], Iterable[NewSample]]]] = [
        (
            f"synthetic-{shard:06d}",
            partial(_samples, seed, shard, min(pairs_per_shard, pairs - shard * pairs_per_shard), size),
        )
        for shard in range(-(-pairs // pairs_per_shard))
    ]
    return write_shards(fspath(directory), format, shards, rows_per_group=ROWS_PER_GROUP)


def _samples(seed: int, shard: int, pairs: int, size: int) -> Iterator[NewSample]:
    from smoothcert.datasets.shards import NewSample

    for chunk in range(-(-pairs // _CHUNK)):
        first = chunk * _CHUNK
        images, captions, labels = draw_scenes(np.random.default_rng((seed, shard, chunk)), _CHUNK, size)
        count = min(_CHUNK, pairs - first)
        texts = zip(captions[:count], labels[:count], strict=True)
        for number, (png, (caption, label)) in enumerate(
            zip(encode_pngs(images[:count]), texts, strict=True)
        ):
            yield NewSample(f"{first + number:08d}", png, caption, label)


def draw_scenes(
    rng: np.random.Generator, count: int, size: int
) -> tuple[npt.NDArray[np.uint8], list[str], list[str]]:
    """Random scenes.

    Returns:
        images uint8 (count, size, size, 3) on black, captions, labels.
    """
    two = rng.random(count) < 0.5
    shape, colour, extent = (rng.integers(len(kind), size=(2, count)) for kind in (SHAPES, COLOURS, SIZES))
    place, relation = (rng.integers(len(kind), size=count) for kind in (PLACES, RELATIONS))
    together = np.array(list(RELATIONS.values()), np.float32)[relation]  # (count, object, xy)
    alone = np.array(list(PLACES.values()), np.float32)[place]
    centre = np.where(two[:, None], together[:, 0], alone), together[:, 1]
    jitter = rng.uniform(-JITTER, JITTER, (2, count, 2)).astype(np.float32)
    radius = np.array(list(SIZES.values()), np.float32)[extent]
    palette = np.array(list(COLOURS.values()), np.uint8)

    images = np.zeros((count, size, size, 3), np.uint8)
    everywhere = np.ones(count, bool)
    for index, present in enumerate((everywhere, two)):
        for number, name in enumerate(SHAPES):
            rows = np.flatnonzero(present & (shape[index] == number))
            mask = _mask(name, centre[index][rows] + jitter[index][rows], radius[index][rows], size)
            picture, y, x = np.nonzero(mask)
            images[rows[picture], y, x] = palette[colour[index][rows]][picture]

    named = [
        [
            f"a {_SIZE_NAMES[e]} {_COLOUR_NAMES[c]} {SHAPES[s]}"
            for e, c, s in zip(extent[i].tolist(), colour[i].tolist(), shape[i].tolist(), strict=True)
        ]
        for i in range(2)
    ]
    captions = [
        f"{first} {_RELATION_NAMES[r]} {second}" if both else f"{first} {_PLACE_NAMES[p]}"
        for first, second, both, r, p in zip(
            *named, two.tolist(), relation.tolist(), place.tolist(), strict=True
        )
    ]
    return images, captions, [SHAPES[s] for s in shape[0].tolist()]


_SIZE_NAMES, _COLOUR_NAMES = tuple(SIZES), tuple(COLOURS)
_PLACE_NAMES, _RELATION_NAMES = tuple(PLACES), tuple(RELATIONS)


def _mask(shape: str, centre: _PixelGrid, radius: _PixelGrid, size: int) -> _Mask:
    """Pixels that a shape covers: centre (n, xy), radius (n,) as shares of the side; (n, side, side)."""
    middles = (np.arange(size, dtype=np.float32) + 0.5) / size
    r = radius[:, None, None]
    dx = middles[None, None, :] - centre[:, 0, None, None]
    dy = middles[None, :, None] - centre[:, 1, None, None]
    across, down = np.abs(dx), np.abs(dy)
    mask: _Mask
    if shape == "circle":
        mask = dx * dx + dy * dy <= r * r
    elif shape == "square":
        mask = (across <= 0.85 * r) & (down <= 0.85 * r)
    elif shape == "triangle":
        mask = (2 * across <= dy + r) & (dy <= 0.85 * r)
    elif shape == "diamond":
        mask = across + down <= 1.1 * r
    else:
        mask = ((across <= 0.35 * r) & (down <= r)) | ((down <= 0.35 * r) & (across <= r))
    return mask
