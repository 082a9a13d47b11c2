"""Each command imports what it uses: it does its work in an interpreter of its own, where nothing was imported before.

Elsewhere commands run where much was imported already, and an import that the product forgets is not missed. Two are
tried always, all with ``SMOOTHCERT_ALL_COMMANDS=1``. ``certify`` is a process in ``s3/test_demo.py``; of ``plan``,
``query`` and ``ls``, ``unit/cli/test_what_commands_load.py`` shows even more; ``unit/test_packages_used.py`` reads all
files for what they use and do not import.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from smoothcert.datasets import write_demo_data

JOB = """
name: loaded
data: {format: parquet, uri: digits, limit: 24}
encoder: {model: "bundled:digits-clip", device: cpu, threads: 1, slots: 8, chunk: 16}
certify: {sigma: 0.25, alpha: 0.05, pilot_draws: 8, max_draws: 24}
zero_shot: {labels: [zero, one, two, three, four, five, six, seven, eight, nine]}
output: {runs: runs}
"""
ATTACKS = "attacks: [{attack: pgd, norm: l2, budgets: [0.1], steps: 2, keep: 1}]\n"
TARGET = "certify.targets=[{certificate: angular, cosine: 0.5, radius: 0.1}]"
TRAIN = "train: {out: psm, steps: 2, batch: 4, validate_every: 2, purifier: {channels: [8], patch: 4}}\n"
STUDY = "study: {grid: {certify.sigma: [0.25, 0.5]}}\n"
TUNE = "tune: {goal: {certificate: angular, cosine: 0.5, radius: 0.1}, pairs: 8, first: 4}\n"
OLD_RUN = Path(__file__).parents[1] / "data" / "run-0.1.zip"


def alone(place: Path, *words: str) -> str:
    """What a command says that does its work in a process of its own."""
    done = subprocess.run(
        [Path(sys.executable).with_name("smoothcert"), *words],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


ALL = "SMOOTHCERT_ALL_COMMANDS" in os.environ


def test_what_looks_at_a_run_or_keeps_it_imports_what_it_uses(tmp_path: Path) -> None:
    with zipfile.ZipFile(OLD_RUN) as archive:
        archive.extractall(tmp_path)
    run = str(next(path.parent for path in tmp_path.rglob("run.json")))
    assert "no findings" in alone(tmp_path, "audit", run)
    alone(tmp_path, "report", run, "--output", "page.html")
    assert (tmp_path / "page.html").stat().st_size > 0
    if ALL:
        assert "complete" in alone(tmp_path, "status", run, "--watch")
        assert "merged" in alone(tmp_path, "compact", run)
        assert "would be removed" in alone(tmp_path, "gc", run, "--dry-run")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not ALL, reason="set SMOOTHCERT_ALL_COMMANDS=1")
def test_what_computes_imports_what_it_uses(tmp_path: Path, migrated: Path) -> None:
    write_demo_data(tmp_path / "digits", "parquet")
    (tmp_path / "runs").mkdir()
    shutil.copy(migrated, tmp_path / "runs" / "mlflow.db")
    for name, more in (("attacks", ATTACKS), ("train", TRAIN), ("study", STUDY), ("tune", STUDY + TUNE)):
        (tmp_path / f"{name}.yaml").write_text(JOB + more)
    untracked = "--set=tracking.enabled=false"
    few = ("--set=data.limit=6", untracked)
    alone(tmp_path, "attack", "attacks.yaml", "--set=output.run=a", "--set", TARGET, *few)
    alone(tmp_path, "certify", "attacks.yaml", "--set=output.run=b", "--set=certify.sigma=0.3", *few)
    alone(tmp_path, "compare", "runs/a", "runs/b")
    reproduced = pq.read_table(tmp_path / "runs" / "a" / "certificates")["pair_id"][0].as_py()
    alone(tmp_path, "reproduce", "runs/a", reproduced)
    alone(tmp_path, "track", "runs/a")
    alone(tmp_path, "retry", "runs/a", "--where", "true")
    alone(tmp_path, "monitor", "attacks.yaml", "--against", "runs/a", "--pairs", "10", "--set", TARGET, *few)
    alone(tmp_path, "study", "study.yaml", *few)
    alone(tmp_path, "tune", "tune.yaml", untracked)
    alone(tmp_path, "train", "train.yaml", untracked)
