"""The local executor, end to end: sources in, one row a pair out, whatever the pairs are and however often it runs."""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from smoothcert.datasets import load_digits_pairs, write_demo_data
from smoothcert.encoders import KnownEncoder
from smoothcert.errors import JobError, RunDirectoryError, SourceError
from smoothcert.job import Job, parse_job
from smoothcert.runtime.driver import Driver, PhaseReport
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.status import read_status
from smoothcert.sql import Query
from smoothcert.store import RunDirectory

ENCODER = KnownEncoder.rotating(1.0, input_size=(8, 8))
JOB = """
name: mini
data: {format: parquet, uri: nowhere}
encoder: {model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 2}
certify: {sigma: 0.25, alpha: 0.01, pilot_draws: 7, max_draws: 16, radii: [0.0625, 0.125]}
tracking: {enabled: false}
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("digits")
    for format in ("parquet", "webdataset", "manifest"):
        write_demo_data(where / format, format)
    return where


def job(data: Path, runs: Path, *overrides: str, format: str = "parquet") -> Job:
    return parse_job(JOB, [f"data.uri={data}", f"data.format={format}", f"output.runs={runs}", *overrides])


def certify(made: Job, monitor: Monitor | None = None) -> PhaseReport:
    return Driver(made, ENCODER).work("certification", monitor or Monitor(lambda result: None))


def rows(url: str) -> dict[str, dict[str, Any]]:
    """All committed rows by pair id, read with SQL as a user would."""
    with Query([RunDirectory.open(url)]) as query:
        found = query.sql("SELECT * FROM certificates").to_pylist()
    assert len({row["pair_id"] for row in found}) == len(found), "a pair has two rows"
    return {row["pair_id"]: row for row in found}


def assert_same(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> None:
    """Equal but for the run's names; floats to 1e-5: encoders round by batch, bounds are solved to 1e-6."""
    assert one.keys() == other.keys()
    for pair_id, row in one.items():
        for name, value in row.items():
            expected = other[pair_id][name]
            if name in ("run_id", "attempt"):
                continue
            if isinstance(value, list) and value and not isinstance(value[0], str):
                assert [v is None for v in value] == [v is None for v in expected], (pair_id, name)
                np.testing.assert_allclose(
                    [v or 0 for v in value], [v or 0 for v in expected], rtol=0, atol=1e-5, err_msg=name
                )
            elif isinstance(value, float):
                assert value == pytest.approx(expected, abs=1e-5), (pair_id, name)
            else:
                assert value == expected, (pair_id, name)


# --- good data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["parquet", "webdataset", "manifest"])
def test_every_pair_of_every_format_has_one_row_and_a_second_run_does_nothing(digits, tmp_path, format):
    made = job(digits / format, tmp_path / "runs", "data.limit=40", format=format)
    report = certify(made)
    assert (report.pairs, report.done, report.missing, report.resumed, report.failed) == (40, 40, 0, 0, {})
    assert report.draws == 40 * (7 + 16) and not report.stopped
    found = rows(report.url)
    assert Counter(row["status"] for row in found.values()) == {"ok": 40}
    # captions and labels are those of the first 40 scans, whatever the format
    scans = load_digits_pairs("test")[:40]
    assert Counter((row["caption"], row["label"]) for row in found.values()) == Counter(
        (caption, label) for _, caption, label in scans
    )
    exact = float(ENCODER.smooth_norm(np.zeros((3, 8, 8), np.uint8), 0.25))
    assert np.mean([row["smooth_norm"] for row in found.values()]) == pytest.approx(exact, abs=0.02)

    before = sorted((p, p.stat().st_mtime_ns) for p in Path(report.url).rglob("*.parquet"))
    again = certify(made)
    assert (again.done, again.resumed, again.draws) == (40, 40, 0)
    assert sorted((p, p.stat().st_mtime_ns) for p in Path(report.url).rglob("*.parquet")) == before


def test_rows_are_those_of_a_fresh_run_whatever_the_units_slots_and_threads(digits, tmp_path):
    plain = certify(job(digits / "parquet", tmp_path / "a", "data.limit=30"))
    other = certify(
        job(
            digits / "parquet",
            tmp_path / "b",
            "data.limit=30",
            "executor.pairs_per_unit=30",
            "executor.units_in_flight=1",
            "encoder.slots=7",
            "encoder.threads=1",
        )
    )
    one, two = rows(plain.url), rows(other.url)
    for row in (*one.values(), *two.values()):
        del row["unit_id"]
    assert_same(one, two)


def test_a_stop_between_units_hands_back_what_is_left_and_the_rest_follows(digits, tmp_path):
    made = job(digits / "parquet", tmp_path / "runs", "data.limit=40", "executor.pairs_per_unit=2")
    stop = threading.Event()
    done: list[str] = []

    def on_result(result: Any) -> None:
        done.append(result.unit_id)
        if len(done) == 3:
            stop.set()

    report = certify(made, Monitor(on_result, stop=stop))
    assert report.stopped and 6 <= report.done < 40
    assert report.done == sum(1 for _ in rows(report.url))
    status = read_status(report.url)
    assert (status.committed, status.pairs, status.complete) == (report.done, 40, False)
    rest = certify(made)
    assert rest.resumed == report.done and rest.done == 40
    undisturbed = certify(
        job(digits / "parquet", tmp_path / "other", "data.limit=40", "executor.pairs_per_unit=2")
    )
    assert_same(rows(report.url), rows(undisturbed.url))
    assert read_status(report.url).complete


def test_first_rows_can_be_queried_before_the_run_ends(digits, tmp_path):
    made = job(digits / "parquet", tmp_path / "runs", "data.limit=24", "executor.pairs_per_unit=4")
    driver = Driver(made, ENCODER)
    seen: list[int] = []
    driver.work("certification", Monitor(lambda result: seen.append(len(rows(driver.url)))))
    assert seen[0] < 24 and seen[-1] == 24 and seen == sorted(seen)


def test_a_run_directory_of_another_job_is_refused_and_says_what_differs(digits, tmp_path):
    name = "output.run=mine"
    certify(job(digits / "parquet", tmp_path, "data.limit=4", name))
    for override, words in [
        ("certify.sigma=0.5", "sigma"),
        ("data.limit=5", "limit"),
        ("certify.seed=3", "seed"),
    ]:
        limit = [] if override.startswith("data.limit") else ["data.limit=4"]
        with pytest.raises(RunDirectoryError, match=words):
            certify(job(digits / "parquet", tmp_path, *limit, name, override))
    # where and how fast it runs may change
    assert certify(job(digits / "parquet", tmp_path, "data.limit=4", name, "encoder.slots=2")).resumed == 4
    other = KnownEncoder.rotating(2.0, input_size=(8, 8))
    with pytest.raises(RunDirectoryError, match="encoder"):
        Driver(job(digits / "parquet", tmp_path, "data.limit=4", name), other).work(
            "certification", Monitor(lambda r: None)
        )


def test_changed_data_is_another_run(digits, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(digits / "parquet", data)
    made = job(data, tmp_path / "runs", "data.limit=4", "output.run=mine")
    certify(made)
    first = sorted(data.glob("*.parquet"))[0]
    table = pq.read_table(first)
    pq.write_table(table.slice(1), first)
    with pytest.raises(RunDirectoryError, match="data"):
        certify(made)


# --- bad data -----------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def zoo(where: Path) -> dict[str, str | None]:
    """A manifest of good, odd and broken images; the error class of each (None: certified)."""
    rng = np.random.default_rng(0)
    scan = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    png = encoded(scan, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray(rng.integers(0, 65536, (8, 8), dtype=np.uint16))
    huge = encoded(Image.new("1", (1200, 1200)), "PNG")
    files: dict[str, tuple[bytes | None, str | None]] = {
        "good.png": (png, None),
        "good.webp": (encoded(scan, "WEBP", lossless=True), None),
        "one.png": (encoded(scan.resize((1, 1)), "PNG"), None),
        "cmyk.jpg": (encoded(scan.convert("CMYK"), "JPEG"), None),
        "palette.gif": (encoded(scan.convert("P"), "GIF"), None),
        "animated.gif": (encoded(scan, "GIF", save_all=True, append_images=[scan.rotate(90)]), None),
        "grey16.png": (encoded(grey16, "PNG"), None),
        "rotated.jpg": (encoded(scan, "JPEG", exif=exif), None),
        "truncated.png": (png[: len(png) * 2 // 3], "DecodeError"),
        "zero.png": (b"", "DecodeError"),
        "text.png": (b"this is no image", "DecodeError"),
        "bomb.png": (huge, "DecodeError"),
        "missing.png": (None, "ReadError"),
    }
    lines = [b"image,caption,label"]
    for name, (data, _) in files.items():
        if data is not None:
            (where / name).write_bytes(data)
        lines.append(f"{name},a picture of {name},x".encode())
    expected = {name: error for name, (_, error) in files.items()}
    lines += [b"good.png,,x", b"good.png,\xff\xfe,x"]
    expected |= {"no caption": "CaptionError", "not utf-8": "CaptionError"}
    (where / "pairs.csv").write_bytes(b"\n".join(lines) + b"\n")
    return expected


def test_bad_pairs_are_quarantined_with_stage_and_reason_and_good_ones_are_not_disturbed(tmp_path):
    data = tmp_path / "zoo"
    data.mkdir()
    expected = zoo(data)
    made = job(data / "pairs.csv", tmp_path / "runs", "data.max_pixels=1000000", format="manifest")
    report = certify(made)
    assert (report.done, report.missing, report.failed) == (len(expected), 0, {})
    found = list(rows(report.url).values())
    by_name = dict(
        zip(expected, sorted(found, key=lambda r: int(r["pair_id"].rpartition("#")[2])), strict=True)
    )
    assert {name: row["error_class"] for name, row in by_name.items()} == expected
    stages = {"ReadError": "read", "DecodeError": "decode", "CaptionError": "caption", None: None}
    for name, row in by_name.items():
        bad = expected[name] is not None
        assert row["status"] == ("quarantined" if bad else "ok")
        assert row["error_stage"] == stages[expected[name]]
        assert (row["error_message"] is not None and len(row["error_message"]) > 5) == bad
        assert (row["draws"], row["fcsb"] is None) == ((0, True) if bad else (16, False))
    # what is animated or turned is certified as what a viewer shows first
    certified = {name: row["robustness_score"] for name, row in by_name.items() if not expected[name]}
    assert all(value is not None for value in certified.values())


def test_sources_that_cannot_be_used_fail_before_any_work(digits, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for uri, format, *overrides in [
        (empty, "parquet"),
        (tmp_path / "nowhere", "parquet"),
        (digits / "parquet", "parquet", "data.columns.image=picture"),
        (digits / "parquet", "webdataset"),
    ]:
        with pytest.raises((SourceError, JobError)) as caught:
            certify(job(uri, tmp_path / "runs", *overrides, format=format))
        assert caught.value.exit_code == 2
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.parquet"))


def test_a_file_that_vanishes_costs_its_pairs_and_no_others_and_can_be_made_good(digits, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(digits / "parquet", data)
    made = job(
        data, tmp_path / "runs", "executor.pairs_per_unit=40", "certify.max_draws=2", "certify.pilot_draws=2"
    )
    driver = Driver(made, ENCODER)
    assert driver.plan.pairs == 360 and driver.url
    gone = sorted(data.glob("*.parquet"))[1]
    away = tmp_path / "away"
    os.rename(gone, away)
    report = driver.work("certification", Monitor(lambda result: None))
    assert report.missing == 120 and len(report.failed) == 3 and report.done == 240
    assert all(gone.name in reason for reason in report.failed.values())
    assert len(rows(report.url)) == 240
    os.rename(away, gone)
    rest = certify(made)
    assert (rest.missing, rest.resumed, rest.done) == (0, 240, 360)


# --- retrieval ----------------------------------------------------------------------------------------------


def test_the_retrieval_pool_is_drawn_once_and_kept(tmp_path):
    from smoothcert.datasets import write_synthetic

    write_synthetic(str(tmp_path / "shapes"), "parquet", pairs=60, pairs_per_shard=20, size=8, seed=1)
    made = job(tmp_path / "shapes", tmp_path / "runs", "data.limit=20", "retrieval={candidates: 9, k: 2}")
    driver = Driver(made, ENCODER)
    driver.work("certification", Monitor(lambda result: None))
    pool = driver.opening().pool
    assert len(set(pool)) == len(pool) == 9
    captions = {caption for _, group in driver.source.captions() for caption in group}
    assert set(pool) <= captions
    assert Driver(made, ENCODER).opening().pool == pool
    assert all(1 <= row["retrieval_rank"] <= 10 for row in rows(driver.url).values())
    with pytest.raises(JobError, match=r"retrieval.candidates=5000"):
        certify(job(tmp_path / "shapes", tmp_path / "other", "retrieval={candidates: 5000}"))
