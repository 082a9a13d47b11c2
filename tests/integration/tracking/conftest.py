"""Real run directories, a real MLflow server, and embedded databases that are not migrated anew for every test."""

import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from smoothcert.job import Job
from smoothcert.store import CERTIFICATES, Commit, RunDirectory, RunIdentity, new_attempt
from smoothcert.summary.summary import Summary, summarise
from smoothcert.tracking.quiet import quiet_mlflow

JOB = """
name: sample
data: {format: parquet, uri: "s3://key:CANARY-userinfo@bucket/digits?sig=CANARY-query"}
encoder: {model: bundled:digits-clip}
certify:
  sigma: 0.5
  radii: [0.25, 1.0]
  cosines: [0.5, 0.8]
  targets: [{certificate: angular, radius: 0.25, cosine: 0.8}]
zero_shot: {labels: [one, two]}
"""
RunMaker = Callable[..., tuple[str, Summary, Job]]


def row(unit: str, number: int, **changes: object) -> dict[str, object]:
    """A row with every column of the schema; NULL where nothing else is said."""
    told = {
        "unit_id": unit,
        "pair_id": f"{unit}.parquet#{number}",
        "source_uri": f"{unit}.parquet",
        "captions": ("a photo",),
        "kept": None,
        "image_digest": None,
        "status": "ok",
        "sigma": 0.5,
        "alpha": 0.001,
        "input_height": 8,
        "input_width": 8,
        "draws": 100,
        "pilot_draws": 64,
        "smooth_norm_lcb": 0.9,
        "robustness_score_lcb": 0.95,
        "fcsb": (0.8, None),
        "angular": (0.9, 0.6),
        "fcsb_radius": (0.5, 0.25),
        "angular_radius": (1.5, 0.5),
        "label": "one",
        "clean_label": "one",
        "predicted_label": "one",
        "certified_radius": 0.4,
        "class_distribution": (0.2, None),
        "vote_label": "one",
        "target_decision": ("certified",),
        "log_e_value": (9.0,),
        "encoder_digest": "e" * 64,
        "seed": 0,
        "noise": "philox",
        "device": "cpu",
        "dtype": "float32",
    }
    return {column.name: None for column in CERTIFICATES.columns[3:]} | told | changes


@pytest.fixture
def make_run(tmp_path: Path) -> RunMaker:
    """Makes a committed run of two units below ``tmp_path/runs``."""
    from smoothcert.datasets import UnitSpec

    def make(
        name: str = "a", text: str = JOB, *, units: int = 2, radius: float = 0.4
    ) -> tuple[str, Summary, Job]:
        job = Job.model_validate(yaml.safe_load(text))  # a job file with such URLs is refused
        planned = [UnitSpec(f"u{i}", f"u{i}.parquet", 0, 4) for i in range(2)]
        identity = RunIdentity(job, "d" * 64, "e" * 64, "0.1.0")
        run = RunDirectory.create_or_open(tmp_path / "runs" / name, identity, planned)
        for unit in planned[:units]:
            if unit.unit_id in run.commits.unit_ids():
                continue
            attempt = new_attempt()
            rows = [row(unit.unit_id, i, certified_radius=radius, vote_radius=radius) for i in range(3)]
            rows.append(
                row(unit.unit_id, 3, status="quarantined", error_stage="decode", error_class="DecodeError")
            )
            part = run.write_rows(CERTIFICATES, unit.unit_id, attempt, rows)
            commit = Commit(
                unit_id=unit.unit_id, attempt=attempt, parts=(part,), ok=3, quarantined=1, draws=656
            )
            assert run.commits.commit(commit)
        return run.url, summarise(run.url), job

    return make


@pytest.fixture
def beside(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The embedded store of the runs of ``make_run``, migrated already; its URI."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "runs").mkdir(exist_ok=True)
    shutil.copy(migrated, tmp_path / "runs" / "mlflow.db")
    return f"sqlite:///{tmp_path}/runs/mlflow.db"


def serve(home: Path, port: int) -> None:
    """MLflow's own app as ``mlflow server`` starts it, in a fork: as a program it would import everything twice.

    It works in its home, so that what it writes to the directory it is in lies with all else that it writes.
    """
    os.chdir(home)
    with (home / "log").open("wb") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    warnings.simplefilter("ignore")
    import uvicorn
    from mlflow.server import constants

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{home}/server.db",
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(home / "artifacts"),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=port, log_level="warning")


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, migrated: Path, fork: Callable[..., Any]
) -> Iterator[tuple[str, Path]]:
    """A real server on a free port of the loopback; its address, and the directory of all its files."""
    home = tmp_path_factory.mktemp("server")
    shutil.copy(migrated, home / "server.db")
    # the fork has MLflow from here, without its chatter
    with quiet_mlflow(), socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = fork(serve, home, port)
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/health", process, home / "log")
        yield f"http://127.0.0.1:{port}", home
    finally:
        process.kill()
        process.join()


def _wait_until_it_answers(url: str, process: Any, log: Path) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert process.is_alive(), log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise AssertionError(f"the server did not start in 200 s:\n{log.read_text()}")
