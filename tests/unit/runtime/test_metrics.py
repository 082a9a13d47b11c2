"""What a run shows of itself while it goes on: Prometheus' text, rates, and the dashboard that draws them."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from smoothcert.datasets import write_synthetic
from smoothcert.encoders import KnownEncoder
from smoothcert.engine.busy import BusyTime
from smoothcert.job import parse_job
from smoothcert.runtime import metrics_file
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.metrics import INSTRUMENTS, prometheus_text
from smoothcert.runtime.metrics_file import PLANNED, UPDATED, MetricsFile
from smoothcert.runtime.progress import Progress, Rates, RateWindow, SessionLoad
from smoothcert.storage import Storage

ROOT = Path(__file__).parents[3]
JOB = """
name: mini
data: {{format: parquet, uri: "{data}"}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1}}
certify: {{sigma: 0.25, alpha: 0.01, pilot_draws: 7, max_draws: 8, radii: [0.1]}}
executor: {{pairs_per_unit: 4}}
output: {{runs: "{runs}", metrics: {metrics}}}
tracking: {{enabled: false}}
"""


def read(text: str) -> dict[str, tuple[str, dict[str, str], float]]:
    """Kind, labels and value by name, as Prometheus' own client reads them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.name not in found, "one sample a name"
            found[sample.name] = (family.type, sample.labels, sample.value)
    return found


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_text_file_of_a_run_agrees_with_its_rows(tmp_path: Path, elsewhere: bool) -> None:
    write_synthetic(str(tmp_path / "data"), "parquet", pairs=12, pairs_per_shard=6, size=8, seed=1)
    stated = tmp_path / "collector" / "mini.prom"
    text = JOB.format(
        data=tmp_path / "data",
        runs=tmp_path / "runs",
        metrics=json.dumps(str(stated)) if elsewhere else "null",
    )
    driver = Driver(parse_job(text), KnownEncoder.rotating(1.0, input_size=(8, 8)))
    before = time.time()
    assert driver.work("certification", Monitor(lambda result: None)).missing == 0
    file = stated if elsewhere else Path(driver.url) / "metrics.prom"
    assert (Path(driver.url) / "metrics.prom").exists() is not elsewhere
    found = read(file.read_text())
    values = {name: value for name, (_, _, value) in found.items()}
    assert {name: kind for name, (kind, _, _) in found.items()} == {
        each.name: each.kind for each in (*INSTRUMENTS, PLANNED, UPDATED) if each.name in found
    }
    assert {tuple(labels.items()) for _, labels, _ in found.values()} == {
        (("run", driver.run.run_id), ("phase", "certification"))
    }
    assert values["smoothcert_draws_total"] == 12 * (7 + 8)
    assert (values["smoothcert_pairs_total"], values["smoothcert_pairs_planned"]) == (12, 12)
    assert (values["smoothcert_units_total"], values["smoothcert_quarantined_pairs_total"]) == (4, 0)
    assert values["smoothcert_units_in_flight"] == values["smoothcert_workers"] == 0, "the run has ended"
    assert 0 < values["smoothcert_device_busy_seconds_total"] <= values["smoothcert_device_seconds_total"]
    assert before <= values["smoothcert_updated_timestamp_seconds"] <= time.time()


def test_labels_are_written_so_that_they_come_back(tmp_path: Path) -> None:
    odd = 'a "b"\\ c\nd'
    found = read(prometheus_text([(INSTRUMENTS[0], 3.0), (INSTRUMENTS[1], None)], {"run": odd}))
    assert found == {"smoothcert_draws_total": ("counter", {"run": odd}, 3.0)}


def test_the_file_is_kept_up_to_date_while_the_run_goes_on(tmp_path: Path) -> None:
    file = MetricsFile(Storage(tmp_path), None, {"run": "r", "phase": "p"}, 9, every_s=0.01)
    load = SessionLoad(
        busy_s=3.0, open_s=4.0, units_in_flight=2, pairs_waiting=5, outcomes_waiting=1, workers=1
    )
    file.note(Progress(100, 7, 1, 0, load), Rates(50.0, 3.5, 0.75))
    path = tmp_path / metrics_file.METRICS_FILE
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    values = {
        name.removeprefix("smoothcert_"): value for name, (_, _, value) in read(path.read_text()).items()
    }
    del values["updated_timestamp_seconds"]
    assert values == {
        "draws_total": 100, "pairs_total": 7, "quarantined_pairs_total": 1, "units_total": 0,
        "device_busy_seconds_total": 3.0, "device_seconds_total": 4.0, "device_busy_ratio": 0.75,
        "workers": 1, "units_in_flight": 2, "pairs_waiting": 5, "outcomes_waiting": 1,
        "draws_per_second": 50.0, "pairs_per_second": 3.5, "pairs_planned": 9,
    }  # fmt: skip
    file.close()


def test_rates_are_those_of_the_window() -> None:
    window = RateWindow(10.0)
    assert window.note(Progress(0, 0, 0), 0.0) == Rates()
    # 100 draws/s for 20 s, then 10 draws/s
    for second in range(1, 21):
        rates = window.note(
            Progress(100 * second, second, 0, 0, SessionLoad(0.5 * second, second)), float(second)
        )
        assert rates == Rates(pytest.approx(100.0), pytest.approx(1.0), pytest.approx(0.5))
    for second in range(21, 41):
        load = SessionLoad(10.0 + (second - 20), second)
        rates = window.note(Progress(2000 + 10 * (second - 20), 20, 0, 0, load), float(second))
    assert rates == Rates(pytest.approx(10.0), 0.0, pytest.approx(1.0))


def test_progress_of_several_workers_adds_up_and_what_looks_busy_is_no_work() -> None:
    one = Progress(10, 2, 1, 1, SessionLoad(1.0, 2.0, 1, 3, 4, 1))
    assert one == Progress(10, 2, 1, 1), "a worker that only looks busy has not moved"
    both = one + Progress(5, 1, 0, 0, SessionLoad(0.5, 1.0, 2, 1, 0, 1)).ended()
    assert both == Progress(15, 3, 1, 1)
    assert both.load == SessionLoad(1.5, 3.0, 1, 3, 4, 1)


def test_busy_time_counts_what_is_inside_and_shares_it_among_threads() -> None:
    busy = BusyTime(torch.device("cpu"), parts=2)
    both = threading.Barrier(2)

    def work() -> None:
        with busy.measure():
            both.wait()
            time.sleep(0.2)

    threads = [threading.Thread(target=work) for _ in range(2)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.2 <= busy.seconds <= time.perf_counter() - started


def series(board: dict[str, Any]) -> set[str]:
    """Names of our series in the queries of a dashboard, without what stands before them."""
    return set(re.findall(r"\$\{prefix\}(smoothcert_\w+)", json.dumps(board)))


def test_the_dashboard_asks_for_what_there_is() -> None:
    board = json.loads((ROOT / "infra/grafana/smoothcert.json").read_text())
    known = {each.name for each in INSTRUMENTS}
    assert series(board) == known
    text = json.dumps(board)
    assert text.count("smoothcert_") == len(re.findall(r"\$\{prefix\}smoothcert_", text))
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [
        (x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")")
            assert '{run=~"$run"}' in target["expr"]


def test_the_page_beside_the_dashboard_names_every_series() -> None:
    page = (ROOT / "infra/grafana/README.md").read_text()
    named = set(re.findall(r"`(smoothcert_\w+)`", page))
    assert named == {each.name for each in (*INSTRUMENTS, PLANNED, UPDATED)}
