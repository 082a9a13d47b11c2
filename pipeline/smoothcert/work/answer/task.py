"""Questions as a task: pairs in, one row of the table ``answers`` out for each question and subject."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from smoothcert.answerers.endpoint import EndpointAnswerer
from smoothcert.answerers.judges import ServiceJudge
from smoothcert.datasets import Pair, Source, UnitSpec, decode_image
from smoothcert.datasets.questions import QuestionSet, about_other_pairs
from smoothcert.engine.pair_row import of_unit
from smoothcert.errors import JobError, PairError
from smoothcert.job.answer import AnswerSection
from smoothcert.store import RunDirectory, TableSchema
from smoothcert.store.asked import AskedTask, note_asked
from smoothcert.store.tables.answers import ANSWERS
from smoothcert.work.answer.answering import BATCHES, Answering
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.answer.rows import AnswerRow, AnswerRowMaker
from smoothcert.work.answer.worker import AnswerWorker
from smoothcert.work.attack.metered import Meter
from smoothcert.work.inputs import Inputs

KEPT = "answered"
"""Folder of a run with the answers of an endpoint, one file each."""
_LOOKED_AT = 256
"""Pairs of which one at least must have a question, or the file is taken for that of another split."""


def keep_answers(named: AnswerInputs, run: RunDirectory) -> None:
    """Keep what endpoints answer in the run, so that a resume never pays twice."""
    for asked in (named.answerer, named.judge):
        if isinstance(asked, EndpointAnswerer | ServiceJudge):
            asked.service.recall = lambda key: run.read_document(f"{KEPT}/{key[:2]}/{key}.json")
            asked.service.remember = lambda key, said: run.write_document(
                f"{KEPT}/{key[:2]}/{key}.json", said
            )


@dataclass(frozen=True)
class AnswerTask:
    """Asks a multimodal model the questions about every pair.

    Attributes:
        section: of the job, its contents filled in.
    """

    section: AnswerSection
    name: ClassVar[str] = "answers"
    table: ClassVar[TableSchema] = ANSWERS
    rests_on: ClassVar[TableSchema | None] = None

    @property
    def task_id(self) -> str:
        """See ``Task.task_id``."""
        return self.section.answer_id

    def draws_per_pair(self, inputs: Inputs) -> float:
        """See ``Task.draws_per_pair``: answers to the questions of a pair, at most."""
        vote = self.section.vote
        most = vote.pilot_draws + vote.max_draws
        answers = sum(most if subject == "vote" else 1 for subject in self.section.subjects)
        return answers * inputs.share(AnswerInputs).questions.per_image

    def check(self, inputs: Inputs, source: Source, units: Sequence[UnitSpec]) -> None:
        """See ``Task.check``: a question is answered, and some pair has one."""
        named = inputs.share(AnswerInputs)
        if isinstance(named.answerer, EndpointAnswerer):
            named.answerer.service.check()
        if named.judge is not None:
            named.judge.check()
        pairs = itertools.islice((pair for unit in units for pair in source.read(unit)), _LOOKED_AT)
        seen: list[str] = []
        for pair in pairs:
            seen.append(pair.pair_id)
            questions = named.questions.of(pair.pair_id, pair.image_name)
            if questions and pair.error is None and self._answers(inputs, named, pair, questions[0].question):
                self._refuse_unanswered(named.questions)
                return
        if seen:
            raise about_other_pairs(self.section, named.questions, seen)

    def _refuse_unanswered(self, questions: QuestionSet) -> None:
        """Raise ``JobError`` where what is asked for needs reference answers, and no question has any."""
        vote = self.section.vote
        asked = {
            "answer.vote.classes='right'": "vote" in self.section.subjects and vote.classes == "right",
            f"answer.vote.score='{vote.score}'": "vote" in self.section.subjects and vote.score is not None,
            "answer.judge": self.section.judge is not None,
        }
        needing = [name for name, is_asked in asked.items() if is_asked]
        if needing and questions.unanswered == len(questions):
            raise JobError(
                f"{needing[0]} needs reference answers, but none of the {len(questions):,} questions of "
                f"'{self.section.questions}' has one",
                remedy="name a file with answers (VQA has them in answer.annotations), or remove what needs them",
            )

    def _answers(self, inputs: Inputs, named: AnswerInputs, pair: Pair, question: str) -> bool:
        """Try the model out on one question; False where the image is at fault."""
        answerer = named.answerer
        if self.section.endpoint is not None:
            return True  # a question there may cost money
        try:
            image = decode_image(pair.image or b"", max_pixels=inputs.job.data.max_pixels)
            x = torch.from_numpy(np.ascontiguousarray(answerer.prepare(image)))[None].to(answerer.device)
        except PairError:
            return False
        try:
            answerer.answer(x.float() / 255, [question], [0])
        except (JobError, torch.OutOfMemoryError):
            raise
        except Exception as exc:  # whatever a model's own code raises
            raise JobError(
                f"answer.model='{self.section.model}' fails on the first question: {type(exc).__name__}: {exc}",
                remedy="check answer.template, and that the model works on its own",
            ) from exc
        return True

    def begin(self, run: RunDirectory) -> None:
        """See ``Task.begin``."""
        note_asked(
            run, AskedTask(self.task_id, self.name, self.section.model_dump(mode="json", exclude={"attacks"}))
        )

    def open(self, inputs: Inputs, run: RunDirectory) -> AnswerWorker:
        """See ``Task.open``.

        Raises:
            RunDirectoryError: model or questions here are not those of the driver.
        """
        named = inputs.share(AnswerInputs)
        named.refuse_others(self.section)
        keep_answers(named, run)
        meter = Meter(named.answerer.device)
        work = Answering(inputs.job, named, self.section, meter)
        return AnswerWorker(inputs, named, self.section, work, meter, batches=BATCHES)

    def quarantine(self, inputs: Inputs, unit_id: str, pair: Pair, error: PairError) -> list[AnswerRow]:
        """See ``Task.quarantine``: one row for each subject."""
        named = inputs.share(AnswerInputs)
        maker = AnswerRowMaker(inputs.job, self.section, named)
        return of_unit(maker.quarantined(pair, error), unit_id)

    def end(self, run: RunDirectory) -> list[str]:
        """See ``Task.end``."""
        return []
