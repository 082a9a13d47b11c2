"""One attack of a job, ready to run on batches of prepared pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from smoothcert.attacks import (
    AttackRecord,
    AttackScore,
    BareSubject,
    Objective,
    SmoothedSubject,
    Subject,
    check_transfer,
    draw_clean,
    make_attack,
    score,
)
from smoothcert.attacks.base import check_norm
from smoothcert.datasets import Pair, decode_image
from smoothcert.defences import DefendedEncoder
from smoothcert.encoders import Encoder
from smoothcert.engine.cores import Crew
from smoothcert.errors import CaptionError, DecodeError, JobError, LabelError, PairError
from smoothcert.job import Job
from smoothcert.job.attacks import ENSEMBLES, AttackSection
from smoothcert.work.attack.certified import Claims
from smoothcert.work.attack.goal import Goal, ReadyPair
from smoothcert.work.attack.inputs import AttackInputs
from smoothcert.work.attack.metered import Meter, MeteredSubject

_PROBING_DRAWS = 8
"""Draws of a reference when it is only to be seen whether there is one."""
_NO_REFERENCE = "the encoder returned NaN or infinity for the clean image under noise"


@dataclass(frozen=True, slots=True)
class JudgedAttack:
    """One attack on one pair, on one subject, at one budget.

    Attributes:
        record: what the search did.
        score: how it was judged on fresh draws.
        image: float32 (3, H, W), the perturbed canonical input.
    """

    record: AttackRecord
    score: AttackScore
    image: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Front:
    """One subject of an attack.

    Attributes:
        subject: what is judged.
        goal: the objective there.
        searched: what the search sees: the subject itself, a surrogate like it, or itself with other gradients.
        searched_goal: the objective there.
    """

    subject: MeteredSubject
    goal: Goal
    searched: MeteredSubject
    searched_goal: Goal


class Attacker:
    """Runs one attack of a job.

    Args:
        job: the job.
        section: which of its attacks, its contents filled in.
        inputs: encoders, texts and targets.
        meter: counts images and stops the work.

    Raises:
        JobError: a setting is wrong, or the target cannot be read, or a surrogate has another input size.
        EncoderError: an encoder cannot be loaded.
        RunDirectoryError: something that the attack names has another content here.
    """

    def __init__(self, job: Job, section: AttackSection, inputs: AttackInputs, meter: Meter) -> None:
        inputs.refuse_others(section)
        self.section = section
        self._job = job
        self._encoder = inputs.certified
        texts = inputs.texts(inputs.certified)
        self._labels = texts.labels
        self._pool = frozenset(texts.pool_captions)
        self._rank = texts.retrieval_k
        self._meter = meter
        self._crew = Crew() if inputs.certified.device.type == "cpu" else None
        settings: dict[str, Any] = dict(section.settings)
        for name in ("steps", "restarts"):
            value = getattr(section, name)
            if value is not None:
                settings[name] = value
        self.surrogates = inputs.surrogates(section)
        if section.attack in ENSEMBLES:
            settings["surrogates"] = self.surrogates
        self._attack = make_attack(section.attack, **settings)
        check_norm(section.attack, section.norm, self._attack.norms)
        goals: dict[Encoder, Goal] = {}
        fronts = []
        for name in section.subjects:
            subject = self._subject(name, inputs.encoder(name))
            searched = subject
            if self.surrogates and section.attack not in ENSEMBLES:
                check_transfer(self.surrogates[0], subject.encoder)
                searched = self._subject(name, self.surrogates[0])
            elif section.bpda:
                searched = self._subject(name, _straight_through(name, subject.encoder))
            for encoder in (subject.encoder, searched.encoder):
                if encoder not in goals:
                    goals[encoder] = Goal(section, encoder, inputs)
            fronts.append(_Front(subject, goals[subject.encoder], searched, goals[searched.encoder]))
        self._fronts = tuple(fronts)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """What is judged, in the section's order."""
        return tuple(front.subject for front in self._fronts)

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
        self.need_texts(pair)
        without_bytes = replace(pair, image=None, error=None)
        return ReadyPair(without_bytes, pixels)

    def need_texts(self, pair: Pair) -> None:
        """Raise ``CaptionError`` or ``LabelError`` where a pair lacks the texts that the objective needs.

        Of every pair alike: what a success is must not depend on the pairs beside it.
        """
        section = self.section
        if (section.objective in ("caption", "retrieval") or section.target_caption) and not pair.captions:
            raise CaptionError(f"objective '{section.objective}' needs a caption, but this pair has none")
        if section.resolved_reference == "label" and pair.label not in self._labels:
            raise LabelError(
                f"objective 'classification' needs a label that zero_shot.labels names; this pair's is {pair.label!r}"
            )
        if section.objective == "retrieval":
            others = len(self._pool) - len(self._pool.intersection(pair.captions))
            if others < self._rank:
                raise CaptionError(
                    f"objective 'retrieval': all but {others} captions of the pool are this pair's own, too few "
                    f"to lose rank k={self._rank}",
                    remedy="raise retrieval.candidates or lower retrieval.k",
                )

    def check_gradients(self) -> None:
        """Raise ``EncoderError`` where the search needs gradients and an encoder gives none; needs no pair."""
        for front in self._fronts:
            for each in self._attack.differentiated(front.searched):
                each.check_gradients()

    def check(self, pairs: Sequence[ReadyPair]) -> None:
        """Raise ``JobError`` or ``EncoderError`` where the attack cannot do what is asked, before any work."""
        images = self._images(pairs)
        for front in self._fronts:
            _, objective, _ = self._objectives(front, pairs, images, _PROBING_DRAWS)
            self._attack.check(front.searched, objective, self.section.norm)

    def run(
        self, pairs: Sequence[ReadyPair], claims: Mapping[str, Claims] = MappingProxyType({})
    ) -> Iterator[tuple[str, float, tuple[JudgedAttack, ...]]]:
        """Attack a batch: (subject, budget, one outcome a pair) for every subject and budget.

        The same pairs serve every subject. Searching draws noise from the stream ``attack``, judging from
        ``evaluate``, each budget with draws of its own.

        Args:
            pairs: the batch.
            claims: what is certified, by pair; it says which class an outcome is judged about.
        """
        section = self.section
        images = self._images(pairs)
        names = [ready.pair.pair_id for ready in pairs]
        for front in self._fronts:
            subject = front.subject
            objective, wanted, known = self._objectives(front, pairs, images, section.evaluate_draws)
            held = [claims[name] if name in claims else None for name in names]
            held = [claim if claim is not None and claim.about(subject) else None for claim in held]
            labels = [None if claim is None else claim.label for claim in held]
            voted = [None if claim is None else claim.voted for claim in held]
            texts = front.goal.references(pairs, labels, voted)
            clean = draw_clean(subject, images, names, seed=section.seed, draws=section.evaluate_draws)
            for budget in section.budgets:
                found = self._attack.run(
                    front.searched,
                    wanted,
                    images,
                    names,
                    norm=section.norm,
                    budget=budget,
                    seed=section.seed,
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
                    texts=texts,
                )
                scores = tuple(
                    each if usable else replace(each, error=each.error or _NO_REFERENCE)
                    for each, usable in zip(scores, known, strict=True)
                )
                outcomes = zip(found.records, scores, found.images, strict=True)
                yield subject.name, budget, tuple(JudgedAttack(*each) for each in outcomes)

    def _objectives(
        self, front: _Front, pairs: Sequence[ReadyPair], images: torch.Tensor, draws: int
    ) -> tuple[Objective, Objective, list[bool]]:
        """What counts as success, the same where the search looks, and which pairs have a reference to leave.

        A surrogate is to leave the class that the subject predicts, but the feature that is its own.

        Raises:
            FloatingPointError: a surrogate gives no reference; the subject is not at fault.
        """
        reference = front.goal.reference(pairs, images, front.subject, draws)
        left = front.goal.classes_left(pairs, reference)
        judged = wanted = front.goal.objective(pairs, images, reference, left)
        if front.searched is not front.subject:
            own = front.searched_goal.reference(pairs, images, front.searched, draws)
            if own is not None and not bool(torch.isfinite(own).all()):
                raise FloatingPointError("the surrogate gave NaN or infinity for the clean image")
            wanted = front.searched_goal.objective(pairs, images, own, left)
        if reference is None:
            return judged, wanted, [True] * len(pairs)
        return judged, wanted, [bool(torch.isfinite(each).all()) for each in reference]

    def close(self) -> None:
        """Let go of the threads that computed."""
        if self._crew is not None:
            self._crew.close()

    def class_name(self, number: int | None) -> str | None:
        """The label of a class number."""
        return None if number is None else self._labels[number]

    def _images(self, pairs: Sequence[ReadyPair]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack([ready.pixels for ready in pairs]))
        return pixels.to(self._encoder.device).to(torch.float32) / 255

    def _subject(self, name: str, encoder: Encoder) -> MeteredSubject:
        chunk = self._job.encoder.slots * self._job.encoder.chunk
        subject: Subject
        if name == "bare":
            subject = BareSubject(encoder, chunk=chunk)
        else:
            sigma, draws = self._job.certify.sigma, self.section.eot_draws
            subject = SmoothedSubject(encoder, sigma, eot_draws=draws, chunk=chunk, name=name)
        return MeteredSubject(subject, self._meter, self._crew)


def _straight_through(subject: str, encoder: Encoder) -> Encoder:
    if not isinstance(encoder, DefendedEncoder) or encoder.purifier is None:
        raise JobError(
            f"attacks: bpda skips the gradient of a purifier, and subject '{subject}' has none",
            remedy="leave that subject out of the attack's subjects, or remove bpda",
        )
    return encoder.straight_through()
