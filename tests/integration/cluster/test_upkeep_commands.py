"""``smoothcert compact`` and ``smoothcert gc`` on a run that workers made, while a reader goes on reading."""

import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def smoothcert(smoothcert_process):
    """Runs a command to its end, in a process of its own: what it prints."""

    def run(*arguments):
        process = smoothcert_process(*arguments)
        assert process.wait(60) == 0, process.text
        return process.out

    return run


def test_readers_see_every_row_once(plug, job_text, check, tools, smoothcert):
    from smoothcert.job import parse_job
    from smoothcert.runtime.executor import Monitor
    from smoothcert.store import RunDirectory

    driver = plug.FaultyDriver(parse_job(job_text(kind="local")), plug.Faults())
    assert driver.work("certification", Monitor(lambda result: None)).missing == 0
    run = RunDirectory.open(driver.url)
    parts = sorted(Path(run.url, "certificates").iterdir())
    loser = parts[0].with_name(f"{parts[0].stem.rpartition('-')[0]}-{'0' * 16}.parquet")
    loser.write_bytes(parts[0].read_bytes())
    counts, errors, done = [], [], threading.Event()

    def read():
        try:
            while not done.is_set():
                counts.append(len({row["pair_id"] for row in tools.rows_of(run.url)}))
        except BaseException as exc:
            errors.append(exc)

    reader = threading.Thread(target=read)
    reader.start()
    assert "merged 8 files into 1" in smoothcert("compact", run.url)
    assert "0 files" in smoothcert("gc", run.url), "the grace keeps what readers may be at"
    done.set()
    reader.join()
    assert not errors and set(counts) == {tools.pairs}
    assert loser.name in smoothcert("gc", run.url, "--grace-s", "0", "--dry-run") and loser.exists()
    smoothcert("gc", run.url, "--grace-s", "0", "--nothing-else-runs")
    assert not loser.exists() and len(list(Path(run.url, "certificates").iterdir())) == 1
    check(run.url)
