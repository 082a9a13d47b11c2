"""The demo on an object store: data and run on s3://, a driver killed on the way, and credentials found nowhere."""

import json
import os
import shutil
import time
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from smoothcert.datasets import write_demo_data
from smoothcert.job import load_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor

pytestmark = pytest.mark.timeout(600)
NUMBERS = [
    "smooth_norm_lcb",
    "robustness_score_lcb",
    "certified_radius",
    "class_margin_lcb",
    "smooth_norm",
    "draws",
]


def keys(bucket, prefix):
    pages = bucket.get_paginator("list_objects_v2").paginate(Bucket="demo", Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def body(bucket, key):
    return bucket.get_object(Bucket="demo", Key=key)["Body"].read()


def by_pair(tables):
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["pair_id"] for row in rows}) == len(rows)
    return {row["pair_id"]: [row[name] for name in NUMBERS] for row in rows}


def test_the_demo_survives_its_driver_and_leaks_nothing(
    start, bucket, environment, digits_job, migrated, tmp_path, monkeypatch
):
    """A run that was begun on Ray goes on in one process; both, and what looks at it, are processes that really end.

    Ray gets the credentials in the environment of the driver that starts it. That one is killed at its first commit:
    how a run on Ray ends is in ``test_certify_ray.py``.
    """
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.chdir(directory := start.directory)
    write_demo_data("s3://demo/digits", "parquet", split="test")
    common = ["data.limit=30", "certify.max_draws=20", "certify.pilot_draws=15", "executor.pairs_per_unit=5"]
    common += ["certify.radii=[0.25]", "certify.cosines=[0.8]"]
    common += [
        "encoder.threads=1",
        "output.run=r",
        "attacks=[]",
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
    ]
    on_ray = ["executor.kind=ray", "executor.workers=1", "executor.cpus_per_worker=0.5"]
    there = ["data.uri=s3://demo/digits", "output.runs=s3://demo/runs", "encoder.slots=2"]
    here = [f"data.uri={tmp_path}/digits", f"output.runs={tmp_path}/runs", "encoder.slots=2"]

    def certify(*settings):
        return ["certify", digits_job, *(f"--set={text}" for text in (*common, *there, *settings))]

    first = start(*certify(*on_ray))
    end = time.monotonic() + 240
    while not keys(bucket, "runs/r/commits/u") and first.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert first.poll() is None, Path(directory, "output.log").read_text()
    first.kill()
    first.wait()
    committed = len([key for key in keys(bucket, "runs/r/commits/u") if key.endswith(".json")])
    assert 0 < committed < 6
    for arguments, said in (
        (certify(), "certification: resuming, "),
        (["status", "s3://demo/runs/r", "--json"], '"complete": true'),
    ):
        Path(directory, "output.log").rename(Path(directory, f"before-{arguments[0]}.log"))
        code = start(*arguments).wait(240)
        text = Path(directory, "output.log").read_text()
        assert code == 0 and said in text and "Traceback" not in text, text

    parts = []
    for key in keys(bucket, "runs/r/commits/u"):
        commit = json.loads(body(bucket, key))
        parts += [pq.read_table(BytesIO(body(bucket, f"runs/r/{part['file']}"))) for part in commit["parts"]]
    (tmp_path / "digits").mkdir()
    for key in keys(bucket, "digits/"):
        (tmp_path / key).write_bytes(body(bucket, key))
    alone = Driver(load_job(digits_job, [*common, *here]))
    assert alone.work("certification", Monitor(lambda result: None)).missing == 0
    local = [pq.read_table(path) for path in Path(tmp_path, "runs/r/certificates").glob("*.parquet")]
    remote, calm = by_pair(parts), by_pair(local)
    assert len(remote) == 30 and remote.keys() == calm.keys()
    for pair, numbers in remote.items():
        assert numbers == pytest.approx(calm[pair], abs=1e-5, nan_ok=True)

    secret, name = environment["AWS_SECRET_ACCESS_KEY"].encode(), environment["AWS_ACCESS_KEY_ID"].encode()
    places = {f"s3://demo/{key}": body(bucket, key) for key in keys(bucket, "runs/")}
    assert (
        any("/workers/" in place for place in places)
        and b"s3://demo/runs/r" in (tmp_path / "mlflow.db").read_bytes()
    )
    for root in (directory, tmp_path, Path(environment["RAY_TMPDIR"])):
        for folder, _, files in os.walk(root):
            for file in files:
                path = Path(folder, file)
                if path.is_file():
                    places[str(path)] = path.read_bytes()
    assert any("raylet" in place for place in places), "Ray's logs were searched too"
    leaks = [place for place, data in places.items() if secret in data or name in data]
    assert leaks == []
