"""Every format of questions, one entry each: its name, where the code that reads it is, and which fields it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class QuestionFormatEntry:
    """A format of questions.

    Attributes:
        module: of ``smoothcert.datasets``.
        reader: its function there: ``QuestionFiles`` -> what the file calls an image, and a question about it.
        summary: one line for people.
        takes: fields of the job's section ``answer`` that only some formats have: ``annotations``, ``split``, ``ask``
            and ``columns``.
    """

    module: str
    reader: str
    summary: str
    takes: tuple[str, ...] = ()


QUESTION_FORMATS: Mapping[str, QuestionFormatEntry] = MappingProxyType(
    {
        "jsonl": QuestionFormatEntry(
            "question_json",
            "read_lines",
            "one object a line: pair, question, and perhaps id, answers, choices, kind",
        ),
        "vqa": QuestionFormatEntry(
            "question_json", "read_vqa", "questions JSON of VQA v2, TextVQA or VizWiz", ("annotations",)
        ),
        "coco_captions": QuestionFormatEntry(
            "question_json",
            "read_coco_captions",
            "captions JSON of COCO: each image asked for a caption",
            ("ask",),
        ),
        "coco_instances": QuestionFormatEntry(
            "question_json",
            "read_coco_instances",
            "instances JSON of COCO: each image asked for its objects",
            ("ask",),
        ),
        "karpathy": QuestionFormatEntry(
            "question_json",
            "read_karpathy",
            "captions with Karpathy's splits (dataset_coco.json): each image asked for a caption",
            ("split", "ask"),
        ),
        "scienceqa": QuestionFormatEntry(
            "question_json",
            "read_scienceqa",
            "problems.json of ScienceQA: multiple choice, images at <id>/image.png",
            ("split",),
        ),
        "imagefolder": QuestionFormatEntry(
            "question_tables",
            "read_folders",
            "folders of images: each image asked what it shows, the answer is its folder's name",
            ("ask",),
        ),
        "parquet": QuestionFormatEntry(
            "question_tables",
            "read_parquet",
            "columns of Parquet files, of the images' own files or of others",
            ("columns", "ask"),
        ),
    }
)
"""By name."""
