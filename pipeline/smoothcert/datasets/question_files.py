"""The files behind a job's questions: reading them, and errors that name file, place and remedy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from smoothcert.catalogue.question_formats import QUESTION_FORMATS
from smoothcert.datasets.files import open_binary, store_trouble
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.errors import JobError
from smoothcert.job.questions import QuestionColumns

FoundQuestion = tuple[str, ImageQuestion]
"""What a file calls an image, and a question about it."""

CAPTION_PROMPT = "Describe the image in one short sentence."
"""What is asked where a file has captions and no questions."""
OBJECTS_PROMPT = "Which objects are in the image?"
CLASS_PROMPT = "What does the image show?"


@dataclass
class QuestionFiles:
    """What a reader of a format is given.

    Attributes:
        uri: path or fsspec URL of the questions.
        format: its name.
        annotations: the file of answers, where it is another one.
        split: which part of the file.
        ask: what is asked where the file has no questions.
        columns: of a table.
        digest: of what was read so far.
    """

    uri: str
    format: str
    annotations: str | None = None
    split: str | None = None
    ask: str | None = None
    columns: QuestionColumns = QuestionColumns()
    digest: Any = field(default_factory=hashlib.sha256)

    def read(self, uri: str) -> bytes:
        """A whole file, which the digest covers from then on."""
        with store_trouble(uri, "read the questions"), open_binary(uri) as stream:
            text = bytes(stream.read())
        self.digest.update(text)
        return text

    def parse(self, uri: str) -> Any:
        """The JSON in a file.

        Raises:
            JobError: it is none.
        """
        try:
            return json.loads(self.read(uri))
        except ValueError as exc:
            raise self.unlike(f"it is not JSON: {exc}", uri) from exc

    def unlike(self, what: str, uri: str | None = None, data: Any = None) -> JobError:
        """The error to raise where a file is not what its format says; ``data`` may tell which format it is of."""
        where = "answer.questions" if uri in (None, self.uri) else "answer.annotations"
        guess = None if data is None else looks_like(data)
        remedy = (
            f"check the file and answer.format ({', '.join(QUESTION_FORMATS)}); docs/answers.md shows each"
        )
        if guess == "annotations":
            remedy = "it holds the answers of VQA: name it in answer.annotations, and its questions in answer.questions"
        elif guess is not None and guess != self.format:
            remedy = f"did you mean answer.format: {guess}? It looks like that; docs/answers.md shows each"
        return JobError(f"{where}='{uri or self.uri}' cannot be used: {what}", remedy=remedy)

    def rows(
        self, data: Any, make: Callable[[Any], Iterator[FoundQuestion]], whole: Any
    ) -> Iterator[FoundQuestion]:
        """What ``make`` makes of each row; a row that lacks something is an error that names it."""
        for number, row in enumerate(data, 1):
            try:
                yield from make(row)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
                raise self.unlike(f"entry {number:,}: {reason(exc)}", data=whole) from exc

    def chosen_split(self, there: set[str], whole: Any = None) -> None:
        """Refuse a split that is not there."""
        if self.split is not None and self.split not in there:
            names = ", ".join(sorted(there)) or "none"
            raise JobError(
                f"answer.split='{self.split}' is not in '{self.uri}', which has {names}",
                remedy="name one of them, or leave answer.split out for all",
            )


def looks_like(data: Any) -> str | None:
    """The format that parsed JSON looks like; ``annotations`` for the answers of VQA; None where none is."""
    if isinstance(data, list):
        return "vqa" if data and isinstance(data[0], dict) and {"image", "question"} <= set(data[0]) else None
    if not isinstance(data, dict) or not data:
        return None
    first = {name: rows[0] for name, rows in data.items() if isinstance(rows, list) and rows}
    keys = {name: set(row) for name, row in first.items() if isinstance(row, dict)}
    if "sentences" in keys.get("images", ()):
        return "karpathy"
    for name, format in (
        ("question_id", "annotations"),
        ("caption", "coco_captions"),
        ("category_id", "coco_instances"),
    ):
        if name in keys.get("annotations", ()):
            return format
    if "question" in keys.get("questions", ()) or "question" in keys.get("data", ()):
        return "vqa"
    row = next(iter(data.values()))
    return "scienceqa" if isinstance(row, dict) and {"question", "choices"} <= set(row) else None


def text_of(value: Any) -> str:
    """Text, or ``TypeError``."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def reason(exc: Exception) -> str:
    """What a row lacks."""
    return f"it has no {exc}" if isinstance(exc, KeyError) else str(exc)
