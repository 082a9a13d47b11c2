"""What the fault tests put into real runs: encoders that go wrong on one pair, and a store that fails now and then.

Importable by Ray workers and by driver subprocesses: the tests put this directory on PYTHONPATH. The executor, the
store and the engine are the shipped ones; only the encoder and the file system behind ``flaky://`` are made here. What
only drivers need is in ``smoothcert_faulty_driver``.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import torch
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from smoothcert.encoders import KnownEncoder
from smoothcert.errors import EncoderError, StoreError
from smoothcert.runtime.opening import Opening
from smoothcert.store import lease

FLAKY = "SMOOTHCERT_FLAKY"
lease.BEAT_S = float(os.environ.get("SMOOTHCERT_BEAT_S", lease.BEAT_S))

SIZE = 16
BRIGHT = 250
"""Level of the one image that faulty encoders stumble over; all others are darker than 190."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong in workers.

    Attributes:
        pace_s: pause per batch, so that there is a middle of a unit to strike.
        on_bright: ``exit``, ``hang``, ``oom`` (always), ``oom_once`` (whole batches only) or ``hoard`` (memory of
            the process, until its node ends it), when the bright image is in the batch.
        hoard_bytes: how much that is.
        cannot_start: ``store`` or ``encoder``: what the error is with which workers refuse to start.
        but_first: a file; the process that creates it first starts all the same.
        slow_process: a file; the process that creates it first is slow by ``slow_s`` a batch.
    """

    pace_s: float = 0.0
    on_bright: str = ""
    hoard_bytes: int = 0
    cannot_start: str = ""
    but_first: str = ""
    slow_process: str = ""
    slow_s: float = 0.0


class FaultyEncoder(KnownEncoder):
    """A ``KnownEncoder`` that goes wrong; its features and its digest are the same as without faults."""

    faults = Faults()
    _slow: bool | None = None

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.faults.pace_s:
            time.sleep(self.faults.pace_s)
        if self._is_slow():
            time.sleep(self.faults.slow_s)
        if self.faults.on_bright:
            # the mean over 768 pixels of a draw is within 0.05 of the image's own, at sigma 0.25
            means = pixels.flatten(1).mean(1)
            bright = bool((means > 0.87).any())
            if bright and len(pixels) > 3:  # not the contract check, which has three images
                self._stumble(alone=bool((means > 0.87).all()))
        return super()._image_features(pixels)

    def _stumble(self, *, alone: bool) -> None:
        kind = self.faults.on_bright
        if kind == "exit":
            os._exit(17)
        if kind == "hang":
            time.sleep(3600)
        if kind == "hoard":
            hoard = bytearray(b"x") * self.faults.hoard_bytes  # every page is written
            time.sleep(60)
            del hoard
        if kind == "oom" or (kind == "oom_once" and not alone):
            raise torch.OutOfMemoryError("CUDA out of memory (made by a test)")

    def _is_slow(self) -> bool:
        if not self.faults.slow_process:
            return False
        if self._slow is None:
            self._slow = is_first(self.faults.slow_process)
        return self._slow


def is_first(file: str) -> bool:
    """Whether this process is the one that creates a file."""
    try:
        with open(file, "x") as stream:
            stream.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


def make_encoder(faults: Faults = Faults()) -> FaultyEncoder:
    """Known smoothed features on 16 x 16 images, with these faults."""
    encoder = FaultyEncoder.rotating(0.8, input_size=(SIZE, SIZE), feature_dim=4, seed=3)
    encoder.faults = faults
    return encoder


def make_paced() -> FaultyEncoder:
    """The same with nothing wrong but a pause per batch, for jobs that name it: ``smoothcert_faults:make_paced``."""
    return make_encoder(Faults(pace_s=0.03))


@dataclass(frozen=True)
class FaultyOpening(Opening):
    """Opens a worker session, of certification or of attacks, with a faulty encoder, on the driver's flaky store."""

    faults: Faults = field(default_factory=Faults)
    flaky: str | None = field(default_factory=lambda: os.environ.get(FLAKY), kw_only=True)

    def load(self) -> FaultyEncoder:
        if self.flaky is not None:
            os.environ[FLAKY] = self.flaky
        torch.set_num_threads(1)
        kind = self.faults.cannot_start
        if kind and not (self.faults.but_first and is_first(self.faults.but_first)):
            raise (StoreError if kind == "store" else EncoderError)(f"made by a test: {kind}")
        return make_encoder(self.faults)


class FlakyFileSystem(AbstractFileSystem):
    """Local files behind ``flaky://`` whose requests fail as SMOOTHCERT_FLAKY says, counted per process.

    ``{"kind": ..., "every": 20, "first": 7, "since": "<glob>", "until": "<file>"}``, where the kind is ``error``,
    ``timeout``, ``truncate`` or ``full``. The request number ``first`` fails, and every 20th after it; of ``truncate``
    only reads count, of ``full`` only writes. Nothing fails before a file matches ``since`` nor while
    ``until`` exists.
    """

    protocol = "flaky"
    root_marker = "/"
    cachable = False
    _count = 0
    _lock = threading.Lock()
    _disk = LocalFileSystem()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return LocalFileSystem._strip_protocol(os.fspath(path).removeprefix("flaky://"))

    def _fails(self, kinds: tuple[str, ...]) -> str:
        settings = json.loads(os.environ.get(FLAKY, "{}"))
        kind = settings.get("kind", "")
        if kind not in kinds or ("until" in settings and Path(settings["until"]).exists()):
            return ""
        if "since" in settings and not glob.glob(settings["since"]):
            return ""
        with self._lock:
            FlakyFileSystem._count += 1
            return kind if (self._count - settings.get("first", 0)) % settings["every"] == 0 else ""

    def _request(self, *more: str) -> None:
        kind = self._fails(("error", "timeout", *more))
        if kind == "error":
            raise OSError(errno.EREMOTEIO, "503 slow down (made by a test)")
        if kind == "timeout":
            raise TimeoutError("read timed out (made by a test)")
        if kind == "full":
            raise OSError(errno.ENOSPC, "no space left (made by a test)")

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        self._request()
        data: bytes = self._disk.cat_file(self._strip_protocol(path), start, end)
        return data[: len(data) // 2] if self._fails(("truncate",)) else data

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._request("full")
        target = self._strip_protocol(path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.{os.getpid()}.{threading.get_ident()}.put"
        Path(temporary).write_bytes(value)
        os.replace(temporary, target)

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self._request()
        found = self._disk.ls(self._strip_protocol(path), detail=True)
        kept = [item for item in found if not item["name"].endswith(".put")]
        return kept if detail else [item["name"] for item in kept]

    def info(self, path: str, **kwargs: Any) -> Any:
        self._request()
        return self._disk.info(self._strip_protocol(path))

    def rm_file(self, path: str) -> None:
        self._request()
        self._disk.rm_file(self._strip_protocol(path))


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
