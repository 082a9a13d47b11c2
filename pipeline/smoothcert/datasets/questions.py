"""Questions about images, with reference answers, from the files that people have; found by the pair they are about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module

from smoothcert.catalogue.question_formats import QUESTION_FORMATS
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.datasets.question_files import FoundQuestion, QuestionFiles
from smoothcert.errors import JobError
from smoothcert.job.answer import AnswerSection

_NUMBER = re.compile(r"(\d+)(?:\.\w+)?$")


class QuestionSet:
    """All questions of a file, by pair.

    A pair is found by its ``pair_id``, or by its key (what follows ``#``); where that is a row number and the row has a
    path of the image, by this path instead. Of either by the whole, by the last two parts or the last one, with or
    without a suffix, or by the number that this ends in: ``val2014/COCO_val2014_000000000042.jpg`` is image 42, also in
    row 7 of a manifest, which is never taken for image 7.

    Args:
        by_pair: questions by what the file calls the image.
        digest: hex sha256 of the files.
        empty_answers: how many empty reference answers were left out.
    """

    def __init__(
        self, by_pair: Mapping[str, tuple[ImageQuestion, ...]], digest: str, empty_answers: int = 0
    ) -> None:
        self._by_pair = by_pair
        self.digest, self.empty_answers = digest, empty_answers

    def __len__(self) -> int:
        return sum(len(each) for each in self._by_pair.values())

    @property
    def images(self) -> int:
        """How many images there are questions about."""
        return len(self._by_pair)

    @property
    def first_image(self) -> str:
        """What the file calls the first image."""
        return next(iter(self._by_pair))

    @property
    def per_image(self) -> float:
        """Questions about an image, on average."""
        return len(self) / self.images if self.images else 0.0

    @property
    def unanswered(self) -> int:
        """Questions without a reference answer: what is said to them is right or wrong to nobody."""
        return sum(not question.answers for each in self._by_pair.values() for question in each)

    def of(self, pair_id: str, image_name: str | None = None) -> tuple[ImageQuestion, ...]:
        """The questions of a pair; none where the file has none.

        Args:
            pair_id: of the pair.
            image_name: what its row calls the image, where the key is only a row number (``Pair.image_name``).
        """
        for name in _names(pair_id, image_name):
            if name in self._by_pair:
                return self._by_pair[name]
        return ()


def read_questions(section: AnswerSection) -> QuestionSet:
    """Read the questions of a job.

    Raises:
        JobError: a file is not what ``answer.format`` says (the text names the place), an id comes twice, or a question
            is empty.
        SourceError: reading failed.
    """
    entry = QUESTION_FORMATS[section.format]
    reader: Callable[[QuestionFiles], Iterator[FoundQuestion]] = getattr(
        import_module(f"smoothcert.datasets.{entry.module}"), entry.reader
    )
    files = QuestionFiles(
        section.questions, section.format, section.annotations, section.split, section.ask, section.columns
    )
    by_pair: dict[str, list[ImageQuestion]] = {}
    seen: set[str] = set()
    empty = 0
    for image, question in reader(files):
        _refuse_unasked(question, seen, section.questions)
        seen.add(question.question_id)
        answers = tuple(each for each in question.answers if each.strip())
        empty += len(question.answers) - len(answers)
        by_pair.setdefault(image, []).append(replace(question, answers=answers))
    if not by_pair:
        raise JobError(
            f"answer.questions='{section.questions}' holds no question", remedy="name another file"
        )
    found = {name: tuple(each) for name, each in by_pair.items()}
    return QuestionSet(found, files.digest.hexdigest(), empty)


def about_other_pairs(section: AnswerSection, questions: QuestionSet, pair_ids: Sequence[str]) -> JobError:
    """The error that none of the pairs has a question, with how both sides call an image."""
    return JobError(
        f"answer.questions='{section.questions}' has no question about any of the first {len(pair_ids):,} pairs that "
        f"can be read: its first is about '{questions.first_image}', the first pair is '{pair_ids[0]}'",
        remedy="name the questions of this data (is it another split?); docs/answers.md says how pairs are found",
    )


def _refuse_unasked(question: ImageQuestion, seen: set[str], uri: str) -> None:
    if question.question_id in seen:
        raise JobError(
            f"answer.questions='{uri}': question id '{question.question_id}' comes twice",
            remedy="give each question an id of its own",
        )
    if not question.question.strip():
        raise JobError(
            f"answer.questions='{uri}': question '{question.question_id}' is empty",
            remedy="remove it, or write a question",
        )


def _names(pair_id: str, image_name: str | None) -> Iterator[str]:
    """What a file may call a pair. Its row number is no name beside a path: it may be another image's number."""
    name, _, key = pair_id.partition("#")
    yield pair_id
    if image_name is None:
        yield from _names_of_path(key, f"{name}/{key}")
    else:
        yield from _names_of_path(image_name, image_name)


def _names_of_path(path: str, whole: str) -> Iterator[str]:
    stem = path.rpartition("/")[2]
    yield path
    yield "/".join(whole.split("/")[-2:])
    yield stem
    yield stem.rpartition(".")[0] or stem
    number = _NUMBER.search(stem)
    if number is not None:
        yield str(int(number[1]))
