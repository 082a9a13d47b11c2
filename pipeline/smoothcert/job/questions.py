"""The part ``columns`` of a job's section ``answer``: which column of a table of questions is what."""

from __future__ import annotations

from smoothcert.job.section import Section


class QuestionColumns(Section):
    """Columns of Parquet files of questions; a column that is not named here is taken where it has its default name."""

    pair: str | None = None
    """The image that a row is about: a pair_id, a key, or the number that the key ends in. By default the image of
    the same row of the same file."""
    question: str | None = "question"
    """Text; null asks answer.ask of every image."""
    answers: str | None = "answers"
    """Text, a list of texts, or as VQA has them; of a multiple choice the option's place from 0, letter or text."""
    choices: str | None = "choices"
    """Options of a multiple choice."""
    context: str | None = "hint"
    """Text that is put before a multiple choice."""
    id: str | None = "question_id"
    """A name for each question; by default file and row."""
    kind: str | None = None
    """What results are also counted by."""
