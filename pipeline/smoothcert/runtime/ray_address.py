"""Waiting for a cluster at an address: aloud, and not for ever.

Ray itself asks an address where nothing listens for about a quarter of an hour, in silence.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from smoothcert.errors import ExecutorError
from smoothcert.redaction import without_secrets
from smoothcert.storage.waiting import waiting_aloud

REACH_S = 60.0
"""How long something may take until it listens at the address of a cluster, which may be about to start."""
_RETRIES = "RAY_gcs_server_port_wait_time_s"
"""Ray's own variable: how often it asks a head that listens and does not answer, about 40 s each time."""


def endpoint(address: str) -> tuple[str, int] | None:
    """Host and port of ``host:port`` or ``ray://host:port``; None for ``auto``, ``local`` and schemes of others."""
    scheme, separator, rest = address.partition("://")
    if separator and scheme != "ray":
        return None
    try:
        parts = urlsplit(f"//{rest if separator else address}")
        return (parts.hostname, parts.port) if parts.hostname and parts.port else None
    except ValueError:
        return None


def wait_for_listener(address: str, limit_s: float) -> None:
    """Return as soon as something accepts connections at a cluster's address; at once where it names no host.

    Args:
        address: as for ``ray.init``.
        limit_s: how long to wait.

    Raises:
        ExecutorError: nothing did within ``limit_s``.
    """
    place = endpoint(address)
    if place is None:
        return
    end = time.monotonic() + limit_s
    shown = without_secrets(address)
    with waiting_aloud(f"for a Ray cluster at '{shown}'", limit_s):
        while True:
            left = end - time.monotonic()
            try:
                socket.create_connection(place, timeout=max(0.1, min(5.0, left))).close()
                return
            except OSError as exc:
                trouble = exc.strerror or str(exc)
            if time.monotonic() + 0.5 >= end:
                break
            time.sleep(0.5)
    raise ExecutorError(
        f"nothing answers at the Ray cluster's address '{shown}' (executor.address or RAY_ADDRESS) within "
        f"{limit_s:g} s: {trouble}",
        remedy="start the cluster (ray start --head), or correct host and port, or open the way to them; with neither "
        "executor.address nor RAY_ADDRESS a cluster is started on this machine",
    )


@contextlib.contextmanager
def asking_once() -> Iterator[None]:
    """Let Ray ask a head that does not answer once only, unless the environment says how often."""
    if _RETRIES in os.environ:
        yield
        return
    os.environ[_RETRIES] = "1"
    try:
        yield
    finally:
        os.environ.pop(_RETRIES, None)
