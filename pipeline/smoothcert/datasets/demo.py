"""The bundled digits written out as a small dataset in any format that sources read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Image

from smoothcert.datasets.digits import DigitsPart, numbered_digits
from smoothcert.datasets.png import encode_pngs

if TYPE_CHECKING:
    from smoothcert.datasets.shards import Format, NewSample, WrittenDataset

SHARDS = 3
ROWS_PER_GROUP = 40

_Digit = tuple[int, Image, str, str]


def write_demo_data(
    directory: str | PathLike[str], format: Format, *, split: DigitsPart = "test"
) -> WrittenDataset:
    """Write the digits of a split as image-text pairs; the same bytes every time.

    Three shards (parquet: row groups of 40 rows; webdataset: tar files; manifest: CSV and PNG files) with
    captions such as ``a photo of the digit seven`` and labels such as ``seven``. Keys are rows of the bundled
    data.

    Args:
        directory: path or fsspec URL.
        format: ``parquet``, ``webdataset`` or ``manifest``.
        split: ``test`` (360 pairs), ``train`` (1,437) or ``all``.

    Raises:
        JobError: an argument is wrong, or the directory holds other data of this format.
        StoreError: writing failed.
    """
    from smoothcert.datasets.shards import write_shards

    digits = numbered_digits(split)
    bounds = [len(digits) * shard // SHARDS for shard in range(SHARDS + 1)]
    shards: list[tuple[str, Callable[[], Iterable[NewSample]]]] = [
        (
            f"digits-{split}-{shard:05d}-of-{SHARDS:05d}",
            partial(_samples, digits[bounds[shard] : bounds[shard + 1]]),
        )
        for shard in range(SHARDS)
    ]
    return write_shards(fspath(directory), format, shards, rows_per_group=ROWS_PER_GROUP)


def _samples(digits: list[_Digit]) -> Iterator[NewSample]:
    from smoothcert.datasets.shards import NewSample

    pngs = encode_pngs(np.stack([np.asarray(image) for _, image, _, _ in digits]), level=9)
    for (row, _, caption, label), png in zip(digits, pngs, strict=True):
        yield NewSample(f"{row:04d}", png, caption, label)
