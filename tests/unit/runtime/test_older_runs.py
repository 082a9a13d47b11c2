"""A run directory that version 0.1 wrote: eight digits, one of them no image, two attacks, one split, one retry.

Its commits and manifests name no task; what they belong to stands in the ids of their units alone.
"""

import json
import zipfile
from pathlib import Path

import pytest

from smoothcert.audit.audit import audit_run
from smoothcert.errors import RunDirectoryError
from smoothcert.runtime.retry import choose, retry_units
from smoothcert.runtime.status import read_status
from smoothcert.sql import Query
from smoothcert.store import ATTACKS, CERTIFICATES, RunDirectory, RunIdentity
from smoothcert.store.compact import compact
from smoothcert.store.units import task_of
from smoothcert.summary.summary import summarise

KEPT = Path(__file__).parents[2] / "data" / "run-0.1.zip"
ATTACK_IDS = {"52a8afd2", "696a5054"}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    with zipfile.ZipFile(KEPT) as archive:
        archive.extractall(tmp_path / "kept")
    return tmp_path / "kept"


def identity(run: RunDirectory, **changes: str) -> RunIdentity:
    facts = {name: getattr(run.info, name) for name in ("data_digest", "encoder_digest", "code_version")}
    return RunIdentity(run.info.job, **{**facts, **changes})


def test_its_rows_and_figures_show_as_they_were(kept: Path) -> None:
    assert "task" not in json.loads(next((kept / "commits").glob("u*.json")).read_text())
    status = read_status(str(kept))
    assert (status.complete, status.committed, status.quarantined, status.draws) == (True, 8, 1, 249)
    assert {(task.task_id, task.units, task.units_done) for task in status.tasks} == {
        (task_id, 4, 4) for task_id in ATTACK_IDS
    }
    with Query([RunDirectory.open(kept)]) as query:
        certificates = query.sql(
            "SELECT status, count(*) AS n FROM certificates GROUP BY 1 ORDER BY 1"
        ).to_pylist()
        attacks = query.sql("SELECT attack_id, count(*) AS n FROM attacks GROUP BY 1 ORDER BY 1").to_pylist()
        (run,) = query.sql("SELECT committed_pairs, finished, committed_units, draws FROM runs").to_pylist()
    assert certificates == [{"status": "ok", "n": 7}, {"status": "quarantined", "n": 1}]
    assert attacks == [{"attack_id": task_id, "n": 8} for task_id in sorted(ATTACK_IDS)]
    assert run == {"committed_pairs": 8, "finished": True, "committed_units": 7, "draws": 249}
    summary = summarise(str(kept))
    assert (summary.pairs, summary.ok, summary.finished) == (8, 7, True)
    assert audit_run(RunDirectory.open(kept)).sound


def test_it_resumes_where_a_commit_is_gone_and_is_upgraded_on_the_way(kept: Path) -> None:
    run = RunDirectory.open(kept)
    assert RunDirectory.create_or_open(str(kept), identity(run), []).run_id == run.run_id
    assert list(run.pending()) == []
    for unit in ("u000002-7f7881ad", "u000003.52a8afd2-1136e9d1"):
        (kept / "commits" / f"{unit}.json").unlink()
        (pending,) = run.pending(run.commits.resume(), task_of(unit))
        assert pending.unit_id == unit
    committed = run.commits.load()
    assert set(committed.table["task"].to_pylist()) == {"", *ATTACK_IDS}
    assert len(committed.certification) == 6 and len(committed.of("52a8afd2")) == 3


def test_its_quarantined_pair_can_be_retried_under_every_task(kept: Path) -> None:
    run = RunDirectory.open(kept)
    committed = run.commits.load()
    chosen = choose(run, CERTIFICATES, "true", option="--where")
    (unit,) = retry_units(run, chosen, committed)
    assert unit.origin.startswith("retry-") and len(unit) == 1, "the row that shows now is itself a retry's"
    attacked = choose(run, ATTACKS, "true", option="--retry")
    assert {task_of(unit.unit_id) for unit in retry_units(run, attacked, committed)} == ATTACK_IDS


def test_compaction_keeps_its_rows(kept: Path) -> None:
    run = RunDirectory.open(kept)
    compact(run)
    assert len(run.commits.load().files("certificates")) == len(run.commits.load().files("attacks")) == 1
    with Query([run]) as query:
        assert query.sql("SELECT count(*) AS n FROM certificates").to_pylist() == [{"n": 8}]
        assert query.sql("SELECT count(*) AS n FROM attacks").to_pylist() == [{"n": 16}]


def test_other_code_is_refused_with_the_reason(kept: Path) -> None:
    run = RunDirectory.open(kept)
    with pytest.raises(RunDirectoryError, match="the code version: 0.1.0"):
        RunDirectory.create_or_open(str(kept), identity(run, code_version="0.2.0+00000000"), [])
