"""How the tests share four processes (`make test`): two have the tests on Ray clusters, half each, one after the other
and each on one cluster; the rest goes file by file to whichever has time.

`make test-fast` leaves out whatever starts Ray, a server or another process, and what is slow.
"""

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
# Ray starts workers at niceness 15: beside tests that compute, these would get a thirtieth of a core
os.environ.setdefault("RAY_worker_niceness", "0")

# An example may take any time: what is slow on a busy machine is not wrong
settings.register_profile("any-time", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-time")

DRIVERS_ON_RAY = tuple(
    f"tests/integration/cluster/test_{name}.py"
    for name in ("answers", "attack_run", "attacks", "driver", "stores", "study")
)
ON_RAY = "tests/integration/cluster/"
NOT_FAST = (
    "tests/integration/",
    "tests/statistical/",
    "tests/unit/adding/",
    "tests/unit/audit/test_answers.py",
    "tests/unit/audit/test_attacked.py",
    "tests/unit/audit/test_audit.py",
    "tests/unit/audit/test_dishonest.py",
    "tests/unit/audit/test_outcomes.py",
    "tests/unit/certificates/test_second_moment.py",
    "tests/unit/cli/test_terminal.py",
    "tests/unit/datasets/test_links.py",
    "tests/unit/datasets/test_object_store.py",
    "tests/unit/runtime/test_changed_images.py",
    "tests/unit/runtime/test_kept_columns.py",
    "tests/unit/runtime/test_kinds_of_stores.py",
    "tests/unit/runtime/test_moved_data.py",
    "tests/unit/runtime/test_session.py",
    "tests/unit/runtime/test_without_captions.py",
    "tests/unit/test_infra.py",
    "tests/unit/training/test_retraining.py",
    "tests/unit/training/test_team.py",
)
"""Ray, servers, and many whole runs or audits; whole files that start other processes are known by what they import."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Torch computes on one thread, also after a test that asked for more; nothing where nobody has imported it.

    Whatever OMP_NUM_THREADS says, which is for numpy and for the processes that tests start: the order of sums follows
    the number of threads, and tests such as that of a killed training hold results of this process bit by bit against
    those of a process that sets one thread itself.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Outcome(NamedTuple):
    """What a command left: its exit code, its output, its errors."""

    code: int
    out: str
    err: str


@pytest.fixture
def smoothcert(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """The console script's function, in this process: a process of its own costs a second of imports.

    What only a process shows (signals, pipes, terminals, what is loaded) is tested in one. Without --debug there must
    be no traceback.
    """
    from smoothcert.cli.main import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root, ours = logging.getLogger(), logging.getLogger("smoothcert")
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["smoothcert", *map(str, arguments)])
        capfd.readouterr()
        loggers, root.handlers[:] = list(root.handlers), []
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        finally:
            root.handlers[:] = loggers
        outcome = Outcome(code, *capfd.readouterr())
        assert "--debug" in arguments or "Traceback" not in outcome.out + outcome.err
        return outcome

    level = ours.level
    yield call
    ours.setLevel(level)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def start_fork(work: Callable[..., None], *given: Any) -> Any:
    """A process that does some work with all that was imported here, and is killed where this one ends before it."""
    process = multiprocessing.get_context("fork").Process(target=work, args=given, daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: those of tests wait
        process.start()
    return process


@pytest.fixture(scope="session")
def fork() -> Callable[..., Any]:
    """``start_fork``."""
    return start_fork


class Forked:
    """``smoothcert ARGUMENTS`` in a fork of this process, to be killed or sent signals.

    It has all that was imported here, so it begins at once: a new process imports for seconds. So it cannot show that
    the command imports what it uses, nor, as it ends without taking the interpreter down, how that goes: what is
    registered with ``atexit`` is not done, and no thread is in the way.

    Args:
        arguments: of the command.
        first: what the fork does before it.
    """

    def __init__(self, arguments: tuple[object, ...], first: Callable[[], None]) -> None:
        pipes = [os.pipe(), os.pipe()]
        self._process = start_fork(_become_command, [str(each) for each in arguments], first, pipes)
        self._said = [bytearray(), bytearray()]
        self._readers = []
        for (reading, writing), said in zip(pipes, self._said, strict=True):
            os.close(writing)
            self._readers.append(threading.Thread(target=_read_on, args=(reading, said), daemon=True))
            self._readers[-1].start()

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._said[0].decode("utf-8", "replace")

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return self._said[1].decode("utf-8", "replace")

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self, timeout: float = 240) -> int:
        """Its exit code, at its end, without a traceback before it."""
        self._process.join(timeout)
        code = self.poll()
        assert code is not None, f"it has not ended in {timeout:g} s:\n{self.err}"
        for reader in self._readers:
            reader.join()
        assert "Traceback" not in self.out + self.err, self.err
        return code

    def wait_for(self, there: Callable[[], bool]) -> None:
        """Until something is there that it makes."""
        while not there():
            assert self.poll() is None or there(), (self.poll(), self.err)
            time.sleep(0.005)

    def close(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.join()
        self._process.close()
        for reader in self._readers:
            reader.join()


def _read_on(reading: int, said: bytearray) -> None:
    with os.fdopen(reading, "rb", buffering=0) as stream:
        while some := stream.read(65536):
            said += some


def _become_command(arguments: list[str], first: Callable[[], None], pipes: list[tuple[int, int]]) -> None:
    from smoothcert.cli.main import main

    for number, (reading, writing) in enumerate(pipes, start=1):
        os.dup2(writing, number)
        os.close(writing)
        os.close(reading)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # what pytest put in their place would keep what is said
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__
    logging.getLogger().handlers.clear()
    os.environ["COLUMNS"] = "200"
    sys.argv = ["smoothcert", *arguments]
    first()
    main()


@pytest.fixture
def forked() -> Iterator[Callable[..., Forked]]:
    """Starts ``smoothcert ARGUMENTS`` in a fork of this process."""
    from smoothcert.encoders import load_encoder
    from smoothcert.job import EncoderSection

    load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu"))  # and with it all imports
    started: list[Forked] = []

    def start(*arguments: object, first: Callable[[], None] = lambda: None) -> Forked:
        started.append(Forked(arguments, first))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to copy: it takes seconds to make one. All processes of a test run share it."""
    from smoothcert.tracking.database import ensure_database
    from smoothcert.tracking.quiet import quiet_mlflow

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    database = shared / "migrated" / "mlflow.db"
    with FileLock(shared / "migrated.lock"):
        if not database.exists():
            with quiet_mlflow():
                ensure_database(database, (database.parent / "artifacts").as_uri())
    return database


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="without Ray, servers and slow tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files that are not fast are not even imported."""
    if not config.getoption("--fast") or not collection_path.is_relative_to(ROOT):
        return None
    return collection_path.relative_to(ROOT).as_posix().startswith(NOT_FAST) or None


def pytest_configure(config: pytest.Config) -> None:
    """Of several processes each begins to read the test files at another place.

    What one has rewritten (a third of the time on a fresh checkout), the others find in the cache. Not with
    ``--ignore``, which pytest does not apply to files that it is given.
    """
    folders = [Path(arg) for arg in config.args]
    leaves_out = config.getoption("ignore") or config.getoption("ignore_glob")
    if not hasattr(config, "workerinput") or leaves_out or not all(folder.is_dir() for folder in folders):
        return
    files = sorted(file for folder in folders for file in folder.absolute().rglob("test_*.py"))
    if config.getoption("--fast"):
        files = [file for file in files if not file.relative_to(ROOT).as_posix().startswith(NOT_FAST)]
    workers, number = (
        config.workerinput["workercount"],
        int(config.workerinput["workerid"].removeprefix("gw")),
    )
    start = len(files) * number // workers
    config.args = [str(file) for file in files[start:] + files[:start]]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Modules stay: looking through them for garbage, while they are loaded and ever after, is for nothing."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parts)  # whichever came first: all processes must have one order
    if not config.getoption("--fast"):
        return
    fast, rest = [], []
    for item in items:
        starts_processes = hasattr(getattr(item, "module", None), "subprocess")
        slow = starts_processes or item.get_closest_marker("slow") is not None
        (rest if slow else fast).append(item)
    config.hook.pytest_deselected(items=rest)
    items[:] = fast


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByRay(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(ON_RAY):
                return "drivers on ray" if nodeid.startswith(DRIVERS_ON_RAY) else "workers on ray"
            if nodeid.startswith("tests/unit/adding/"):
                return "adding"  # one process stands ready for all of it
            return nodeid.partition("::")[0]

    return ByRay(config, log)
