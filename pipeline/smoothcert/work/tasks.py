"""From a job to its tasks, in the phases that follow each other: one line for each kind of work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smoothcert.job import Job
from smoothcert.work.answer.attack_task import AnswerAttackTask
from smoothcert.work.answer.inputs import with_answer_contents
from smoothcert.work.answer.task import AnswerTask
from smoothcert.work.attack.inputs import with_contents
from smoothcert.work.attack.task import AttackTask
from smoothcert.work.certify.task import CertifyTask
from smoothcert.work.inputs import Inputs
from smoothcert.work.task import Task


@dataclass(frozen=True)
class Phase:
    """Tasks whose units may run beside each other, after those of earlier phases are done.

    Attributes:
        name: what people read.
        tasks: in the order in which their units are begun.
    """

    name: str
    tasks: tuple[Task, ...]

    def draws_per_pair(self, inputs: Inputs) -> float:
        """Mean over its tasks of what a pair takes; a first estimate."""
        return sum(task.draws_per_pair(inputs) for task in self.tasks) / len(self.tasks)


def _certification(job: Job) -> Phase:
    return Phase("certification", (CertifyTask(),))


def _attacks(job: Job) -> Phase:
    return Phase("attacks", tuple(AttackTask(section, number) for number, section in enumerate(job.attacks)))


def _answers(job: Job) -> Phase:
    return Phase("answers", (AnswerTask(job.answer),) if job.answer else ())


def _attacked_answers(job: Job) -> Phase:
    attacks = () if job.answer is None else job.answer.attacks
    return Phase(
        "attacked answers",
        tuple(AnswerAttackTask(job.answer, each) for each in attacks if job.answer is not None),
    )


PHASES: list[Callable[[Job], Phase]] = [_certification, _attacks, _answers, _attacked_answers]
"""The phases of every job, in order; a phase without tasks is left out."""


def phases_of(job: Job) -> tuple[Phase, ...]:
    """All tasks of a job, its contents filled in by ``resolve``."""
    return tuple(phase for make in PHASES if (phase := make(job)).tasks)


def resolve(inputs: Inputs) -> Job:
    """The job of some inputs, with the contents of whatever its tasks name filled in: then each has its identity.

    Raises:
        JobError: a content given in the job is another one here, or two tasks turn out to be one.
        EncoderError: an encoder cannot be loaded.
    """
    return with_answer_contents(inputs, with_contents(inputs))
