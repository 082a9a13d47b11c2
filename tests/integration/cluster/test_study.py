"""A study on Ray: two runs at once on two workers, killed in the middle, resumed by workers that get the job's code."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

PAIRS = 8
STUDY = """
name: mini
data: {{format: parquet, uri: "{data}", columns: {{label: null}}, limit: {pairs}}}
encoder: {{model: "smoothcert_faults:make_paced", slots: 2, chunk: 8, threads: 1}}
certify: {{sigma: 0.25, pilot_draws: 7, max_draws: 200, radii: [0.1], cosines: [0.5]}}
executor: {{kind: ray, workers: 2, cpus_per_worker: 0.5, pairs_per_unit: 1}}
tracking: {{enabled: false}}
output: {{runs: "{here}/runs"}}
study: {{variants: {{smoothing: , dimmed: {{encoder.purifier: "nets:dim"}}}}}}
"""
NETS = """
import torch
from beside.level import LEVEL

class Dim(torch.nn.Module):
    def forward(self, pixels):
        return LEVEL * pixels

def dim(encoder):
    return Dim()
"""


@pytest.mark.timeout(900)
def test_runs_share_the_workers_and_go_on_after_a_kill(
    cluster: Any, data: Path, tools: Any, smoothcert_process: Any, tmp_path: Path
) -> None:
    from smoothcert.job import load_study
    from smoothcert.runtime.executor import Monitor
    from smoothcert.studies.driving import StudyDriver

    (tmp_path / "study.yaml").write_text(STUDY.format(here=tmp_path, data=data, pairs=PAIRS))
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "__init__.py").write_text("")
    (tmp_path / "beside" / "level.py").write_text("LEVEL = 0.9\n")
    runs = tmp_path / "runs"

    def committed() -> dict[str, list[Path]]:
        return {run.name: list(run.glob("commits/u*.json")) for run in runs.glob("mini-*")}

    variables = {"RAY_ADDRESS": cluster.address, "SMOOTHCERT_CACHE": str(tmp_path / "cache")}
    process = smoothcert_process("study", tmp_path / "study.yaml", **variables)
    tools.until(lambda: process.poll() is not None or sum(map(bool, committed().values())) == 2, timeout=300)
    assert process.poll() is None, f"it was over before it could be killed:\n{process.text}"
    process.close()
    before = {path: path.stat().st_mtime_ns for files in committed().values() for path in files}
    assert len(committed()) == 2 and 2 <= len(before) < 2 * PAIRS

    driver = StudyDriver(load_study(tmp_path / "study.yaml"))
    driver.check()
    together, shares = threading.Barrier(2, timeout=200), []

    def perform(run: Any, combination: Any) -> int:
        together.wait()
        # both drivers have what they need; workers have the code that was carried to them, or none
        (tmp_path / "nets.py").unlink(missing_ok=True)
        (tmp_path / "beside" / "level.py").unlink(missing_ok=True)
        shares.append(run.sharers())
        report = run.work("certification", Monitor(lambda result: None))
        return int(report.missing != 0)

    report = driver.run(perform, lambda: False, lambda combination, error: pytest.fail(str(error)))
    assert shares == [2, 2], "each had its half of the workers"
    assert (report.code, {run.state for run in report.record.runs}) == (0, {"complete"})
    assert {Path(run.url).name for run in report.record.runs} == set(committed()), "the same two runs"
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing was done again"
    for run in report.record.runs:
        rows = tools.rows_of(run.url)
        assert len({row["pair_id"] for row in rows}) == len(rows) == PAIRS
        assert {row["status"] for row in rows} == {"ok"}
