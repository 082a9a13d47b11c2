"""A run goes on with the same data in another place, once the job says so; other data is refused, file by file."""

import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.datasets import load_digits_pairs, write_demo_data
from smoothcert.errors import RunDirectoryError
from smoothcert.job import Job, parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.sql import Query

JOB = """
name: moved
data: {{format: {format}, uri: "{uri}", limit: 12}}
encoder: {{model: "bundled:digits-clip", threads: 1}}
certify: {{sigma: 0.25, max_draws: 20, radii: [0.1]}}
output: {{runs: "{runs}"}}
executor: {{pairs_per_unit: 2, units_in_flight: 1}}
tracking: {{enabled: false}}
"""


def job_of(format: str, uri: Path, runs: Path, **data: str) -> Job:
    changes = [f"data.{name}={value}" for name, value in data.items()]
    return parse_job(JOB.format(format=format, uri=uri, runs=runs), changes)


def work(job: Job, *, half: bool = False) -> Driver:
    driver = Driver(job)
    stop = threading.Event()
    driver.work("certification", Monitor(lambda result: stop.set() if half else None, stop=stop))
    return driver


def manifest(folder: Path) -> Path:
    folder.mkdir()
    for number, (image, _, _) in zip(range(12), load_digits_pairs("test"), strict=False):
        image.save(folder / f"{number}.png")
    (folder / "m.csv").write_text("image,caption\n" + "".join(f"{i}.png,a digit\n" for i in range(12)))
    return folder


def test_a_half_done_run_is_finished_with_the_copy(tmp_path: Path) -> None:
    write_demo_data(str(tmp_path / "old"), format="webdataset")
    first = work(job_of("webdataset", tmp_path / "old", tmp_path / "runs"), half=True)
    done = first.run.commits.unit_ids()
    assert 0 < len(done) < len(first.plan.units)
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = job_of("webdataset", tmp_path / "new", tmp_path / "runs", moved_from=str(tmp_path / "old"))
    second = work(moved)
    assert second.url == first.url and list(second.run.pending()) == []
    with Query([second.run]) as query:
        rows = query.sql("SELECT status, source_uri FROM certificates").to_pylist()
    assert len(rows) == 12 and {row["status"] for row in rows} == {"ok"}
    assert {Path(row["source_uri"]).parent.name for row in rows} == {"old", "new"}


def test_without_a_word_it_is_another_run_and_the_error_says_the_word(tmp_path: Path) -> None:
    write_demo_data(str(tmp_path / "old"), format="parquet")
    first = work(job_of("parquet", tmp_path / "old", tmp_path / "runs"))
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    plain = job_of("parquet", tmp_path / "new", tmp_path / "runs")
    assert Driver(plain).url != first.url
    name = first.url.rpartition("/")[2]
    there = plain.model_copy(update={"output": plain.output.model_copy(update={"run": name})})
    with pytest.raises(RunDirectoryError, match=f'data.moved_from: "{tmp_path}/old"'):
        _ = Driver(there).run


def test_other_data_is_refused_and_the_file_named(tmp_path: Path) -> None:
    write_demo_data(str(tmp_path / "old"), format="parquet")
    work(job_of("parquet", tmp_path / "old", tmp_path / "runs"))
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    (file, *_) = sorted((tmp_path / "new").glob("*.parquet"))
    file.rename(file.with_name("renamed.parquet"))
    moved = job_of("parquet", tmp_path / "new", tmp_path / "runs", moved_from=str(tmp_path / "old"))
    with pytest.raises(RunDirectoryError, match=f"'{file.name}' is gone(.|\n)*copy the data again"):
        _ = Driver(moved).run
    assert len(list((tmp_path / "runs").iterdir())) == 1, "no new run was begun"


def test_where_there_was_no_such_run_nothing_is_begun(tmp_path: Path) -> None:
    write_demo_data(str(tmp_path / "new"), format="parquet")
    moved = job_of("parquet", tmp_path / "new", tmp_path / "runs", moved_from="/elsewhere")
    with pytest.raises(RunDirectoryError, match="holds no run of this job"):
        _ = Driver(moved).run
    assert not (tmp_path / "runs").exists()


def test_images_named_by_path_may_have_other_times_there_but_no_other_contents(tmp_path: Path) -> None:
    old = manifest(tmp_path / "old")
    job = job_of("manifest", old / "m.csv", tmp_path / "runs")
    run = work(job).run
    with Query([run]) as query:
        kept = query.sql("SELECT pair_id, image_digest FROM certificates").to_pylist()
    files = {f"m.csv#{i}": hashlib.sha256((old / f"{i}.png").read_bytes()).hexdigest() for i in range(12)}
    assert {row["pair_id"]: row["image_digest"] for row in kept} == files

    shutil.copytree(old, tmp_path / "cut")
    image, was = tmp_path / "cut" / "7.png", (old / "7.png").stat()
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    os.utime(image, ns=(was.st_atime_ns, was.st_mtime_ns))  # size and time are those of the original
    cut = job_of("manifest", tmp_path / "cut" / "m.csv", tmp_path / "runs", moved_from=str(old / "m.csv"))
    with pytest.raises(RunDirectoryError, match=r"the image 7\.png \(m\.csv#7\) was .*\(their contents\)"):
        _ = Driver(cut).run

    shutil.copytree(old, tmp_path / "new")
    for image in (tmp_path / "new").glob("*.png"):
        os.utime(image, (1, 1))
    there = job_of("manifest", tmp_path / "new" / "m.csv", tmp_path / "runs", moved_from=str(old / "m.csv"))
    assert list(work(there).run.pending()) == []
    os.utime(tmp_path / "new" / "3.png", (2, 2))  # once it goes on there, times count again
    with pytest.raises(RunDirectoryError, match=r"3\.png"):
        _ = Driver(there).run


def test_a_folder_of_images_is_compared_by_content_too(tmp_path: Path) -> None:
    for number, (image, _, label) in zip(range(12), load_digits_pairs("test"), strict=False):
        (tmp_path / "old" / label).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "old" / label / f"{number}.png")
    job = job_of("imagefolder", tmp_path / "old", tmp_path / "runs")
    first = work(job, half=True)
    with Query([first.run]) as query:
        certified = {row["pair_id"] for row in query.sql("SELECT pair_id FROM certificates").to_pylist()}
    assert 0 < len(certified) < 12
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    moved = job_of("imagefolder", tmp_path / "new", tmp_path / "runs", moved_from=str(tmp_path / "old"))
    images = {str(path.relative_to(tmp_path / "new")): path for path in (tmp_path / "new").rglob("*.png")}
    changed = next(path for name, path in images.items() if name.replace("/", "#") in certified)
    good = changed.read_bytes()
    changed.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(RunDirectoryError, match=changed.name):
        _ = Driver(moved).run
    changed.write_bytes(good)
    assert list(work(moved).run.pending()) == []


def test_a_retry_mends_pairs_at_the_new_place(tmp_path: Path) -> None:
    old = manifest(tmp_path / "old")
    good = (old / "5.png").read_bytes()
    (old / "5.png").write_bytes(b"broken")
    job = job_of("manifest", old / "m.csv", tmp_path / "runs")
    run = work(job).run
    shutil.copytree(old, tmp_path / "new")
    (tmp_path / "new" / "5.png").write_bytes(good)
    place = [f"data.uri={tmp_path / 'new' / 'm.csv'}", f"data.moved_from={old / 'm.csv'}"]
    settings = [part for change in (*place, "output.quarantine_budget=1.0") for part in ("--set", change)]
    shown = CliRunner().invoke(app, ["retry", run.url, "--where", "true", *settings], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    with Query([run]) as query:
        assert query.sql("SELECT DISTINCT status FROM certificates").to_pylist() == [{"status": "ok"}]
