"""A small file that is rewritten whole, now and then, by a thread of its own.

Works on object stores too. Who has something new never waits for the store, and a store that is away is not taken for a
worker that hangs. For telemetry only: what cannot be written is logged and written later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from smoothcert.errors import StoreError
from smoothcert.storage import Storage

log = logging.getLogger(__name__)


class RewrittenFile:
    """Writes what ``text`` returns, whenever there is something new.

    Args:
        storage: the directory.
        file: the file's name there.
        text: makes the whole content; called in the thread that writes.
        every_s: seconds between two writings, unless one is urgent.
        what: what a log line calls the file.
    """

    def __init__(
        self, storage: Storage, file: str, text: Callable[[], bytes], *, every_s: float, what: str
    ) -> None:
        self._storage = storage
        self._file = file
        self._text = text
        self._every_s = every_s
        self._what = what
        self._changed = threading.Condition()
        self._new = self._urgent = self._closing = False
        self._written = -every_s
        self._thread: threading.Thread | None = None

    def note(self, *, now: bool = False) -> None:
        """There is something new; it is written as soon as can be with ``now``, else every few seconds."""
        with self._changed:
            if self._closing:
                return
            self._new = True
            self._urgent = self._urgent or now
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_on, name="telemetry", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is new, for at most so long; nothing more is taken."""
        with self._changed:
            self._closing = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout_s)

    def _write_on(self) -> None:
        failed = False
        while self._wait():
            try:
                self._storage.replace(self._file, self._text())
                failed = False
            except StoreError as exc:
                if not failed:
                    log.warning("cannot write %s %s: %s", self._what, self._file, exc)
                failed = True
                with self._changed:
                    self._new = True  # written with what comes next, or with this in a while
                    if self._closing:
                        return

    def _wait(self) -> bool:
        """Wait until it is time to write; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._new or self._closing)
            if not self._new:
                return False
            self._changed.wait_for(
                lambda: self._urgent or self._closing,
                timeout=max(0.0, self._written + self._every_s - time.monotonic()),
            )
            self._new = self._urgent = False
            self._written = time.monotonic()
            return True
