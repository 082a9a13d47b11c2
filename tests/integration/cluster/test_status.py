"""``smoothcert status --watch`` from another process, while a run goes on: it reads the run directory alone."""

import json

import pytest

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def watch(smoothcert_process):
    """``smoothcert status --watch`` of a run."""
    return lambda url, *more: smoothcert_process("status", url, "--watch", "--interval", "0.2", *more)


def test_it_follows_a_run_to_its_end(start, check, plug, tools, watch):
    run = start(plug.Faults(pace_s=0.05, on_bright="oom"), workers=1)
    watcher = watch(run.url, "--json")
    assert run.report().missing == 0
    assert watcher.wait(100) == 0, watcher.text
    seen = [json.loads(line) for line in watcher.out.splitlines()]
    assert len(seen) > 1 and not seen[0]["complete"] and seen[-1]["complete"]
    counts = [status["committed"] for status in seen]
    assert counts == sorted(counts) and counts[-1] == tools.pairs
    last = seen[-1]
    assert (last["units_done"], last["units"], last["quarantined"]) == (8, 8, 1)
    working = [worker for status in seen[:-1] for worker in status["workers"] if worker["units"]]
    assert working and last["draws"] >= (tools.pairs - 1) * 48
    # a watcher of a run that is complete has nothing to wait for
    plain = watch(run.url)
    assert plain.wait(60) == 0 and "48 of 48 committed (100.0%), 1 quarantined" in plain.out
    check(run.url, {tools.bright_id: "OutOfMemoryError"})


def test_a_killed_worker_is_shown_as_lost_under_its_own_name(start, check, plug, tools):
    from smoothcert.runtime.status import read_status

    run = start(plug.Faults(pace_s=0.1))
    workers = tools.until(lambda: len(found := tools.workers_of(run.url)) == 2 and found)
    tools.kill(workers[0])
    assert run.report().missing == 0
    status = read_status(run.url)
    lost = [worker for worker in status.workers if worker.lost]
    assert [int(worker.worker.rpartition(":")[2]) for worker in lost] == [workers[0]]
    assert not lost[0].alive and lost[0].units == ()
    [driver] = status.drivers
    assert driver.ending == "done" and f"lost worker {lost[0].worker} (died)" in (driver.last_trouble or "")
    assert f"worker    {lost[0].worker}  lost, " in "\n".join(status.lines())
    check(run.url)
