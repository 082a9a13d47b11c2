"""What a worker needs to start: small, picklable, the same for a local session and an actor on another machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from smoothcert.datasets import open_source
from smoothcert.encoders import Encoder
from smoothcert.encoders.carried_code import CarriedFolder, unpack_code
from smoothcert.engine.noise import generator_name
from smoothcert.errors import RunDirectoryError
from smoothcert.job import Job
from smoothcert.runtime.results import UnitWriter, worker_name
from smoothcert.runtime.session import Session
from smoothcert.store import RunDirectory
from smoothcert.store.events import EventLog
from smoothcert.work.inputs import Inputs, load_checked
from smoothcert.work.tasks import phases_of


@dataclass(frozen=True)
class Opening:
    """Opens a worker's session.

    Attributes:
        job: what to do, its contents filled in.
        run_url: the run directory.
        encoder_digest: what the driver planned with; a worker that loads other weights refuses to work.
        pool: captions of the retrieval pool.
        exclusive: whether the run's store creates files exclusively, as the driver found; None: found out again.
        code: files that the job names, for workers that do not see its folder.
    """

    job: Job
    run_url: str
    encoder_digest: str
    pool: tuple[str, ...]
    exclusive: bool | None = field(default=None, kw_only=True)
    code: tuple[CarriedFolder, ...] = field(default=(), kw_only=True)

    def __call__(self) -> Session:
        """The session, with its own encoder."""
        return self.with_encoder(self.load())

    def load(self) -> Encoder:
        """The worker's own encoder.

        Raises:
            EncoderError: it cannot be loaded, or breaks the contract.
        """
        unpack_code(self.code)
        return load_checked(self.job)

    def with_encoder(self, encoder: Encoder) -> Session:
        """The session, with an encoder that is loaded already.

        Raises:
            RunDirectoryError: the encoder here is not the one that the run was planned with.
        """
        if encoder.digest != self.encoder_digest:
            raise RunDirectoryError(
                f"the encoder '{self.job.encoder.model}' on this machine has digest {encoder.digest[:16]}, the run "
                f"was planned with {self.encoder_digest[:16]}",
                remedy="make the same weights available to every worker (pin encoder.revision)",
            )
        run = RunDirectory.open(self.run_url, exclusive=self.exclusive)
        inputs = Inputs(self.job, encoder, self.pool)
        _ = inputs.texts  # what is wrong with them is known before the first unit
        return Session(
            {task.task_id: task for phase in phases_of(self.job) for task in phase.tasks},
            lambda task: task.open(inputs, run),
            open_source(self.job.data),
            UnitWriter(run),
            EventLog(run.storage, worker_name()),
            generator_name(encoder.device),
        )
