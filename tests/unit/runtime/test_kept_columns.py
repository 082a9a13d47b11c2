"""Own columns of the data in the rows of a run: typed in SQL, NULL where a run keeps none."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets import load_digits_pairs
from smoothcert.errors import JobError
from smoothcert.job import Job, parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.sql import Query
from smoothcert.store import RunDirectory

JOB = """
name: kept
data: {{format: parquet, uri: "{folder}/a.parquet", keep: {keep}}}
encoder: {{model: "bundled:digits-clip", threads: 1}}
certify: {{sigma: 0.25, max_draws: 20, radii: [0.1]}}
output: {{runs: "{folder}/runs", quarantine_budget: 1.0}}
tracking: {{enabled: false}}
"""


def job_of(folder: Path, keep: str) -> Job:
    return parse_job(JOB.format(folder=folder, keep=keep))


def work(folder: Path, keep: str) -> RunDirectory:
    driver = Driver(job_of(folder, keep))
    assert driver.work("certification", Monitor(lambda result: None)).missing == 0
    return driver.run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = []
    for image, _, _ in load_digits_pairs("test")[:4]:
        image.save(tmp_path / "one.png")
        images.append((tmp_path / "one.png").read_bytes())
    images[3] = b"broken"
    columns: dict[str, Any] = {
        "image": images,
        "caption": ["a digit"] * 4,
        "split": ["train", "test", "train", None],
        "exposure": [0.5, 1.5, None, 2.5],
        'od"d': [1, 2, 3, 4],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    return tmp_path


def test_they_are_columns_with_types_also_of_quarantined_pairs(folder: Path) -> None:
    run = work(folder, "{split: text, exposure: number, 'od\"d': integer}")
    with Query([run]) as query:
        rows = query.sql(
            'SELECT status, split, exposure, "od""d" + 1 AS next FROM certificates ORDER BY pair_id'
        )
        assert [rows.schema.field(name).type for name in ("split", "exposure", "next")] == [
            pa.string(),
            pa.float64(),
            pa.int64(),
        ]
        assert [tuple(row.values()) for row in rows.to_pylist()] == [
            ("ok", "train", 0.5, 2),
            ("ok", "test", 1.5, 3),
            ("ok", "train", None, 4),
            ("quarantined", None, 2.5, 5),
        ]
        by_split = query.sql(
            "SELECT split, count(*) AS n FROM certificates GROUP BY 1 ORDER BY 1"
        ).to_pylist()
    assert by_split == [{"split": "test", "n": 1}, {"split": "train", "n": 2}, {"split": None, "n": 1}]


def test_runs_that_keep_other_columns_stand_side_by_side(folder: Path) -> None:
    runs = [work(folder, keep) for keep in ("[split]", "[]", "[exposure]")]
    assert len({run.run_id for run in runs}) == 3, "what is kept is in the rows: another run"
    with Query(runs) as query:
        found = query.sql(
            "SELECT count(*) AS n, count(split) AS splits, count(exposure) AS exposures, count(kept) AS kept "
            "FROM certificates"
        ).to_pylist()
    assert found == [{"n": 12, "splits": 3, "exposures": 3, "kept": 8}]


def test_names_that_rows_have_already_are_refused_before_work(folder: Path) -> None:
    with pytest.raises(JobError, match="'status' is the name of a column"):
        _ = Driver(job_of(folder, "[status]")).plan
    with pytest.raises(JobError, match="'split' is listed twice"):
        job_of(folder, "[split, split]")
    with pytest.raises(JobError, match=r"data\.keep"):
        job_of(folder, "{split: float}")
