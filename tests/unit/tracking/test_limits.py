"""What is told to MLflow fits its fields, by MLflow's own numbers."""

import json
from pathlib import Path

import pytest
import yaml

from smoothcert.errors import TrackingError
from smoothcert.job import Job
from smoothcert.tracking import destination, figures
from smoothcert.tracking.destination import sqlite_uri
from smoothcert.tracking.quiet import quiet_mlflow

JOB = """
name: sample
data: {format: parquet, uri: pairs.parquet}
encoder: {model: bundled:digits-clip}
certify: {sigma: 0.5}
"""


def job(uris: object) -> Job:
    data = yaml.safe_load(JOB)
    data["data"]["uri"] = uris
    return Job.model_validate(data)


def test_our_limits_are_not_wider_than_those_of_mlflow() -> None:
    with quiet_mlflow():
        from mlflow.utils import validation

    assert figures.SOURCE_LIMIT <= validation.MAX_DATASET_SOURCE_SIZE
    assert figures.NOTE_LIMIT <= validation.MAX_TAG_VAL_LENGTH
    assert figures.PARAM_LIMIT <= validation.MAX_PARAM_VAL_LENGTH


@pytest.mark.parametrize(
    ("count", "length"), [(1, 10), (3, 10), (1100, 60), (1100, 600), (1, 70_000), (2, 40_000)]
)
def test_the_source_of_the_data_fits_whatever_the_number_of_files(count: int, length: int) -> None:
    uris = [f"s3://bucket/{number:04d}/".ljust(length, "ü") for number in range(count)]
    text = figures.dataset_source(job(uris))
    assert len(text.encode()) <= figures.SOURCE_LIMIT
    told = json.loads(text)
    if "uris" in told:
        assert told["uris"] == count and len(told["sha256"]) == 64
        assert told["uri"] == uris[: len(told["uri"])]
    else:
        assert told["uri"] == (uris if count > 1 else uris[0])


def test_few_files_are_all_named() -> None:
    assert json.loads(figures.dataset_source(job(["a", "b"]))) == {"uri": ["a", "b"], "format": "parquet"}
    assert "uris" not in figures.dataset_source(job([f"s3://bucket/{n}.parquet" for n in range(900)]))


def test_other_shards_at_the_end_are_another_source() -> None:
    uris = [f"s3://bucket/{'x' * 60}/{number}.parquet" for number in range(1100)]
    assert figures.dataset_source(job(uris)) != figures.dataset_source(job([*uris[:-1], "s3://other"]))


@pytest.mark.parametrize("name", ["a?b", "50%", "a#b", "a%3Fb", "a:b", "ü é", "a b"])
def test_the_uri_of_a_database_names_that_file(name: str, tmp_path: Path) -> None:
    import sqlalchemy

    database = tmp_path / name / "mlflow.db"
    database.parent.mkdir()
    engine = sqlalchemy.create_engine(sqlite_uri(database))
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("PRAGMA database_list")).fetchall()
    engine.dispose()
    assert Path(rows[0][2]) == database


def test_a_library_that_reads_the_uri_otherwise_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy before 2.1 does not encode the path of a database: it would open another file."""
    import sqlalchemy.engine

    real = sqlalchemy.engine.make_url
    monkeypatch.setattr(sqlalchemy.engine, "make_url", lambda uri: real(uri.replace("%3F", "?")))
    with pytest.raises(TrackingError, match=r"a\?b") as caught:
        destination.sqlite_uri(tmp_path / "a?b" / "mlflow.db")
    assert "output.runs" in caught.value.remedy
