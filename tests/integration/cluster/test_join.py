"""Clusters that ``ray start`` made: whoever has the token joins, and workers get the code of the driver."""

import os
import py_compile
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from smoothcert import certificates

pytestmark = pytest.mark.timeout(250)
WHERE_THE_CODE_IS = """
import sys, ray
from smoothcert.errors import SmoothcertError
from smoothcert.job import ExecutorSection
from smoothcert.runtime.ray_cluster import connect
try:
    connect(ExecutorSection(kind="ray", address=sys.argv[1]))
except SmoothcertError as exc:
    print(exc)
    sys.exit(exc.exit_code)
print(ray.get(ray.remote(num_cpus=0)(lambda: __import__("smoothcert").__file__).remote()))
"""


@pytest.fixture
def head():
    """A head node with token authentication: its address, and the environment of who may join."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = tempfile.mkdtemp(prefix="sc")  # sockets in it: their paths must be short
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        f"--port={port}",
        "--num-cpus=2",
    ]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={directory}", "--block"]
    log = Path(directory, "head.log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            env={**os.environ, **token, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield log, {**token, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    process.terminate()  # it ends the node's processes, and itself at last
    try:
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
        shutil.rmtree(directory, ignore_errors=True)


def join(environment):
    return subprocess.run(
        [sys.executable, "-c", WHERE_THE_CODE_IS, environment["RAY_ADDRESS"]],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_who_has_the_token_joins_and_brings_the_code(plug, head, tools):
    log, environment = head
    py_compile.compile(certificates.__file__)
    tools.until(lambda: "Ray runtime started" in log.read_text())
    there = join(environment)
    assert there.returncode == 0 and "py_modules_files" in there.stdout, there
    room = Path(there.stdout.strip().splitlines()[-1]).with_name("certificates")
    assert {path.name for path in room.iterdir()} >= {"__init__.py", "vote.py"}
    assert not (room / "__pycache__").exists(), "it changes with every process, also while it is packed"


@pytest.mark.slow
def test_a_run_on_a_cluster_with_a_token(plug, head, driver_process, check, tools):
    log, environment = head
    tools.until(lambda: "Ray runtime started" in log.read_text())
    refused = join(environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})
    assert refused.returncode == 5 and "RAY_AUTH_TOKEN" in refused.stdout, refused
    run = driver_process("", environment=environment)
    assert run.end() == 0, run.text
    assert environment["RAY_AUTH_TOKEN"] not in run.text
    check(run.url)
