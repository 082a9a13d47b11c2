"""A training by several workers of Ray Train, which share each batch; rank 0 alone writes, into ``train.out``.

Ray Train places the workers, joins them to a process group (NCCL where each has a whole GPU, else gloo) and notices
when one is lost. Checkpoints are ours: whatever is lost, worker, node or driver, what starts next goes on from the last
one, exactly. The images go from the driver to each node once, through Ray's object store, where the processes of a node
that computes on CPUs share them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from smoothcert.encoders.carried_code import CarriedFolder, carry_code, unpack_code
from smoothcert.errors import ExecutorError, JobError, SmoothcertError
from smoothcert.job import Job
from smoothcert.job.encoder import EncoderSection
from smoothcert.runtime.ray_cluster import WorkerShare, join_cluster, uses_gpu
from smoothcert.runtime.relay import Relay, RelayedWatcher, Word, pass_on
from smoothcert.training.examples import Corpus, Examples
from smoothcert.training.team import PeerFailedError, ProcessTeam
from smoothcert.training.train import Trained, Training
from smoothcert.training.watching import Silent, Watcher

log = logging.getLogger(__name__)

_LOOK_S = 0.2
_SAY_S = 10.0
"""How long workers may take to begin before that is said."""
_LOSSES_IN_A_ROW = 3
"""Times that workers may be lost without a checkpoint in between, before the training gives up."""
_ATTEMPT_S = 60.0
"""How long Ray Train tries to place workers before it counts that as a failure, and tries again."""


def driver_training(job: Job) -> Training:
    """The training of a job for the driver, whose workers compute elsewhere: it needs no GPU itself.

    Raises:
        SmoothcertError: as ``Training``.
    """
    return Training(job, job.encoder.model_copy(update={"device": "cpu", "compile": False}))


def train_together(training: Training, watcher: Watcher) -> Trained:
    """Run a training on as many workers as its job says, in a cluster that is left afterwards, unless it is kept.

    Args:
        training: as the driver has it; it is not run here.
        watcher: hears of it in this thread.

    Raises:
        ExecutorError: there is no cluster, it has no room for the workers, or they are lost again and again.
        SmoothcertError: what ends a training anywhere ends it here.
    """
    job = training.job
    with join_cluster(job.executor):
        share = WorkerShare.of(job.executor, uses_gpu=uses_gpu(job.encoder))
        _refuse_no_room(share, training.section.workers)
        return _Group(training, share).run(watcher)


def _refuse_no_room(share: WorkerShare, workers: int) -> None:
    if not (share.cpus or share.gpus):
        raise ExecutorError(
            "executor.cpus_per_worker=0 without a GPU: Ray Train places no worker that asks for nothing",
            remedy="set executor.cpus_per_worker, say to 1",
        )
    room = share.room()
    if room < workers:
        raise ExecutorError(
            f"train.workers={workers} work at the same time with {share.needs} each, and the cluster has room for "
            f"{room} of them",
            remedy="lower train.workers, request less per worker, or add nodes",
        )


@dataclass(frozen=True)
class _TrainingOpening:
    """What each worker is given.

    Attributes:
        job: what to train, its place absolute.
        recipe: as the driver has it.
        images: of the object store: for training and held out, pixels, classes and pair ids.
        data_digest: of the data that they come from.
        code: files that the job names.
        relay: the actor.
    """

    job: Job
    recipe: str
    images: Any
    data_digest: str
    code: tuple[CarriedFolder, ...]
    relay: Any

    def run(self, device: torch.device) -> None:
        """Take part, and let the driver know what came of it."""
        team = ProcessTeam(device if device.type == "cuda" and _backend() == "nccl" else None)
        watcher = RelayedWatcher(self.relay) if team.rank == 0 else Silent()
        try:
            trained = self._training(device, team).run(watcher)
        except PeerFailedError:
            return
        except SmoothcertError as exc:
            ray.get(self.relay.conclude.remote(exc))
            raise
        if isinstance(watcher, RelayedWatcher):
            watcher.flush()
            ray.get(self.relay.conclude.remote(trained))

    def _training(self, device: torch.device, team: ProcessTeam) -> Training:
        unpack_code(self.code)
        fitted, held_out = (_on(device, part) for part in ray.get(self.images))
        corpus = Corpus(fitted, held_out, self.data_digest)
        training = Training(self.job, _computing_on(device, self.job.encoder), corpus, team)
        if training.recipe != self.recipe:
            raise JobError(
                f"encoder '{self.job.encoder.model}' or what stands around it is another one on {os.uname().nodename} "
                "than where the training was started",
                remedy="make the same weights available to every worker (pin encoder.revision)",
            )
        return training


def _take_part(config: dict[str, _TrainingOpening]) -> None:
    """What Ray Train runs in each worker."""
    from ray.train.torch import get_device

    config["opening"].run(get_device())


def _backend() -> str:
    return str(torch.distributed.get_backend())


def _computing_on(device: torch.device, section: EncoderSection) -> EncoderSection:
    """The encoder on the worker's own GPU, or where the job says; never on a GPU that it was not given."""
    if device.type == "cpu" and section.device != "auto":
        return section
    return section.model_copy(update={"device": str(device)})


Arrays = tuple[Any, Any, tuple[str, ...]]


def _on(device: torch.device, part: Arrays) -> Examples:
    pixels, classes, pair_ids = part
    with warnings.catch_warnings():
        # memory of the object store, which nobody writes to
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        tensors = torch.from_numpy(pixels), torch.from_numpy(classes)
    return Examples(tensors[0].to(device), tensors[1].to(device), pair_ids)


def _arrays(examples: Examples) -> Arrays:
    return examples.pixels.cpu().numpy(), examples.classes.cpu().numpy(), examples.pair_ids


class _Group:
    """The workers of a training: they are started again, from the last checkpoint, until it has come to an end."""

    def __init__(self, training: Training, share: WorkerShare) -> None:
        self._training, self._share = training, share
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._relay = ray.remote(num_cpus=0)(Relay).options(scheduling_strategy=here).remote()
        job = training.job
        section = training.section.model_copy(update={"out": training.place.url})
        corpus = training.corpus
        self._opening = _TrainingOpening(
            job.model_copy(update={"train": section}),
            training.recipe,
            ray.put((_arrays(corpus.training), _arrays(corpus.held_out))),
            corpus.digest,
            carry_code(job),
            self._relay,
        )
        self._failure: BaseException | None = None
        self._begun = self._validated = False

    def run(self, watcher: Watcher) -> Trained:
        """See ``train_together``."""
        lost = 0
        try:
            while (end := self._attempt(watcher)) is None:
                lost = 1 if self._validated else lost + 1
                reason = _reason(self._failure)
                remedy = "look at the worker logs of Ray, and at memory; the same command resumes"
                if not isinstance(self._failure, _worker_loss()):
                    raise ExecutorError(f"Ray Train cannot run the workers: {reason}", remedy=remedy)
                if lost >= _LOSSES_IN_A_ROW:
                    raise ExecutorError(
                        f"workers were lost {lost} times without a checkpoint in between: {reason}",
                        remedy=remedy,
                    )
                log.warning("lost a worker; all start again from the last checkpoint: %s", reason)
        finally:
            with contextlib.suppress(RayError):
                ray.kill(self._relay)
        if isinstance(end, SmoothcertError):
            raise end
        return end

    def _attempt(self, watcher: Watcher) -> Trained | SmoothcertError | None:
        """Start workers once; None where they were lost before the end."""
        self._failure, self._begun, self._validated = None, False, False
        with tempfile.TemporaryDirectory(prefix="smoothcert-") as folder, _settings():
            # not in this thread, which hears signals and the relay; never waited for when the process is told to quit
            thread = threading.Thread(target=self._fit, args=(folder,), name="ray-train", daemon=True)
            thread.start()
            say_after = time.monotonic() + _SAY_S
            while thread.is_alive():
                thread.join(_LOOK_S)
                self._listen(watcher)
                if not self._begun and time.monotonic() > say_after:
                    say_after += 10 * _SAY_S
                    log.warning(
                        "the %d workers have not begun yet: %s",
                        self._training.section.workers,
                        self._share.unplaced(),
                    )
        return self._listen(watcher)

    def _listen(self, watcher: Watcher) -> Trained | SmoothcertError | None:
        words: list[Word]
        words, end = ray.get(self._relay.hear.remote(watcher.stopped))
        self._begun |= bool(words)
        self._validated |= any(method == "validated" for method, _ in words)
        pass_on(words, watcher)
        return end  # type: ignore[no-any-return]

    def _fit(self, folder: str) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        share, executor = self._share, self._training.job.executor
        resources = {"CPU": share.cpus} | ({"GPU": share.gpus} if share.gpus else {})
        try:
            TorchTrainer(
                _take_part,
                train_loop_config={"opening": self._opening},
                # NCCL refuses two processes on one GPU
                torch_config=TorchConfig(backend="nccl" if share.gpus >= 1 else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=self._training.section.workers,
                    use_gpu=bool(share.gpus),
                    resources_per_worker=resources,
                ),
                run_config=RunConfig(
                    name=f"training-{uuid.uuid4().hex[:12]}",
                    storage_path=folder,
                    failure_config=FailureConfig(
                        max_failures=0,
                        max_preemption_failures=executor.preemption_budget,
                        controller_failure_limit=max(1, round(executor.placement_s / _ATTEMPT_S)),
                    ),
                ),
            ).fit()
        except BaseException as exc:
            self._failure = exc


def _worker_loss() -> type[Exception]:
    from ray.train import WorkerGroupError

    found: type[Exception] = WorkerGroupError
    return found


def _reason(failure: BaseException | None) -> str:
    """The last line that says something; Ray Train quotes whole tracebacks of each worker."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return lines[-1] if lines else "they ended without a word"


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Ray Train reads these from the environment: workers stay in the directory that workers of a job are in."""
    ours = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_V2_ENABLED": "1"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
