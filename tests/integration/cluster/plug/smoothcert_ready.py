"""A process that has imported what workers and drivers import, and becomes them by forking.

Run as a program with the path of a socket: each connection brings a command line, an environment, a directory and three
open files, and is told the process id of the fork, and its exit code when it ends. A command that is killed with its
connection (``ends_with_us``) goes when whoever asked for it goes. What is tested is imported here, the faulty parts of
the tests are not.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

IMPORTED = (
    "google.protobuf.timestamp_pb2",
    "jsonschema",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "requests",
    "scipy.interpolate",
    "scipy.optimize",
    "scipy.stats",
    "torch.optim",
    "smoothcert.audit.audit",
    "smoothcert.cli.main",
    "smoothcert.cli.progress",
    "smoothcert.cli.running",
    "smoothcert.runtime.driver",
    "smoothcert.runtime.opening",
    "smoothcert.runtime.retry",
    "smoothcert.sql",
    "smoothcert.studies.driving",
    "smoothcert.summary",
)
"""Not Ray, whose library reads what a worker is told by variables when it is loaded."""
CARRIED = "/py_modules_files/"
REQUEST = 2**20


def become(request: dict[str, Any]) -> int:
    """Run a command line as ``python ARGUMENTS`` would, and return its exit code."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    first, *rest = request["arguments"]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [path for path in paths if path and path not in sys.path] + sys.path
    if any(CARRIED in path for path in paths):
        # the code of the driver, which Ray brought here, is used in place of what was imported
        for name in [name for name in sys.modules if name.partition(".")[0] == "smoothcert"]:
            del sys.modules[name]
    try:
        if first == "-c":
            sys.argv = [first, *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as exit:
        if exit.code is None or isinstance(exit.code, int):
            return exit.code or 0
        print(exit.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(code: int) -> None:
    """As Python ends; but for taking down what was imported, which would take a second.

    So a thread that needs Python's lock while the interpreter goes down aborts nothing here.
    """
    with contextlib.suppress(AttributeError):
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    text, files, _, _ = socket.recv_fds(connection, REQUEST, 3)
    while not text.endswith(b"\n"):
        more = connection.recv(REQUEST)
        if not more:
            for file in files:
                os.close(file)
            raise EOFError("whoever asked is gone")
        text += more
    return json.loads(text), files


def serve(listening: socket.socket) -> dict[str, Any]:
    """Until standard input is closed; returns only in forks, what they are to become."""
    waiting = selectors.DefaultSelector()
    waiting.register(listening, selectors.EVENT_READ, "request")
    waiting.register(0, selectors.EVENT_READ, "end")
    living: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    while True:
        for key, _ in waiting.select():
            if key.data == "end":
                for pid, _ in living.values():
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            elif key.data == "request":
                connection, _ = listening.accept()
                try:
                    request, files = receive(connection)
                except EOFError:
                    connection.close()
                    continue
                if (pid := os.fork()) == 0:
                    os.setpgid(0, 0)  # Ray kills workers with their groups
                    for number, file in enumerate(files):
                        os.dup2(file, number)
                    sockets = [listening, connection, *(other for _, other in living.values())]
                    for file in [*files, *living, *(each.detach() for each in sockets)]:
                        os.close(file)
                    waiting.close()
                    return request
                for file in files:
                    os.close(file)
                connection.sendall(f"{pid}\n".encode())
                handle = os.pidfd_open(pid)
                living[handle] = (pid, connection)
                waiting.register(handle, selectors.EVENT_READ, "ended")
                if request["ends_with_us"]:
                    waiting.register(connection, selectors.EVENT_READ, pid)
            elif key.data == "ended":
                pid, connection = living.pop(key.fd)
                waiting.unregister(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(KeyError):
                    waiting.unregister(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                connection.close()
            elif any(pid == key.data for pid, _ in living.values()):
                waiting.unregister(key.fileobj)
                os.kill(key.data, signal.SIGKILL)


def main(path: str) -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    from smoothcert.certificates.atlas import atlas

    atlas()
    threads = {
        Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")
    }
    # a fork has only the thread that made it; pyarrow's allocator is made for that
    assert len(threads - {"jemalloc_bg_thd"}) == 1 and "ray" not in sys.modules, threads
    gc.freeze()  # what a fork need not copy to look for garbage
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(16)
        print("ready", flush=True)
        request = serve(listening)
    end(become(request))


if __name__ == "__main__":
    main(sys.argv[1])
