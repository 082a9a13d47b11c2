"""What every task of a job computes with: the encoder, and the texts as it sees them."""

from __future__ import annotations

import torch

from smoothcert.defences import load_defended
from smoothcert.encoders import Encoder, check_encoder
from smoothcert.engine import Texts, encode_texts
from smoothcert.job import EncoderSection, ExecutorSection, Job


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
        captions=job.encoder.feature == "projection",
    )


def loadable_here(section: EncoderSection, executor: ExecutorSection) -> EncoderSection:
    """The encoder for a driver whose workers compute elsewhere: on its CPU where it has no GPU itself.

    The driver needs the encoder for its digest, its checks and its texts; none of them depends on the device.
    """
    if executor.kind == "local" or not section.device.startswith("cuda") or torch.cuda.is_available():
        return section
    return section.model_copy(update={"device": "cpu", "compile": False})
