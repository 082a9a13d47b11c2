"""What the questions of a job need besides pairs: the answerer and the questions, loaded once, and their content."""

from __future__ import annotations

from functools import cached_property

from smoothcert.answerers.base import Answerer
from smoothcert.answerers.judges import SimilarityJudge, load_judge
from smoothcert.answerers.loading import load_answerer
from smoothcert.answerers.pretrained import PretrainedAnswerer
from smoothcert.datasets.questions import QuestionSet, read_questions
from smoothcert.defences.defended_tower import defend_tower
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.errors import JobError, RunDirectoryError
from smoothcert.job import Job
from smoothcert.job.answer import AnswerSection
from smoothcert.job.answer_attack import AnswerAttackSection
from smoothcert.work.attack.inputs import AttackInputs
from smoothcert.work.inputs import Inputs


class AnswerInputs:
    """Loaded when first asked for.

    Args:
        inputs: of the job, which has a section ``answer``.
    """

    def __init__(self, inputs: Inputs) -> None:
        assert inputs.job.answer is not None, "asked for a job without questions"
        self._inputs = inputs
        self.section: AnswerSection = inputs.job.answer

    @cached_property
    def answerer(self) -> Answerer:
        """What answers.

        Raises:
            EncoderError, JobError: it cannot be loaded.
        """
        here = self._inputs.here(self._inputs.job.encoder)
        return load_answerer(self.section, here, self._inputs.encoder)

    @cached_property
    def defended(self) -> Answerer | None:
        """The same model behind the section's defence; None without.

        Raises:
            EncoderError: a part cannot be loaded, or does not fit the model.
        """
        if self.section.defence is None:
            return None
        answerer = self.answerer
        assert isinstance(answerer, PretrainedAnswerer), "endpoints are refused where the job is read"
        sigma = self._inputs.job.certify.sigma
        return answerer.behind(defend_tower(answerer.tower, self.section.defence, sigma))

    def of(self, subject: str) -> Answerer:
        """Who answers for a subject."""
        return self.defended if subject == "defended" and self.defended is not None else self.answerer

    @cached_property
    def clip(self) -> Encoder | None:
        """The encoder of the CLIP score; None without.

        Raises:
            EncoderError: it cannot be loaded.
            JobError: it has no text space.
        """
        section = self.section.clip_score
        if section is None:
            return None
        encoder = load_encoder(self._inputs.here(section))
        if not encoder.has_texts:
            raise JobError(
                f"answer.clip_score.model='{section.model}' has no texts to compare images with",
                remedy="name an encoder with a joint space, e.g. openai/clip-vit-base-patch32",
            )
        return encoder

    @cached_property
    def judge(self) -> SimilarityJudge | None:
        """Who judges how alike answers and references are; None without.

        Raises:
            EncoderError, JobError: it cannot be loaded, or has no key.
        """
        section = self.section.judge
        if section is None:
            return None
        if section.encoder is not None:
            section = section.model_copy(update={"encoder": self._inputs.here(section.encoder)})
        return load_judge(section)

    @cached_property
    def questions(self) -> QuestionSet:
        """What is asked.

        Raises:
            JobError, SourceError: the file cannot be used.
        """
        return read_questions(self.section)

    def contents(self) -> dict[str, str]:
        """SHA-256 of what the section names, as ``AnswerSection.contents`` keeps it."""
        found = {"questions": self.questions.digest, "template": self.answerer.template_digest}
        found["model"] = self.answerer.digest
        if self.defended is not None:
            found["defence"] = self.defended.digest
        if self.clip is not None:
            found["clip_score"] = self.clip.digest
        if self.judge is not None:
            found["judge"] = f"{self.judge.digest}@{self.judge.threshold!r}"
        return found

    def refuse_others(self, planned: AnswerSection) -> None:
        """Raise ``RunDirectoryError`` unless what the section names here is what the driver saw."""
        here = self.contents()
        for name, digest in planned.contents.items():
            if here.get(name) != digest:
                raise RunDirectoryError(
                    f"answer.{name} on this machine has digest {here.get(name, 'none')[:16]}, the job was planned with "
                    f"{digest[:16]}",
                    remedy="make the same files available to every worker",
                )


def with_answer_contents(inputs: Inputs, job: Job) -> Job:
    """The job, with the contents of its section ``answer`` filled in, so that the task has its identity.

    Raises:
        JobError: a content given in the job is another one here.
        EncoderError: the model cannot be loaded.
    """
    if job.answer is None:
        return job
    found = inputs.share(AnswerInputs).contents()
    for name, wanted in job.answer.contents.items():
        if found.get(name) != wanted:
            raise JobError(
                f"answer.contents.{name}='{wanted}', but it is '{found.get(name, 'nothing')}' here",
                remedy="restore the original file, or remove this line from the job",
            )
    attacks = tuple(_with_contents(inputs, number, each) for number, each in enumerate(job.answer.attacks))
    return job.model_copy(
        update={"answer": job.answer.model_copy(update={"contents": found, "attacks": attacks})}
    )


def _with_contents(inputs: Inputs, number: int, section: AnswerAttackSection) -> AnswerAttackSection:
    found = inputs.share(AttackInputs).contents(section)
    for name, wanted in section.contents.items():
        if found.get(name) != wanted:
            raise JobError(
                f"answer.attacks.{number}.contents.{name}='{wanted}', but it is '{found.get(name, 'nothing')}' here",
                remedy="restore the original file, or remove this line from the job",
            )
    return section.model_copy(update={"contents": found})
