"""The Ray cluster itself: joining it, what it has, and where a worker fits."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from smoothcert.errors import ExecutorError
from smoothcert.job import ExecutorSection
from smoothcert.job.encoder import EncoderSection
from smoothcert.redaction import without_secrets, without_secrets_of
from smoothcert.runtime.ray_address import REACH_S, asking_once, wait_for_listener
from smoothcert.runtime.ray_stay import STAY
from smoothcert.storage.waiting import waiting_aloud

log = logging.getLogger(__name__)


def address_of(section: ExecutorSection) -> str | None:
    """The cluster that the job or the environment names; None: one on this machine."""
    return section.address or os.environ.get("RAY_ADDRESS")


def uses_gpu(section: EncoderSection) -> bool | None:
    """Whether an encoder computes on a GPU; None: where there is one."""
    return None if section.device == "auto" else section.device != "cpu"


@dataclass(frozen=True)
class WorkerShare:
    """What one worker asks of the cluster, settled once for a run so that all its workers are alike.

    Attributes:
        cpus: CPUs of a worker.
        gpus: GPUs of a worker; 0 where it computes on CPUs.
        asked: the number of workers that the job names; None: as many as the cluster has room for.
    """

    cpus: float
    gpus: float
    asked: int | None

    @classmethod
    def of(cls, section: ExecutorSection, *, uses_gpu: bool | None) -> WorkerShare:
        """Read the job, and the cluster where the job leaves it open.

        Args:
            section: the job's executor.
            uses_gpu: whether the encoder's device is a GPU; None where the job says ``auto``: then the nodes that
                are there now decide.
        """
        gpus = section.gpus_per_worker
        if gpus is None:
            found = ray.cluster_resources().get("GPU", 0.0) >= 1.0
            gpus = 1.0 if uses_gpu or (uses_gpu is None and found) else 0.0
            if uses_gpu is None and not found and address_of(section) is not None:
                log.warning(
                    "no node of the cluster has a GPU now, so workers request only CPUs; if an autoscaler should "
                    "add GPU nodes, set executor.gpus_per_worker=1 and executor.workers"
                )
        return cls(section.cpus_per_worker, gpus, section.workers)

    def workers(self) -> int:
        """How many workers there should be now, at least one; grows with the cluster unless the job names it."""
        if self.asked is not None:
            return self.asked
        resources = ray.cluster_resources()
        if self.gpus:
            return max(1, int(resources.get("GPU", 0.0) / self.gpus))
        return max(1, int(resources.get("CPU", 1.0) / max(self.cpus, 1.0)))

    def room(self) -> int:
        """How many such workers the nodes that are there would hold, were nothing else on them."""
        needs = [(kind, need) for kind, need in (("CPU", self.cpus), ("GPU", self.gpus)) if need]
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not needs:
            return sys.maxsize
        return sum(min(int(node.get(kind, 0.0) / need + 1e-9) for kind, need in needs) for node in nodes)

    @property
    def needs(self) -> str:
        """What one worker asks for, in words."""
        return f"{_resources(self.cpus, self.gpus)} (executor.cpus_per_worker, executor.gpus_per_worker)"

    def unplaced(self) -> str:
        """Why a worker may wait for a place, for a log line or an error."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        fits = [n for n in nodes if n.get("CPU", 0.0) >= self.cpus and n.get("GPU", 0.0) >= self.gpus]
        has = "; ".join(_resources(n.get("CPU", 0.0), n.get("GPU", 0.0)) for n in nodes[:8])
        needs = _resources(self.cpus, self.gpus)
        free = ray.available_resources()
        if not fits:
            why = f"no node is that large: nodes have {has or 'nothing'}"
        elif free.get("CPU", 0.0) >= self.cpus and free.get("GPU", 0.0) >= self.gpus:
            # Ray takes the resources only when a node is ready: with a copy of the package it may take a minute
            room = _resources(free.get("CPU", 0.0), free.get("GPU", 0.0))
            why = f"the cluster has {room} free: Ray prepares a node for it, or no node alone has as much"
        else:
            why = f"no node has {needs} free"
        return f"a worker needs {self.needs}, and {why}"


def _resources(cpus: float, gpus: float) -> str:
    parts = [
        f"{count:g} {kind}{'' if count == 1 else 's'}"
        for count, kind in ((cpus, "CPU"), (gpus, "GPU"))
        if count
    ]
    return " and ".join(parts) or "no CPU"


def end_process(place: tuple[str, int]) -> None:
    """SIGKILL to a process (node id, process id) by its own node: a stopped process does not answer Ray."""
    node, pid = place
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    killer = ray.remote(num_cpus=0, max_retries=0)(_kill)
    with contextlib.suppress(RayError):
        ray.get(killer.options(scheduling_strategy=here).remote(pid), timeout=10)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def join_cluster(section: ExecutorSection) -> contextlib.AbstractContextManager[None]:
    """Be in the cluster of a job, as ``connect`` says; what was joined is left at the end, unless it is kept.

    Raises:
        ExecutorError: as ``connect``.
    """
    return STAY.used(address_of(section), lambda: connect(section), ray.shutdown)


def connect(section: ExecutorSection) -> bool:
    """Join a cluster, or start one on this machine; True where this process was in none before.

    Workers of a cluster that was named get this package through the runtime environment, so that they need only
    its dependencies.

    What is waited for is said after five seconds: at most a minute until something listens at the address, and
    then about 40 s for its answer.

    Raises:
        ExecutorError: no cluster at that address, or it refuses the token.
    """
    if ray.is_initialized():
        return False
    address = address_of(section)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        # without bytecode, which other processes may be writing at this moment
        options["runtime_env"] = {
            "py_modules": [str(Path(__file__).parents[1])],
            "excludes": ["__pycache__"],
        }
    else:
        options["include_dashboard"] = False
    # ray.init takes SIGTERM for itself and would end this process at once
    on_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if on_main_thread else None
    if address:
        wait_for_listener(address, REACH_S)
    try:
        with _joining(address):
            _init(address, options)
    except (ConnectionError, RayError, RuntimeError, ValueError) as exc:
        raise ExecutorError(
            f"cannot join the Ray cluster at executor.address={without_secrets(str(address))!r}: "
            + without_secrets_of(str(exc), str(address)),
            remedy="check the address, and for a cluster with token authentication RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH; leave the address out to start a cluster on this machine",
        ) from None
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
    return True


def _init(address: str | None, options: dict[str, Any]) -> None:
    """``ray.init``, whose errors are those of joining.

    Raises:
        ExecutorError: a cluster of our own did not start; Ray says so with exceptions of any class.
    """
    if address:
        ray.init(address=address, **options)
        return
    try:
        ray.init(address="local", **options)
    except Exception as exc:
        raise ExecutorError(
            f"Ray does not start on this machine: {exc}",
            remedy="look at the newest logs in /tmp/ray; on a machine that is busy run the same command again, or "
            "start a cluster with `ray start --head` and name it in executor.address",
        ) from exc


@contextlib.contextmanager
def _joining(address: str | None) -> Iterator[None]:
    """What goes on around ``ray.init``."""
    if address is None:
        with waiting_aloud("for Ray to start on this machine", _START_S):
            yield
        return
    with (
        asking_once(),
        waiting_aloud(f"for the Ray cluster at '{without_secrets(address)}' to answer", _ANSWER_S),
    ):
        yield


_START_S = 60.0
_ANSWER_S = 60.0
"""About how long Ray tries by itself."""
