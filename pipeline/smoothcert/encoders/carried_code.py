"""Code files that a job names, carried to workers that do not see the job's folder.

A file goes with the Python files beside it and the packages in its folder, which it may import; nothing else does. On
a worker the copy is used in place of the path in the job, also where a file is there: it may be another one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothcert.encoders.cache import CACHE_VARIABLE, cache_folder
from smoothcert.errors import EncoderError, JobError
from smoothcert.job.encoder import names_code
from smoothcert.job.job import Job

LARGEST = 16 * 1024 * 1024
"""Bytes of Python files in one folder; more is hardly meant."""
_COPIES: dict[str, Path] = {}
"""Of this process: the copy of each folder that was carried here."""


@dataclass(frozen=True, slots=True)
class CarriedFolder:
    """The Python files of one folder.

    Attributes:
        folder: absolute, where the job has it.
        files: paths below it, with slashes, and contents; sorted.
    """

    folder: str
    files: tuple[tuple[str, bytes], ...]

    def unpack(self) -> None:
        """Write the copy on this machine, once for the same content, and use it from now on in this process.

        Raises:
            OSError: it cannot be written.
        """
        digest = hashlib.sha256()
        for name, content in self.files:
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        place = cache_folder() / "code" / digest.hexdigest()[:32]
        if not self._is_at(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=place.parent, prefix=".new-"))
            for name, content in self.files:
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_bytes(content)
            try:
                os.rename(made, place)
            except OSError:
                # another process was faster; or what is there was changed, and stays with who changed it
                place = place if self._is_at(place) else made
        _COPIES[self.folder] = place

    def _is_at(self, place: Path) -> bool:
        try:
            return all((place / name).read_bytes() == content for name, content in self.files)
        except OSError:
            return False


def carry_code(job: Job) -> tuple[CarriedFolder, ...]:
    """The folders of all code files that a job names.

    Raises:
        JobError: a folder holds too much.
        OSError: a file cannot be read.
    """
    named = {Path(value.rpartition(":")[0]).resolve() for value in _texts(job.model_dump(mode="json"))}
    return tuple(_read(folder) for folder in sorted({file.parent for file in named if file.is_file()}))


def unpack_code(folders: Sequence[CarriedFolder]) -> None:
    """Use the copies of all folders in this process, a worker's.

    Raises:
        EncoderError: one cannot be written.
    """
    try:
        for folder in folders:
            folder.unpack()
    except OSError as exc:
        raise EncoderError(
            f"the code of the job cannot be written on this worker: {exc}",
            remedy=f"name a writable directory in {CACHE_VARIABLE}",
        ) from exc


def place_of(file: Path) -> Path:
    """The file itself, or the copy that was carried here."""
    whole = file if file.is_absolute() else file.resolve()
    copy = _COPIES.get(str(whole.parent))
    return file if copy is None else copy / whole.name


def code_files(folder: Path) -> list[Path]:
    """The Python files in a folder, and those of the packages in it: what a file of the folder may import."""
    packages = [path.parent for path in folder.glob("*/__init__.py")]
    return [*folder.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]


def _read(folder: Path) -> CarriedFolder:
    files = code_files(folder)
    size = sum(path.stat().st_size for path in files)
    if size > LARGEST:
        raise JobError(
            f"'{folder}' holds {size:,} bytes of Python files, too many to carry to workers",
            remedy="keep the code that the job names in a folder of its own, or install it on every worker",
        )
    contents = ((path.relative_to(folder).as_posix(), path.read_bytes()) for path in files)
    return CarriedFolder(str(folder), tuple(sorted(contents)))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a job that names a callable in a file."""
    if isinstance(value, str):
        if names_code(value) and value.rpartition(":")[0].endswith(".py"):
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)
