"""The written demo data against the digits it shows, read by this package and by others."""

import csv
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets import decode_image, load_digits_pairs, write_demo_data
from smoothcert.errors import JobError, StoreError

FORMATS = ["parquet", "webdataset", "manifest"]


@pytest.mark.parametrize(
    "format, split",
    [
        ("parquet", "test"),
        ("webdataset", "test"),
        ("manifest", "test"),
        ("parquet", "all"),
    ],
)
def test_what_is_read_back_is_what_the_recipes_train_on(tmp_path, source, read_all, format, split):
    written = write_demo_data(tmp_path, format, split=split)
    expected = load_digits_pairs(split)
    assert (written.pairs, written.format, len(written.files)) == (len(expected), format, 3)
    pairs = read_all(source(format, written.directory), 100)
    assert len(pairs) == len(expected)
    for pair, (image, caption, label) in zip(pairs, expected, strict=True):
        assert (pair.captions, pair.label, pair.error) == ((caption,), label, None)
        np.testing.assert_array_equal(decode_image(pair.image, max_pixels=1024), image)


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_bytes_every_time(tmp_path, format):
    for name in ("one", "two"):
        write_demo_data(tmp_path / name, format)
    write_demo_data(tmp_path / "two", format)  # writing again replaces
    one, two = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("one", "two")
    )
    assert one == two and len(one) == (3 if format != "manifest" else 363)


def test_other_tools_read_it_too(tmp_path):
    first = load_digits_pairs("test")[0][1:]
    write_demo_data(tmp_path / "p", "parquet")
    files = sorted((tmp_path / "p").iterdir())
    table = pq.read_table(files[0])
    assert (table["caption"][0].as_py(), table["label"][0].as_py()) == first
    assert pq.ParquetFile(files[0]).num_row_groups == 3
    write_demo_data(tmp_path / "w", "webdataset")
    with tarfile.open(sorted((tmp_path / "w").iterdir())[0]) as archive:
        assert [archive.extractfile(m).read().decode() for m in archive.getmembers()[1:3]] == list(first)
    write_demo_data(tmp_path / "m", "manifest")
    with open(tmp_path / "m" / "digits-test-00000-of-00003.csv", newline="") as stream:
        row = next(csv.DictReader(stream))
    assert (row["caption"], row["label"]) == first and (tmp_path / "m" / row["image"]).is_file()


def test_any_store_will_do(source, read_all):
    written = write_demo_data("memory://demo-data", "webdataset")
    assert len(read_all(source("webdataset", written.directory), 100)) == 360


def test_other_data_in_the_directory_is_not_mixed_in(tmp_path):
    write_demo_data(tmp_path, "parquet", split="test")
    with pytest.raises(JobError, match=r"holds other \.parquet files(.|\n)*choose an empty directory"):
        write_demo_data(tmp_path, "parquet", split="train")
    write_demo_data(tmp_path, "webdataset", split="train")  # another format is read apart


def test_wrong_words_are_named(tmp_path):
    with pytest.raises(JobError, match="format='parket' does not exist.*did you mean 'parquet'"):
        write_demo_data(tmp_path, "parket")
    with pytest.raises(JobError, match="split='tset'"):
        write_demo_data(tmp_path, "parquet", split="tset")


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write to"):
        write_demo_data(tmp_path / "file" / "below", "parquet")


def test_tar_headers_are_those_of_tarfile():
    from smoothcert.datasets.shards import _tar_header

    for name, size in (("0007.png", 0), ("x" * 100, 8**11 - 1), ("a/b.txt", 4097)):
        entry = tarfile.TarInfo(name)
        entry.size = size
        assert _tar_header(name.encode(), size) == entry.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_named(format):
    """/dev/full takes every open and refuses every byte."""
    from smoothcert.datasets import shards

    class FullDisk:
        def makedirs(self, *_, **__): ...

        def ls(self, *_, **__):
            return []

        def open(self, *_):
            return open("/dev/full", "wb")

        def pipe_file(self, *_):
            with open("/dev/full", "wb") as stream:
                stream.write(b"x")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards.fsspec.core, "url_to_fs", lambda url: (FullDisk(), url))
        with pytest.raises(StoreError, match="No space left on device(.|\n)*free some space"):
            write_demo_data("full", format)
