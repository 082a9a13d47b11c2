"""Joining a cluster that is not there: said aloud, and over within a limit."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from smoothcert.errors import ExecutorError
from smoothcert.job import ExecutorSection
from smoothcert.runtime import ray_cluster
from smoothcert.runtime.ray_address import asking_once, endpoint, wait_for_listener
from smoothcert.storage import waiting
from smoothcert.storage.waiting import waiting_aloud

MUTE = """
import logging, sys
from smoothcert.errors import ExecutorError
from smoothcert.job import ExecutorSection
from smoothcert.runtime.ray_cluster import connect
from smoothcert.storage import waiting
waiting.SAY_FIRST_S = 1.0
logging.basicConfig(level=logging.WARNING, format="%(message)s")
try:
    connect(ExecutorSection(kind="ray", address=sys.argv[1]))
except ExecutorError as exc:
    sys.exit(f"refused: {exc}")
"""


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has joined no cluster: other tests of this one may have."""
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: False)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("head:6379", ("head", 6379)),
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("[::1]:6379", ("::1", 6379)),
        ("ray://head:10001", ("head", 10001)),
        ("ray://token@head:10001/namespace", ("head", 10001)),
        ("auto", None),
        ("local", None),
        ("head", None),
        ("http://head:8265", None),
        ("head:port", None),
    ],
)
def test_host_and_port_of_an_address(address: str, place: tuple[str, int] | None) -> None:
    assert endpoint(address) == place


@pytest.mark.usefixtures("not_joined")
def test_nothing_listens(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waiting, "SAY_FIRST_S", 0.1)
    monkeypatch.setattr(waiting, "SAY_EVERY_S", 0.2)
    monkeypatch.setattr(ray_cluster, "REACH_S", 1.5)
    address = f"ray://hunter2@127.0.0.1:{closed_port}"
    with caplog.at_level(logging.WARNING, "smoothcert"), pytest.raises(ExecutorError) as caught:
        ray_cluster.connect(ExecutorSection(kind="ray", address=address))
    text = str(caught.value)
    for word in (f"127.0.0.1:{closed_port}", "executor.address or RAY_ADDRESS", "within 1.5 s", "refused"):
        assert word in text
    assert "ray start --head" in caught.value.remedy
    said = [record.getMessage() for record in caplog.records]
    assert len(said) >= 2 and all(f"127.0.0.1:{closed_port}" in line for line in said)
    assert "at most about 2 s" in said[0]
    assert "hunter2" not in text + caplog.text


@pytest.mark.usefixtures("not_joined")
def test_the_environment_names_it_too(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "REACH_S", 0.6)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port}")
    with pytest.raises(ExecutorError, match=f"127.0.0.1:{closed_port}"):
        ray_cluster.connect(ExecutorSection(kind="ray"))


@pytest.mark.usefixtures("not_joined")
def test_a_ray_that_does_not_start_here_is_no_bug_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise Exception(
            "The current node timed out during startup."
        )  # what Ray raises on a machine that is busy

    monkeypatch.setattr(ray_cluster.ray, "init", fail)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ExecutorError, match="does not start on this machine: .* timed out") as caught:
        ray_cluster.connect(ExecutorSection(kind="ray"))
    assert "ray start --head" in caught.value.remedy


def test_a_host_without_a_name_is_refused_in_words() -> None:
    with pytest.raises(ExecutorError, match=r"no-such-host\.invalid:6379"):
        wait_for_listener("no-such-host.invalid:6379", 0.6)


def test_a_cluster_that_is_about_to_start_is_waited_for(closed_port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def start() -> None:
            time.sleep(1.0)
            listener.bind(("127.0.0.1", closed_port))
            listener.listen()

        thread = threading.Thread(target=start)
        thread.start()
        wait_for_listener(f"127.0.0.1:{closed_port}", 60)
        thread.join()


def test_addresses_without_a_host_are_left_to_ray() -> None:
    for address in ("auto", "local"):
        wait_for_listener(address, 0.0)


def test_a_short_wait_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "smoothcert"), waiting_aloud("for nothing", 1):
        pass
    assert not caplog.records


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "RAY_gcs_server_port_wait_time_s"
    monkeypatch.delenv(name, raising=False)
    with asking_once():
        assert os.environ[name] == "1"
    assert name not in os.environ
    monkeypatch.setenv(name, "90")
    with asking_once():
        assert os.environ[name] == "90", "who says how long is obeyed"
    assert os.environ[name] == "90"


@pytest.mark.slow
def test_what_listens_and_is_no_cluster_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """Ray asks once instead of twenty times; it says when it gives one up, here after 4 s, else after about 40."""
    patience = {"RAY_py_gcs_connect_timeout_s": "2", "RAY_gcs_rpc_server_connect_timeout_s": "1"}
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(50)
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", MUTE, address],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=tmp_path,
            env={**os.environ, **patience},
        )
    said = done.stderr
    assert done.returncode == 1, said
    assert f"refused: cannot join the Ray cluster at executor.address='{address}'" in said
    assert f"waiting for the Ray cluster at '{address}' to answer: " in said
    assert said.count("Failed to get cluster ID from GCS server") == 1, said
