"""Published logs against their own files: python tests/benchmarks/published.py SMOOTHING [DSRS].

SMOOTHING is a clone of github.com/locuslab/smoothing (Cohen, Rosenfeld and Kolter 2019), DSRS one of
github.com/llylly/DSRS (Li, Zhang, Xie and Li 2022). Every certification log of the first and every sampling under plain
Gaussian noise of the second becomes a run. Then

- right and certified pairs at five radii, by SQL over the run and by counting lines of the file: a run may have fewer,
  by printed radii that were rounded up, and never more;
- of the samplings, the radius of every image against the one that its authors computed: never above.

Prints one line a log, and exits with 1 where a run claims more than its file.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import tempfile
from pathlib import Path

from smoothcert.errors import JobError
from smoothcert.runtime.code_version import code_version
from smoothcert.sql import Query
from smoothcert.store import RunDirectory
from smoothcert.work.published.importing import Stated, import_log
from smoothcert.work.published.logs import PublishedLog, read_log

RADII = (0.125, 0.25, 0.5, 1.0, 1.5)
STATED = (100_000, 0.001)
"""Draws and alpha by the papers, for logs whose largest radius does not tell."""


def import_one(log: PublishedLog, runs: str) -> tuple[RunDirectory, str]:
    """The run of a log, and what was stated for it: nothing, unless nothing usual fits."""
    try:
        return RunDirectory.open(
            import_log(log, Stated(None, None, None, "published"), runs, code_version()).url
        ), ""
    except JobError:
        stated = Stated(None, *STATED, "published")
        return RunDirectory.open(import_log(log, stated, runs, code_version()).url), ", stated"


def counted(run: RunDirectory) -> list[int]:
    """Right and certified pairs of a run at each radius."""
    held = ", ".join(
        f"count_if(coalesce(vote_label = label AND vote_radius >= {r}, false))::BIGINT" for r in RADII
    )
    with Query([run]) as query:
        (row,) = query.sql(f"SELECT [{held}] AS held FROM certificates").to_pylist()
    return list(row["held"])


def check_cohen(path: Path, name: str, runs: str) -> bool:
    """Whether a log's run claims no more than its file."""
    log = read_log(str(path))
    if log is None:
        return True
    run, stated = import_one(log, runs)
    lines = list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))
    right = [float(line["radius"]) for line in lines if line["correct"] == "1"]
    file, ours = [sum(radius >= r for radius in right) for r in RADII], counted(run)
    certify = run.info.job.certify
    print(
        f"{name}: {len(lines)} images, N={certify.max_draws:,} alpha={certify.alpha:g}{stated}; file {file}, run {ours}"
    )
    return all(a <= b for a, b in zip(ours, file, strict=True))


def check_dsrs(path: Path, folder: Path, runs: str) -> bool:
    """Whether no radius of a sampling is above its authors' own."""
    model, noise = path.parent.name, path.stem
    theirs = folder / "data" / "orig-radius" / model / f"orig-rad-{noise}.txt"
    log = read_log(str(path))
    if log is None or not theirs.is_file():
        return True
    run, _ = import_one(log, runs)
    with Query([run]) as query:
        rows = query.sql("SELECT pair_id, coalesce(vote_radius, 0) AS radius FROM certificates").to_pylist()
    ours = {int(row["pair_id"].rpartition("#")[2]): row["radius"] for row in rows}
    lines = [line.split() for line in theirs.read_text().splitlines()]
    apart = [ours[int(idx)] - float(radius) for idx, radius in (line for line in lines if len(line) == 2)]
    least, most = min(apart, default=math.nan), max(apart, default=math.nan)
    print(f"{model}/{noise}: {len(apart)} images, run less file {least:.1e} to {most:.1e}")
    return all(each <= 0.0 for each in apart)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("smoothing", type=Path)
    parser.add_argument("dsrs", type=Path, nargs="?")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        logs = sorted((given.smoothing / "data" / "certify").glob("*/*/*/*/sigma*"))
        sound = [
            check_cohen(path, str(path.relative_to(given.smoothing / "data" / "certify")), runs)
            for path in logs
        ]
        for path in (
            sorted((given.dsrs / "data" / "sampling").glob("*/gaussian-None-*.txt")) if given.dsrs else ()
        ):
            sound.append(check_dsrs(path, given.dsrs, runs))
    print(f"{len(sound)} logs, {sum(sound)} of them claim no more than their files")
    sys.exit(0 if sound and all(sound) else 1)


if __name__ == "__main__":
    main()
