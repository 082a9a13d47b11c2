"""``smoothcert demo-data``: real pairs to try everything on, and generated ones for load tests."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from smoothcert.cli.terminal import Terminal


class Format(StrEnum):
    """Layouts that ``certify`` reads."""

    parquet = "parquet"
    webdataset = "webdataset"
    manifest = "manifest"


class Split(StrEnum):
    """Which scans."""

    test = "test"
    train = "train"
    all = "all"


def demo_data(
    directory: Annotated[
        str, typer.Argument(help="Where to write: a path or an fsspec URL.", show_default=False)
    ],
    format: Annotated[Format, typer.Option(help="How to lay the pairs out.")] = Format.parquet,
    split: Annotated[Split, typer.Option(help="test: the 360 held-out scans.")] = Split.test,
    synthetic: Annotated[
        int, typer.Option(metavar="PAIRS", help="Write so many generated shapes instead of the scans.")
    ] = 0,
    pairs_per_shard: Annotated[int, typer.Option(help="Shard size of generated pairs.")] = 10_000,
    size: Annotated[int, typer.Option(help="Edge of generated images, pixels.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of generated pairs.")] = 0,
) -> None:
    """Write handwritten digits (or generated shapes) as image-text pairs."""
    from smoothcert.datasets import write_demo_data, write_synthetic

    if synthetic:
        written = write_synthetic(
            directory,
            format.value,
            pairs=synthetic,
            pairs_per_shard=pairs_per_shard,
            size=size,
            seed=seed,
        )
    else:
        written = write_demo_data(directory, format.value, split=split.value)
    Terminal().say(f"{written.pairs:,} pairs in {len(written.files):,} files under {directory}")
