"""What later phases add to a run reaches summary.json and MLflow with the same command, and with every later one."""

import json
from pathlib import Path

import pytest

from smoothcert.cli.main import app
from smoothcert.datasets import write_demo_data
from smoothcert.tracking.quiet import quiet_mlflow

JOB = """
name: later
data: {{format: parquet, uri: "{here}/digits", limit: 4}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1}}
certify: {{sigma: 0.25, pilot_draws: 7, max_draws: 8, radii: [0.1]}}
attacks: [{{attack: pgd, norm: l2, budgets: [0.1, 0.2], steps: 1, subjects: bare}}]
output: {{runs: "{here}/runs", run: mine}}
"""


def test_attack_rows_are_counted(tmp_path: Path, beside: str) -> None:
    from mlflow import MlflowClient

    write_demo_data(tmp_path / "digits", "parquet")
    (tmp_path / "job.yaml").write_text(JOB.format(here=tmp_path))
    for _ in range(2):  # the second time the rows are there before certification ends
        with pytest.raises(SystemExit) as ended:
            app(["attack", str(tmp_path / "job.yaml")])
        assert not ended.value.code
        summary = json.loads((tmp_path / "runs" / "mine" / "summary.json").read_text())
        assert summary["tables"] == {"attacks": {"rows": 8, "quarantined": 0}}
        with quiet_mlflow():
            client = MlflowClient(tracking_uri=beside)
            runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
        (metrics,) = (run.data.metrics for run in runs if "pairs" in run.data.metrics)
        for each in summary["attacks"]:
            if each["attack"] == "worst case":
                here = f"divergence_0.5_bare_l2_{each['budget']:g}"
                assert metrics[f"robust_accuracy/{here}"] == each["robust_accuracy"]["share"]
        assert "success_among_right/divergence_0.5_bare_l2_0.2" in metrics
