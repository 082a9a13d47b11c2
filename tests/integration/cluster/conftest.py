"""A Ray cluster for all fault tests, small jobs, and what must hold of a run whatever happened to it."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

PLUG = Path(__file__).parent / "plug"
PAIRS = 48
BRIGHT_PAIR = 21
"""Position of the image that faulty encoders stumble over."""
ALL = bool(os.environ.get("SMOOTHCERT_ALL_FAULTS"))
NOT_NUMBERS = {"run_id", "unit_id", "attempt", "source_uri"}

JOB = """
name: faults
data: {{format: parquet, uri: "{data}", columns: {{label: null}}}}
encoder: {{model: "test:faulty", threads: 1, slots: 2, chunk: 8}}
certify: {{sigma: 0.25, pilot_draws: 15, max_draws: {draws}, radii: [0.1], cosines: [0.5]}}
zero_shot: {{labels: [one, two, three]}}
executor: {{kind: {kind}, workers: {workers}, cpus_per_worker: {cpus}, gpus_per_worker: 0, pairs_per_unit: {per_unit},
  lease_s: {lease_s}, grace_s: {grace_s}, placement_s: {placement_s}, poison_budget: {poison}}}
output: {{runs: "{runs}", run: r}}
tracking: {{enabled: false}}
"""
DEFAULTS = {
    "kind": "ray",
    "workers": 2,
    "cpus": 0.25,
    "lease_s": 30,
    "grace_s": 20,
    "placement_s": 600,
    "draws": 33,
    "per_unit": 6,
    "poison": 2,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests with a ``seed``: the first one always, the others only with SMOOTHCERT_ALL_FAULTS=1."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4))])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked slow here is run only on request: the default set is to stay below four minutes."""
    if not ALL:
        for item in items:
            if item.get_closest_marker("slow") and item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="set SMOOTHCERT_ALL_FAULTS=1"))


@pytest.fixture(scope="session")
def plug() -> Iterator[Any]:
    """The module of faulty parts, importable here and in every process started from here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(PLUG), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        )
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_DEDUP_LOGS", "0")
        patch.syspath_prepend(str(PLUG))
        import smoothcert_faulty_driver

        yield smoothcert_faulty_driver


@pytest.fixture(scope="session")
def ready(plug: Any) -> Iterator[dict[str, str]]:
    """A process that has imported what drivers and workers need: they are forked from it, which costs them no seconds.

    Yields:
        What makes a node of Ray start its workers so.
    """
    import ray
    import smoothcert_asking

    directory = tempfile.mkdtemp(prefix="sc")  # the path of a socket must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(smoothcert_asking.READY, f"{directory}/ready")
        patch.setenv(
            "SMOOTHCERT_TESTS_WORKER", f"{Path(ray.__file__).parent}/_private/workers/default_worker.py"
        )
        process = subprocess.Popen(
            [sys.executable, PLUG / "smoothcert_ready.py", f"{directory}/ready"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield dict.fromkeys(("worker_path", "setup_worker_path"), str(PLUG / "setup_worker.py"))
            process.communicate()  # it ends with its standard input
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def cluster(ready: dict[str, str]) -> Iterator[Any]:
    """A cluster of one node; tests may add nodes, and take away what they added.

    Without Ray's autoscaler and what copies logs to drivers; on ports of its own, beside those of other processes.
    """
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 2**27}
    bare = {"no_monitor": True, "include_log_monitor": False, "dashboard_agent_listen_port": None}
    started = Cluster(initialize_head=True, head_node_args=head | bare | ready)
    ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images in two files; one of them bright."""
    folder = tmp_path_factory.mktemp("pairs")
    levels = [60 + 2 * i for i in range(PAIRS)]
    levels[BRIGHT_PAIR] = 250
    images = []
    for level in levels:
        stream = BytesIO()
        Image.new("RGB", (16, 16), (level, level, level)).save(stream, "PNG")
        images.append(stream.getvalue())
    half = PAIRS // 2
    for name, part in (("a", slice(0, half)), ("b", slice(half, PAIRS))):
        numbers = range(PAIRS)[part]
        table = pa.table({"image": images[part], "caption": [f"grey {i}" for i in numbers]})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=6)
    return folder


@pytest.fixture
def job_text(data: Path, tmp_path: Path) -> Callable[..., str]:
    """The text of a job on the pairs; arguments replace parts of it."""

    def make(**changes: Any) -> str:
        told = DEFAULTS | {"data": data, "runs": tmp_path / "runs"}
        return JOB.format(**(told | changes))

    return make


@dataclass
class Started:
    """A certification that goes on in a thread of this process."""

    url: str
    thread: threading.Thread
    outcome: list[Any]
    stop: threading.Event

    def report(self, timeout: float = 120.0) -> Any:
        self.thread.join(timeout)
        if self.thread.is_alive():
            self.stop.set()  # the tests after this one are to have the cluster for themselves
            self.thread.join(40)
            raise AssertionError("the run hangs")
        [outcome] = self.outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@pytest.fixture
def start(plug: Any, cluster: Any, job_text: Callable[..., str]) -> Callable[..., Started]:
    """Start a certification on the cluster; ``faults`` are those of the workers' encoders."""
    from smoothcert.job import parse_job
    from smoothcert.runtime.executor import Monitor

    def begin(faults: Any = None, **changes: Any) -> Started:
        driver = plug.FaultyDriver(parse_job(job_text(**changes)), faults or plug.Faults(pace_s=0.02))
        outcome: list[Any] = []
        stop = threading.Event()

        def work() -> None:
            try:
                outcome.append(driver.work("certification", Monitor(lambda result: None, stop=stop)))
            except BaseException as exc:
                outcome.append(exc)

        url = driver.run.url
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return Started(url, thread, outcome, stop)

    return begin


def rows_of(url: str) -> list[dict[str, Any]]:
    """Every visible row of a run, read file by file, without DuckDB."""
    from smoothcert.store import RunDirectory

    run = RunDirectory.open(url)
    committed = run.commits.load()
    hidden = {(row["unit_id"], row["pair_id"]) for row in committed.hidden.to_pylist()}
    counted = dict(
        zip(committed.table["unit_id"].to_pylist(), committed.table["attempt"].to_pylist(), strict=True)
    )
    rows = []
    for file in committed.files("certificates"):
        with run.storage.open_input(file) as stream:
            rows += pq.read_table(stream).to_pylist()
    for row in rows:
        assert row["attempt"] == counted[row["unit_id"]], "a row of an attempt that does not count"
    return [row for row in rows if (row["unit_id"], row["pair_id"]) not in hidden]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=0, abs_tol=1e-5) or a == b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.fixture(scope="session")
def undisturbed(plug: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Rows of a run in one process to which nothing happened, by pair."""
    from smoothcert.job import parse_job
    from smoothcert.runtime.executor import Monitor

    runs = tmp_path_factory.mktemp("undisturbed")
    text = JOB.format(**(DEFAULTS | {"data": data, "kind": "local", "runs": runs}))
    driver = plug.FaultyDriver(parse_job(text), plug.Faults())
    assert driver.work("certification", Monitor(lambda result: None)).missing == 0
    rows = {row["pair_id"]: row for row in rows_of(driver.url)}
    assert len(rows) == PAIRS and {row["status"] for row in rows.values()} == {"ok"}
    return rows


@pytest.fixture
def check(undisturbed: dict[str, dict[str, Any]]) -> Callable[..., None]:
    """Every pair exactly once, one attempt a unit, the undisturbed numbers; ``quarantined`` maps pairs to classes."""

    def compare(url: str, quarantined: dict[str, str] | None = None) -> None:
        expected = quarantined or {}
        rows = rows_of(url)
        names = [row["pair_id"] for row in rows]
        assert sorted(names) == sorted(undisturbed), "not every pair exactly once"
        attempts: dict[str, set[str]] = {}
        for row in rows:
            attempts.setdefault(row["unit_id"], set()).add(row["attempt"])
            if row["pair_id"] in expected:
                assert (row["status"], row["error_class"]) == ("quarantined", expected[row["pair_id"]])
                continue
            calm = undisturbed[row["pair_id"]]
            wrong = [k for k in row if k not in NOT_NUMBERS and not same(row[k], calm[k])]
            assert not wrong, {k: (row[k], calm[k]) for k in wrong}
        assert all(len(found) == 1 for found in attempts.values()), "a unit mixes attempts"

    return compare


BRIGHT_ID = f"a.parquet#{BRIGHT_PAIR}"


def until(what: Callable[[], Any], timeout: float = 120.0) -> Any:
    """The first true value of ``what``, asked often; fails after ``timeout``."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout} s")


def workers_of(url: str) -> list[int]:
    """Process ids of the workers that wrote into a run's directory and still live."""
    found = []
    for path in sorted(Path(url, "workers").glob("*.jsonl")):
        worker = json.loads(path.read_text().splitlines()[0])["worker"]
        pid = int(worker.rpartition(":")[2])
        if alive(pid) and not worker.startswith("driver:"):
            found.append(pid)
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def commits_of(url: str) -> int:
    return len(list(Path(url, "commits").glob("u*.json")))


@pytest.fixture
def forked_python(ready: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runs ``python ARGUMENTS`` in a process forked from the one that stands ready; all end with the test."""
    from smoothcert_asking import Forked

    started: list[Forked] = []

    def begin(*arguments: object, **environment: str) -> Forked:
        log = tmp_path / f"process-{len(started)}"
        started.append(Forked([str(each) for each in arguments], {**os.environ, **environment}, log))
        return started[-1]

    yield begin
    for process in started:
        process.close()


@pytest.fixture
def smoothcert_process(forked_python: Callable[..., Any]) -> Callable[..., Any]:
    """Runs ``smoothcert ARGUMENTS`` so."""
    return partial(forked_python, "-c", "from smoothcert.cli.main import main; main()")


@dataclass
class DriverProcess:
    """``smoothcert certify`` in a process of its own."""

    process: Any
    url: str

    def end(self, timeout: float = 200.0) -> int:
        return int(self.process.wait(timeout))

    @property
    def text(self) -> str:
        return str(self.process.text)


@pytest.fixture
def driver_process(
    forked_python: Callable[..., Any], cluster: Any, job_text: Callable[..., str], tmp_path: Path
) -> Callable[..., DriverProcess]:
    """Starts drivers as processes that join the cluster, or start a Ray of their own; all are gone after the test."""

    def begin(
        faults: str = "pace_s=0.03",
        environment: dict[str, str] | None = None,
        own_ray: bool = False,
        **changes: Any,
    ) -> DriverProcess:
        there = {} if own_ray else {"RAY_ADDRESS": cluster.address}
        code = (
            "import sys, smoothcert_faulty_driver as f, logging; logging.basicConfig(level='WARNING')\n"
            f"sys.exit(f.guarded(lambda: f.certify({job_text(**changes)!r}, f.Faults({faults}))))"
        )
        runs = str(changes.get("runs", tmp_path / "runs"))
        return DriverProcess(forked_python("-c", code, **(there | (environment or {}))), f"{runs}/r")

    return begin


@pytest.fixture
def tools() -> SimpleNamespace:
    """What tests need to strike and to wait; here because test files import nothing from each other."""
    return SimpleNamespace(
        until=until,
        workers_of=workers_of,
        commits_of=commits_of,
        alive=alive,
        rows_of=rows_of,
        kill=lambda pid: os.kill(pid, signal.SIGKILL),
        random=random.Random,
        bright_id=BRIGHT_ID,
        pairs=PAIRS,
    )
