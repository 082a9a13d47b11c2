"""Images that data names by path and that were overwritten in place are other data."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def marks(source):
    return [file.images.marks for file in source.files()]


def sizes(source):
    return [file.images.sizes.tolist() for file in source.files()]


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def manifest(request, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    rows = [{"image": f"{name}.png", "caption": name} for name in ("a", "b", "gone")]
    path = tmp_path / f"m.{request.param}"
    if request.param == "csv":
        path.write_text("image,caption\n" + "".join(f"{row['image']},{row['caption']}\n" for row in rows))
    elif request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def change_time(path):
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))


@pytest.mark.parametrize(
    "change, differs",
    [
        (lambda folder: None, False),
        (lambda folder: (folder / "a.png").write_bytes(b"longer"), True),
        (lambda folder: change_time(folder / "b.png"), True),
        (lambda folder: (folder / "gone.png").write_bytes(b"back"), True),
        (lambda folder: (folder / "b.png").unlink(), True),
        (lambda folder: (folder / "c.png").write_bytes(b"not named"), False),
    ],
)
def test_changes_on_a_disk(manifest, source, change, differs):
    before = marks(source("manifest", str(manifest)))
    change(manifest.parent)
    assert (marks(source("manifest", str(manifest))) != before) == differs


def test_a_limit_looks_at_its_own_images_alone(manifest, source):
    before = marks(source("manifest", str(manifest), limit=1))
    (manifest.parent / "b.png").write_bytes(b"other")
    assert marks(source("manifest", str(manifest), limit=1)) == before
    (manifest.parent / "a.png").write_bytes(b"other")
    assert marks(source("manifest", str(manifest), limit=1)) != before


def test_changes_in_a_store_cost_one_listing_a_folder(put, source, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    lines = "".join(f"images/{number}.png,a\n" for number in range(50))
    uri = put("memory://versions/m.csv", f"image,caption\n{lines}".encode())
    for number in range(50):
        put(f"memory://versions/images/{number}.png", b"x")
    listed = []
    listing = MemoryFileSystem.ls

    def noted(self, path, *args, **options):
        listed.append(path)
        return listing(self, path, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", noted)
    before = marks(source("manifest", uri))
    assert listed.count("/versions/images") == 1
    assert marks(source("manifest", uri)) == before
    put("memory://versions/images/7.png", b"longer")
    assert marks(source("manifest", uri)) != before


def test_sizes_and_names_are_those_of_the_images(manifest, source):
    read = source("manifest", str(manifest))
    assert sizes(read) == [[1, 1, -1]]
    (unit,) = read.units(10)
    assert list(read.named_images(unit)) == [
        (f"{manifest.name}#{i}", f"{name}.png") for i, name in enumerate(("a", "b", "gone"))
    ]


def test_what_a_copy_may_change(manifest, source):
    (before,) = (file.images for file in source("manifest", str(manifest)).files())
    change_time(manifest.parent / "a.png")
    (manifest.parent / "b.png").write_bytes(b"longer")
    (manifest.parent / "gone.png").write_bytes(b"back")
    (now,) = (file.images for file in source("manifest", str(manifest)).files())
    assert before.changed(now, moved=False) == [0, 1, 2]
    assert before.changed(now, moved=True) == [1, 2]


def test_an_unreadable_path_is_a_pair_without_version(tmp_path, source):
    paths = pa.array([b"a.png", b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"image": paths, "caption": ["a", "b"]}), tmp_path / "m.parquet")
    assert sizes(source("manifest", str(tmp_path / "m.parquet"))) == [[-1, -1]]


def test_it_says_what_is_covered(source):
    assert "modification time of each image" in source("manifest", "x").covers
    assert "not images that rows name by path" in source("parquet", "x").covers
