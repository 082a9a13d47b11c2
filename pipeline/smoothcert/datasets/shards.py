"""Writing image-text pairs as shards that the sources of this package read."""

from __future__ import annotations

import csv
import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, ClassVar, Literal, get_args

import fsspec.core
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from smoothcert.errors import JobError, SmoothcertError, StoreError, did_you_mean

Format = Literal["parquet", "webdataset", "manifest"]

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("caption", pa.string()),
        ("label", pa.string()),
    ]
)
"""Columns of the Parquet shards."""


@dataclass(frozen=True, slots=True)
class NewSample:
    """One pair to write: ``key`` is unique in its shard, ``png`` the encoded image."""

    key: str
    png: bytes
    caption: str
    label: str


@dataclass(frozen=True, slots=True)
class WrittenDataset:
    """What was written. ``directory`` is what a job's ``data.uri`` takes, ``format`` its ``data.format``."""

    directory: str
    format: Format
    pairs: int
    files: tuple[str, ...]
    """Names of the shards in the directory, in order."""


def write_shards(
    directory: str,
    format: Format,
    shards: Iterable[tuple[str, Callable[[], Iterable[NewSample]]]],
    *,
    rows_per_group: int,
) -> WrittenDataset:
    """Write shards one after another; memory is bounded by one row group.

    Args:
        directory: path or fsspec URL; created if it does not exist.
        format: ``parquet`` (columns of ``SCHEMA``), ``webdataset`` (key.png, key.txt, key.cls) or
            ``manifest`` (a CSV file and a folder of PNG files for each shard).
        shards: (stem of the file name, what makes its pairs).
        rows_per_group: rows of a Parquet row group.

    Raises:
        JobError: there is no such format, or the directory holds other data that would be read as well.
        StoreError: writing failed.
    """
    if format not in get_args(Format):
        known = get_args(Format)
        raise JobError(
            f"format={format!r} does not exist{did_you_mean(str(format), known)}",
            remedy=f"use one of {', '.join(known)}",
        )
    kind = _WRITERS[format]
    plan = [(stem + kind.suffix, make) for stem, make in shards]
    pairs = 0
    with _writing(directory):
        fs, root = fsspec.core.url_to_fs(directory)
        fs.makedirs(root, exist_ok=True)
        _refuse_other_data(fs, root, kind.suffix, {name for name, _ in plan})
        for name, make in plan:
            with kind(fs, root, name, rows_per_group) as shard:
                for sample in make():
                    shard.add(sample)
                    pairs += 1
    return WrittenDataset(directory, format, pairs, tuple(name for name, _ in plan))


class _Shard(ABC):
    suffix: ClassVar[str]

    def __init__(self, fs: Any, root: str, name: str, rows_per_group: int) -> None:
        self.fs, self.root, self.rows_per_group = fs, root.rstrip("/"), rows_per_group
        self.stem = name.removesuffix(self.suffix)
        self.stream: IO[bytes] = fs.open(f"{self.root}/{name}", "wb")

    def __enter__(self) -> _Shard:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()
        self.stream.close()

    @abstractmethod
    def add(self, sample: NewSample) -> None: ...

    @abstractmethod
    def finish(self) -> None: ...


class _ParquetShard(_Shard):
    suffix = ".parquet"

    def __init__(self, fs: Any, root: str, name: str, rows_per_group: int) -> None:
        super().__init__(fs, root, name, rows_per_group)
        # Images are compressed already.
        self.writer = pq.ParquetWriter(
            self.stream, SCHEMA, compression="none", use_dictionary=["label"], write_page_checksum=True
        )
        self.waiting: list[NewSample] = []

    def add(self, sample: NewSample) -> None:
        self.waiting.append(sample)
        if len(self.waiting) == self.rows_per_group:
            self._flush()

    def finish(self) -> None:
        if self.waiting:
            self._flush()
        self.writer.close()

    def _flush(self) -> None:
        bytes_ = pa.array([sample.png for sample in self.waiting], pa.binary())
        paths = pa.array([f"{sample.key}.png" for sample in self.waiting], pa.string())
        columns = [
            pa.array([sample.key for sample in self.waiting], pa.string()),
            pa.StructArray.from_arrays([bytes_, paths], fields=list(SCHEMA.field("image").type)),
            pa.array([sample.caption for sample in self.waiting], pa.string()),
            pa.array([sample.label for sample in self.waiting], pa.string()),
        ]
        self.writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
        self.waiting.clear()


class _TarShard(_Shard):
    suffix = ".tar"

    def add(self, sample: NewSample) -> None:
        parts = (("png", sample.png), ("txt", sample.caption.encode()), ("cls", sample.label.encode()))
        for extension, data in parts:
            self.stream.write(_tar_header(f"{sample.key}.{extension}".encode(), len(data)))
            self.stream.write(data)
            self.stream.write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def finish(self) -> None:
        self.stream.write(bytes(2 * tarfile.BLOCKSIZE))


_TAR_HEADER = tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)
"""Time, owner and mode are the same for every member."""


def _tar_header(name: bytes, size: int) -> bytes:
    """What ``tarfile`` would write for a file of mode 0644 and time 0, several times faster."""
    if len(name) > 100:
        raise ValueError(f"member name {name!r} has more than 100 bytes")
    head = name.ljust(100, b"\0") + _TAR_HEADER[100:124] + b"%011o\0" % size + _TAR_HEADER[136:148]
    tail = _TAR_HEADER[156:]
    return head + b"%06o\0 " % (sum(head) + 8 * 32 + sum(tail)) + tail


class _ManifestShard(_Shard):
    suffix = ".csv"

    def __init__(self, fs: Any, root: str, name: str, rows_per_group: int) -> None:
        super().__init__(fs, root, name, rows_per_group)
        self.fs.makedirs(f"{self.root}/{self.stem}", exist_ok=True)
        self._row("image", "caption", "label")

    def add(self, sample: NewSample) -> None:
        path = f"{self.stem}/{sample.key}.png"
        if isinstance(self.fs, LocalFileSystem):
            with open(f"{self.root}/{path}", "wb") as stream:  # fsspec's own way takes four times as long
                stream.write(sample.png)
        else:
            self.fs.pipe_file(f"{self.root}/{path}", sample.png)
        self._row(path, sample.caption, sample.label)

    def finish(self) -> None:
        pass

    def _row(self, *cells: str) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self.stream.write(line.getvalue().encode())


_WRITERS: dict[Format, type[_Shard]] = {
    "parquet": _ParquetShard,
    "webdataset": _TarShard,
    "manifest": _ManifestShard,
}


@contextmanager
def _writing(directory: str) -> Iterator[None]:
    try:
        yield
    except SmoothcertError:
        raise
    except Exception as exc:  # file systems are plug-ins with error types of their own
        raise StoreError(
            f"cannot write to '{directory}': {exc or type(exc).__name__}",
            remedy="free some space or choose another directory, then run the command again",
        ) from exc


def _refuse_other_data(fs: Any, root: str, suffix: str, names: set[str]) -> None:
    try:
        present = [path.rpartition("/")[2] for path in fs.ls(root, detail=False)]
    except FileNotFoundError:  # object stores have no empty directories
        return
    other = sorted(name for name in present if name.endswith(suffix) and name not in names)
    if other:
        examples = ", ".join(other[:3]) + ", ..." * (len(other) > 3)
        raise JobError(
            f"directory '{root}' holds other {suffix} files ({examples}), "
            "which would be read as part of the data",
            remedy="choose an empty directory",
        )
