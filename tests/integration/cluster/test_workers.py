"""Workers that are killed, stopped, or ended by the work itself."""

import os
import time

import pytest

pytestmark = pytest.mark.timeout(150)


def test_a_worker_killed_at_a_random_moment(start, check, tools, seed):
    run = start()
    workers = tools.until(lambda: tools.workers_of(run.url))
    time.sleep(tools.random(seed).uniform(0, 1.5))
    tools.kill(workers[0])
    report = run.report()
    assert (report.missing, report.failed) == (0, {})
    check(run.url)
