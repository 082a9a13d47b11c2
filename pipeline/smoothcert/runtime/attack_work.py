"""One attack of a job, ready to run on batches of prepared pairs; and everything checked before any work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.attacks import (
    AttackRecord,
    AttackScore,
    BareSubject,
    Objective,
    ObjectiveInputs,
    SmoothedSubject,
    Subject,
    build_objective,
    draw_clean,
    make_attack,
    score,
)
from smoothcert.attacks.base import check_norm
from smoothcert.datasets import Pair, Source, UnitSpec, decode_image
from smoothcert.encoders import Encoder
from smoothcert.engine import Texts
from smoothcert.engine.texts import CaptionFeatures, features_of
from smoothcert.errors import CaptionError, DecodeError, JobError, LabelError, PairError
from smoothcert.job import Job
from smoothcert.job_attacks import AttackSection
from smoothcert.runtime.metered import Meter, MeteredSubject

_PROBED = 16
"""Pairs looked at before work starts, to see whether the source has what an objective needs."""


@dataclass(frozen=True, slots=True)
class ReadyPair:
    """A pair whose canonical input is at hand.

    Attributes:
        pair: without image bytes.
        pixels: uint8 (3, H, W), the canonical input times 255.
    """

    pair: Pair
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attack on one pair, on one subject, at one budget.

    Attributes:
        record: what the search did.
        score: how it was judged on fresh draws.
        image: float32 (3, H, W), the perturbed canonical input.
    """

    record: AttackRecord
    score: AttackScore
    image: torch.Tensor


class Attacker:
    """Runs one attack of a job.

    Args:
        job: the job.
        section: which of its attacks.
        encoder: the base encoder.
        texts: class and pool references.
        meter: counts images and stops the work.

    Raises:
        JobError: a setting is wrong, or the target cannot be read.
    """

    def __init__(
        self, job: Job, section: AttackSection, encoder: Encoder, texts: Texts, meter: Meter
    ) -> None:
        self.section = section
        self._job = job
        self._encoder = encoder
        self._texts = texts
        self._captions = CaptionFeatures(encoder)
        settings: dict[str, Any] = dict(section.settings)
        for name in ("steps", "restarts"):
            value = getattr(section, name)
            if value is not None:
                settings[name] = value
        self._attack = make_attack(section.attack, **settings)
        check_norm(section.attack, section.norm, self._attack.norms)
        chunk = job.encoder.slots * job.encoder.chunk
        subjects: dict[str, Subject] = {
            "bare": BareSubject(encoder, chunk=chunk),
            "smoothed": SmoothedSubject(encoder, job.certify.sigma, eot_draws=section.eot_draws, chunk=chunk),
        }
        self.subjects = tuple(MeteredSubject(subjects[name], meter) for name in section.subjects)
        self._target_image = self._read_target() if section.target_image is not None else None

    def ready(self, pair: Pair) -> ReadyPair:
        """Decode a pair and check that it has what the objective needs.

        Raises:
            PairError: it cannot be attacked.
        """
        if pair.error is not None:
            raise pair.error
        image = decode_image(pair.image or b"", max_pixels=self._job.data.max_pixels)
        try:
            pixels = np.ascontiguousarray(self._encoder.prepare(image))
        except PairError:
            raise
        except Exception as exc:
            raise DecodeError(f"{type(exc).__name__} while preparing the image: {exc}") from exc
        if self.section.objective in ("caption", "retrieval") and not pair.captions:
            raise CaptionError(f"objective '{self.section.objective}' needs a caption, which this pair lacks")
        if self.section.objective == "classification" and pair.label not in self._texts.labels:
            raise LabelError(
                f"objective 'classification' needs a label that zero_shot.labels names; this pair's is {pair.label!r}"
            )
        without_bytes = Pair(pair.pair_id, pair.source_uri, None, pair.captions, pair.label, None)
        return ReadyPair(without_bytes, pixels)

    def objective(self, pairs: Sequence[ReadyPair], images: torch.Tensor) -> Objective:
        """The objective of a batch.

        Raises:
            JobError: the source or the job lacks what it needs.
        """
        section, device = self.section, self._encoder.device
        with torch.no_grad():
            clean = torch.cat([self._encoder.encode_images(image[None]) for image in images])
        captions = labels = targets = target_images = None
        if section.objective in ("caption", "retrieval") or section.target_caption is not None:
            found = self._captions.of([ready.pair.captions for ready in pairs if ready.pair.captions])
            if len(found) == len(pairs):
                captions = self._tensor(np.stack(found))
        if section.objective == "classification":
            known = [self._texts.labels.index(ready.pair.label or "") for ready in pairs]
            labels = torch.tensor(known, device=device)
        if section.target_caption is not None:
            target = features_of(self._encoder, [section.target_caption])
            targets = self._tensor(target).expand(len(pairs), -1)
        if self._target_image is not None:
            target_images = self._target_image.expand(len(pairs), -1, -1, -1)
            with torch.no_grad():
                targets = self._encoder.encode_images(self._target_image[None]).expand(len(pairs), -1)
        pool = rivals = None
        if section.objective == "retrieval":
            pool = self._tensor(self._texts.pool_features)
            own = [[c not in ready.pair.captions for c in self._texts.pool_captions] for ready in pairs]
            rivals = torch.tensor(own, device=device)
        inputs = ObjectiveInputs(
            clean=clean,
            captions=captions,
            labels=labels,
            class_features=self._tensor(self._texts.class_features) if self._texts.labels else None,
            targets=targets,
            target_images=target_images,
            targets_are_captions=section.target_caption is not None,
            pool=pool,
            rivals=rivals,
        )
        return build_objective(
            section.objective, inputs, threshold=section.resolved_threshold, k=self._texts.retrieval_k
        )

    def check(self, pairs: Sequence[ReadyPair]) -> None:
        """Raise ``JobError`` or ``EncoderError`` where the attack cannot do what is asked, before any work."""
        images = self._images(pairs)
        objective = self.objective(pairs, images)
        for subject in self.subjects:
            self._attack.check(subject, objective, self.section.norm)
            if self._attack.needs_gradients:
                subject.check_gradients(images[0])

    def run(self, pairs: Sequence[ReadyPair]) -> Iterator[tuple[str, float, tuple[Outcome, ...]]]:
        """Attack a batch: (subject, budget, one outcome a pair) for every subject and budget.

        The same pairs serve every subject. Searching draws noise from the stream ``attack``, judging from
        ``evaluate``, each budget with draws of its own.
        """
        section = self.section
        images = self._images(pairs)
        names = [ready.pair.pair_id for ready in pairs]
        objective = self.objective(pairs, images)
        for subject in self.subjects:
            clean = draw_clean(subject, images, names, seed=section.seed, draws=section.evaluate_draws)
            for budget in section.budgets:
                found = self._attack.run(
                    subject, objective, images, names, norm=section.norm, budget=budget, seed=section.seed
                )
                scores = score(
                    subject,
                    objective,
                    found.images,
                    clean,
                    attack=f"{section.attack}/{section.attack_id}/{budget!r}",
                    seed=section.seed,
                    draws=section.evaluate_draws,
                    alpha=section.alpha,
                )
                outcomes = zip(found.records, scores, found.images, strict=True)
                yield subject.name, budget, tuple(Outcome(*each) for each in outcomes)

    def class_name(self, number: int | None) -> str | None:
        """The label of a class number."""
        return None if number is None else self._texts.labels[number]

    def _images(self, pairs: Sequence[ReadyPair]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack([ready.pixels for ready in pairs]))
        return pixels.to(self._encoder.device).to(torch.float32) / 255

    def _tensor(self, features: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(self._encoder.device)

    def _read_target(self) -> torch.Tensor:
        uri = self.section.target_image or ""
        try:
            with fsspec.open(uri, "rb") as stream:
                image = decode_image(stream.read(), max_pixels=self._job.data.max_pixels)
            pixels = torch.from_numpy(np.ascontiguousarray(self._encoder.prepare(image)))
        except (OSError, ValueError, ImportError, PairError) as exc:
            raise JobError(
                f"target_image='{uri}' cannot be read: {exc}", remedy="name an image file that exists"
            ) from exc
        return pixels.to(self._encoder.device).to(torch.float32) / 255


def check_attacks(
    job: Job, encoder: Encoder, texts: Texts, source: Source, units: Sequence[UnitSpec]
) -> None:
    """Try out every attack of a job on a first pair, without searching.

    Raises:
        JobError: an attack cannot pursue its objective, or none of the first pairs has what it needs.
        EncoderError: an attack needs gradients, or patch features, and the encoder gives none.
    """
    probed = list(itertools.islice(_first_pairs(source, units), _PROBED))
    for number, section in enumerate(job.attacks):
        attacker = Attacker(job, section, encoder, texts, Meter())
        lacking: PairError | None = None
        for pair in probed:
            try:
                ready = attacker.ready(pair)
            except (CaptionError, LabelError) as exc:
                lacking = exc
            except PairError:
                continue  # this pair's own fault: it will be quarantined
            else:
                attacker.check([ready])
                break
        else:
            if lacking is not None:
                raise JobError(
                    f"attacks.{number} ({section.attack}): none of the first {len(probed)} pairs has what objective "
                    f"'{section.objective}' needs: {lacking}",
                    remedy="choose another objective, or name the column in data.columns",
                )


def _first_pairs(source: Source, units: Sequence[UnitSpec]) -> Iterator[Pair]:
    for unit in units:
        yield from source.read(unit.part(unit.start, min(unit.stop, unit.start + _PROBED)))
