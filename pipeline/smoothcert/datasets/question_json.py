"""Questions in JSON: lines of our own, VQA and its kin, COCO's captions and objects, Karpathy's splits, ScienceQA."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from smoothcert.datasets.image_question import ImageQuestion, as_multiple_choice
from smoothcert.datasets.question_files import (
    CAPTION_PROMPT,
    OBJECTS_PROMPT,
    FoundQuestion,
    QuestionFiles,
    looks_like,
    reason,
    text_of,
)
from smoothcert.errors import JobError

_Known = tuple[tuple[str, ...], str | None]
"""Answers to a question, and its kind."""


def read_lines(files: QuestionFiles) -> Iterator[FoundQuestion]:
    """``jsonl``: ``{"pair": ..., "question": ...}``, and perhaps ``id``, ``answers``, ``choices`` and ``kind``."""
    for number, line in enumerate(files.read(files.uri).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            choices = tuple(text_of(each) for each in row.get("choices", ()))
            answers = row.get("answers", [])
            answers = answers if isinstance(answers, list) else [answers]
            question = text_of(row["question"])
            yield (
                str(row["pair"]),
                ImageQuestion(
                    str(row.get("id", number)),
                    as_multiple_choice(question, choices) if choices else question,
                    tuple(right_option(each, choices) if choices else text_of(each) for each in answers),
                    row.get("kind"),
                    choices,
                ),
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
            raise files.unlike(f"line {number}: {reason(exc)}") from exc


def read_vqa(files: QuestionFiles) -> Iterator[FoundQuestion]:
    """``vqa``: VQA v2 with its annotations, TextVQA (``data``), VizWiz (a list, found by the image's name)."""
    data = files.parse(files.uri)
    rows = data.get("questions", data.get("data")) if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise files.unlike("it has neither questions nor data", data=data)
    answers: dict[str, _Known] = {}
    if files.annotations is not None:
        answers = dict(_annotated(files))
    matched = 0

    def question(row: Any) -> Iterator[FoundQuestion]:
        nonlocal matched
        image = str(row["image_id"] if "image_id" in row else row["image"])
        identity = str(row["question_id"] if "question_id" in row else image)
        given = tuple(_answer(each) for each in row.get("answers", ()))
        known, kind = answers.get(identity, ((), row.get("answer_type")))
        matched += identity in answers
        yield image, ImageQuestion(identity, text_of(row["question"]), given or known, kind)

    yield from files.rows(rows, question, data)
    if answers and not matched:
        raise JobError(
            f"answer.annotations: none of its {len(answers):,} answers is to a question of '{files.uri}'",
            remedy="name the annotations of the same split",
        )


def read_coco_captions(files: QuestionFiles) -> Iterator[FoundQuestion]:
    """``coco_captions``: one question for each image, its captions the answers."""
    data = files.parse(files.uri)
    captions: dict[str, list[str]] = {}

    def caption(row: Any) -> Iterator[FoundQuestion]:
        captions.setdefault(str(row["image_id"]), []).append(text_of(row["caption"]))
        yield from ()

    _read_all(files, data, "annotations", caption)
    for image, texts in captions.items():
        yield image, ImageQuestion(f"caption-{image}", files.ask or CAPTION_PROMPT, tuple(texts), "caption")


def read_coco_instances(files: QuestionFiles) -> Iterator[FoundQuestion]:
    """``coco_instances``: one question for each image, the names of its objects the answers."""
    data = files.parse(files.uri)
    names: dict[Any, str] = {}
    objects: dict[str, list[str]] = {}

    def category(row: Any) -> Iterator[FoundQuestion]:
        names[row["id"]] = text_of(row["name"])
        yield from ()

    def instance(row: Any) -> Iterator[FoundQuestion]:
        objects.setdefault(str(row["image_id"]), []).append(names[row["category_id"]])
        yield from ()

    _read_all(files, data, "categories", category)
    _read_all(files, data, "annotations", instance)
    for image, found in objects.items():
        kinds = tuple(dict.fromkeys(found))
        yield image, ImageQuestion(f"objects-{image}", files.ask or OBJECTS_PROMPT, kinds, "objects")


def read_karpathy(files: QuestionFiles) -> Iterator[FoundQuestion]:
    """``karpathy``: images with ``split`` and ``sentences``, found by ``cocoid`` or by the file's name."""
    data = files.parse(files.uri)
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, list):
        raise files.unlike("it has no images", data=data)
    files.chosen_split({str(row["split"]) for row in images if isinstance(row, dict) and "split" in row})

    def caption(row: Any) -> Iterator[FoundQuestion]:
        if files.split in (None, row["split"]):
            name = text_of(row["filename"])
            image = str(row["cocoid"]) if "cocoid" in row else name.rpartition(".")[0] or name
            texts = tuple(text_of(each["raw"]) for each in row["sentences"])
            yield image, ImageQuestion(f"caption-{image}", files.ask or CAPTION_PROMPT, texts, "caption")

    yield from files.rows(images, caption, data)


def read_scienceqa(files: QuestionFiles) -> Iterator[FoundQuestion]:
    """``scienceqa``: ``problems.json``; problems without an image are left out."""
    data = files.parse(files.uri)
    if not isinstance(data, dict) or looks_like(data) != "scienceqa":
        raise files.unlike("it is not an object of problems with question and choices", data=data)
    files.chosen_split({str(row["split"]) for row in data.values() if "split" in row})

    def problem(item: tuple[str, Any]) -> Iterator[FoundQuestion]:
        identity, row = item
        if row.get("image") and files.split in (None, row["split"]):
            choices = tuple(text_of(each) for each in row["choices"])
            asked = as_multiple_choice(text_of(row["question"]), choices, row.get("hint") or "")
            right = (right_option(row["answer"], choices),) if row.get("answer") is not None else ()
            yield (
                f"{identity}/{row['image']}",
                ImageQuestion(identity, asked, right, row.get("subject"), choices),
            )

    yield from files.rows(data.items(), problem, data)


def right_option(answer: Any, choices: tuple[str, ...]) -> str:
    """The text of the right option, given by its place from 0, its letter or its text.

    Raises:
        ValueError: it is none of the options.
    """
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return choices[answer]
    if isinstance(answer, str):
        if answer in choices:
            return answer
        letters = [chr(ord("A") + place) for place in range(len(choices))]
        if answer.strip().upper() in letters:
            return choices[letters.index(answer.strip().upper())]
    raise ValueError(f"the answer {answer!r} is not one of the choices {list(choices)}")


def _read_all(files: QuestionFiles, data: Any, name: str, take: Any) -> None:
    rows = data.get(name) if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise files.unlike(f"it has no {name}", data=data)
    for _ in files.rows(rows, take, data):
        pass


def _annotated(files: QuestionFiles) -> Iterator[tuple[str, _Known]]:
    uri = files.annotations or ""
    data = files.parse(uri)
    try:
        for row in data["annotations"]:
            answers = tuple(_answer(each) for each in row["answers"])
            yield str(row["question_id"]), (answers, row.get("answer_type"))
    except (KeyError, TypeError, AttributeError) as exc:
        raise files.unlike(reason(exc), uri) from exc


def _answer(each: Any) -> str:
    return text_of(each["answer"] if isinstance(each, Mapping) else each)
