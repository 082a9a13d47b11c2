"""What a driver says into the run directory: its start and end, and every warning and error of its work.

On a cluster the driver alone knows of lost workers, split units and pairs given up; its terminal may be gone when
somebody asks.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace

from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.metrics_file import MetricsFile
from smoothcert.runtime.progress import Progress, RateWindow
from smoothcert.runtime.results import worker_name
from smoothcert.store import RunDirectory
from smoothcert.store.events import BEAT, DRIVER, EventLog

log = logging.getLogger(__name__)

_BEAT_S = 20.0
_HEARD = ("smoothcert.runtime", "smoothcert.store")
_OTHERS = ("smoothcert.runtime.session", "smoothcert.store.events")
"""Sessions have logs of their own; and what cannot be written is not to be written again."""
_AT_WORK: set[int] = set()
"""Threads with a driver at work: a process may have several, each with a run of its own."""


@contextlib.contextmanager
def driver_log(run: RunDirectory, monitor: Monitor, metrics: MetricsFile | None = None) -> Iterator[Monitor]:
    """While a driver works on a run: says how commits are made, and keeps what it logs in the run directory.

    Args:
        run: the run.
        monitor: told as before by the monitor that this yields, which also gives the log its signs of life.
        metrics: the run's metrics file, kept up to date; closed at the end.
    """
    events = EventLog(run.storage, DRIVER + worker_name(), every_s=_BEAT_S)
    me = threading.get_ident()
    handler = _Handler(events, me)
    window = RateWindow()

    def on_progress(progress: Progress) -> None:
        rates = window.note(progress)
        events.say(BEAT, draws=progress.draws, draws_per_s=rates.draws_per_s, pairs_per_s=rates.pairs_per_s)
        if metrics is not None:
            metrics.note(progress, rates)
        monitor.on_progress(progress)

    if run.exclusive:
        log.info("commits: by workers (the store supports exclusive create)")
    else:
        log.warning("commits: by this driver only (the store does not support exclusive create)")
    events.say("begin", exclusive=run.exclusive)
    _AT_WORK.add(me)
    for name in _HEARD:
        logging.getLogger(name).addHandler(handler)
    ending = "failed"
    try:
        yield replace(monitor, on_progress=on_progress)
        ending = "stopped" if monitor.stop.is_set() else "done"
    except BaseException as exc:
        events.say("error", message=f"the driver ended: {type(exc).__name__}: {exc}")
        raise
    finally:
        for name in _HEARD:
            logging.getLogger(name).removeHandler(handler)
        _AT_WORK.discard(me)
        if metrics is not None:
            metrics.close()
        events.say("end", now=True, ending=ending)
        events.close()


class _Handler(logging.Handler):
    """Puts log records into an event log, except those of another driver's thread."""

    def __init__(self, events: EventLog, thread: int) -> None:
        super().__init__(logging.INFO)
        self._events = events
        self._thread = thread

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        if record.name in _OTHERS or record.thread in _AT_WORK - {self._thread}:
            return
        event = {logging.ERROR: "error", logging.WARNING: "warning"}.get(record.levelno, "note")
        try:
            lost = {"lost": record.lost_worker} if hasattr(record, "lost_worker") else {}
            self._events.say(event, message=record.getMessage(), **lost)
        except Exception:
            self.handleError(record)
