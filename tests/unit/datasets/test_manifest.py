"""Manifests of every kind, and image paths of every kind."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets.image_paths import resolve_path
from smoothcert.errors import CaptionError, ReadError, SourceError

KINDS = ["csv", "tsv", "jsonl", "parquet"]


def rendered(rows, kind):
    if kind == "parquet":
        stream = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), stream, row_group_size=7)
        return stream.getvalue()
    if kind == "jsonl":
        return "\n".join(json.dumps(row) for row in rows).encode()
    text = io.StringIO()
    writer = csv.DictWriter(
        text, rows[0].keys(), delimiter="," if kind == "csv" else "\t", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.fixture
def listed(folder, put, picture):
    """``listed(kind, n)``: n images and a manifest of them; its URL."""

    def make(kind, count):
        rows = []
        for i in range(count):
            put(f"{folder}/images/{i}.png", picture(i))
            rows.append(
                {
                    "image": f"images/{i}.png",
                    "caption": f'say "{i}",\nplease',
                    "label": f"l{i}",
                    "key": f"k{i}",
                }
            )
        return put(f"{folder}/m.{kind}", rendered(rows, kind))

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_unit", [1, 5, 1000])
def test_every_pair_comes_back_in_order(listed, source, read_all, picture, kind, per_unit):
    pairs = read_all(source("manifest", listed(kind, 40)), per_unit)
    assert [pair.image for pair in pairs] == [picture(i) for i in range(40)]
    assert [pair.pair_id for pair in pairs] == [f"m.{kind}#{i}" for i in range(40)]
    assert [pair.image_name for pair in pairs] == [f"images/{i}.png" for i in range(40)]
    assert [(pair.captions, pair.label) for pair in pairs] == [
        ((f'say "{i}",\nplease',), f"l{i}") for i in range(40)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_only_captions(listed, source, kind):
    manifest = source("manifest", listed(kind, 20), columns={"id": "key"})
    (unit,) = manifest.units(100)
    wanted = [f"m.{kind}#k4", f"m.{kind}#k17"]
    assert [(pair.pair_id, pair.image_name) for pair in manifest.read(unit, wanted)] == [
        (w, None) for w in wanted
    ]
    assert [identity for identity, _ in manifest.captions()] == [f"m.{kind}#k{i}" for i in range(20)]
    assert [pair.pair_id for pair in manifest.read(unit.part(17, 19))] == [f"m.{kind}#k17", f"m.{kind}#k18"]


@pytest.mark.parametrize(
    "path, folder, expected",
    [
        ("a.png", "/data/x", "/data/x/a.png"),
        ("../a.png", "/data/x", "/data/x/../a.png"),
        ("/other/a.png", "/data/x", "/other/a.png"),
        ("a.png", "s3://bucket/x", "s3://bucket/x/a.png"),
        ("../y/a.png", "s3://bucket/x", "s3://bucket/y/a.png"),
        ("a.png", "memory:///x", "memory:///x/a.png"),
        ("gs://other/a.png", "s3://bucket/x", "gs://other/a.png"),
    ],
)
def test_where_paths_point(path, folder, expected):
    assert resolve_path(path, folder) == expected


def test_absolute_paths_and_urls(tmp_path, put, source, read_all, picture):
    put(f"{tmp_path}/far/1.png", picture(1))
    put("memory://pictures/2.png", picture(2))
    rows = [
        {"image": f"{tmp_path}/far/1.png", "caption": "a"},
        {"image": "memory://pictures/2.png", "caption": "b"},
        {"image": f"file://{tmp_path}/far/1.png", "caption": "c"},
    ]
    uri = put(f"{tmp_path}/lists/m.jsonl", rendered(rows, "jsonl"))
    assert [pair.image for pair in read_all(source("manifest", uri))] == [picture(1), picture(2), picture(1)]


def test_each_bad_row_is_one_bad_pair(tmp_path, put, source, read_all, picture):
    put(f"{tmp_path}/ok.png", picture(0))
    put(f"{tmp_path}/empty.png", b"")
    (tmp_path / "folder").mkdir()
    lines = [
        ('{"image": "ok.png", "caption": "fine", "label": 3}', None),
        ('{"image": "none.png", "caption": "c"}', ReadError),
        ('{"image": "folder", "caption": "c"}', ReadError),
        ('{"image": "ok.png/x.png", "caption": "c"}', ReadError),
        ('{"image": "nul\\u0000.png", "caption": "c"}', ReadError),
        ('{"image": "x\\ud800.png", "caption": "c"}', ReadError),
        ('{"image": "' + "n" * 5000 + '", "caption": "c"}', ReadError),
        ('{"image": "nowhere://a/b.png", "caption": "c"}', ReadError),
        ('{"image": 7, "caption": "c"}', ReadError),
        ('{"image": "", "caption": "c"}', ReadError),
        ('{"caption": "c"}', ReadError),
        ('{"image": "ok.png"}', CaptionError),
        ('{"image": "ok.png", "caption": ""}', CaptionError),
        ('{"image": "ok.png", "caption": "\\udcff"}', CaptionError),
        ("not json", ReadError),
        ('{"image": "empty.png", "caption": ["two", "captions"]}', None),
    ]
    uri = put(f"{tmp_path}/m.jsonl", "\n".join(line for line, _ in lines).encode())
    pairs = read_all(source("manifest", uri))
    assert [type(pair.error) if pair.error else None for pair in pairs] == [kind for _, kind in lines]
    for pair in pairs:
        if pair.error:
            str(pair.error).encode()
            assert pair.error.remedy and pair.image is None
    assert pairs[0].label == "3" and pairs[-1].image == b"" and pairs[-1].captions == ("two", "captions")


def test_a_forbidden_image(monkeypatch, put, source, read_all):
    """One object's access rules concern one pair."""
    from fsspec.implementations.memory import MemoryFileSystem

    read = MemoryFileSystem.cat_file

    def forbid(self, path, *range, **named):
        if path.endswith(".png"):
            raise PermissionError(f"Access Denied: {path}")
        return read(self, path, *range, **named)

    uri = put("memory://forbidden/m.jsonl", b'{"image": "a.png", "caption": "c"}')
    monkeypatch.setattr(MemoryFileSystem, "cat_file", forbid)
    (pair,) = read_all(source("manifest", uri))
    assert isinstance(pair.error, ReadError) and "Access Denied" in pair.error.message


def test_csv_captions_that_are_not_utf8_or_not_quoted(folder, put, source, read_all, picture):
    put(f"{folder}/a.png", picture(0))
    uri = put(f"{folder}/m.csv", b"image,caption\na.png,caf\xe9\na.png,one, two\na.png,fine\n")
    latin, unquoted, fine = read_all(source("manifest", uri))
    assert isinstance(latin.error, CaptionError) and "UTF-8" in latin.error.message
    assert isinstance(unquoted.error, ReadError) and "quote captions" in unquoted.error.remedy
    assert fine.error is None


@pytest.mark.parametrize(
    "name, content, columns, said",
    [
        (
            "m.csv",
            b"img,caption\na,b\n",
            {},
            r"has no column 'image' \(data.columns.image\) \(did you mean 'img'\?\)",
        ),
        ("m.csv", b"image,text\na,b\n", {}, "has no column 'caption'"),
        ("m.jsonl", b'{"image": "a", "txt": "b"}\n', {}, "has no column 'caption'"),
        ("m.jsonl", b"junk\njunk\n", {}, "has no column 'image'"),
        ("m.csv", b"image,caption,id\na,b,1\na,b,1\n", {"id": "id"}, "repeats '1' in the record at byte"),
        ("m.jsonl", b'{"image": "a", "caption": "b", "id": 1.5}', {"id": "id"}, "is 1.5"),
        ("m.jsonl", b'{"image": "a", "caption": "b", "id": "\\ud800"}', {"id": "id"}, "not plain text"),
        ("m.csv", b"image,caption\na,b\n", {"label": "klass"}, "has no column 'klass'"),
        ("m.csv", b"image,caption\n", {}, "has no pairs"),
        ("m.jsonl", b"", {}, "has no pairs"),
        ("m.csv", b"", {}, "is empty"),
        ("m.txt", b"image,caption\na,b\n", {}, "does not have a manifest's file extension"),
    ],
)
def test_bad_manifests_stop_before_any_work(folder, put, source, name, content, columns, said):
    uri = put(f"{folder}/{name}", content)
    with pytest.raises(SourceError, match=f"{said}(.|\n)*remedy"):
        list(source("manifest", uri, columns=columns).files())


def test_a_parquet_manifest_with_images_inside_is_told_apart(folder, put, source):
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": [b"png"], "caption": ["c"]}), stream)
    with pytest.raises(SourceError, match="it holds the images themselves(.|\n)*set data.format to parquet"):
        source("manifest", put(f"{folder}/m.parquet", stream.getvalue())).digest()


def test_a_directory_gives_its_manifests_not_those_below(folder, put, source):
    row = b'{"image": "a.png", "caption": "c"}'
    for name in ("b.jsonl", "a.jsonl", "images/c.jsonl"):
        put(f"{folder}/{name}", row)
    assert [file.name for file in source("manifest", folder).files()] == ["a.jsonl", "b.jsonl"]


def test_images_beside_a_manifest_are_not_called_lost(folder, put, source, picture):
    put(f"{folder}/m.csv", b"image,caption\n0.png,a\n")
    put(f"{folder}/0.png", picture(0))
    put(f"{folder}/notes.txt", b"x")
    told = {entry.reason: entry.count for entry in source("manifest", folder).left_out()}
    assert told.pop("images, each read where a manifest names it") == 1
    assert len(told) == 1 and next(iter(told)).startswith("its name does not end in .csv")


def test_a_manifest_shortened_after_planning(listed, source, put):
    uri = listed("csv", 10)
    manifest = source("manifest", uri)
    (unit,) = manifest.units(100)
    put(uri, b"image,caption\nimages/0.png,one\n")
    with pytest.raises(SourceError, match="ends after 1 records, but the plan has records up to 10"):
        list(manifest.read(unit))


def test_a_store_that_is_away_is_a_source_error(put, source, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def fail(*_, **__):
        raise ConnectionError("no route to store")

    manifest = source("manifest", put("memory://away/m.jsonl", b'{"image": "a.png", "caption": "c"}\n' * 40))
    (unit,) = manifest.units(100)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(SourceError, match="no route to store(.|\n)*store is reachable"):
        list(manifest.read(unit))
