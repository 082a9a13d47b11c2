"""``smoothcert doctor``: what is installed, what the devices and stores can do, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from smoothcert.cli.terminal import Terminal
from smoothcert.redaction import without_secrets
from smoothcert.shipped import FOLDERS, shipped_files
from smoothcert.version import VERSION

_PACKAGES = (
    "torch", "transformers", "tokenizers", "sentencepiece", "ray", "pyarrow", "duckdb", "mlflow", "fsspec", "numpy",
    "scipy", "pillow",
)  # fmt: skip


def doctor(
    store: Annotated[
        list[str] | None,
        typer.Option(
            "--store", metavar="URL", help="Also test this directory for runs, e.g. s3://bucket/runs."
        ),
    ] = None,
) -> None:
    """Check versions, devices and object stores, and say how to fix what is wrong. Exit code 1 if anything is."""
    terminal = Terminal()
    problems: list[str] = []

    def line(what: str, value: str) -> None:
        terminal.say(f"{what:<14} {without_secrets(value)}")

    from smoothcert.runtime.code_version import code_version

    line("smoothcert", VERSION)
    line("code version", f"{code_version()} (a run resumes with the one that began it)")
    _examples(line, problems)
    line("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _PACKAGES:
        try:
            line(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name} is not installed: pip install -c constraints.txt -e .")
    _devices(line, problems)
    for url in ["runs", *(store or [])]:
        _store(url, line, problems)
    if importlib.util.find_spec("s3fs") is None:
        line("s3", "not available; for s3:// URLs: pip install -c constraints.txt -e '.[s3]'")
    tracking = os.environ.get(
        "MLFLOW_TRACKING_URI", "SQLite beside the runs (MLFLOW_TRACKING_URI is not set)"
    )
    line("mlflow store", tracking)
    line(
        "ray address",
        os.environ.get("RAY_ADDRESS", "not set: a cluster is started on this machine when needed"),
    )
    for problem in problems:
        terminal.say((f"problem: {without_secrets(problem)}", "bold red"))
    terminal.say("no problems found" if not problems else f"{len(problems)} problem(s)")
    sys.exit(1 if problems else 0)


def _examples(line: object, problems: list[str]) -> None:
    assert callable(line)
    found = shipped_files()
    if found is None:
        problems.append("jobs, schemas and recipes are missing: install the wheel, or work in a checkout")
    else:
        line("to copy from", f"{found}: {', '.join(FOLDERS)}")


def _devices(line: object, problems: list[str]) -> None:
    assert callable(line)
    import torch

    line("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            line(f"cuda:{index}", f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
    elif torch.version.cuda:
        problems.append("torch is a CUDA build but sees no GPU: check the driver with nvidia-smi")
    else:
        line(
            "gpu", "none (torch is a CPU build); for a GPU install the CUDA build of the pinned torch version"
        )


def _store(url: str, line: object, problems: list[str]) -> None:
    assert callable(line)
    from smoothcert.errors import StoreError
    from smoothcert.storage import Storage

    try:
        storage = Storage(url)
        if storage.local:
            # a directory that the first run will make is tried where it would be made: this command leaves nothing
            storage = Storage(_nearest_directory(storage.url))
        exclusive = storage.supports_exclusive_create()
    except StoreError as exc:
        problems.append(f"store {url}: {exc}")
        return
    how = (
        "exclusive create supported"
        if exclusive
        else "no exclusive create: the driver commits for all workers"
    )
    line("store", f"{url}: writable; {how}")


def _nearest_directory(path: str) -> Path:
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    return place
