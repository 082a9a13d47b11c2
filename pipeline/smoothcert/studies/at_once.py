"""Several runs of a study at once on one Ray cluster, whose workers they share evenly.

A run alone leaves workers idle while it starts, waits for its last units, and is audited; runs beside it use them
then. Each run has the workers that there are divided by the runs still to come to their end, so that all of them have
a place, and the last ones have more. What each run is, and what it commits, is as if it were alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from smoothcert.job import Job

MOST_AT_ONCE = 8
"""Unless the study says more: each has a driver in this process, which holds its encoder, and audits it."""
_LOOK_S = 0.5


@contextmanager
def shared_cluster(job: Job) -> Iterator[int]:
    """The cluster of a job, joined for all runs of a study; yields how many workers it has room for.

    Raises:
        ExecutorError: it cannot be joined.
    """
    from smoothcert.runtime.ray_cluster import WorkerShare, join_cluster, uses_gpu

    with join_cluster(job.executor):
        yield WorkerShare.of(job.executor, uses_gpu=uses_gpu(job.encoder)).workers()


class Lanes:
    """Threads that take from one queue until it is empty; one alone is the thread that calls ``run``.

    Args:
        count: how many.

    Attributes:
        count: as given.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._busy = count
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def busy(self) -> int:
        """Threads that still have work, at least 1."""
        return max(1, self._busy)

    def run(self, work: Callable[[], bool]) -> None:
        """Call ``work`` in every thread until it returns False.

        Raises:
            BaseException: what a call raised, when the calls in other threads have come to their end.
        """
        if self.count == 1:
            while work():
                pass
            return
        threads = [
            # a second signal ends the process at once: nobody waits for threads then
            threading.Thread(target=self._go, args=(work,), name=f"study-{number}", daemon=True)
            for number in range(self.count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_LOOK_S)  # not for ever, so that signals are heard
        if self._error is not None:
            raise self._error

    def _go(self, work: Callable[[], bool]) -> None:
        try:
            while self._error is None and work():
                pass
        except BaseException as exc:
            self._error = self._error or exc
        finally:
            with self._lock:
                self._busy -= 1
