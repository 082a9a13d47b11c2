"""What a worker needs to start: small, picklable, the same for a local session and an actor on another machine."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from smoothcert.datasets import open_source
from smoothcert.defences import load_defended
from smoothcert.encoders import Encoder, check_encoder
from smoothcert.engine import Texts, encode_texts
from smoothcert.errors import RunDirectoryError
from smoothcert.job import ExecutorSection, Job
from smoothcert.job_encoder import EncoderSection
from smoothcert.runtime.events import EventLog
from smoothcert.runtime.results import UnitWriter, worker_name
from smoothcert.runtime.session import WorkerSession
from smoothcert.store import RunDirectory


def load_checked(job: Job) -> Encoder:
    """Load the job's encoder, its purifier and mapper included, and hold it to its contract.

    Raises:
        EncoderError: it cannot be loaded, or breaks the contract.
    """
    encoder = load_defended(job.encoder)
    check_encoder(encoder)
    return encoder


def texts_of(job: Job, encoder: Encoder, pool: tuple[str, ...]) -> Texts:
    """The text references of a job."""
    return encode_texts(
        encoder,
        zero_shot=job.zero_shot,
        pool=pool,
        retrieval_k=job.retrieval.k if job.retrieval else 1,
        captions=job.encoder.feature == "projection" and job.data.has_captions,
    )


def loadable_here(section: EncoderSection, executor: ExecutorSection) -> EncoderSection:
    """The encoder for a driver whose workers compute elsewhere: on its CPU where it has no GPU itself.

    The driver needs the encoder for its digest, its checks and its texts; none of them depends on the device.
    """
    if executor.kind == "local" or not section.device.startswith("cuda") or torch.cuda.is_available():
        return section
    return section.model_copy(update={"device": "cpu", "compile": False})


@dataclass(frozen=True)
class Opening:
    """Opens a worker session.

    Attributes:
        job: what to do.
        run_url: the run directory.
        encoder_digest: what the driver planned with; a worker that loads other weights refuses to work.
        pool: captions of the retrieval pool.
        exclusive: whether the run's store creates files exclusively, as the driver found; None: found out again.
    """

    job: Job
    run_url: str
    encoder_digest: str
    pool: tuple[str, ...]
    exclusive: bool | None = field(default=None, kw_only=True)

    def __call__(self) -> WorkerSession:
        """The session, with its own encoder."""
        return self.with_encoder(self.load())

    def load(self) -> Encoder:
        """The worker's own encoder.

        Raises:
            EncoderError: it cannot be loaded, or breaks the contract.
        """
        return load_checked(self.job)

    def with_encoder(self, encoder: Encoder) -> WorkerSession:
        """The session, with an encoder that is loaded already.

        Raises:
            RunDirectoryError: the encoder here is not the one that the run was planned with.
        """
        self.refuse_another(encoder)
        run = RunDirectory.open(self.run_url, exclusive=self.exclusive)
        texts = texts_of(self.job, encoder, self.pool)
        source = open_source(self.job.data)
        events = EventLog(run.storage, worker_name())
        return WorkerSession(self.job, source, encoder, texts, UnitWriter(run), events)

    def refuse_another(self, encoder: Encoder) -> None:
        """Raise ``RunDirectoryError`` unless this is the encoder that the run was planned with."""
        if encoder.digest != self.encoder_digest:
            raise RunDirectoryError(
                f"the encoder '{self.job.encoder.model}' on this machine has digest {encoder.digest[:16]}, the run "
                f"was planned with {self.encoder_digest[:16]}",
                remedy="make the same weights available to every worker (pin encoder.revision)",
            )
