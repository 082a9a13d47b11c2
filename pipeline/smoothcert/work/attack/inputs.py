"""What a job's attacks need besides pairs: encoders, texts and targets, each loaded once, and what they contain."""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property

import fsspec
import numpy as np
import torch

from smoothcert.datasets import decode_image
from smoothcert.defences import DefendedEncoder, defend, load_defended
from smoothcert.encoders import Encoder, check_encoder, load_encoder
from smoothcert.engine import Texts, encode_texts
from smoothcert.errors import JobError, PairError, RunDirectoryError
from smoothcert.job import Job
from smoothcert.job.attacks import AttackSection
from smoothcert.job.encoder import EncoderSection
from smoothcert.work.inputs import Inputs

log = logging.getLogger(__name__)


class AttackInputs:
    """Everything that the attacks of a job name, loaded when it is first asked for.

    Args:
        inputs: of the job.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._job = inputs.job
        self._inputs = inputs
        self.certified = inputs.encoder
        self.percentile = inputs.job.certify.percentile
        self._texts: dict[Encoder, Texts] = {}
        self._defended: dict[str, Encoder] = {}
        self._surrogates: dict[EncoderSection, Encoder] = {}
        self._targets: dict[str, bytes] = {}

    def encoder(self, subject: str) -> Encoder:
        """The encoder that a subject is about.

        Raises:
            EncoderError: a defence cannot be loaded, or breaks the contract.
        """
        if subject not in self._job.defences:
            return self.certified
        if subject not in self._defended:
            found = defend(self._undefended, self._job.defences[subject], subject, self._job.certify.sigma)
            for note in found.notes:
                log.warning("%s", note)
            self._defended[subject] = found
        return self._defended[subject]

    def surrogates(self, section: AttackSection) -> tuple[Encoder, ...]:
        """The encoders that an attack's search sees in place of the subject's.

        Raises:
            EncoderError: one cannot be loaded, or breaks the contract.
        """
        for wanted in section.surrogates:
            if wanted not in self._surrogates:
                encoder = load_defended(self._inputs.here(wanted), self._job.certify.sigma)
                check_encoder(encoder)
                self._surrogates[wanted] = encoder
        return tuple(self._surrogates[wanted] for wanted in section.surrogates)

    def texts(self, encoder: Encoder) -> Texts:
        """The text references of the job as this encoder sees them.

        Raises:
            EncoderError: it has no text space.
        """
        if encoder is self.certified:
            return self._inputs.texts
        if encoder not in self._texts:
            known = self._inputs.texts
            self._texts[encoder] = encode_texts(
                encoder,
                zero_shot=self._job.zero_shot,
                pool=known.pool_captions,
                retrieval_k=known.retrieval_k,
                captions=known.captions,
            )
        return self._texts[encoder]

    def target_image(self, uri: str, encoder: Encoder) -> torch.Tensor:
        """A target image on an encoder's grid: float32 (3, H, W) in [0,1] on its device.

        Raises:
            JobError: it cannot be read.
        """
        try:
            image = decode_image(self._target(uri), max_pixels=self._job.data.max_pixels)
            pixels = torch.from_numpy(np.ascontiguousarray(encoder.prepare(image)))
        except PairError as exc:
            raise _unreadable(uri, exc) from exc
        return pixels.to(encoder.device).to(torch.float32) / 255

    def contents(self, section: AttackSection) -> dict[str, str]:
        """SHA-256 of what an attack names, as ``AttackSection.contents`` keeps it.

        Raises:
            JobError: a target cannot be read.
            EncoderError: an encoder cannot be loaded.
        """
        found: dict[str, str] = {}
        if section.target_image is not None:
            found["target_image"] = hashlib.sha256(self._target(section.target_image)).hexdigest()
        for number, encoder in enumerate(self.surrogates(section)):
            found[f"surrogates.{number}"] = encoder.digest
        return found | {name: self.encoder(name).digest for name in section.defences}

    def refuse_others(self, section: AttackSection) -> None:
        """Raise ``RunDirectoryError`` unless what the attack names here is what the driver saw."""
        here = self.contents(section)
        for name, digest in section.contents.items():
            if here.get(name) != digest:
                raise RunDirectoryError(
                    f"attack '{section.attack}': {name} on this machine has digest {here.get(name, 'none')[:16]}, the "
                    f"job was planned with {digest[:16]}",
                    remedy="make the same files available to every worker",
                )

    @cached_property
    def _undefended(self) -> Encoder:
        """The model alone, which defences are built around."""
        if isinstance(self.certified, DefendedEncoder):
            return self.certified.base
        section = self._job.encoder
        return self.certified if section.defence is None else load_encoder(self._inputs.here(section))

    def _target(self, uri: str) -> bytes:
        if uri not in self._targets:
            try:
                with fsspec.open(uri, "rb") as stream:
                    self._targets[uri] = stream.read()
            except (OSError, ValueError, ImportError) as exc:
                raise _unreadable(uri, exc) from exc
        return self._targets[uri]


def with_contents(inputs: Inputs) -> Job:
    """The job of some inputs, with the contents of all its attacks filled in, so that each has its identity.

    Raises:
        JobError: a content given in the job is another one here, or two attacks turn out to be one.
        EncoderError: an encoder cannot be loaded.
    """
    job, named = inputs.job, inputs.share(AttackInputs)
    attacks: dict[str, AttackSection] = {}
    for number, section in enumerate(job.attacks):
        found = named.contents(section)
        for name, wanted in section.contents.items():
            if found.get(name) != wanted:
                raise JobError(
                    f"attacks.{number}.contents.{name}='{wanted}', but it has '{found.get(name, 'no content')}' here",
                    remedy="restore the original file, or remove this line from the job",
                )
        resolved = section.model_copy(update={"contents": found})
        if resolved.attack_id in attacks:
            raise JobError(
                f"attacks.{number} ({section.attack}) is the same attack as one before it: what both name has the "
                "same content",
                remedy="keep one of them",
            )
        attacks[resolved.attack_id] = resolved
    return job.model_copy(update={"attacks": tuple(attacks.values())})


def _unreadable(uri: str, exc: Exception) -> JobError:
    return JobError(f"target_image='{uri}' cannot be read: {exc}", remedy="name an image file that exists")
