"""From answers under attack to rows of the table ``attacked_answers``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from smoothcert.answerers.metrics import contained_match
from smoothcert.answerers.normalising import normalise
from smoothcert.attacks.records import AttackRecord
from smoothcert.datasets import Pair
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.engine.pair_row import failure_fields, pair_fields
from smoothcert.errors import PairError
from smoothcert.job import Job
from smoothcert.job.answer import AnswerSection
from smoothcert.job.answer_attack import AnswerAttackSection
from smoothcert.statistics import lower_bound
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.answer.judging import Judged
from smoothcert.work.answer.question_row import QuestionRow, model_fields, question_fields
from smoothcert.work.answer.vote import RIGHT, class_of


@dataclass(frozen=True, slots=True)
class Certified:
    """A certified answer: the class, and the l2 radius within which it stays."""

    answer: str
    radius: float


@dataclass(frozen=True, kw_only=True)
class AttackedAnswerRow(QuestionRow):
    """One question to one pair and subject under one attack. Columns are documented in ``schemas/``."""

    attack_id: str
    attack: str
    norm: str
    budget: float
    objective: str
    target_answer: str | None
    clean_answer: str | None = None
    changed: bool | None = None
    clean_right: bool | None = None
    right: bool | None = None
    success: bool | None = None
    perturbation_l2: float | None = None
    perturbation_linf: float | None = None
    queries: int = 0
    eot_draws: int = 0
    certified_share_ucb: float | None = None
    violation: bool | None = None
    alpha: float

    @property
    def passes(self) -> int:
        """Images behind it."""
        return self.queries + 2 * self.draws


class AttackedAnswerRowMaker:
    """Rows of one attack on answers.

    Args:
        job: the job.
        answer: its section ``answer``.
        section: the attack.
        named: answerer and questions.
    """

    def __init__(
        self, job: Job, answer: AnswerSection, section: AnswerAttackSection, named: AnswerInputs
    ) -> None:
        self._section, self._classes = section, answer.vote.classes
        self._sigma = job.certify.sigma
        self.attack_id = answer.attack_task_id(section)
        self._fixed: dict[str, Any] = {
            "attack_id": self.attack_id,
            "answer_id": answer.answer_id,
            "attack": section.attack,
            "norm": section.norm,
            "objective": section.objective,
            "target_answer": section.target_answer,
            "alpha": section.alpha,
            "seed": section.seed,
        }
        self._models: dict[str, dict[str, Any]] = {
            name: model_fields(named.of(name), named.questions.digest) for name in section.subjects
        }

    def row(
        self,
        pair: Pair,
        question: ImageQuestion,
        record: AttackRecord,
        judged: tuple[Judged, Judged],
        certified: Certified | None,
    ) -> AttackedAnswerRow:
        """The row of one question.

        Args:
            pair: the pair.
            question: about it.
            record: what the search did.
            judged: what was answered without attack and under it.
            certified: what is certified of it, where it was put to the vote.
        """
        rule = record.subject
        before, after = (self._right(rule, each.answer, question) for each in judged)
        clean, attacked = (each.answer for each in judged)
        changed = normalise(clean) != normalise(attacked)
        return AttackedAnswerRow(
            subject=rule,
            budget=record.budget,
            clean_answer=clean,
            answer=attacked,
            changed=changed,
            clean_right=before,
            right=after,
            success=self._success(clean, attacked, (before, after), changed),
            perturbation_l2=record.perturbation_l2,
            perturbation_linf=record.perturbation_linf,
            queries=record.queries,
            sigma=0.0 if rule == "bare" else self._sigma,
            eot_draws=record.eot_draws,
            draws=judged[1].draws,
            **pair_fields(pair),
            **question_fields(question),
            **self._against(certified, record.perturbation_l2, judged[1], question),
            **self._fixed,
            **self._models[rule],
        )

    def quarantined(self, pair: Pair, error: PairError) -> list[AttackedAnswerRow]:
        """The rows of a pair that cannot be attacked: one for each subject and budget."""
        return [
            AttackedAnswerRow(
                subject=subject,
                budget=budget,
                **failure_fields(pair, error),
                **self._fixed,
                **self._models[subject],
            )
            for subject in self._section.subjects
            for budget in self._section.budgets
        ]

    def _right(self, rule: str, answer: str, question: ImageQuestion) -> bool | None:
        if not question.answers:
            return None
        if rule == "vote" and self._classes == "right":
            return answer == RIGHT
        return contained_match(question.meant(answer), question.answers)

    def _success(
        self, clean: str, attacked: str, right: tuple[bool | None, bool | None], changed: bool
    ) -> bool | None:
        target = self._section.target_answer
        if target is not None:
            wanted = normalise(target)
            return None if normalise(clean) == wanted else normalise(attacked) == wanted
        if right[0] is None:
            return changed
        return not right[1] if right[0] else None

    def _against(
        self, certified: Certified | None, distance: float, judged: Judged, question: ImageQuestion
    ) -> dict[str, Any]:
        """The outcome beside what was certified."""
        if certified is None:
            return {}
        others = [
            class_of(question.meant(text), self._classes, question.answers) != certified.answer
            for text in judged.texts
        ]
        share = np.asarray(others, dtype=np.float64)
        most = 1.0 - float(lower_bound(share, self._section.alpha, "clopper_pearson"))
        beaten = most < 0.5 if distance <= certified.radius else None
        return {"vote_radius": certified.radius, "certified_share_ucb": most, "violation": beaten}
