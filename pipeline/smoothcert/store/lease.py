"""``driver.json``: which driver works on a run whose store cannot create files exclusively.

There one process must do all commits, and this file says which: its token, host and process, and a counter that a
thread of it rewrites every few seconds. Who finds the file looks at it for a little more than two beats: if it
changes, its owner lives; if not, it is taken over. No clocks are compared. Where files are created exclusively
nothing of this is needed, and ``RunDirectory.committing`` does nothing.

What remains assumed: a write of the owner that is on its way when it stops beating arrives within two beats. The
owner asks the store itself whether the run is still its own before it commits after a silence of its own.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any

from smoothcert.errors import RunDirectoryError, StoreError
from smoothcert.storage.filesystem import Storage

log = logging.getLogger(__name__)

LEASE_FILE = "driver.json"
BEAT_S = 10.0
"""Seconds between two beats."""
SETTLE_S = 1.0
"""Seconds after which of two drivers that start together both see who came last."""
_LONGEST_BEAT_S = 60.0
"""No beat that a file claims is waited for longer: it may be damaged."""


class DriverLease:
    """The right of one process to commit to a run; a context manager.

    Args:
        storage: the run directory.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._beat_s = BEAT_S
        self._settle_s = SETTLE_S
        self._token = uuid.uuid4().hex
        self._beats = 0
        self._lost = ""
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._confirmed = (0.0, 0.0)
        self._thread = threading.Thread(target=self._beat_on, name="driver lease", daemon=True)

    def __enter__(self) -> DriverLease:
        """Take the lease, and keep it by a thread.

        Raises:
            RunDirectoryError: another driver works on the run.
            StoreError: reading or writing failed.
        """
        found = self._storage.read_if_present(LEASE_FILE)
        if found is not None:
            self._outlive(found)
        self._write()
        time.sleep(self._settle_s)
        present = self._storage.read_if_present(LEASE_FILE)
        if _said(present).get("token") != self._token:
            raise self._refusal(present)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back; a file that cannot be removed only makes the next driver wait."""
        self._end.set()
        self._thread.join(self._beat_s)
        try:
            with self._lock:
                if _said(self._storage.read_if_present(LEASE_FILE)).get("token") == self._token:
                    self._storage.remove(LEASE_FILE)
        except StoreError as exc:
            log.warning("the next driver will wait %.0f s: %s", 2 * self._beat_s, exc)

    def check(self) -> None:
        """Return if this process may commit now.

        Raises:
            StoreError: another driver has taken over, or the store does not say.
        """
        if not self._lost and max(a - b for a, b in zip(_clocks(), self._confirmed, strict=True)) > (
            1.5 * self._beat_s
        ):
            self._beat()
        if self._lost:
            raise StoreError(
                f"'{self._storage.url}' was taken over by {self._lost}; this driver commits nothing more",
                remedy="let that driver continue, or stop it and run the same command again",
            )

    def _outlive(self, found: bytes) -> None:
        """Return once the owner of a lease is known to be dead or done."""
        claimed = _said(found).get("beat_s")
        beat_s = max(self._beat_s, min(claimed, _LONGEST_BEAT_S) if isinstance(claimed, (int, float)) else 0)
        log.warning(
            "%s: %s may work on this run; waiting %.0f s for a sign of life",
            self._storage.full_url(LEASE_FILE),
            _owner(found),
            2.2 * beat_s,
        )
        end = time.monotonic() + 2.2 * beat_s
        while time.monotonic() < end:
            time.sleep(min(beat_s / 4, max(0.0, end - time.monotonic())))
            present = self._storage.read_if_present(LEASE_FILE)
            if present is None:
                return
            if present != found:
                raise self._refusal(present)

    def _refusal(self, present: bytes | None) -> RunDirectoryError:
        return RunDirectoryError(
            f"'{self._storage.url}' is in use by {_owner(present)}, and its store cannot create files "
            "exclusively, so only one driver at a time may use it",
            remedy="wait for that driver to end, or stop it, then run the same command again",
        )

    def _beat_on(self) -> None:
        while not self._end.wait(self._beat_s) and not self._lost:
            try:
                self._beat()
            except StoreError as exc:
                log.warning(
                    "cannot write the heartbeat of this driver; trying again in %.0f s: %s", self._beat_s, exc
                )

    def _beat(self) -> None:
        with self._lock:
            if self._end.is_set():
                return
            present = self._storage.read_if_present(LEASE_FILE)
            if present is not None and _said(present).get("token") != self._token:
                self._lost = _owner(present)
                log.error("%s was taken over by %s", self._storage.url, self._lost)
                return
            self._write()

    def _write(self) -> None:
        asked = _clocks()
        self._beats += 1
        self._storage.replace(
            LEASE_FILE,
            json.dumps(
                {
                    "token": self._token,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "beat": self._beats,
                    "beat_s": self._beat_s,
                }
            ).encode(),
        )
        self._confirmed = asked


def _clocks() -> tuple[float, float]:
    """Two clocks: the first stands still while a machine sleeps, the second may be set."""
    return time.monotonic(), time.time()


def _said(data: bytes | None) -> dict[str, Any]:
    try:
        said = json.loads(data or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _owner(data: bytes | None) -> str:
    said = _said(data)
    return f"the driver on host '{said.get('host', 'unknown')}', process {said.get('pid', 'unknown')}"
