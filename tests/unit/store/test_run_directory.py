import dataclasses
import json
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from smoothcert.datasets import UnitSpec
from smoothcert.errors import JobError, RunDirectoryError, StoreError
from smoothcert.storage import Storage
from smoothcert.store import CERTIFICATES, RunDirectory, RunIdentity

Opener = Callable[..., RunDirectory]


def test_a_new_directory_says_what_it_is_about(open_run: Opener, make: Any) -> None:
    run = open_run(units=3, pairs=4)
    data = json.loads(run.storage.read("run.json"))
    assert run.created
    assert data["run_id"] == run.run_id and run.run_id.startswith("tiny-s0.5-" + run.info.fingerprint[:8])
    assert data["fingerprint"] == make.identity().fingerprint
    assert (data["units"], data["pairs"]) == (3, 12)
    assert data["radii"] == [0.25, 0.5] and data["cosines"] == [0.5, 0.8]
    assert data["targets"] == ["angular>=0.8@0.25", "class@0.5"]
    assert data["tables"] == {"answers": 1, "attacked_answers": 1, "attacks": 1, "certificates": 1}
    assert data["data_digest"] == "d" * 64 and data["encoder_digest"] == "e" * 64
    assert yaml.safe_load(run.storage.read("job.yaml")) == run.info.job.model_dump(mode="json")


def test_it_opens_again_as_the_same_run(open_run: Opener, make: Any) -> None:
    first = open_run()

    def never() -> Any:
        raise AssertionError("an existing run is not planned again")
        yield

    second = RunDirectory.create_or_open(first.url, make.identity(), never())
    assert not second.created and second.info == first.info == RunDirectory.open(first.url).info
    assert second.plan() == make.units(3)


def test_speed_only_settings_are_no_difference(open_run: Opener, make: Any) -> None:
    run = open_run()
    other = make.identity("encoder.slots=2", "executor.kind=ray", "tracking.enabled=false")
    assert RunDirectory.create_or_open(run.url, other, []).run_id == run.run_id


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overrides": ("certify.sigma=0.25",)}, ["certify.sigma: 0.5 here, 0.25 now"]),
        (
            {"overrides": ("certify.cosines=[0.5]", "zero_shot=null", "certify.targets=[]")},
            ["certify.cosines: [0.5, 0.8] here, [0.5] now", "zero_shot.labels"],
        ),
        ({"data": "c" * 64}, ["the data: dddddddddddddddd here, cccccccccccccccc now"]),
        ({"encoder": "f" * 64}, ["the encoder: eeeeeeeeeeeeeeee here, ffffffffffffffff now"]),
        ({"code": "0.2"}, ["the code version: 0.1 here, 0.2 now"]),
    ],
)
def test_another_job_is_refused_with_what_differs(
    open_run: Opener, make: Any, changes: dict[str, Any], said: list[str]
) -> None:
    run = open_run()
    before = run.storage.read("run.json")
    rest = {name: value for name, value in changes.items() if name != "overrides"}
    other = make.identity(*changes.get("overrides", ()), **rest)
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.create_or_open(run.url, other, make.units(1))
    for text in [*said, run.url]:
        assert text in str(caught.value)
    assert "certify.alpha" not in str(caught.value)
    assert run.storage.read("run.json") == before


def test_a_directory_with_other_files_is_not_taken(url: str, make: Any) -> None:
    Storage(url).create("thesis.tex", b"x")
    with pytest.raises(RunDirectoryError, match="thesis.tex"):
        RunDirectory.create_or_open(url, make.identity(), make.units(1))
    assert Storage(url).names("") == ["thesis.tex"]


def test_what_is_not_a_run_is_not_opened(url: str) -> None:
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        RunDirectory.open(url)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"format": 1}'])
def test_a_damaged_run_file_is_told(url: str, text: bytes) -> None:
    Storage(url).replace("run.json", text)
    with pytest.raises(RunDirectoryError, match="damaged"):
        RunDirectory.open(url)


def test_a_run_id_that_could_end_a_quoted_text_is_damage(open_run: Opener) -> None:
    run = open_run()
    data = json.loads(run.storage.read("run.json"))
    changed = {**data, "run_id": "r' UNION SELECT content FROM read_text('/etc/hostname') --"}
    run.storage.replace("run.json", json.dumps(changed).encode())
    with pytest.raises(RunDirectoryError, match="run_id"):
        RunDirectory.open(run.url)


def test_a_newer_format_is_told(open_run: Opener) -> None:
    run = open_run()
    data = json.loads(run.storage.read("run.json"))
    run.storage.replace("run.json", json.dumps({**data, "format": 3}).encode())
    with pytest.raises(RunDirectoryError, match="format 3"):
        RunDirectory.open(run.url)
    run.storage.replace("run.json", json.dumps({**data, "tables": {"certificates": 9}}).encode())
    with pytest.raises(RunDirectoryError, match="version 9"):
        RunDirectory.open(run.url)


def test_drivers_that_start_together_share_one_run(url: str, make: Any) -> None:
    barrier = threading.Barrier(6)
    runs: list[RunDirectory] = []

    def start() -> None:
        barrier.wait()
        runs.append(RunDirectory.create_or_open(url, make.identity(), make.units(5)))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 6 and len({run.run_id for run in runs}) == 1
    assert sum(run.created for run in runs) == 1
    assert all(run.plan() == make.units(5) for run in runs)
    assert len(Storage(url).names("plan")) == 1


def test_of_two_jobs_started_together_one_is_refused(url: str, make: Any) -> None:
    barrier = threading.Barrier(2)
    results: list[Any] = []

    def start(identity: RunIdentity) -> None:
        barrier.wait()
        try:
            results.append(RunDirectory.create_or_open(url, identity, make.units(2)))
        except RunDirectoryError as exc:
            results.append(exc)

    jobs = [make.identity(), make.identity("certify.sigma=0.25")]
    threads = [threading.Thread(target=start, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [run] = [result for result in results if isinstance(result, RunDirectory)]
    assert yaml.safe_load(run.storage.read("job.yaml"))["certify"]["sigma"] == run.info.job.certify.sigma
    assert sum(isinstance(result, RunDirectoryError) for result in results) == 1


def test_a_failing_source_makes_no_run(url: str, make: Any) -> None:
    def broken() -> Any:
        yield from make.units(2)
        raise RuntimeError("source went away")

    with pytest.raises(RuntimeError, match="went away"):
        RunDirectory.create_or_open(url, make.identity(), broken())
    with pytest.raises(RunDirectoryError):
        RunDirectory.open(url)
    assert RunDirectory.create_or_open(url, make.identity(), make.units(2)).created


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://me:SECRET@h/x",
        "https://SECRET@h/x.parquet",
        "https://h/x.parquet?sv=2024&sig=SECRET",
        "s3://AKIASECRET:wJalrSECRET/xyz+1@h/x.parquet",
    ],
)
def test_credentials_in_urls_are_not_kept(url: str, make: Any, uri: str) -> None:
    plain = make.identity("tracking.uri=postgresql://user:SECRET@db.example/mlflow")
    data = plain.job.data.model_copy(update={"uri": uri})
    identity = dataclasses.replace(plain, job=plain.job.model_copy(update={"data": data}))
    with pytest.raises(JobError, match="the URI of a source file") as caught:
        RunDirectory.create_or_open(url, identity, [UnitSpec("u0", uri, 0, 3, source_name="x")])
    assert "SECRET" not in str(caught.value)
    run = RunDirectory.create_or_open(url, identity, make.units(1))
    unit = run.plan()[0]
    rows = make.unit_rows(unit)
    rows[3]["error_message"] = f"cannot read '{uri}': gone"
    run.commits.commit(make.attempt_unit(run, unit.unit_id, rows))
    run.commits.fold(min_new=1)
    files = run.storage.fs.find(run.storage.root)
    assert len(files) >= 6
    for file in files:
        assert b"SECRET" not in run.storage.fs.cat_file(file), file
    table = pq.read_table(BytesIO(run.storage.read(run.commits.load().files("certificates")[0])))
    [message] = table["error_message"].drop_null().to_pylist()
    assert message.startswith("cannot read '") and message.endswith("': gone")
    assert "db.example/mlflow" in run.storage.read("job.yaml").decode()
    assert not RunDirectory.create_or_open(url, identity, []).created


def test_the_plan_keeps_every_field(url: str, make: Any) -> None:
    from smoothcert.store.plan import PLAN

    assert PLAN.names == [field.name for field in dataclasses.fields(UnitSpec)]
    units = [UnitSpec("u0-a", "s3://b/x y.tar", 3, 9, 512, 2, "x y.tar", (4, 5)), UnitSpec("u1-b", "z", 0, 1)]
    run = RunDirectory.create_or_open(url, make.identity(), units)
    assert run.plan() == units and list(run.pending()) == units


def test_a_part_is_a_parquet_file_of_the_published_schema(open_run: Opener, make: Any) -> None:
    run = open_run()
    rows = [make.ok_row("u00000-0", "p0"), make.quarantined_row("u00000-0", "p1")]
    part = run.write_rows(CERTIFICATES, "u00000-0", "a1", rows)
    with run.storage.open_input(part.file) as stream:
        table = pq.read_table(stream)
    assert part.file == "certificates/u00000-0-a1.parquet" and part.rows == 2
    assert table.schema.equals(CERTIFICATES.arrow, check_metadata=True)
    assert table["run_id"].to_pylist() == [run.run_id] * 2 and table["attempt"].to_pylist() == ["a1"] * 2
    with pytest.raises(StoreError, match="exists already"):
        run.write_rows(CERTIFICATES, "u00000-0", "a1", [make.ok_row("u00000-0", "other")])


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "x" * 101, ".hidden"])
def test_names_that_cannot_be_files_are_refused(open_run: Opener, make: Any, name: str) -> None:
    with pytest.raises(StoreError, match="is not a valid file name"):
        open_run().write_rows(CERTIFICATES, name, "a1", [make.ok_row(name, "p")])


def test_a_part_cut_in_the_store_is_noticed(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.create_or_open(tmp_path / "run", make.identity(), make.units(1))
    real = run.storage.create

    def lossy(relative: str, data: bytes) -> bool:
        return real(relative, data[:-7])

    monkeypatch.setattr(run.storage, "create", lossy)
    with pytest.raises(StoreError, match="bytes in the store"):
        run.write_rows(CERTIFICATES, "u1", "a1", [make.ok_row("u1", "p")])

    def swapped(relative: str, data: bytes) -> bool:
        return real(relative, bytes(len(data)))

    monkeypatch.setattr(run.storage, "create", swapped)
    with pytest.raises(StoreError, match="not a readable Parquet file"):
        run.write_rows(CERTIFICATES, "u1", "a2", [make.ok_row("u1", "p")])


def test_documents_are_kept(open_run: Opener) -> None:
    run = open_run()
    assert run.read_document("summary.json") is None
    run.write_document("summary.json", b"{}")
    assert run.read_document("summary.json") == b"{}"
