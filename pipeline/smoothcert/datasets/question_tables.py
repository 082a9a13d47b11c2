"""Questions that tables and folders hold: columns of Parquet files, and the names of folders of images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from smoothcert.datasets.files import folder_of, list_files, open_binary, store_trouble
from smoothcert.datasets.image_folder import ImageFolderSource
from smoothcert.datasets.image_question import ImageQuestion, as_multiple_choice
from smoothcert.datasets.nanoseconds import read_as_pandas_does
from smoothcert.datasets.parquet_source import ParquetSource
from smoothcert.datasets.question_files import CLASS_PROMPT, FoundQuestion, QuestionFiles, reason, text_of
from smoothcert.datasets.question_json import right_option
from smoothcert.datasets.records import pair_id
from smoothcert.errors import JobError, did_you_mean

_ROWS = 1024


def read_folders(files: QuestionFiles) -> Iterator[FoundQuestion]:
    """``imagefolder``: one question for each image; the answer is the folder's name, ``_`` read as a blank."""
    for file in list_files([files.uri], ImageFolderSource.suffixes):
        files.digest.update(file.name.encode() + b"\0")
        folder, name = folder_of(file.uri), file.name.rpartition("/")[2]
        label = folder.rpartition("/")[2].rpartition("=")[2].replace("_", " ")
        pair = pair_id(file.name.rpartition("/")[0] or folder.rpartition("/")[2], name)
        yield pair, ImageQuestion(f"class-{pair}", files.ask or CLASS_PROMPT, (label,), "class")


def read_parquet(files: QuestionFiles) -> Iterator[FoundQuestion]:
    """``parquet``: one question a row; without ``columns.pair`` it is about the image of the same row."""
    for file in list_files([files.uri], ParquetSource.suffixes):
        with store_trouble(file.uri, "read the questions"), open_binary(file.uri) as stream:
            reader = pq.ParquetFile(stream)
            names = _columns(files, reader.schema_arrow.names, file.uri)
            read_as_pandas_does(reader.schema_arrow, names.values())
            number = 0
            for batch in reader.iter_batches(batch_size=_ROWS, columns=list(names.values())):
                for row in batch.to_pylist():
                    cells = {role: row[name] for role, name in names.items()}
                    files.digest.update(json.dumps(cells, sort_keys=True, default=str).encode())
                    try:
                        yield _question(files, cells, file.name.rpartition("/")[2], file.name, number)
                    except (ValueError, TypeError) as exc:
                        raise files.unlike(f"row {number:,} of '{file.uri}': {reason(exc)}") from exc
                    number += 1


def _question(
    files: QuestionFiles, cells: dict[str, Any], short: str, name: str, number: int
) -> FoundQuestion:
    pair = pair_id(name, number) if "pair" not in cells else str(cells["pair"])
    question = text_of(cells["question"]) if "question" in cells else files.ask or CLASS_PROMPT
    choices = tuple(text_of(each) for each in cells.get("choices") or ())
    given = cells.get("answers")
    answers = given if isinstance(given, list) else [] if given is None else [given]
    said = tuple(
        right_option(each, choices)
        if choices
        else text_of(each["answer"] if isinstance(each, dict) else each)
        for each in answers
    )
    identity = (
        str(cells["id"]) if "id" in cells else f"{short}#{number}" if name == short else f"{name}#{number}"
    )
    kind = None if cells.get("kind") is None else str(cells["kind"])
    asked = as_multiple_choice(question, choices, str(cells.get("context") or "")) if choices else question
    return pair, ImageQuestion(identity, asked, said, kind, choices)


def _columns(files: QuestionFiles, there: list[str], uri: str) -> dict[str, str]:
    """Column by role: those that the job names must be there, others are taken where they are."""
    wanted = {role: name for role, name in files.columns.model_dump().items() if name is not None}
    for role, name in wanted.items():
        if name not in there and role in files.columns.model_fields_set:
            raise JobError(
                f"answer.columns.{role}='{name}' is not a column of '{uri}'{did_you_mean(name, there)}",
                remedy=f"it has {', '.join(there)}",
            )
    found = {role: name for role, name in wanted.items() if name in there}
    if "question" not in found and files.ask is None:
        raise JobError(
            f"'{uri}' has no column '{wanted.get('question', 'question')}'",
            remedy=f"set answer.columns.question to one of {', '.join(there)}, or answer.ask to ask all the same",
        )
    return found
