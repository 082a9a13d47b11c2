"""Quarantined pairs run again, through the same executor, and their new rows replace the old ones."""

import pytest

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def retry(plug, cluster, job_text):
    """Runs the retry of a condition on the cluster; returns the units that were asked for and the report."""
    from smoothcert.job import parse_job
    from smoothcert.runtime.executor import Monitor
    from smoothcert.runtime.retry import choose, retry_units
    from smoothcert.store import CERTIFICATES

    def run(where, faults, **changes):
        driver = plug.FaultyDriver(parse_job(job_text(workers=1, **changes)), faults)
        chosen = choose(driver.run, CERTIFICATES, where, option="--where")
        units = list(retry_units(driver.run, chosen, driver.run.commits.load()))
        return units, driver.retry("certification", Monitor(lambda result: None), chosen)

    return run


def test_retries_replace_rows_and_can_be_retried(start, retry, check, plug, tools):
    from smoothcert.runtime.status import read_status

    first = start(plug.Faults(on_bright="oom"), workers=1)
    assert first.report().missing == 0
    check(first.url, {tools.bright_id: "OutOfMemoryError"})
    nothing, _ = retry("error_class = 'DecodeError'", plug.Faults())
    assert nothing == []
    again, report = retry("error_class = 'OutOfMemoryError'", plug.Faults(on_bright="exit"))
    assert [unit.pairs for unit in again] == [(tools.bright_id,)] and report.missing == 0
    check(first.url, {tools.bright_id: "WorkerKilledError"})
    mended, report = retry("true", plug.Faults())
    assert mended[0].origin == again[0].unit_id != mended[0].unit_id
    assert (report.missing, report.failed, report.done) == (0, {}, tools.pairs)
    check(first.url)
    assert retry("true", plug.Faults())[0] == []
    status = read_status(first.url)
    assert (status.committed, status.quarantined, status.complete) == (tools.pairs, 0, True)
    assert status.units_done == status.units == 8, "units of retries are none of the plan"


def test_a_unit_of_retries_is_named_by_what_it_replaces():
    from smoothcert.datasets import UnitSpec
    from smoothcert.store.retry_unit import retry_unit

    place = UnitSpec("u000001-aaaaaaaa", "/d/a.parquet", 4, 9)
    unit = retry_unit(place, place.unit_id, ("b", "a", "c"))
    assert retry_unit(place, place.unit_id, ("c", "b", "a")) == unit and len(unit) == 3
    others = [
        retry_unit(place, "u000002-bbbbbbbb", ("a", "b", "c")),
        retry_unit(place, place.unit_id, ("a", "b")),
    ]
    assert len({unit.unit_id, *(other.unit_id for other in others)}) == 3
    parts = unit.cut(2)
    assert [part.pairs for part in parts] == [("a", "b"), ("c",)]
    assert {(part.origin, part.start, part.stop) for part in parts} == {(place.unit_id, 4, 9)}
