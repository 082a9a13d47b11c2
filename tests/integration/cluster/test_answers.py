"""Questions and an attack on their answers through Ray: the same rows as in one process."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smoothcert.sql import Query
from smoothcert.store import RunDirectory

alike = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "shapes_run.py")))
KINDS = ("colour", "count")
ANSWER = {
    "smooth_draws": 3,
    "max_new_tokens": 12,
    "batch": 64,
    "vote": {"pilot_draws": 3, "max_draws": 8, "score": "rouge_l"},
    "clip_score": {"model": "bundled:digits-clip", "threads": 1},
    "judge": {"encoder": {"model": "bundled:digits-clip", "threads": 1}, "threshold": 0.7},
}
TABLES = {
    "answers": ("question_id", "subject", "answer", "draws", "votes"),
    "attacked_answers": ("question_id", "subject", "clean_answer", "queries"),
}


def rows(run: Path) -> dict[str, list[tuple[Any, ...]]]:
    with Query([RunDirectory.open(str(run))]) as query:
        return {
            table: sorted(
                tuple(row.values())
                for row in query.sql(f"SELECT {', '.join(columns)} FROM {table}").to_pylist()
            )
            for table, columns in TABLES.items()
        }


@pytest.mark.timeout(900)
def test_answers_through_ray_are_those_of_one_process(cluster: Any, tmp_path: Path) -> None:
    asked = len(alike.write_shapes(tmp_path, 2, KINDS))
    attack = {"attack": "pgd", "norm": "l2", "budgets": [0.5], "steps": 2, "subjects": ["bare"]}
    job = alike.write_job(tmp_path, {"max_draws": 24, "radii": [0.1]}, ANSWER | {"attacks": [attack]})
    common = ("certify", str(job), "--set", "executor.pairs_per_unit=1", "--set")
    alone = alike.smoothcert(*common, "output.run=alone")
    workers = ["executor.workers=2", "executor.cpus_per_worker=0.5"]
    settings = [part for each in workers for part in ("--set", each)]
    ray = alike.smoothcert(*common, "output.run=ray", "--executor", "ray", *settings)
    assert alone[0] == ray[0] == 0, (alone, ray)
    found = rows(tmp_path / "ray")
    assert found == rows(tmp_path / "alone")
    assert len(found["answers"]) == 3 * asked and len(found["attacked_answers"]) == asked
