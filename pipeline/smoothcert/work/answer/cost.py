"""What the questions of a job cost before any is asked: answers, tokens, and money where the job knows prices."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smoothcert.datasets import Source, UnitSpec
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.datasets.questions import QuestionSet, about_other_pairs
from smoothcert.job.answer import AnswerSection
from smoothcert.job.answer_attack import AnswerAttackSection

LOOKED_AT = 256
"""Pairs whose questions stand for those of all."""
_LETTERS_A_TOKEN = 4
"""Of English, as a rule of thumb."""


@dataclass(frozen=True, slots=True)
class ExpectedAnswers:
    """What a job asks, at most.

    Attributes:
        pairs: of the data.
        looked_at: pairs whose questions were looked at.
        with_questions: how many of these have any.
        questions: about all pairs, from those of the pairs that were looked at.
        answers: generations by what asks: each subject, and ``attacks``.
        prompt_tokens: of all prompts, without images: letters over four.
        answer_tokens: of all answers, each as long as it may be.
        judged: requests to a judge behind an endpoint.
    """

    pairs: int
    looked_at: int
    with_questions: int
    questions: int
    answers: dict[str, int]
    prompt_tokens: int
    answer_tokens: int
    judged: int

    @property
    def total(self) -> int:
        """All generations."""
        return sum(self.answers.values())

    def money(self, section: AnswerSection) -> float | None:
        """What an endpoint asks for them at the prices of the job; None without prices."""
        price = section.price
        if price is None:
            return None
        prompts = self.prompt_tokens + self.total * price.image_tokens
        return (prompts * price.prompt_per_1k + self.answer_tokens * price.answer_per_1k) / 1000


def expect_answers(
    section: AnswerSection, questions: QuestionSet, source: Source, units: Sequence[UnitSpec]
) -> ExpectedAnswers:
    """Count what a job asks, from its questions about the first pairs.

    Raises:
        JobError: none of these pairs has a question: the work would be refused for it.
        SourceError: reading failed.
    """
    pairs = sum(map(len, units))
    # without the images, which are large
    names = list(itertools.islice(_pair_names(source, units), LOOKED_AT))
    each = [questions.of(*name) for name in names]
    if names and not any(each):
        raise about_other_pairs(section, questions, [pair_id for pair_id, _ in names])
    asked = [question for found in each for question in found]
    scale = pairs / len(each) if each else 0.0
    count = round(len(asked) * scale)
    answers: dict[str, int] = {subject: count * _answers(section, subject) for subject in section.subjects}
    if section.attacks:
        answers["attacks"] = count * sum(map(_of_attack, section.attacks))
    letters = sum(_letters(section, question) for question in asked)
    total = sum(answers.values())
    return ExpectedAnswers(
        pairs=pairs,
        looked_at=len(each),
        with_questions=sum(bool(found) for found in each),
        questions=count,
        answers=answers,
        prompt_tokens=round(letters / len(asked) / _LETTERS_A_TOKEN * total) if asked else 0,
        answer_tokens=total * section.max_new_tokens,
        judged=_judged(section, sum(bool(question.answers) for question in asked) * scale),
    )


def _pair_names(source: Source, units: Sequence[UnitSpec]) -> Iterator[tuple[str, str | None]]:
    return ((pair.pair_id, pair.image_name) for unit in units for pair in source.read(unit))


def _answers(section: AnswerSection, subject: str) -> int:
    return section.vote.pilot_draws + section.vote.max_draws if subject == "vote" else 1


def _of_attack(attack: AnswerAttackSection) -> int:
    """Answers that judge one question: with and without attack, at each budget; what the search asks is not counted."""
    return sum(
        2 * (attack.evaluate_draws if subject == "vote" else 1) * len(attack.budgets)
        for subject in attack.subjects
    )


def _letters(section: AnswerSection, question: ImageQuestion) -> int:
    return len((section.template or "{question}").replace("{question}", question.question))


def _judged(section: AnswerSection, judgeable: float) -> int:
    if section.judge is None or section.judge.endpoint is None:
        return 0
    texts = [each for each in section.subjects if each != "vote" or section.vote.classes == "text"]
    return round(judgeable * len(texts))
