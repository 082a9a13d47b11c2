"""Linked folders, braces and odd names; what is not taken is told."""

import io
import os

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets.files import list_files
from smoothcert.errors import SourceError

SUFFIX = (".parquet",)


@pytest.fixture
def tree(tmp_path):
    """A folder with a part of its own and links to folders elsewhere."""
    for name in ("train/0", "disk1/1", "disk2/2", "disk2/more/3"):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    (tmp_path / "train/disk1").symlink_to("../disk1")
    (tmp_path / "train/disk2").symlink_to(tmp_path / "disk2")
    return tmp_path / "train"


def listed(uris, suffixes=SUFFIX, **options):
    left_out = set()
    found = list_files(
        [str(uri) for uri in uris], suffixes, on_left_out=lambda *e: left_out.add(e), **options
    )
    return [file.name for file in found], left_out


def test_linked_folders_are_entered(tree):
    everything = ["0.parquet", "disk1/1.parquet", "disk2/2.parquet", "disk2/more/3.parquet"]
    assert listed([tree]) == (everything, set())
    assert listed([tree / "**/*.parquet"]) == (everything, set())
    assert listed([tree / "*/*.parquet"])[0] == ["disk1/1.parquet", "disk2/2.parquet"]
    assert listed([tree / "disk?/*.parquet"])[0] == ["disk1/1.parquet", "disk2/2.parquet"]


def test_a_glob_enters_no_folder_that_it_cannot_mean(tree, monkeypatch):
    """Such a folder may be forbidden, or large."""
    entered = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: entered.append(str(path)) or scandir(path))
    assert listed([tree.parent / "dis*/*.parquet"])[0] == ["disk1/1.parquet", "disk2/2.parquet"]
    assert listed([tree.parent / "*2/**/*.parquet"])[0] == ["2.parquet", "more/3.parquet"]
    assert listed([tree.parent / "t*n/disk2/m*/*.parquet"])[0] == ["3.parquet"]
    below = {path.removeprefix(f"{tree.parent}").strip("/") for path in entered}
    assert below == {"", "disk1", "disk2", "disk2/more", "train", "train/disk2", "train/disk2/more"}


def test_loops_end_and_no_file_is_read_twice(tree):
    (tree / "self").symlink_to(".")
    (tree.parent / "disk2/more/up").symlink_to(tree.parent)
    (tree / "again").symlink_to("../disk1")
    names, left_out = listed([tree])
    assert sorted(name.rpartition("/")[2] for name in names) == [f"{i}.parquet" for i in range(4)]
    links = {(kind, path.removeprefix(f"{tree}/")) for kind, path, reason in left_out if "already" in reason}
    assert ("folder", "self") in links and len(links) == len(left_out) >= 3


def test_a_folder_inside_keeps_its_own_path_before_a_link_to_it(tmp_path):
    (tmp_path / "z").mkdir()
    (tmp_path / "z/a.parquet").write_bytes(b"")
    (tmp_path / "a").symlink_to("z")
    names, left_out = listed([tmp_path])
    assert names == ["a.parquet"]
    assert left_out == {("folder", f"{tmp_path}/a", "it is a link to a folder that is read already")}
    assert list_files([str(tmp_path)], SUFFIX)[0].uri == f"{tmp_path}/z/a.parquet"


def test_everything_that_is_not_taken_is_told(tree):
    (tree / "note.txt").write_text("x")
    (tree / "gone.parquet").symlink_to("nowhere")
    (tree / ".hidden").mkdir()
    (tree / "_SUCCESS").write_text("")
    names, left_out = listed([tree], recursive=False)
    assert names == ["0.parquet"]
    assert {(kind, path.removeprefix(f"{tree}/"), reason) for kind, path, reason in left_out} == {
        ("file", "note.txt", "its name does not end in .parquet"),
        ("file", "gone.parquet", "it is a link to nothing"),
        ("folder", ".hidden", "its name begins with '.' or '_'"),
        ("file", "_SUCCESS", "its name begins with '.' or '_'"),
        ("folder", "disk1", "folders inside are not searched in this format"),
        ("folder", "disk2", "folders inside are not searched in this format"),
    }


def test_hidden_files_of_a_store_are_told(put):
    for name in ("a.parquet", "_tmp/b.parquet", "c.csv"):
        put(f"memory://told/{name}", b"")
    names, left_out = listed(["memory://told"])
    assert names == ["a.parquet"]
    assert {path for _, path, _ in left_out} == {"/told/_tmp/b.parquet", "/told/c.csv"}


@pytest.mark.parametrize(
    "pattern, numbers",
    [
        ("{00000..00002}.tar", ["00000", "00001", "00002"]),
        ("0000{1,3}.tar", ["00001", "00003"]),
        ("000{0..1}{0..1}.tar", ["00000", "00001", "00010", "00011"]),
        ("{00003..00001}.tar", ["00003", "00002", "00001"]),
    ],
)
def test_braces_stand_for_names(folder, put, pattern, numbers):
    for name in ("00000", "00001", "00002", "00003", "00010", "00011"):
        put(f"{folder}/{name}.tar", b"")
    assert listed([f"{folder}/{pattern}"], (".tar",))[0] == [f"{number}.tar" for number in numbers]


def test_a_name_that_braces_stand_for_must_exist(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(SourceError, match="1.tar': it does not exist"):
        listed([f"{tmp_path}/{{0..1}}.tar"], (".tar",))
    with pytest.raises(SourceError, match="more than 1000000 files"):
        listed([f"{tmp_path}/{{0..99999999}}.tar"], (".tar",))
    (tmp_path / "{0..1}.tar").write_bytes(b"")
    assert listed([f"{tmp_path}/{{0..1}}.tar"], (".tar",))[0] == ["{0..1}.tar"]


def test_colons_in_a_name(folder, source, read_all):
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": [b"x"], "caption": ["a"]}), stream)
    fs, root = fsspec.core.url_to_fs(folder)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/12::30::05.parquet", stream.getvalue())
    for what in (f"{folder}/12::30::05.parquet", folder, f"{folder}/12::*.parquet"):
        (pair,) = read_all(source("parquet", what))
        assert (pair.pair_id, pair.image) == ("12::30::05.parquet#0", b"x")


@pytest.mark.parametrize(
    "uri", ["zip://a.parquet::{}/x.zip", "simplecache::memory://x", "filecache::{}/a.parquet"]
)
def test_one_store_inside_another_is_refused(tmp_path, uri):
    with pytest.raises(SourceError, match="chains file systems"):
        listed([uri.format(tmp_path)])
