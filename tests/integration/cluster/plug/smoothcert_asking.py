"""Processes forked from one that stands ready (``smoothcert_ready``), handled like those of ``subprocess``."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

READY = "SMOOTHCERT_TESTS_READY"
"""The environment variable with the path of its socket."""


def ask(
    arguments: list[str], environment: Mapping[str, str], files: list[int], *, ends_with_us: bool
) -> tuple[socket.socket, int]:
    """Have ``python ARGUMENTS`` run with these streams; the connection, and the process id."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ[READY])
    request = {"arguments": arguments, "environment": dict(environment), "directory": os.getcwd()}
    text = json.dumps(request | {"ends_with_us": ends_with_us}).encode() + b"\n"
    sent = socket.send_fds(connection, [text], files)
    if rest := text[sent:]:  # else it may be over by now, and nobody listening
        connection.sendall(rest)
    return connection, int(_line(connection))


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        some = connection.recv(1)
        if not some:
            raise EOFError("the process that stands ready is gone")
        line += some
    return line


class Forked:
    """``python ARGUMENTS``; it is killed when this process ends or closes it.

    It has imported what stands ready, so it cannot show that a command imports what it uses; and it does what is
    registered with ``atexit``, but does not take the interpreter down, so neither can it show how that goes.

    Args:
        arguments: without the interpreter.
        environment: all of it.
        log: where it writes, less the endings ``.out`` and ``.err``.
    """

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._code: int | None = None
        self._log = log
        with (
            log.with_suffix(".out").open("w") as out,
            log.with_suffix(".err").open("w") as err,
            open(os.devnull) as nothing,
        ):
            files = [nothing.fileno(), out.fileno(), err.fileno()]
            self._connection, self.pid = ask(arguments, environment, files, ends_with_us=True)

    @property
    def out(self) -> str:
        """All that it has printed."""
        return self._log.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        """All that it has written to standard error."""
        return self._log.with_suffix(".err").read_text()

    @property
    def text(self) -> str:
        """All that it has written."""
        return self.out + self.err

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._wait(0)

    def wait(self, timeout: float) -> int:
        """The same, at its end.

        Raises:
            AssertionError: it has not ended by then, and is killed.
        """
        code = self._wait(timeout)
        if code is None:
            self.kill()
            raise AssertionError(f"it hangs:\n{self.text}")
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill it if it still runs."""
        self.kill()
        self._wait(20)
        self._connection.close()

    def _wait(self, timeout: float) -> int | None:
        if self._code is None and select.select([self._connection], [], [], timeout)[0]:
            self._code = int(_line(self._connection))
        return self._code
