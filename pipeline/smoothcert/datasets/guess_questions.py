"""A look at a file of questions that nobody has described yet: which format it is."""

from __future__ import annotations

import json

from smoothcert.catalogue.question_formats import QUESTION_FORMATS
from smoothcert.datasets.files import open_binary, store_trouble
from smoothcert.datasets.question_files import looks_like
from smoothcert.errors import JobError


def guess_questions(uri: str) -> str:
    """The format of ``answer.format`` that a file or folder of questions is of.

    Raises:
        JobError: it is of none; the text says which there are.
        SourceError: it is not there, or cannot be read.
    """
    name = uri.rstrip("/").lower()
    if name.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    if not name.endswith(".json"):
        return "imagefolder"
    with store_trouble(uri, "read the questions"), open_binary(uri) as stream:
        text = stream.read()
    try:
        found = looks_like(json.loads(text))
    except ValueError as exc:
        raise JobError(f"--questions '{uri}' is not JSON: {exc}", remedy="give another file") from exc
    if found == "annotations":
        raise JobError(
            f"--questions '{uri}' holds the answers of VQA, not its questions",
            remedy="give the file of questions, and add answer.annotations to the job",
        )
    if found is None:
        raise JobError(
            f"--questions '{uri}' is of no format that is known",
            remedy=f"formats are {', '.join(QUESTION_FORMATS)}; docs/answers.md shows each",
        )
    return found
