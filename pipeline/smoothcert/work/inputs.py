"""What the tasks of a job compute with, loaded once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar, cast

import torch

from smoothcert.defences import load_defended
from smoothcert.encoders import Encoder, check_encoder
from smoothcert.engine import Texts, encode_texts
from smoothcert.job import EncoderSection, ExecutorSection, Job

T = TypeVar("T")


class Inputs:
    """The job's encoder and texts, and whatever else its tasks load: once in a process.

    Args:
        job: the job.
        encoder: its encoder, purifier and mapper included.
        pool: captions of the retrieval pool.
        here: an encoder's section as this host can load it.
    """

    def __init__(
        self,
        job: Job,
        encoder: Encoder,
        pool: tuple[str, ...] = (),
        here: Callable[[EncoderSection], EncoderSection] = lambda section: section,
    ) -> None:
        self.job = job
        self.encoder = encoder
        self.pool = pool
        self.here = here
        self._shared: dict[Callable[[Inputs], Any], Any] = {}

    @cached_property
    def texts(self) -> Texts:
        """The text references of the job, as its encoder sees them."""
        return encode_texts(
            self.encoder,
            zero_shot=self.job.zero_shot,
            pool=self.pool,
            retrieval_k=self.job.retrieval.k if self.job.retrieval else 1,
            captions=self.encoder.has_texts and self.job.data.has_captions,
        )

    def share(self, make: Callable[[Inputs], T]) -> T:
        """What ``make`` makes of these inputs, made once."""
        if make not in self._shared:
            self._shared[make] = make(self)
        return cast(T, self._shared[make])


def load_checked(job: Job, base: Encoder | None = None) -> Encoder:
    """Load the job's encoder, its purifier and mapper included, and hold it to its contract.

    Args:
        job: the job.
        base: the encoder without purifier and mapper, where it is loaded already.

    Raises:
        EncoderError: it cannot be loaded, or breaks the contract.
    """
    encoder = load_defended(job.encoder, job.certify.sigma, base)
    check_encoder(encoder)
    return encoder


def loadable_here(section: EncoderSection, executor: ExecutorSection) -> EncoderSection:
    """The encoder for a driver whose workers compute elsewhere: on its CPU where it has no GPU itself.

    The driver needs the encoder for its digest, its checks and its texts; none of them depends on the device.
    """
    if executor.kind == "local" or not section.device.startswith("cuda") or torch.cuda.is_available():
        return section
    return section.model_copy(update={"device": "cpu", "compile": False})
