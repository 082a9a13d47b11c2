"""Files of questions: each format, how pairs are found, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from smoothcert.catalogue.question_formats import QUESTION_FORMATS
from smoothcert.datasets import open_source
from smoothcert.datasets.image_question import ImageQuestion, named_option
from smoothcert.datasets.question_files import CAPTION_PROMPT, CLASS_PROMPT, looks_like
from smoothcert.datasets.questions import QuestionSet, read_questions
from smoothcert.errors import JobError, SourceError
from smoothcert.job import DataSection
from smoothcert.job.answer import AnswerSection


def write(path: Path, data: object) -> str:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


def read(uri: str, format: str = "jsonl", **fields: Any) -> QuestionSet:
    return read_questions(AnswerSection(model="-", questions=uri, format=format, **fields))


def test_lines_of_json(tmp_path: Path) -> None:
    lines = [
        {"pair": "a.parquet#3", "id": 70, "question": "what?", "answers": "cat", "kind": "thing"},
        {"pair": "a.parquet#3", "question": "why?"},
        {"pair": "img/5.png", "question": "who?", "answers": ["me", "", "you"]},
        {"pair": "8", "question": "which?", "choices": ["cat", "dog"], "answers": 1},
    ]
    asked = read(write(tmp_path / "q.jsonl", "\n\n".join(map(json.dumps, lines))))
    assert asked.of("a.parquet#3") == (
        ImageQuestion("70", "what?", ("cat",), "thing"),
        ImageQuestion("3", "why?", ()),
    )
    assert asked.of("folder#img/5.png")[0].answers == ("me", "you")
    assert (asked.of("x#8")[0].answers, asked.of("x#8")[0].choices) == (("dog",), ("cat", "dog"))
    assert asked.of("a.parquet#4") == () and (len(asked), asked.images) == (4, 3)
    assert (asked.unanswered, asked.empty_answers) == (1, 1)


def test_an_image_in_a_manifest_is_found_by_its_own_name(tmp_path: Path) -> None:
    def asked(*names: str) -> QuestionSet:
        lines = [{"pair": name, "question": name} for name in names]
        return read(write(tmp_path / "q.jsonl", "\n".join(map(json.dumps, lines))))

    for name in ("data/img/5.png", "img/5.png", "5.png", "5", "m.csv#3"):
        assert [each.question for each in asked(name, "6").of("m.csv#3", "data/img/5.png")] == [name]
    # row 42 shows image 99: what is asked about image 42 is asked about another one
    (question,) = asked("42", "99").of("m.csv#42", "val/COCO_val_000099.jpg")
    assert question.question == "99"
    assert asked("42").of("m.csv#42", "val/COCO_val_000099.jpg") == ()
    (question,) = asked("42", "99").of("m.csv#42")
    assert question.question == "42"


def test_vqa_with_its_answers_beside_it(tmp_path: Path) -> None:
    questions = {"questions": [{"question_id": 420, "image_id": 42, "question": "what?"}]}
    answers = [{"answer": "cat"}] * 9 + [{"answer": "dog"}]
    annotations = {"annotations": [{"question_id": 420, "answers": answers, "answer_type": "other"}]}
    uri, beside = write(tmp_path / "q.json", questions), write(tmp_path / "a.json", annotations)
    asked = read(uri, "vqa", annotations=beside)
    (question,) = asked.of("val#val2014/COCO_val2014_000000000042.jpg")
    assert question.kind == "other" and question.answers == ("cat",) * 9 + ("dog",)
    other = read(uri, "vqa")
    assert other.of("x.tar#42")[0].answers == () and other.digest != asked.digest
    wrong = write(tmp_path / "b.json", {"annotations": [{"question_id": 1, "answers": answers}]})
    with pytest.raises(JobError, match=r"(?s)none of its 1 answers.*same split"):
        read(uri, "vqa", annotations=wrong)
    with pytest.raises(JobError, match=r"(?s)neither questions nor data.*name it in answer\.annotations"):
        read(beside, "vqa")


def test_textvqa_and_vizwiz_have_answers_inside(tmp_path: Path) -> None:
    data = {"data": [{"question_id": 1, "image_id": "ab12", "question": "brand?", "answers": ["dell", "hp"]}]}
    asked = read(write(tmp_path / "q.json", data), "vqa")
    assert asked.of("folder#train/ab12.jpg")[0].answers == ("dell", "hp")
    answer = {"answer": "basil leaves", "answer_confidence": "yes"}
    rows = [
        {
            "image": "VizWiz_val_00000000.jpg",
            "question": "what?",
            "answers": [answer],
            "answer_type": "other",
            "answerable": 1,
        },
        {"image": "VizWiz_val_00000001.jpg", "question": "and this?"},
    ]
    asked = read(write(tmp_path / "v.json", rows), "vqa")
    (question,) = asked.of("images#VizWiz_val_00000000.jpg")
    assert (question.answers, question.kind) == (("basil leaves",), "other")
    assert asked.unanswered == 1 and len(asked) == 2


def test_captions_and_objects_of_coco(tmp_path: Path) -> None:
    rows = [{"image_id": 9, "caption": "a cat"}, {"image_id": 9, "caption": "one cat"}]
    asked = read(write(tmp_path / "c.json", {"annotations": rows}), "coco_captions")
    (question,) = asked.of("x#000000000009.jpg")
    assert (question.question, question.answers) == (CAPTION_PROMPT, ("a cat", "one cat"))
    things = {
        "annotations": [{"image_id": 9, "category_id": each} for each in (3, 1, 3)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "traffic light"}],
    }
    uri = write(tmp_path / "i.json", things)
    (question,) = read(uri, "coco_instances", ask="What is there?").of("x#000000000009.jpg")
    assert (question.question, question.answers) == ("What is there?", ("traffic light", "cat"))
    with pytest.raises(JobError, match=r"(?s)no 'caption'.*did you mean answer\.format: coco_instances"):
        read(uri, "coco_captions")


def test_karpathys_splits(tmp_path: Path) -> None:
    images = [
        {"filename": f"COCO_val2014_{number:012}.jpg", "split": split, "sentences": [{"raw": f"a {split}"}]}
        | ({"cocoid": number} if number != 7 else {})
        for number, split in ((5, "train"), (6, "test"), (7, "test"))
    ]
    uri = write(tmp_path / "dataset_coco.json", {"dataset": "coco", "images": images})
    asked = read(uri, "karpathy", split="test")
    assert len(asked) == 2 and asked.of("x#COCO_val2014_000000000005.jpg") == ()
    for number in (6, 7):
        assert asked.of(f"x#val2014/COCO_val2014_{number:012}.jpg")[0].answers == ("a test",)
    assert len(read(uri, "karpathy")) == 3
    with pytest.raises(JobError, match=r"(?s)'tset' is not in .* which has test, train"):
        read(uri, "karpathy", split="tset")


PROBLEMS = {
    "12": {
        "question": "Which is it?",
        "choices": ["a cat", "a dog"],
        "answer": 1,
        "hint": "Look closely.",
        "image": "image.png",
        "subject": "natural science",
        "split": "val",
    },
    "13": {"question": "And now?", "choices": ["x", "y"], "answer": 0, "image": None, "split": "val"},
    "14": {"question": "Train?", "choices": ["x", "y"], "answer": 0, "image": "image.png", "split": "train"},
}


def test_scienceqa(tmp_path: Path) -> None:
    asked = read(write(tmp_path / "problems.json", PROBLEMS), "scienceqa", split="val")
    (question,) = asked.of("val/12#image.png")  # a folder of images
    assert question == asked.of("list.csv#val/12/image.png")[0]
    assert question.question == (
        "Context: Look closely.\nWhich is it?\nOptions: (A) a cat (B) a dog\n"
        "Answer with the letter of the right option."
    )
    assert (question.answers, question.choices, question.kind) == (
        ("a dog",),
        ("a cat", "a dog"),
        "natural science",
    )
    assert len(asked) == 1 and asked.of("train/14#image.png") == ()


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("B", 1),
        (" (b) ", 1),
        ("B.", 1),
        ("B. the dog", 1),
        ("(A) whatever", 0),
        ("The answer is B.", 1),
        ("Answer: (A)", 0),
        ("a dog", 1),
        ("A Dog!", 1),
        ("it shows a dog, I think", 1),
        ("a cat and a dog", None),
        ("A bird is there", None),
        ("C", None),
        ("", None),
    ],
)
def test_an_answer_names_an_option(answer: str, option: int | None) -> None:
    assert named_option(answer, ("a cat", "a dog")) == option
    assert ImageQuestion("1", "?", (), None, ("a cat", "a dog")).meant(answer) == (
        answer if option is None else ("a cat", "a dog")[option]
    )
    assert named_option(answer, ()) is None


def test_folders_of_images_are_asked_for_their_class(tmp_path: Path) -> None:
    for name in ("tabby_cat/1.png", "tabby_cat/2.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    source = open_source(DataSection(format="imagefolder", uri=str(tmp_path)))
    asked = read(str(tmp_path), "imagefolder")
    pairs = [pair for unit in source.units(10) for pair in source.read(unit)]
    assert len(pairs) == len(asked) == 3
    for pair in pairs:
        (question,) = asked.of(pair.pair_id)
        assert question.answers == ((pair.label or "").replace("_", " "),)
        assert (question.question, question.kind) == (CLASS_PROMPT, "class")


def test_columns_of_parquet(tmp_path: Path) -> None:
    png = Image.new("RGB", (4, 4))
    png.save(tmp_path / "x.png")
    rows = {
        "image": [(tmp_path / "x.png").read_bytes()] * 3,
        "query": ["what?", "which?", "and?"],
        "answers": pa.array([["cat", "kitten"], ["1"], None], pa.list_(pa.string())),
        "topic": ["a", "b", None],
    }
    pq.write_table(pa.table(rows), tmp_path / "data.parquet")
    columns = {"question": "query", "kind": "topic"}
    asked = read(str(tmp_path / "data.parquet"), "parquet", columns=columns)
    data = {"format": "parquet", "uri": str(tmp_path / "data.parquet"), "columns": {"caption": None}}
    source = open_source(DataSection(**data))
    found = [asked.of(pair.pair_id)[0] for unit in source.units(2) for pair in source.read(unit)]
    assert [each.question for each in found] == ["what?", "which?", "and?"]
    assert [each.answers for each in found] == [("cat", "kitten"), ("1",), ()]
    assert [each.kind for each in found] == ["a", "b", None]
    with pytest.raises(JobError, match=r"(?s)columns\.question='qury' is not a column.*mean 'query'"):
        read(str(tmp_path / "data.parquet"), "parquet", columns={"question": "qury"})
    with pytest.raises(JobError, match=r"(?s)has no column 'question'.*answer\.ask"):
        read(str(tmp_path / "data.parquet"), "parquet")
    asked = read(str(tmp_path / "data.parquet"), "parquet", ask="what is it?")
    assert asked.of("data.parquet#2")[0].question == "what is it?"


def test_parquet_of_multiple_choice_beside_the_images(tmp_path: Path) -> None:
    rows = {
        "image_id": [4, 5],
        "question": ["which?", "what?"],
        "choices": [["cat", "dog"], ["x", "y", "z"]],
        "answer": [1, 2],
        "question_id": ["p", "q"],
    }
    pq.write_table(pa.table(rows), tmp_path / "asked.parquet")
    asked = read(
        str(tmp_path / "asked.parquet"), "parquet", columns={"pair": "image_id", "answers": "answer"}
    )
    (question,) = asked.of("x#val/000004.jpg")
    assert (question.question_id, question.answers) == ("p", ("dog",)) and "(B) dog" in question.question


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
        (
            '{"pair": "a", "question": "x", "choices": ["y"], "answers": "B"}',
            "jsonl",
            "'B' is not one of the choices",
        ),
        ("\n", "jsonl", "holds no question"),
        ("5", "vqa", "neither questions nor data"),
        ("{", "vqa", "it is not JSON"),
        ('{"images": []}', "vqa", "neither questions nor data"),
        ('{"annotations": [{"image_id": 1}]}', "coco_captions", "entry 1: it has no 'caption'"),
        ('{"images": []}', "coco_captions", "it has no annotations"),
        ("[]", "scienceqa", "not an object of problems"),
        (json.dumps(PROBLEMS), "vqa", "did you mean answer.format: scienceqa"),
        (json.dumps({"images": [{"filename": "x", "split": "test"}]}), "karpathy", "it has no 'sentences'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, format: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        read(write(tmp_path / "q", text), format)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.jsonl"):
        read(str(tmp_path / "nowhere.jsonl"))


def test_fields_belong_to_the_formats_that_have_them() -> None:
    assert set(get_args(AnswerSection.model_fields["format"].annotation)) == set(QUESTION_FORMATS)
    with pytest.raises(ValueError, match=r"split is for format karpathy or scienceqa, not jsonl"):
        AnswerSection(model="-", questions="-", split="val")
    with pytest.raises(ValueError, match=r"annotations is for format vqa, not jsonl"):
        AnswerSection(model="-", questions="-", annotations="a")
    with pytest.raises(ValueError, match=r"'scienqa' is unknown \(did you mean 'scienceqa'"):
        AnswerSection(model="-", questions="-", format="scienqa")


def test_every_format_of_json_is_recognised() -> None:
    assert looks_like(PROBLEMS) == "scienceqa"
    assert looks_like({"questions": [{"question": "x"}]}) == "vqa"
    assert looks_like([{"image": "x", "question": "y"}]) == "vqa"
    assert looks_like({"images": [{"id": 1}], "annotations": [{"caption": "x"}]}) == "coco_captions"
    assert looks_like({"images": [], "annotations": [{"category_id": 1}]}) == "coco_instances"
    assert looks_like({"images": [{"sentences": []}]}) == "karpathy"
    assert looks_like({}) is None and looks_like([]) is None and looks_like({"a": 1}) is None
