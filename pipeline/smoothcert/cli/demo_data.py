"""``smoothcert demo-data``: real pairs to try everything on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer


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
    directory: Path = typer.Argument(..., help="Where to write."),
    format: Format = typer.Option(Format.parquet, "--format", help="How to lay the pairs out."),
    split: Split = typer.Option(Split.test, "--split", help="test: the 360 held-out scans."),
    synthetic: int = typer.Option(
        0, "--synthetic", metavar="PAIRS", help="Write so many generated shapes instead of the scans."
    ),
    pairs_per_shard: int = typer.Option(10_000, "--pairs-per-shard", help="Shard size of generated pairs."),
    size: int = typer.Option(32, "--size", help="Edge of generated images, pixels."),
    seed: int = typer.Option(0, "--seed", help="Seed of generated pairs."),
) -> None:
    """Write handwritten digits (or generated shapes) as image-text pairs."""
    from smoothcert.datasets import write_demo_data, write_synthetic

    if synthetic:
        written = write_synthetic(
            str(directory),
            format.value,
            pairs=synthetic,
            pairs_per_shard=pairs_per_shard,
            size=size,
            seed=seed,
        )
    else:
        written = write_demo_data(str(directory), format.value, split=split.value)
    typer.echo(f"{written.pairs:,} pairs in {len(written.files)} files under {directory}")
