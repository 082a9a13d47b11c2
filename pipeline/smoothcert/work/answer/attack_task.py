"""An attack on answers as a task: pairs in, a row of ``attacked_answers`` out for each question, subject, budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from smoothcert.datasets import Pair, Source, UnitSpec, decode_image
from smoothcert.engine.pair_row import of_unit
from smoothcert.errors import PairError
from smoothcert.job.answer import AnswerSection
from smoothcert.job.answer_attack import ON_FEATURES, AnswerAttackSection
from smoothcert.store import RunDirectory, TableSchema
from smoothcert.store.asked import AskedTask, note_asked
from smoothcert.store.tables.answers import ANSWERS
from smoothcert.store.tables.attacked_answers import ATTACKED_ANSWERS
from smoothcert.work.answer.asking import AskedPair
from smoothcert.work.answer.attacked_rows import AttackedAnswerRow
from smoothcert.work.answer.attacking import AnswerAttacker
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.answer.task import keep_answers
from smoothcert.work.answer.worker import AnswerWorker
from smoothcert.work.attack.metered import Meter
from smoothcert.work.inputs import Inputs

_LOOKED_AT = 64
"""Pairs among which one is looked for to try the attack on."""


@dataclass(frozen=True)
class AnswerAttackTask:
    """Makes one attack on the answers about every pair.

    Attributes:
        answer: the section of the questions, its contents filled in.
        section: the attack, its contents filled in.
    """

    answer: AnswerSection
    section: AnswerAttackSection
    table: ClassVar[TableSchema] = ATTACKED_ANSWERS

    @property
    def task_id(self) -> str:
        """See ``Task.task_id``."""
        return self.answer.attack_task_id(self.section)

    @property
    def name(self) -> str:
        """See ``Task.name``."""
        return f"answers under {self.section.attack} {self.section.norm} {self.task_id}"

    def draws_per_pair(self, inputs: Inputs) -> float:
        """See ``Task.draws_per_pair``: images of searches, which stop early where they succeed, and answers."""
        section, budgets = self.section, len(self.section.budgets)
        questions = inputs.share(AnswerInputs).questions.per_image
        searches = 1.0 if section.objective in ON_FEATURES else questions
        images = sum(1 if name == "bare" else section.eot_draws for name in section.subjects)
        answers = sum(section.evaluate_draws if name == "vote" else 1 for name in section.subjects)
        return searches * (section.steps or 100) * images * budgets + questions * answers * (1 + budgets)

    @property
    def rests_on(self) -> TableSchema | None:
        """See ``Task.rests_on``: votes are held against what was certified of them."""
        return ANSWERS if "vote" in self.section.subjects and "vote" in self.answer.subjects else None

    def check(self, inputs: Inputs, source: Source, units: Sequence[UnitSpec]) -> None:
        """See ``Task.check``: the attack is tried out on a question, without searching."""
        named = inputs.share(AnswerInputs)
        attacker = AnswerAttacker(inputs, self.section, Meter(named.answerer.device), None)
        if self.answer.endpoint is not None:
            return  # a question there may cost money
        for pair in itertools.islice((pair for unit in units for pair in source.read(unit)), _LOOKED_AT):
            questions = named.questions.of(pair.pair_id, pair.image_name)
            if not questions or pair.error is not None:
                continue
            try:
                image = decode_image(pair.image or b"", max_pixels=inputs.job.data.max_pixels)
                pixels = np.ascontiguousarray(named.answerer.prepare(image))
            except PairError:
                continue
            attacker.check(AskedPair(pair, pixels, questions[:1]))
            return

    def begin(self, run: RunDirectory) -> None:
        """See ``Task.begin``."""
        section = {
            "answer_attack": self.section.model_dump(mode="json"),
            "answer": self.answer.model_dump(mode="json", exclude={"attacks"}),
        }
        note_asked(run, AskedTask(self.task_id, self.name, section))

    def open(self, inputs: Inputs, run: RunDirectory) -> AnswerWorker:
        """See ``Task.open``.

        Raises:
            RunDirectoryError: what is named here is not what the driver saw.
        """
        named = inputs.share(AnswerInputs)
        named.refuse_others(self.answer)
        keep_answers(named, run)
        meter = Meter(named.answerer.device)
        attacker = AnswerAttacker(inputs, self.section, meter, run)
        return AnswerWorker(inputs, named, self.answer, attacker, meter)

    def quarantine(
        self, inputs: Inputs, unit_id: str, pair: Pair, error: PairError
    ) -> list[AttackedAnswerRow]:
        """See ``Task.quarantine``: one row for each subject and budget."""
        named = inputs.share(AnswerInputs)
        attacker = AnswerAttacker(inputs, self.section, Meter(named.answerer.device), None)
        return of_unit(attacker.quarantined(pair, error), unit_id)

    def end(self, run: RunDirectory) -> list[str]:
        """See ``Task.end``."""
        return []
