"""Questions to every pair: the rows of the table ``answers``."""

from __future__ import annotations

from collections.abc import Sequence

from smoothcert.datasets import Pair
from smoothcert.errors import PairError
from smoothcert.job import Job
from smoothcert.job.answer import AnswerSection
from smoothcert.work.answer.asking import AskedPair, Asker
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.answer.model_metrics import ModelMetrics
from smoothcert.work.answer.rows import AnswerRow, AnswerRowMaker
from smoothcert.work.attack.metered import Meter

BATCHES = 4
"""Batches of questions that are asked together, so that answers of like length can share one."""


class Answering:
    """Asks groups of pairs, and makes their rows.

    Args:
        job: the job.
        named: its answerer and questions.
        section: what is asked, contents filled in.
        meter: counts the answers, and ends the work.
    """

    def __init__(self, job: Job, named: AnswerInputs, section: AnswerSection, meter: Meter) -> None:
        self._section = section
        self._askers = {name: Asker(job, section, named.of(name), meter) for name in section.subjects}
        self._maker = AnswerRowMaker(job, section, named)
        self._by_models = ModelMetrics(named.clip, named.judge)

    def rows(self, asked: Sequence[AskedPair]) -> list[list[AnswerRow]]:
        """Rows of each pair: for every subject and question."""
        rows: list[list[AnswerRow]] = [[] for _ in asked]
        for subject in self._section.subjects:
            if subject == "vote":
                all_votes = self._askers[subject].votes(asked)
                for place, (each, votes) in enumerate(zip(asked, all_votes, strict=True)):
                    rows[place] += [
                        self._maker.voted(each.pair, question, result, tokens)
                        for question, (result, tokens) in zip(each.questions, votes, strict=True)
                    ]
                continue
            asker = self._askers[subject]
            answers = (asker.bare if subject == "bare" else asker.smoothed)(asked)
            for place, (each, mine) in enumerate(zip(asked, answers, strict=True)):
                rows[place] += [
                    self._maker.answered(each.pair, question, subject, answer)
                    for question, answer in zip(each.questions, mine, strict=True)
                ]
        return self._by_models.fill(asked, rows)

    def quarantined(self, pair: Pair, error: PairError) -> list[AnswerRow]:
        """The rows of a pair that cannot be answered: one for each subject."""
        return self._maker.quarantined(pair, error)
