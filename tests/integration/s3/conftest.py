"""An S3 server on loopback, and the command line with credentials from the environment alone."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SECRET = "CANARYsecret/xyz+abcdefghijklmnopqrstuv"
"""What must be found nowhere. The access key's name is no secret, but is looked for too."""
ACCESS = "CANARYACCESSKEY00001"


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """Of processes that use the server; Ray's session directory is a short one of its own, to be searched."""
    moto_server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ray_directory = tempfile.mkdtemp(prefix="sc")
    yield {
        **os.environ,
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "RAY_TMPDIR": ray_directory,
        "OMP_NUM_THREADS": "1",
    }
    server.stop()
    shutil.rmtree(ray_directory, ignore_errors=True)


@pytest.fixture(scope="session")
def bucket(environment: dict[str, str]) -> Iterator[Any]:
    """A client, and one empty bucket called demo."""
    client = pytest.importorskip("boto3").client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="demo")
    yield client
    client.close()


@pytest.fixture(scope="session")
def start(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Starts the command line in a directory of its own; everything it prints is kept in a file there."""
    directory = tmp_path_factory.mktemp("s3")
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: Any) -> subprocess.Popen[str]:
        log = directory / "output.log"
        with log.open("a") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", "from smoothcert.cli.main import main; main()", *map(str, arguments)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=directory,
                env=environment,
            )
        started.append(process)
        return process

    begin.directory = directory  # type: ignore[attr-defined]
    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture(scope="session")
def digits_job() -> Path:
    """The job that users copy."""
    return Path(__file__).parents[3] / "jobs" / "digits.yaml"
