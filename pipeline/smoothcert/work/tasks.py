"""From a job to its tasks, in the phases that follow each other: one line for each kind of work."""

from __future__ import annotations

from dataclasses import dataclass

from smoothcert.job import Job
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


def phases_of(job: Job) -> tuple[Phase, ...]:
    """All tasks of a job, its contents filled in by ``resolve``; empty phases are left out."""
    certify = job.certify
    phases = (
        Phase("certification", (CertifyTask(certify.pilot_draws + certify.max_draws),)),
        Phase("attacks", tuple(AttackTask(section, number) for number, section in enumerate(job.attacks))),
    )
    return tuple(phase for phase in phases if phase.tasks)


def resolve(inputs: Inputs) -> Job:
    """The job of some inputs, with the contents of whatever its tasks name filled in: then each has its identity.

    Raises:
        JobError: a content given in the job is another one here, or two tasks turn out to be one.
        EncoderError: an encoder cannot be loaded.
    """
    return with_contents(inputs)
