"""Several drivers on one run: a unit is looked up before it is handed out, and who comes later begins elsewhere.

Exactly-once needs nothing of this: of two attempts at a unit the first commit counts. It is about work that would be
done twice. Where a store cannot create files exclusively there is one driver at a time, and the next one is refused.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator

from smoothcert.datasets import UnitSpec
from smoothcert.runtime.results import worker_name
from smoothcert.store import RunDirectory
from smoothcert.store.events import DRIVER, WorkerState, read_workers

log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""A listing of the commits is as old as this before there is another one."""
_SHARE_OF_TIME = 0.02
"""Of the time that may be spent on listings."""


def other_drivers(run: RunDirectory) -> list[WorkerState]:
    """Drivers that said a moment ago that they work on the run, this process excepted."""
    own = DRIVER + worker_name()
    found = read_workers(run.storage, now=time.time(), drivers_only=True)
    return [each for each in found if each.alive and each.worker != own and not _is_gone(each.worker)]


def tell_other_drivers(run: RunDirectory) -> list[WorkerState]:
    """Other drivers on the run; warns that this one helps them."""
    others = other_drivers(run)
    if others:
        names = ", ".join(each.worker.removeprefix(DRIVER) for each in others)
        log.warning("%s also works on this run: this driver helps, and takes other units first", names)
    return others


def elsewhere(units: Iterable[UnitSpec]) -> Iterator[UnitSpec]:
    """The units in an order of this process's own: of several drivers, no two go the same way."""
    mixed = list(units)
    random.Random(worker_name()).shuffle(mixed)
    return iter(mixed)


def still_open(
    units: Iterable[UnitSpec], closed: Callable[[], set[str]], clock: Callable[[], float] = time.monotonic
) -> Iterator[UnitSpec]:
    """The units that nobody has closed when they are asked for.

    Args:
        units: what was left when they were listed.
        closed: lists the ids of closed units; asked now and then.
        clock: seconds.
    """
    known: set[str] = set()
    next_look = clock() + _LOOK_S
    for unit in units:
        if (now := clock()) >= next_look:
            known = closed()
            taken = clock() - now
            next_look = clock() + max(_LOOK_S, taken / _SHARE_OF_TIME)
        if unit.unit_id not in known:
            yield unit


def _is_gone(driver: str) -> bool:
    """Whether a driver was a process of this machine that has ended, though it never said so."""
    host, _, pid = driver.removeprefix(DRIVER).rpartition(":")
    if host != worker_name().rpartition(":")[0] or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
