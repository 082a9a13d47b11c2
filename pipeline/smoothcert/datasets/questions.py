"""Questions about images, with reference answers, from the files that people have; found by the pair they are about."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from smoothcert.datasets.files import open_binary, store_trouble
from smoothcert.errors import JobError

QuestionFormat = Literal["jsonl", "vqa", "coco_captions"]

CAPTION_PROMPT = "Describe the image in one short sentence."
"""What is asked where a file has captions and no questions."""

_NUMBER = re.compile(r"(\d+)(?:\.\w+)?$")


@dataclass(frozen=True, slots=True)
class ImageQuestion:
    """One question about one image.

    Attributes:
        question_id: unique in its file.
        question: the text.
        answers: what people answered; empty where nobody did.
        kind: of question, as the file has it; None where it has none.
    """

    question_id: str
    question: str
    answers: tuple[str, ...]
    kind: str | None = None


class QuestionSet:
    """All questions of a file, by pair.

    A pair is found by its ``pair_id``, by its key (what follows ``#``), by the key's last part without a suffix, or by
    the number that this ends in: ``val2014/COCO_val2014_000000000042.jpg`` is image 42.

    Args:
        by_pair: questions by what the file calls the image.
        digest: hex sha256 of the files.
    """

    def __init__(self, by_pair: Mapping[str, tuple[ImageQuestion, ...]], digest: str) -> None:
        self._by_pair = by_pair
        self.digest = digest

    def __len__(self) -> int:
        return sum(len(each) for each in self._by_pair.values())

    def of(self, pair_id: str) -> tuple[ImageQuestion, ...]:
        """The questions of a pair; none where the file has none."""
        for name in _names(pair_id):
            if name in self._by_pair:
                return self._by_pair[name]
        return ()


def read_questions(uri: str, format: QuestionFormat, annotations: str | None = None) -> QuestionSet:
    """Read a file of questions.

    Args:
        uri: path or fsspec URL.
        format: ``jsonl``, ``vqa`` or ``coco_captions``.
        annotations: of ``vqa``: the file of answers, where it is another one.

    Raises:
        JobError: it is not what ``format`` says (the text names the place), an id comes twice, or a question is empty.
        SourceError: reading failed.
    """
    text = _read(uri)
    digest = hashlib.sha256(text)
    if format == "jsonl":
        found = _from_lines(text, uri)
    elif format == "coco_captions":
        found = _from_captions(_parsed(text, uri), uri)
    else:
        answers: dict[str, tuple[tuple[str, ...], str | None]] = {}
        if annotations is not None:
            other = _read(annotations)
            digest.update(other)
            answers = dict(_annotated(_parsed(other, annotations), annotations))
        found = _from_vqa(_parsed(text, uri), uri, answers)
    by_pair: dict[str, list[ImageQuestion]] = {}
    seen: set[str] = set()
    for image, question in found:
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
        seen.add(question.question_id)
        by_pair.setdefault(image, []).append(question)
    if not by_pair:
        raise JobError(f"answer.questions='{uri}' holds no question", remedy="name another file")
    return QuestionSet({name: tuple(each) for name, each in by_pair.items()}, digest.hexdigest())


def _names(pair_id: str) -> Iterator[str]:
    key = pair_id.partition("#")[2]
    stem = key.rpartition("/")[2]
    yield pair_id
    yield key
    yield stem
    yield stem.rpartition(".")[0] or stem
    number = _NUMBER.search(stem)
    if number is not None:
        yield str(int(number[1]))


def _read(uri: str) -> bytes:
    with store_trouble(uri, "read the questions"), open_binary(uri) as stream:
        return bytes(stream.read())


def _parsed(text: bytes, uri: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as exc:
        raise _unlike(uri, f"it is not JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise _unlike(uri, f"it holds a {type(data).__name__}, not an object")
    return data


def _from_lines(text: bytes, uri: str) -> Iterator[tuple[str, ImageQuestion]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            answers = row.get("answers", [])
            answers = [answers] if isinstance(answers, str) else answers
            identity = str(row.get("id", number))
            kind = row.get("kind")
            yield (
                str(row["pair"]),
                ImageQuestion(identity, _text(row["question"]), tuple(_text(each) for each in answers), kind),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise _unlike(uri, f"line {number}: {_reason(exc)}") from exc


def _from_captions(data: dict[str, Any], uri: str) -> Iterator[tuple[str, ImageQuestion]]:
    captions: dict[str, list[str]] = {}
    try:
        for row in data["annotations"]:
            captions.setdefault(str(row["image_id"]), []).append(_text(row["caption"]))
    except (KeyError, TypeError) as exc:
        raise _unlike(uri, _reason(exc)) from exc
    for image, texts in captions.items():
        yield image, ImageQuestion(f"caption-{image}", CAPTION_PROMPT, tuple(texts), "caption")


def _from_vqa(
    data: dict[str, Any], uri: str, answers: Mapping[str, tuple[tuple[str, ...], str | None]]
) -> Iterator[tuple[str, ImageQuestion]]:
    rows = data.get("questions", data.get("data"))
    if not isinstance(rows, list):
        raise _unlike(uri, "it has neither questions nor data")
    matched = 0
    for row in rows:
        try:
            identity, image = str(row["question_id"]), str(row["image_id"])
            given = tuple(_answer(each) for each in row.get("answers", ()))
            known, kind = answers.get(identity, ((), None))
            matched += identity in answers
            yield image, ImageQuestion(identity, _text(row["question"]), given or known, kind)
        except (KeyError, TypeError, AttributeError) as exc:
            raise _unlike(uri, _reason(exc)) from exc
    if answers and not matched:
        raise JobError(
            f"answer.annotations: none of its {len(answers):,} answers is to a question of '{uri}'",
            remedy="name the annotations of the same split",
        )


def _annotated(data: dict[str, Any], uri: str) -> Iterator[tuple[str, tuple[tuple[str, ...], str | None]]]:
    try:
        for row in data["annotations"]:
            answers = tuple(_answer(each) for each in row["answers"])
            yield str(row["question_id"]), (answers, row.get("answer_type"))
    except (KeyError, TypeError, AttributeError) as exc:
        raise _unlike(uri, _reason(exc)) from exc


def _answer(each: Any) -> str:
    return _text(each["answer"] if isinstance(each, dict) else each)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _reason(exc: Exception) -> str:
    return f"it has no {exc}" if isinstance(exc, KeyError) else str(exc)


def _unlike(uri: str, what: str) -> JobError:
    return JobError(
        f"answer.questions='{uri}' cannot be used: {what}",
        remedy="check the file and answer.format (jsonl, vqa or coco_captions); docs/answers.md shows each",
    )
