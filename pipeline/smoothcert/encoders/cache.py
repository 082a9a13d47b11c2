"""Models and parts of defences on any URL, brought to this machine once and kept.

    <cache>/<what the URL is>/<what it held>/   the files, and fetched.json: their sizes and digests

The cache is ``SMOOTHCERT_CACHE``, by default ``~/.cache/smoothcert/models``; any folder in it may be deleted while
nobody loads from it. Workers of one machine share it: the first fetches under a lock, the others wait for it. What
was fetched is known by names, sizes and times of the files at the URL, so that a model that was replaced there is
fetched anew; and what lies here is held against its digests whenever it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from smoothcert.errors import EncoderError, StoreError
from smoothcert.redaction import without_secrets
from smoothcert.storage import Entry, Storage, translate
from smoothcert.storage.steady import SteadyFile
from smoothcert.storage.waiting import waiting_aloud

log = logging.getLogger(__name__)

CACHE_VARIABLE = "SMOOTHCERT_CACHE"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FETCHED = "fetched.json"
_PIECE = 32 * 1024 * 1024
_LOCK_S = 1800.0
"""How long another process of this machine may take to fetch the same."""
_SLOWEST = 2_000_000
"""Bytes a second at which a fetch would end about when the log says."""


def is_url(place: str) -> bool:
    """Whether a model or part is on a store that is not simply a path here."""
    return _URL.match(place) is not None


def fetch_folder(url: str, wanted: Callable[[str], bool], *, field: str) -> Path:
    """The folder of this machine that holds a model's files.

    Args:
        url: of the folder that holds them.
        wanted: which files by their names.
        field: of the job, for errors.

    Raises:
        EncoderError: there is nothing, or it changed while it was fetched, or another process takes too long.
        StoreError: the store failed.
    """
    storage = Storage(url)
    if storage.local:
        return Path(storage.root)
    entries = [entry for entry in storage.entries("") if wanted(entry.name)]
    if not entries:
        raise EncoderError(
            f"{field}='{without_secrets(url)}' holds no model",
            remedy="give the URL of the directory that save_pretrained or 'hf download' wrote",
        )
    return _fetch(storage, entries, field)


def fetch_file(url: str, *, field: str) -> Path:
    """The file of this machine that holds what a URL holds.

    Raises:
        EncoderError, StoreError: as for ``fetch_folder``.
    """
    folder, _, name = url.rpartition("/")
    storage = Storage(folder)
    if storage.local:
        return Path(storage.path(name))
    entries = [entry for entry in storage.entries("") if entry.name == name]
    if not entries:
        raise EncoderError(f"{field}='{without_secrets(url)}' does not exist", remedy="check the URL")
    return _fetch(storage, entries, field) / name


def cache_folder() -> Path:
    """Where what was fetched is kept on this machine."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "smoothcert" / "models"


def _fetch(storage: Storage, entries: list[Entry], field: str) -> Path:
    shown = without_secrets(storage.url)
    home = cache_folder() / hashlib.sha256(storage.url.encode()).hexdigest()[:16]
    state = "\n".join(f"{entry.name} {entry.size} {entry.modified}" for entry in entries)
    folder = home / hashlib.sha256(state.encode()).hexdigest()[:16]
    size = sum(entry.size for entry in entries)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(home / "lock"))
        with waiting_aloud(f"for another process to fetch '{shown}'", _LOCK_S):
            lock.acquire(timeout=_LOCK_S)
    except Timeout:
        raise EncoderError(
            f"{field}: another process holds {home / 'lock'} for more than {_LOCK_S:g} s",
            remedy=f"see what it does, or name another cache in {CACHE_VARIABLE}",
        ) from None
    except OSError as exc:
        raise EncoderError(
            f"{field}: the cache '{home}' cannot be written: {exc}",
            remedy=f"name a writable directory in {CACHE_VARIABLE}",
        ) from exc
    try:
        if _is_whole(folder):
            return folder
        for left in home.glob("*.part"):
            shutil.rmtree(left, ignore_errors=True)
        with waiting_aloud(f"for '{shown}' ({size:,} bytes)", size / _SLOWEST + 60):
            _bring(storage, entries, folder, field)
        return folder
    finally:
        lock.release()


def _bring(storage: Storage, entries: list[Entry], folder: Path, field: str) -> None:
    part = folder.with_name(f"{folder.name}-{uuid.uuid4().hex[:8]}.part")
    part.mkdir()
    held: dict[str, tuple[int, str]] = {}
    try:
        for entry in entries:
            held[entry.name] = _copy(storage, entry.name, part / entry.name)
            if held[entry.name][0] != entry.size:
                raise EncoderError(
                    f"{field}: '{without_secrets(storage.full_url(entry.name))}' was {entry.size} bytes when it was "
                    f"listed, and {held[entry.name][0]} when it was fetched",
                    remedy="run again once nobody writes there",
                )
        (part / _FETCHED).write_text(json.dumps(held, indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as exc:
        raise EncoderError(
            f"{field}: '{part}' cannot be written: {exc}",
            remedy=f"free some space, or name another directory in {CACHE_VARIABLE}",
        ) from exc
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _copy(storage: Storage, name: str, to: Path) -> tuple[int, str]:
    """Size and sha256 of what was copied."""
    digest, size = hashlib.sha256(), 0
    with to.open("wb") as stream:
        for data in _pieces(storage, name):
            digest.update(data)
            stream.write(data)
            size += len(data)
    return size, digest.hexdigest()


def _pieces(storage: Storage, name: str) -> Iterator[bytes]:
    try:
        file = SteadyFile(storage.fs, storage.path(name))
        while data := file.read(_PIECE):
            yield data
    except Exception as exc:
        ours = translate(exc, "read", without_secrets(storage.full_url(name)))
        if ours is exc or not isinstance(ours, StoreError):
            raise
        raise ours from exc


def _is_whole(folder: Path) -> bool:
    """Whether a folder of the cache holds what was fetched into it."""
    try:
        held = json.loads((folder / _FETCHED).read_text(encoding="utf-8"))
        for name, (size, digest) in held.items():
            with (folder / name).open("rb") as stream:
                good = os.fstat(stream.fileno()).st_size == size
                if not good or hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    log.warning("'%s' is damaged and is fetched again", folder / name)
                    return False
    except (OSError, ValueError):
        return False
    return True
