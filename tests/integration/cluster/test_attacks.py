"""Attack units on Ray: a pair that kills its workers ends as quarantined attack rows, and can be attacked again."""

import pytest

pytestmark = pytest.mark.timeout(300)

LIMIT = 24
ATTACKS_SECTION = """
attacks:
  - {attack: pgd, norm: l2, budgets: [0.1, 0.2], steps: 2, eot_draws: 8, evaluate_draws: 16}
"""


@pytest.fixture
def driver(plug, cluster, job_text):
    """The attack job on the cluster, with these faults in its workers; or in this process, for what is none of it."""
    from smoothcert.job import parse_job

    def make(faults=None, **changes):
        # one worker is enough to convict: that it takes two by default is a matter of the ledger
        overrides = [f"data.limit={LIMIT}"]
        text = job_text(poison=1, workers=1, **changes) + ATTACKS_SECTION
        return plug.FaultyDriver(parse_job(text, overrides), faults or plug.Faults())

    return make


def attacked(run):
    """Every visible attack row, held to be there exactly once, by pair."""
    from smoothcert.sql import Query

    with Query([run]) as query:
        rows = query.sql(
            "SELECT pair_id, subject, budget, status, error_class, unit_id, attempt FROM attacks"
        )
        rows = rows.to_pylist()
    names = {(row["pair_id"], row["subject"], row["budget"]) for row in rows}
    assert len(names) == len(rows) == LIMIT * 2 * 2, "not every outcome exactly once"
    assert len({row["unit_id"] for row in rows}) == len({row["attempt"] for row in rows}), "mixed attempts"
    pairs = {}
    for row in rows:
        pairs.setdefault(row["pair_id"], []).append(row)
    return pairs


def test_a_pair_that_kills_workers_is_quarantined_and_attacked_again(driver, plug, tools):
    from smoothcert.cli.attack import choose_again
    from smoothcert.cli.running import run_job
    from smoothcert.runtime.executor import Monitor
    from smoothcert.runtime.retry import choose
    from smoothcert.store import ATTACKS

    def quiet():
        return Monitor(lambda result: None)

    killed = "error_class = 'WorkerKilledError'"
    calm = driver(kind="local")
    assert calm.work("certification", quiet()).missing == 0
    run = calm.run

    report = driver(plug.Faults(on_bright="exit")).work("attacks", quiet())
    assert (report.missing, report.failed) == (0, {})
    rows = attacked(run)
    bad = rows.pop(tools.bright_id)
    assert {(row["status"], row["error_class"]) for row in bad} == {("quarantined", "WorkerKilledError")}
    assert {row["status"] for others in rows.values() for row in others} == {"ok"}

    chosen = choose(run, ATTACKS, killed, option="--retry")
    assert list(chosen.values()) == [(tools.bright_id,)]
    # the fault is still there: the retry is convicted too, and its rows are the ones that a later retry replaces
    report = driver(plug.Faults(on_bright="exit")).work("attacks", quiet(), chosen)
    assert (report.missing, report.failed) == (0, {})
    (first,), (second,) = chosen, choose(run, ATTACKS, killed, option="--retry")
    assert first.startswith("u") and second.startswith("retry.")
    assert {row["error_class"] for row in attacked(run)[tools.bright_id]} == {"WorkerKilledError"}

    mending = driver()
    assert run_job(mending, choose_again(mending, killed)) == 0
    after = attacked(run)
    mended = after.pop(tools.bright_id)
    assert {row["status"] for row in mended} == {"ok"}
    assert {row["unit_id"] for row in mended}.isdisjoint({first, second})
    assert after == rows, "other pairs are left alone"
    assert choose(run, ATTACKS, killed, option="--retry") == {}
