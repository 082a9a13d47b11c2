"""Files of questions: each format, how pairs are found, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoothcert.datasets.questions import CAPTION_PROMPT, ImageQuestion, read_questions
from smoothcert.errors import JobError, SourceError


def write(path: Path, data: object) -> str:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


def test_lines_of_json(tmp_path: Path) -> None:
    lines = [
        {"pair": "a.parquet#3", "id": 7, "question": "what?", "answers": "cat", "kind": "thing"},
        {"pair": "a.parquet#3", "question": "why?"},
        {"pair": "img/5.png", "question": "who?", "answers": ["me", "you"]},
    ]
    asked = read_questions(write(tmp_path / "q.jsonl", "\n\n".join(map(json.dumps, lines))), "jsonl")
    assert asked.of("a.parquet#3") == (
        ImageQuestion("7", "what?", ("cat",), "thing"),
        ImageQuestion("3", "why?", ()),
    )
    assert asked.of("folder#img/5.png")[0].answers == ("me", "you")
    assert asked.of("a.parquet#4") == () and len(asked) == 3


def test_vqa_with_its_answers_beside_it(tmp_path: Path) -> None:
    questions = {"questions": [{"question_id": 420, "image_id": 42, "question": "what?"}]}
    answers = [{"answer": "cat"}] * 9 + [{"answer": "dog"}]
    annotations = {"annotations": [{"question_id": 420, "answers": answers, "answer_type": "other"}]}
    files = write(tmp_path / "q.json", questions), "vqa", write(tmp_path / "a.json", annotations)
    (question,) = read_questions(*files).of("val#val2014/COCO_val2014_000000000042.jpg")
    assert question.kind == "other" and question.answers == ("cat",) * 9 + ("dog",)
    other = read_questions(files[0], "vqa")
    assert other.of("x.tar#42")[0].answers == () and other.digest != read_questions(*files).digest
    wrong = write(tmp_path / "b.json", {"annotations": [{"question_id": 1, "answers": answers}]})
    with pytest.raises(JobError, match=r"(?s)none of its 1 answers.*same split"):
        read_questions(files[0], "vqa", wrong)


def test_textvqa_and_vizwiz_have_answers_inside(tmp_path: Path) -> None:
    data = {"data": [{"question_id": 1, "image_id": "ab12", "question": "brand?", "answers": ["dell", "hp"]}]}
    asked = read_questions(write(tmp_path / "q.json", data), "vqa")
    assert asked.of("folder#train/ab12.jpg")[0].answers == ("dell", "hp")


def test_captions_of_coco(tmp_path: Path) -> None:
    rows = [{"image_id": 9, "caption": "a cat"}, {"image_id": 9, "caption": "one cat"}]
    asked = read_questions(write(tmp_path / "c.json", {"annotations": rows}), "coco_captions")
    (question,) = asked.of("x#000000000009.jpg")
    assert (question.question, question.answers) == (CAPTION_PROMPT, ("a cat", "one cat"))


@pytest.mark.parametrize(
    ("text", "format", "message"),
    [
        (
            '{"pair": "a", "question": "x", "id": 1}\n{"pair": "b", "question": "y", "id": 1}',
            "jsonl",
            "'1' comes twice",
        ),
        ('{"pair": "a", "question": " "}', "jsonl", "'1' is empty"),
        ('{"pair": "a", "question": 5}', "jsonl", "line 1: 5 is not text"),
        ('{"pair": "a"}\n', "jsonl", "line 1: it has no 'question'"),
        ('{"pair": ', "jsonl", "line 1"),
        ("\n", "jsonl", "holds no question"),
        ("[]", "vqa", "holds a list, not an object"),
        ("{", "vqa", "it is not JSON"),
        ('{"images": []}', "vqa", "neither questions nor data"),
        ('{"annotations": [{"image_id": 1}]}', "coco_captions", "has no 'caption'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, format, message: str) -> None:
    with pytest.raises(JobError, match=message):
        read_questions(write(tmp_path / "q", text), format)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.jsonl"):
        read_questions(str(tmp_path / "nowhere.jsonl"), "jsonl")
