"""``smoothcert demo-data``: real pairs to try everything on, and generated ones for load tests."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from smoothcert.cli.terminal import Terminal


class DataFormat(StrEnum):
    """Layouts that ``certify`` reads."""

    parquet = "parquet"
    webdataset = "webdataset"
    manifest = "manifest"


class DigitsSplit(StrEnum):
    """Which scans."""

    test = "test"
    train = "train"
    all = "all"


def demo_data(
    directory: Annotated[
        str, typer.Argument(help="Output directory: a path or an fsspec URL.", show_default=False)
    ],
    format: Annotated[DataFormat, typer.Option(help="Format of the data set.")] = DataFormat.parquet,
    split: Annotated[DigitsSplit, typer.Option(help="test: the 360 held-out scans.")] = DigitsSplit.test,
    synthetic: Annotated[
        int, typer.Option(metavar="PAIRS", help="Write this many generated pairs instead of the scans.")
    ] = 0,
    pairs_per_shard: Annotated[int, typer.Option(help="Generated pairs per file.")] = 10_000,
    size: Annotated[int, typer.Option(help="Height and width of generated images, in pixels.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed for generated pairs.")] = 0,
    questions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Also write questions about the generated pairs, for a job's section answer."
        ),
    ] = None,
) -> None:
    """Write a demo data set: scanned handwritten digits, or any number of generated shapes."""
    from smoothcert.datasets import write_demo_data, write_synthetic
    from smoothcert.datasets.shape_questions import write_shape_questions
    from smoothcert.errors import JobError

    if questions is not None and not synthetic:
        raise JobError("--questions are about generated pairs", remedy="add --synthetic PAIRS")
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
    if questions is not None:
        count = write_shape_questions(questions, written, seed=seed)
        Terminal().say(f"wrote {count:,} questions to {questions}")
    Terminal().say(f"wrote {written.pairs:,} pairs in {len(written.files):,} files under {directory}")
