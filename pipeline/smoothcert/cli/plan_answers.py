"""What ``smoothcert plan`` says of the questions of a job: how many there are, what answers they take and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.cli.terminal import Terminal
from smoothcert.cli.time_span import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothcert.datasets import Source, UnitSpec
    from smoothcert.datasets.questions import QuestionSet
    from smoothcert.job.answer import AnswerSection
    from smoothcert.work.answer.cost import ExpectedAnswers
    from smoothcert.work.inputs import Inputs


def print_questions(
    terminal: Terminal,
    section: AnswerSection,
    source: Source,
    units: Sequence[UnitSpec],
    inputs: Inputs | None = None,
) -> None:
    """Print questions and answers of a job; with its inputs also how long answers take here."""
    from smoothcert.datasets.questions import read_questions
    from smoothcert.work.answer.cost import expect_answers

    if inputs is None:
        questions = read_questions(section)
    else:
        from smoothcert.work.answer.inputs import AnswerInputs

        questions = inputs.share(AnswerInputs).questions  # read for the run's name already
    expected = expect_answers(section, questions, source, units)
    _say_questions(terminal, section, questions, expected)
    each = ", ".join(f"{name} {count:,}" for name, count in expected.answers.items())
    limit = "at most " if "vote" in section.subjects and section.vote.radius is not None else ""
    terminal.say(f"answers    {limit}{expected.total:,} ({each}); a draw of a vote is an answer")
    if section.endpoint is not None:
        _say_money(terminal, section, expected)
    elif inputs is not None and expected.total:
        from smoothcert.work.answer.probe import measure_answers_per_second

        rate = measure_answers_per_second(inputs, source, units)
        if rate is not None:
            terminal.say(
                f"           {limit}about {span(expected.total / rate)} on one worker at this device's speed "
                f"({rate:,.1f} answers/s of at most {section.max_new_tokens} tokens)"
            )
    if expected.judged and section.judge is not None:
        terminal.say(f"judge      {expected.judged:,} requests to {section.judge.endpoint}")


def _say_questions(
    terminal: Terminal, section: AnswerSection, questions: QuestionSet, expected: ExpectedAnswers
) -> None:
    terminal.say(
        f"questions  {len(questions):,} about {questions.images:,} images in '{section.questions}' "
        f"({section.format}); about {expected.questions:,} about these pairs"
    )
    without = expected.looked_at - expected.with_questions
    if without:
        terminal.say(
            f"           {without:,} of the first {expected.looked_at:,} pairs have none, and would be quarantined"
        )
    if questions.unanswered:
        terminal.say(
            f"           {questions.unanswered:,} have no reference answer: nothing is right or wrong there"
        )
    if questions.empty_answers:
        terminal.say(f"           {questions.empty_answers:,} empty reference answers are left out")


def _say_money(terminal: Terminal, section: AnswerSection, expected: ExpectedAnswers) -> None:
    images = (
        "" if section.price is None else f" and {expected.total * section.price.image_tokens:,} of images"
    )
    terminal.say(
        f"           about {expected.prompt_tokens:,} tokens of prompts{images}, at most "
        f"{expected.answer_tokens:,} of answers"
    )
    money = expected.money(section)
    if money is None:
        terminal.say("cost       not known: set answer.price (prompt_per_1k, answer_per_1k, image_tokens)")
    else:
        terminal.say(
            f"cost       at most about {money:,.2f} at the endpoint; what is kept in the run costs nothing again"
        )
