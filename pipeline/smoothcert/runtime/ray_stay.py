"""How long this process stays in a Ray cluster that it joined or started.

A start takes ten seconds and more, with all workers, and the next phase of the same command needs the cluster again. As
Ray's own connection, a stay is the whole process's. Nothing here loads Ray.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Stay:
    """Who needs the cluster, in any thread, and who keeps it for those to come."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._users = self._keepers = 0
        self._address: str | None = None
        self._leave: Callable[[], None] | None = None

    @contextlib.contextmanager
    def used(
        self, address: str | None, join: Callable[[], bool], leave: Callable[[], None]
    ) -> Iterator[None]:
        """Be in a cluster.

        It is left when nobody is in it and nobody keeps it, and also when an error ends this and nobody else is in it:
        who comes next starts anew.

        Args:
            address: of the cluster; None: one on this machine.
            join: joins it where this process is in none, and says whether it did; raises where it cannot.
            leave: leaves it.
        """
        with self._lock:
            if self._leave is not None and not self._users and address != self._address:
                self._end()
            if join():
                self._address, self._leave = address, leave
            self._users += 1
        failed = True
        try:
            yield
            failed = False
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and (failed or not self._keepers):
                    self._end()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Until the end of this, and of others that go on then, stay in what is joined meanwhile; leave it then."""
        with self._lock:
            self._keepers += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers -= 1
                if not self._keepers:
                    self._end()

    def _end(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


STAY = Stay()
"""That of this process."""


def keep_cluster() -> contextlib.AbstractContextManager[None]:
    """Around all phases of a command: the cluster that the first one joins or starts is left at the end of this."""
    return STAY.kept()
