"""Questions about generated shapes, against the scene as its caption says it, read in another way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from smoothcert.datasets import write_synthetic
from smoothcert.datasets.questions import read_questions
from smoothcert.datasets.shape_questions import KINDS, ask_about, read_scene, write_shape_questions
from smoothcert.datasets.synthetic import RELATIONS, draw_scenes
from smoothcert.job.answer import AnswerSection

SCENES = draw_scenes(np.random.default_rng(5), 400, 8)[1]


def test_answers_are_what_the_caption_says() -> None:
    rng, kinds = np.random.default_rng(0), Counter()
    for caption in SCENES:
        words = caption.split()
        for each in ask_about(caption, rng):
            kinds[each.kind] += 1
            asked = each.question.rstrip("?").split()
            match each.kind:
                case "colour" | "size" if each.question.startswith(("what colour", "is the")):
                    assert each.answer in words
                case "shape":
                    assert f"{asked[-1]} {each.answer}" in caption
                case "presence":
                    assert (each.answer == "yes") == (f"{asked[-2]} {asked[-1]}" in caption)
                case "place":
                    assert caption.endswith(each.answer)
                case "count" if "shapes" in asked:
                    assert each.answer == ("two" if words.count("a") == 2 else "one")
                case "count":
                    times = sum(word in (asked[2], asked[2][:-1], asked[2][:-2]) for word in words)
                    assert each.answer == ("zero", "one", "two")[times]
                case "relation":
                    relation = next(name for name in RELATIONS if f" {name} " in caption)
                    assert (each.answer == "yes") == (f" {relation} " in each.question)
                case "caption":
                    assert caption in (each.answer, each.other)
    assert kinds.keys() == set(KINDS)


def test_both_captions_of_two_objects_say_the_same() -> None:
    (caption,) = [
        each
        for each in ask_about("a small red circle below a large blue cross", np.random.default_rng(0))
        if each.kind == "caption"
    ]
    assert caption.answer == "a large blue cross above a small red circle"
    assert caption.other == "a small red circle below a large blue cross"


def test_other_texts_are_no_captions() -> None:
    with pytest.raises(ValueError, match="not a caption of the generated shapes"):
        read_scene("a photo of the digit seven")


def test_written_questions_belong_to_their_pairs(tmp_path: Path) -> None:
    written = write_synthetic(tmp_path / "data", "parquet", pairs=5, pairs_per_shard=3, size=8)
    file = tmp_path / "q.jsonl"
    assert write_shape_questions(str(file), written) == len(file.read_text().splitlines())
    asked = read_questions(AnswerSection(model="-", questions=str(file)))
    names = ["synthetic-000000.parquet"] * 3 + ["synthetic-000001.parquet"] * 2
    pairs = [f"{name}#{row}" for name, row in zip(names, (0, 1, 2, 0, 1), strict=True)]
    assert [json.loads(line)["pair"] for line in file.read_text().splitlines()][0] == pairs[0]
    assert all(len(asked.of(pair)) >= 5 for pair in pairs)
