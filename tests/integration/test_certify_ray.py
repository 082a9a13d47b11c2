"""The same job through Ray gives the same rows: same noise, same draws, floats equal to 1e-5."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from smoothcert.job import load_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.status import read_status

here = Path(__file__).parent
cli = SimpleNamespace(**runpy.run_path(str(here / "test_certify_cli.py")))
local = cli.local
TOGETHER = """
import os
import time
from pathlib import Path

from smoothcert.encoders import KnownEncoder


def make():
    \"""The known encoder; batches of the engine, which checks have not, wait until two processes have one.\"""
    encoder = KnownEncoder.rotating(0.8, input_size=(16, 16), feature_dim=4, seed=3)
    features, waiting = encoder._image_features, Path({waiting!r})

    def wait_and_encode(pixels):
        if len(pixels) > 8:
            (waiting / str(os.getpid())).touch()
            while len(list(waiting.iterdir())) < 2:
                time.sleep(0.02)
        return features(pixels)

    encoder._image_features = wait_and_encode
    return encoder
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_job_through_ray_on_two_workers_of_half_a_cpu(tmp_path, monkeypatch):
    cli.write_demo_data(tmp_path / "digits", "parquet")
    monkeypatch.setenv("SMOOTHCERT_CACHE", str(tmp_path / "cache"))
    # else one worker could do all of it while the other is still loading
    (tmp_path / "waiting").mkdir()
    (tmp_path / "together.py").write_text(TOGETHER.format(waiting=str(tmp_path / "waiting")))
    path = tmp_path / "job.yaml"
    text = cli.JOB.format(data=tmp_path / "digits", runs=tmp_path / "ray", draws=40)
    path.write_text(text.replace("bundled:digits-clip", "together.py:make"))
    workers = ["--set", "executor.workers=2", "--set", "executor.cpus_per_worker=0.5"]
    done = subprocess.run(
        [Path(sys.executable).with_name("smoothcert"), "certify", path, "--executor", "ray", *workers],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "24 of 24 pairs certified" in done.stdout and "executor ray" in done.stderr
    assert len(list((tmp_path / "waiting").iterdir())) == 2, "nobody but the two workers computed"

    alone = Driver(load_job(path, [f"output.runs={tmp_path / 'local'}"])).work(
        "certification", Monitor(lambda result: None)
    )
    local.assert_same(local.rows(str(tmp_path / "ray" / "mine")), local.rows(alone.url))
    status = read_status(str(tmp_path / "ray" / "mine"))
    assert status.complete and status.units_done == 8
    assert len({worker.worker for worker in status.workers}) == 2, "both workers took part"

    # whatever executor began a run, the other one may go on with it
    again = Driver(load_job(path)).work("certification", Monitor(lambda result: None))
    assert (again.resumed, again.draws) == (24, 0)
