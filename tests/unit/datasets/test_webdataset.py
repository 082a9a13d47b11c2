"""Tar shards written by Python's tarfile, read back sample by sample."""

import io
import json
import tarfile

import pytest

from smoothcert.datasets.tar_samples import split_key
from smoothcert.errors import CaptionError, ReadError, SourceError


@pytest.fixture
def pack(folder, put):
    """``pack(name, [(member, bytes), ...])``: a tar file in the folder; its URL."""

    def pack(name, files, cut=None):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for member, content in files:
                entry = tarfile.TarInfo(member)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return put(f"{folder}/{name}", stream.getvalue()[:cut])

    return pack


@pytest.fixture
def samples(picture):
    """``samples(n)``: members of n samples as image downloaders write them."""

    def make(count):
        for i in range(count):
            meta = {"caption": f"caption {i}", "label": f"class {i % 3}", "url": "http://nowhere"}
            yield f"{i:05d}.png", picture(i)
            yield f"{i:05d}.txt", f"caption {i}\n".encode()
            yield f"{i:05d}.json", json.dumps(meta).encode()

    return lambda count: list(make(count))


@pytest.mark.parametrize("per_unit", [1, 7, 16, 40, 1000])
def test_every_pair_comes_back_in_order(pack, source, read_all, samples, picture, per_unit):
    pairs = read_all(source("webdataset", pack("0.tar", samples(45))), per_unit)
    assert [pair.pair_id for pair in pairs] == [f"0.tar#{i:05d}" for i in range(45)]
    assert [pair.image for pair in pairs] == [picture(i) for i in range(45)]
    assert [pair.captions for pair in pairs] == [(f"caption {i}",) for i in range(45)]
    assert [pair.label for pair in pairs] == [f"class {i % 3}" for i in range(45)]


def test_a_unit_reads_just_its_range(monkeypatch, source, put, pack, samples, tmp_path):
    from fsspec.implementations.memory import MemoryFileSystem

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member, content in samples(200):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    uri = put("memory://range/a.tar", stream.getvalue())
    shards = source("webdataset", uri)
    *_, last = shards.units(20)
    touched = []
    read = MemoryFileSystem.cat_file

    def noted(self, path, start=None, end=None):
        touched.append(start)
        return read(self, path, start, end)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", noted)
    assert len(list(shards.read(last))) == 20
    assert last.offset > 0 and min(touched) == last.offset


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "JPG", "png", "webp", "gif", "bmp", "tif", "tiff"])
def test_image_extensions(pack, source, read_all, extension):
    (pair,) = read_all(source("webdataset", pack("a.tar", [(f"k.{extension}", b"img"), ("k.txt", b"c")])))
    assert (pair.image, pair.pair_id) == (b"img", "a.tar#k")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("a.png", ("a", "png")),
        ("d.e/a.b.PNG", ("d.e/a.b", "png")),
        ("scan 2.0 left.png", ("scan 2.0 left", "png")),
        ("./d/a.txt", ("d/a", "txt")),
        ("noextension", ("noextension", "")),
        (".hidden.png", (".hidden", "png")),
        ("d/.hidden", ("d/", "hidden")),
    ],
)
def test_keys(name, expected):
    assert split_key(name) == expected


def test_where_captions_and_labels_come_from(pack, source, read_all):
    meta = json.dumps({"caption": "by json", "long": ["one", "two"], "label": 4}).encode()
    uri = pack(
        "a.tar",
        [
            *[("both.png", b"i"), ("both.txt", b"by text"), ("both.json", meta), ("both.cls", b"7\n")],
            *[("json.json", meta), ("json.png", b"i")],
            *[("text.txt", b"by text"), ("text.png", b"i")],
        ],
    )
    both, only_json, only_text = read_all(source("webdataset", uri))
    assert (both.captions, both.label) == (("by text",), "7")
    assert (only_json.captions, only_json.label) == (("by json",), "4")
    assert (only_text.captions, only_text.label) == (("by text",), None)
    both, only_json, only_text = read_all(
        source("webdataset", uri, columns={"caption": "long", "label": None})
    )
    assert both.captions == only_json.captions == ("one", "two")
    assert both.label is None and isinstance(only_text.error, CaptionError)


def test_other_members_do_not_matter(pack, source, read_all):
    files = [
        ("README", b"x"),
        ("a.png", b"i"),
        ("a.seg.png", b"no"),
        ("a.npy", b"n"),
        ("a.jpg", b"second"),
        ("a.txt", b"c"),
    ]
    (pair,) = read_all(source("webdataset", pack("a.tar", [*files, ("._b.png", b"apple")])))
    assert pair.image == b"i"


def test_folders_in_an_archive_are_part_of_the_key(pack, source, read_all):
    files = [("./x/1.png", b"a"), ("./x/1.txt", b"a"), ("./y/1.png", b"b"), ("./y/1.txt", b"b")]
    pairs = read_all(source("webdataset", pack("a.tar", files)))
    assert [(pair.pair_id, pair.image) for pair in pairs] == [("a.tar#x/1", b"a"), ("a.tar#y/1", b"b")]


def test_each_bad_sample_is_one_bad_pair(pack, source, read_all):
    bad = {
        "no_caption": [("png", b"i")],
        "no_image": [("txt", b"c")],
        "avif": [("avif", b"i"), ("txt", b"c")],
        "blank": [("png", b"i"), ("txt", b" \n")],
        "latin": [("png", b"i"), ("txt", b"caf\xe9")],
        "json": [("png", b"i"), ("json", b"{not json")],
        "list": [("png", b"i"), ("json", b"[1]")],
        "null": [("png", b"i"), ("json", b'{"caption": null}')],
        "number": [("png", b"i"), ("json", b'{"caption": 5}')],
        "surrogate": [("png", b"i"), ("json", b'{"caption": "\\ud800"}')],
        "class": [("png", b"i"), ("txt", b"c"), ("cls", b"\xff")],
    }
    files = [(f"{key}.{ext}", content) for key, parts in bad.items() for ext, content in parts]
    pairs = read_all(source("webdataset", pack("a.tar", [*files, ("ok.png", b""), ("ok.txt", b"c")])))
    assert [pair.pair_id for pair in pairs] == [f"a.tar#{key}" for key in [*bad, "ok"]]
    stages = ["caption", "read", "read", *["caption"] * 7, "label"]
    assert [pair.error.stage for pair in pairs[:-1]] == stages
    assert "only .avif" in str(pairs[2].error)
    assert pairs[-1].error is None and pairs[-1].image == b""


def test_a_cut_archive_at_every_byte(pack, source, read_all, samples):
    """Whole pairs before the cut, at most one bad pair at it, nothing lost, whatever the byte."""
    files = samples(3)
    ends, position = [], 0
    for _, content in files:
        position += 512 + -(-len(content) // 512) * 512
        ends.append(position)
    whole = read_all(source("webdataset", pack("a.tar", files)))
    for length in [*range(1, position, 83), *ends]:
        pairs = read_all(source("webdataset", pack("a.tar", files, cut=length)), 2)
        begun = sum(start + 512 <= length for start in [0, *ends[2:-1:3]])  # samples with a whole header
        assert len(pairs) == max(begun, 1)
        assert pairs[:-1] == whole[: len(pairs) - 1]
        assert isinstance(pairs[-1].error, ReadError) and "the archive ends" in pairs[-1].error.message


def test_without_an_end_mark_the_last_sample_may_lack_members(pack, source, read_all, samples):
    files = samples(2)
    pairs = read_all(source("webdataset", pack("a.tar", files, cut=2 * 3 * 1024)))
    assert pairs[0].error is None and pairs[1].error.message.endswith("without its end mark")


def test_the_pair_at_the_cut_says_so(pack, source, read_all, samples):
    uri = pack("a.tar", samples(3), cut=512 * 13 + 40)
    pairs = read_all(source("webdataset", uri))
    assert [pair.pair_id for pair in pairs] == ["a.tar#00000", "a.tar#00001", "a.tar#00002"]
    assert isinstance(pairs[2].error, ReadError) and "the archive ends" in pairs[2].error.message


def test_repeated_keys_stay_apart(pack, source, read_all):
    files = [(f"{key}.{ext}", f"{i}".encode()) for i, key in enumerate("abacb") for ext in ("png", "txt")]
    shards = source("webdataset", pack("a.tar", files))
    for per_unit in (1, 2, 10):
        pairs = read_all(shards, per_unit)
        assert [pair.pair_id for pair in pairs] == ["a.tar#a", "a.tar#b", "a.tar#a~2", "a.tar#c", "a.tar#b~4"]
        assert [pair.image for pair in pairs] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_key_that_looks_like_a_repeated_one(pack, source, read_all):
    files = [(f"{key}.{ext}", b"x") for key in ("a", "a", "a~1") for ext in ("png", "txt")]
    # two neighbours of one key are one sample: part them
    files.insert(2, ("b.txt", b"x"))
    files.insert(2, ("b.png", b"x"))
    pairs = read_all(source("webdataset", pack("a.tar", [*files[:-2], ("a~2.png", b"x"), ("a~2.txt", b"x")])))
    assert [pair.pair_id for pair in pairs] == ["a.tar#a", "a.tar#b", "a.tar#a~2", "a.tar#a~2~3"]


def test_members_that_are_not_neighbours(pack, source):
    files = [("a.png", b"i"), ("b.png", b"i"), ("a.txt", b"c"), ("b.txt", b"c")]
    with pytest.raises(
        SourceError, match="members of sample 'a' are not next to each other(.|\n)*--sort=name"
    ):
        list(source("webdataset", pack("a.tar", files)).files())


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.tar", b"", "has 0 bytes"),
        ("a.tar", b"\x1f\x8b" + bytes(1000), "this is gzip data"),
        ("a.tar", b"PK\x03\x04" * 300, "does not begin a tar archive"),
        ("a.tar", bytes(10240), "has no pairs"),
        ("a.tar.gz", b"\x1f\x8b" + bytes(1000), "is compressed"),
        ("a.tgz", b"\x1f\x8b", "is compressed"),
    ],
)
def test_what_is_no_archive_stops_before_any_work(folder, put, source, name, content, said):
    put(f"{folder}/{name}", content)
    with pytest.raises(SourceError, match=f"{said}(.|\n)*remedy"):
        source("webdataset", folder).digest()


def test_damage_in_the_middle_stops_before_any_work(folder, put, pack, samples, source):
    import fsspec

    uri = pack("a.tar", samples(10))
    with fsspec.open(uri) as stream:
        content = bytearray(stream.read())
    content[3072 + 20 : 3072 + 40] = b"\x99" * 20
    put(uri, bytes(content))
    with pytest.raises(SourceError, match="byte 3072: a header is damaged"):
        list(source("webdataset", uri).units(10))


def test_an_archive_replaced_after_planning(pack, source, samples):
    shards = source("webdataset", pack("a.tar", samples(10)))
    (unit,) = shards.units(100)
    pack("a.tar", samples(8))
    with pytest.raises(SourceError, match="ends after 8 pairs, but the plan has pairs up to 10"):
        list(shards.read(unit))
    pack("a.tar", [("x", b"\1" * 9000)])
    with pytest.raises(SourceError, match="is not the archive that was planned"):
        list(shards.read(unit))


def test_an_id_column_means_nothing_here(folder, source):
    with pytest.raises(SourceError, match="data.columns.id='key' does not apply to webdataset"):
        source("webdataset", folder, columns={"id": "key"})


def test_only_and_captions(pack, source, samples):
    shards = source("webdataset", pack("a.tar", [*samples(5), ("z.png", b"i")]))
    (unit,) = shards.units(100)
    assert [pair.pair_id for pair in shards.read(unit, {"a.tar#00003"})] == ["a.tar#00003"]
    assert list(shards.captions()) == [(f"a.tar#{i:05d}", (f"caption {i}",)) for i in range(5)]
