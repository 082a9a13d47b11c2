"""One attack on the answers of a job: search, ask again on fresh noise, compare with what was certified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from smoothcert.answerers.base import Answerer
from smoothcert.answerers.pretrained import PretrainedAnswerer
from smoothcert.attacks import BareSubject, SmoothedSubject, Subject, make_attack
from smoothcert.attacks.base import check_norm
from smoothcert.attacks.noise import NoiseKey
from smoothcert.attacks.objectives.answer import AnswerObjective
from smoothcert.attacks.records import AttackOutcome
from smoothcert.attacks.token_subject import TokenRule, TokenSubject
from smoothcert.datasets import Pair
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.defences import defend
from smoothcert.encoders import Encoder
from smoothcert.errors import EncodeError, JobError, PairError
from smoothcert.job.answer import AnswerSection
from smoothcert.job.answer_attack import ON_FEATURES, AnswerAttackSection, SubjectName
from smoothcert.job.attacks import ENSEMBLES
from smoothcert.store import RunDirectory
from smoothcert.store.tables.answers import ANSWERS
from smoothcert.work.answer.asking import AskedPair
from smoothcert.work.answer.attacked_rows import AttackedAnswerRow, AttackedAnswerRowMaker, Certified
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.answer.judging import Judge, Judged
from smoothcert.work.attack.goal import Goal, ReadyPair
from smoothcert.work.attack.inputs import AttackInputs
from smoothcert.work.attack.metered import Meter, MeteredSubject
from smoothcert.work.committed import CommittedRows
from smoothcert.work.inputs import Inputs

_OF_VOTES = ("unit_id", "pair_id", "status", "answer_id", "question_id", "subject", "answer", "vote_radius")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question about one pair, with its place among the pairs of the batch."""

    place: int
    pair: Pair
    question: ImageQuestion

    @property
    def name(self) -> str:
        return f"{self.pair.pair_id}\x1f{self.question.question_id}"


class AnswerAttacker:
    """Attacks groups of pairs, and makes their rows.

    Args:
        inputs: of the job.
        section: the attack, its contents filled in.
        meter: counts images and answers, and ends the work.
        run: where certified answers are; None where nothing is to be joined.

    Raises:
        JobError: a setting is wrong, or image sizes do not fit.
        EncoderError: an encoder cannot be loaded.
    """

    def __init__(
        self, inputs: Inputs, section: AnswerAttackSection, meter: Meter, run: RunDirectory | None
    ) -> None:
        self._job, self._section, self._meter, self._run = inputs.job, section, meter, run
        named = inputs.share(AnswerInputs)
        self._named, self._answer, self._answerer = named, named.section, named.answerer
        self._features = inputs.share(AttackInputs)
        self._features.refuse_others(section)
        settings: dict[str, Any] = dict(section.settings)
        for name in ("steps", "restarts"):
            if getattr(section, name) is not None:
                settings[name] = getattr(section, name)
        surrogates = self._features.surrogates(section)
        if section.attack in ENSEMBLES:
            settings["surrogates"] = surrogates
        self._searched = (
            surrogates[0] if surrogates and section.attack not in ENSEMBLES else self._features.certified
        )
        if section.objective in ON_FEATURES and self._searched.input_size != self._answerer.input_size:
            raise JobError(
                f"answer.attacks: encoder '{self._searched.name}' takes images of {self._searched.input_size}, "
                f"answer.model '{self._answerer.name}' of {self._answerer.input_size}, so a perturbation of one does "
                "not fit the other",
                remedy="use the model's own tower as encoder.model, or objective: answer",
            )
        self._attack = make_attack(section.attack, **settings)
        check_norm(section.attack, section.norm, self._attack.norms)
        self._judge = Judge(
            named.of,
            meter,
            sigma=self._job.certify.sigma,
            smooth_draws=self._answer.smooth_draws,
            vote_draws=section.evaluate_draws,
            classes=self._answer.vote.classes,
            batch=self._answer.batch,
        )
        _refuse_long_target(self._answer, self._answerer, section.target_answer)
        self.maker = AttackedAnswerRowMaker(self._job, self._answer, section, named)

    def check(self, asked: AskedPair) -> None:
        """Raise ``JobError`` or ``EncoderError`` where the attack cannot do what is asked, without searching."""
        images = self._pixels([asked])
        for rule in self._section.subjects:
            subject, objective, _ = self._goal(rule, [asked], images, _each_question([asked])[:1])
            for each in self._attack.differentiated(subject):
                each.check_gradients()
            self._attack.check(subject, objective, self._section.norm)

    def rows(self, asked: Sequence[AskedPair]) -> list[list[AttackedAnswerRow]]:
        """Rows of each pair: for every subject, budget and question.

        Raises:
            FloatingPointError: the model gave NaN or infinity.
        """
        images = self._pixels(asked)
        each = _each_question(asked)
        certified = self._certified(asked)
        rows: list[list[AttackedAnswerRow]] = [[] for _ in asked]
        for rule in self._section.subjects:
            subject, objective, clean = self._goal(rule, asked, images, each)
            for budget in self._section.budgets:
                found, perturbed = self._search(subject, objective, images, asked, each, budget)
                judged = self._judge_at(rule, perturbed, each, ("attacked", repr(budget)))
                for number, one in enumerate(each):
                    record = found.records[number if self._per_question else one.place]
                    if record.error:
                        raise FloatingPointError(record.error)
                    rows[one.place].append(
                        self.maker.row(
                            one.pair,
                            one.question,
                            record,
                            (clean[number], judged[number]),
                            certified.get(one.name) if rule == "vote" else None,
                        )
                    )
        return rows

    def quarantined(self, pair: Pair, error: PairError) -> list[AttackedAnswerRow]:
        """The rows of a pair that cannot be attacked: one for each subject and budget."""
        return self.maker.quarantined(pair, error)

    @property
    def _per_question(self) -> bool:
        """Whether each question has a perturbation of its own."""
        return self._section.objective not in ON_FEATURES

    def _goal(
        self, rule: SubjectName, asked: Sequence[AskedPair], images: torch.Tensor, each: Sequence[_Asked]
    ) -> tuple[Subject, Any, list[Judged]]:
        """What is searched, what for, and what is answered without attack."""
        clean = self._judge_at(rule, images[[one.place for one in each]], each, ("clean",))
        chunk = self._job.encoder.slots * self._job.encoder.chunk
        sigma, draws = self._job.certify.sigma, self._section.eot_draws
        if not self._per_question:
            searched = self._searched_for(rule)
            subject: Subject = (
                BareSubject(searched, chunk=chunk)
                if rule == "bare"
                else SmoothedSubject(searched, sigma, eot_draws=draws, chunk=chunk, name=rule)
            )
            goal = Goal(self._section.on_features(), self._searched, self._features)
            ready = [ReadyPair(replace(one.pair, image=None, error=None), one.pixels) for one in asked]
            return MeteredSubject(subject, self._meter), goal.objective(ready, images), clean
        answerer = self._named.of(rule)
        assert isinstance(answerer, PretrainedAnswerer), "endpoints are refused where the job is read"
        if self._section.target_answer is not None:
            texts = [answerer.spell(self._section.target_answer)] * len(each)
        else:
            # who says nothing at all is to say something: leave the end token
            texts = [list(judged.ids) or answerer.spell("") for judged in clean]
        forced = answerer.force([one.question.question for one in each], texts)
        tokens = answerer.image_tokens(images[:1])
        objective = AnswerObjective(
            forced.ids,
            forced.answer,
            answerer.scores,
            (tokens.shape[1], tokens.shape[2]),
            self._section.target_answer is not None,
        )
        how: TokenRule = "smoothed" if rule == "defended" else rule
        subject = TokenSubject(answerer.eye, how, sigma=sigma, eot_draws=draws, chunk=chunk, name=rule)
        return MeteredSubject(subject, self._meter), objective, clean

    def _searched_for(self, rule: SubjectName) -> Encoder:
        """The encoder whose features are moved: of a defended subject behind its defence, unless it is a surrogate."""
        defence = self._answer.defence
        if rule != "defended" or defence is None or self._searched is not self._features.certified:
            return self._searched
        return defend(self._searched, defence, defence.label, self._job.certify.sigma)

    def _search(
        self,
        subject: Subject,
        objective: Any,
        images: torch.Tensor,
        asked: Sequence[AskedPair],
        each: Sequence[_Asked],
        budget: float,
    ) -> tuple[AttackOutcome, torch.Tensor]:
        """What was found, and the image of each question."""
        places = [one.place for one in each]
        names = [one.name for one in each] if self._per_question else [one.pair.pair_id for one in asked]
        found = self._attack.run(
            subject,
            objective,
            images[places] if self._per_question else images,
            names,
            norm=self._section.norm,
            budget=budget,
            seed=self._section.seed,
        )
        return found, found.images if self._per_question else found.images[places]

    def _judge_at(
        self, rule: SubjectName, images: torch.Tensor, each: Sequence[_Asked], index: tuple[str, ...]
    ) -> list[Judged]:
        about = (*index, self.maker.attack_id)
        return self._judge.ask(
            rule,
            images,
            [one.question for one in each],
            [NoiseKey(self._section.seed, one.name, "evaluate", about) for one in each],
        )

    def _certified(self, asked: Sequence[AskedPair]) -> Mapping[str, Certified]:
        """What is certified about the questions of some pairs, by name."""
        if self._run is None or "vote" not in self._section.subjects or "vote" not in self._answer.subjects:
            return {}
        units: dict[str, list[str]] = {}
        for one in asked:
            units.setdefault(one.unit_id, []).append(one.pair.pair_id)
        rows = [row for unit, pairs in units.items() for row in self._votes.of(unit, pairs)]
        return {
            f"{row['pair_id']}\x1f{row['question_id']}": Certified(row["answer"], row["vote_radius"])
            for row in rows
            if row["subject"] == "vote"
            and row["answer_id"] == self._answer.answer_id
            and row["vote_radius"] is not None
        }

    @cached_property
    def _votes(self) -> CommittedRows:
        assert self._run is not None, "asked for without a run"
        return CommittedRows(self._run, ANSWERS, _OF_VOTES)

    def _pixels(self, asked: Sequence[AskedPair]) -> torch.Tensor:
        if not asked:
            raise EncodeError("there is no image")
        images = torch.stack([torch.from_numpy(one.pixels) for one in asked])
        return images.to(self._answerer.device).float() / 255


def _refuse_long_target(answer: AnswerSection, answerer: Answerer, target: str | None) -> None:
    if target is None or not isinstance(answerer, PretrainedAnswerer):
        return
    tokens = len(answerer.spell(target))
    if tokens > answer.max_new_tokens:
        raise JobError(
            f"answer.attacks: target_answer {target[:80]!r} takes {tokens} tokens with its end, but answers are cut at "
            f"answer.max_new_tokens={answer.max_new_tokens}",
            remedy=f"set answer.max_new_tokens to {tokens} or more, or shorten the target",
        )


def _each_question(asked: Sequence[AskedPair]) -> list[_Asked]:
    return [
        _Asked(place, one.pair, question) for place, one in enumerate(asked) for question in one.questions
    ]
