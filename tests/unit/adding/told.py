"""One small run through the command line, and what every room says of it.

The programs beside this file import it behind their own entry: the catalogue is a constant that all rooms read when
they are imported, so an entry is added first, in a process of its own, which is what a line more in it amounts to.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from smoothcert.audit.audit import audit_run
from smoothcert.cli.main import app
from smoothcert.datasets import write_demo_data
from smoothcert.errors import SmoothcertError
from smoothcert.sql import Query
from smoothcert.store import TABLES, RunDirectory
from smoothcert.tracking.quiet import quiet_mlflow

PAIRS = 8


def write_job(here: Path, **sections: Any) -> str:
    """A job on a few of the bundled digits, with few draws; ``sections`` come on top. Returns its file."""
    job = {
        "name": "adding",
        "data": {"format": "parquet", "uri": f"{here}/digits", "limit": PAIRS},
        "encoder": {"model": "bundled:digits-clip", "slots": 4, "chunk": 16, "threads": 1},
        "certify": {
            "sigma": 0.25,
            "alpha": 0.01,
            "pilot_draws": 15,
            "max_draws": 64,
            "radii": [0.03125, 0.0625],
            "cosines": [0.3, 0.5],
        },
        "executor": {"pairs_per_unit": 4},
        "output": {"runs": str(here), "run": "mine", "quarantine_budget": 1.0},
        "tracking": {"report": False},
        **sections,
    }
    if job["data"]["uri"] == f"{here}/digits" and not (here / "digits").exists():
        write_demo_data(here / "digits", "parquet")
    (here / "job.yaml").write_text(yaml.safe_dump(job))
    return str(here / "job.yaml")


def smoothcert(*arguments: str, code: int = 0) -> str:
    """What a command says, on both streams; it must end with that exit code."""
    said, ended = io.StringIO(), 0
    with redirect_stdout(said), redirect_stderr(said):
        try:
            app(list(arguments))
        except SystemExit as exc:
            ended = exc.code if isinstance(exc.code, int) else int(bool(exc.code))
        except SmoothcertError as exc:
            ended = exc.exit_code
            said.write(str(exc))
    assert ended == code, f"smoothcert {' '.join(arguments)} ended with {ended}: {said.getvalue()}"
    return said.getvalue()


def collect(here: Path, **queries: str) -> dict[str, Any]:
    """Rows of every table, further queries, summary, what MLflow holds and findings of the run ``mine``."""
    run = RunDirectory.open(str(here / "mine"))
    queries = {name: f"SELECT * EXCLUDE (run_id) FROM {name} ORDER BY pair_id" for name in TABLES} | queries
    with Query([run]) as query:
        told: dict[str, Any] = {name: query.sql(sql).to_pylist() for name, sql in queries.items()}
    told["summary"] = json.loads((here / "mine" / "summary.json").read_text())
    told["mlflow"] = ask_mlflow(here)
    told["findings"] = find(here)
    return told


def ask_mlflow(here: Path) -> dict[str, Any]:
    """What MLflow's own client finds of the run ``mine`` in the store beside it; figures are [value, low, high]."""
    with quiet_mlflow():
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{here}/mlflow.db")
        experiments = [each.experiment_id for each in client.search_experiments()]
        (child,) = client.search_runs(experiments, "tags.`mlflow.parentRunId` != ''")
        (data,) = child.inputs.dataset_inputs
        table = Path(client.download_artifacts(child.info.run_id, "figures.csv")).read_text()
    figures = {
        line.pop("figure"): [float(cell) if cell else None for cell in line.values()]
        for line in csv.DictReader(io.StringIO(table))
    }
    return {
        **{name: getattr(child.data, name) for name in ("metrics", "params", "tags")},
        "data": json.loads(data.dataset.source) | json.loads(data.dataset.profile),
        "figures": figures,
    }


def find(here: Path) -> list[str]:
    """What the audit says of the run, as ``rule: detail``."""
    found = audit_run(RunDirectory.open(str(here / "mine"))).findings
    return [f"{finding.rule}: {detail}" for finding in found for _, detail in finding.listed]


def hand_in(told: dict[str, Any]) -> None:
    """Give the test what was told."""
    json.dump(told, sys.stdout)
