"""The head that tests of answers share: generated shapes, the bundled multimodal model, and the command line."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from smoothcert.cli.main import app
from smoothcert.datasets import write_synthetic
from smoothcert.datasets.shape_questions import write_shape_questions
from smoothcert.errors import SmoothcertError

MODEL = "bundled:shapes-llava"


def smoothcert(*arguments: str) -> tuple[int, str]:
    """Exit code, and what was said."""
    said, code = io.StringIO(), 0
    with redirect_stdout(said), redirect_stderr(said):
        try:
            app(list(arguments))
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else int(bool(exc.code))
        except SmoothcertError as exc:
            code = exc.exit_code
            said.write(str(exc))
    return code, said.getvalue()


def write_shapes(here: Path, pairs: int, kinds: Collection[str] = ()) -> list[dict[str, Any]]:
    """Pairs under ``shapes``, and questions about them, of some kinds or all, which are returned."""
    written = write_synthetic(here / "shapes", "manifest", pairs=pairs, size=32, seed=3)
    questions = here / "questions.jsonl"
    write_shape_questions(str(questions), written)
    lines = [json.loads(line) for line in questions.read_text().splitlines()]
    lines = [line for line in lines if not kinds or line["kind"] in kinds]
    questions.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return lines


def write_job(here: Path, certify: dict[str, Any], answer: dict[str, Any]) -> Path:
    """A job about them, whose run is ``mine``; beside what is given it has no settings of its own."""
    job = {
        "name": "shapes",
        "data": {"format": "manifest", "uri": str(here / "shapes")},
        "encoder": {"model": MODEL, "slots": 2, "chunk": 16, "threads": 1},
        "certify": {"sigma": 0.2, "alpha": 0.05, "pilot_draws": 7, **certify},
        "executor": {"pairs_per_unit": 2},
        "output": {"runs": str(here), "run": "mine", "quarantine_budget": 1.0},
        "tracking": {"enabled": False},
        "answer": {"model": MODEL, "questions": str(here / "questions.jsonl"), **answer},
    }
    (here / "job.yaml").write_text(yaml.safe_dump(job))
    return here / "job.yaml"


@contextmanager
def broken(image: Path) -> Iterator[None]:
    """The file cannot be decoded meanwhile; its size and time stay, so that the data are the same."""
    whole, when = image.read_bytes(), image.stat()

    def write(content: bytes) -> None:
        image.write_bytes(content)
        os.utime(image, ns=(when.st_atime_ns, when.st_mtime_ns))

    write(b"broken" + whole[6:])
    try:
        yield
    finally:
        write(whole)
