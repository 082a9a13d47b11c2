"""What workers show on Ray's own metrics endpoints, and how Ray's dashboard calls them."""

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.timeout(200)


def scrape():
    """Every sample of ours on every node: (name, run, worker) -> value."""
    import ray

    found = {}
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("ray_smoothcert_"):
                    found[sample.name, sample.labels["run"], sample.labels["worker"]] = sample.value
    return found


def test_prometheus_finds_the_numbers_of_every_worker(start, check, plug, tools):
    from ray.util import list_named_actors

    from smoothcert.runtime.metrics import INSTRUMENTS
    from smoothcert.storage import Storage
    from smoothcert.store import RunDirectory
    from smoothcert.store.events import read_workers

    run = start(plug.Faults(pace_s=0.25))

    run_of = RunDirectory.open(run.url).run_id

    def shown():
        found = scrape()
        drawn = {(of, worker) for name, of, worker in found if name == "ray_smoothcert_draws_total"}
        mine = [(of, worker) for of, worker in drawn if of == run_of]
        return found if len(mine) == 2 else None

    found = tools.until(shown, timeout=100)
    seen = {(name, worker): value for (name, of, worker), value in found.items() if of == run_of}
    names = {name.removeprefix("ray_") for name, _ in seen}
    names_in_ray = [each["name"] for each in list_named_actors(all_namespaces=True)]
    assert run.report().missing == 0
    assert names <= {each.name for each in INSTRUMENTS}
    assert {"smoothcert_draws_total", "smoothcert_pairs_waiting", "smoothcert_units_in_flight"} <= names
    said = {state.worker: state for state in read_workers(Storage(run.url), now=0.0) if not state.drives}
    for (name, worker), value in seen.items():
        if name == "ray_smoothcert_draws_total":
            assert 0 < value <= said[worker].draws, "a counter ran ahead of its worker"
        if name == "ray_smoothcert_device_busy_ratio":
            assert 0 <= value <= 1
    assert len([name for name in names_in_ray if name.startswith(f"smoothcert {run_of} ")]) == 2
    check(run.url)
