"""Names with dots, hard links and sparse members, against Python's and the system's own tar."""

import io
import shutil
import subprocess
import tarfile

import pytest

from smoothcert.datasets.layout import CHECKPOINT_STRIDE
from smoothcert.errors import ReadError


def archive(members, format=tarfile.PAX_FORMAT):
    """A tar of (name, bytes) and, for hard links, (name, name of the target)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as out:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.LNKTYPE, content
                out.addfile(entry)
            else:
                entry.size = len(content)
                out.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def sample(key):
    return [(f"{key}.png", f"image of {key}".encode()), (f"{key}.txt", f"caption of {key}".encode())]


@pytest.fixture
def shards(folder, put, source):
    return lambda members, **data: source("webdataset", put(f"{folder}/a.tar", archive(members)), **data)


def named(shards):
    return {(entry.reason, name) for entry in shards.left_out() for name in entry.examples}


def test_dots_in_base_names(shards, read_all):
    keys = [
        "plain-000",
        "scan 2.0 left",
        "v1.5-crop",
        "v1.6",
        "2021.05.03-beach",
        "2021.05.03-beach.b",
        "x/a.b/c.d",
    ]
    data = shards([member for key in keys for member in sample(key)])
    pairs = read_all(data)
    assert [(pair.pair_id, pair.image, pair.captions) for pair in pairs] == [
        (f"a.tar#{key}", f"image of {key}".encode(), (f"caption of {key}",)) for key in keys
    ]
    assert not data.left_out()


@pytest.mark.parametrize("per_unit", [1, 3, 40])
def test_an_archive_of_one_family_is_read_from_the_middle(shards, read_all, per_unit):
    """All keys share what is before the first dot, some samples lack a caption: units agree with the whole."""
    members = [("2021.png", b"head"), ("2021.txt", b"head")]
    for i in range(150):
        members += sample(f"2021.05.{i:03d}")[: 1 if i % 7 == 3 else 2]
    data = shards(members)
    pairs = read_all(data, per_unit)
    kept = {pair.pair_id: pair.image for pair in pairs if pair.image}
    assert kept == {"a.tar#2021": b"head"} | {
        f"a.tar#2021.05.{i:03d}": f"image of 2021.05.{i:03d}".encode() for i in range(150) if i % 7 != 3
    }
    lost = {name for _, name in named(data)} | {pair.pair_id for pair in pairs if pair.error}
    assert (
        len(kept) + sum(entry.count for entry in data.left_out()) + sum(p.error is not None for p in pairs)
        == 151
    )
    assert {name.removesuffix(".png") for name in lost} <= {
        f"a.tar#2021.05.{i:03d}" for i in range(3, 150, 7)
    }
    furthest = max(unit.start - unit.offset_pair for unit in data.units(per_unit))
    assert furthest <= 3 * CHECKPOINT_STRIDE + per_unit


@pytest.mark.parametrize(
    "parts",
    [["a.png", "a.seg.png", "a.txt"], ["a.depth.png", "a.png", "a.txt"], ["a.png", "a.txt", "a.x.json"]],
)
def test_parts_of_a_sample_stay_parts(shards, read_all, parts):
    """As WebDataset has it: the key is the path up to the first dot, wherever such a sample is there."""
    data = shards([(name, name.encode()) for name in parts] + sample("b"))
    assert [pair.pair_id for pair in read_all(data, 1)] == ["a.tar#a", "a.tar#b"]
    (part,) = {name for name in parts if name.count(".") == 2}
    assert named(data) == {
        ("it is a further part of a sample, and no complete sample by itself", f"a.tar#{part}")
    }


def test_every_member_that_is_no_part_of_a_pair_is_named(shards, read_all):
    extra = [("README", b""), ("k.npy", b""), ("k.jpg", b""), ("d/.hidden.png", b""), ("k.txt", b"again")]
    data = shards([*sample("k"), *extra])
    assert len(read_all(data)) == 1
    assert named(data) == {
        ("its name has no extension", "a.tar#README"),
        ("'.npy' is not an image, caption or label", "a.tar#k.npy"),
        ("its sample has another image already", "a.tar#k.jpg"),
        ("its name begins with a dot", "a.tar#d/.hidden.png"),
        ("its sample has a member of this extension already", "a.tar#k.txt"),
    }


def test_many_of_a_kind_are_counted_and_a_few_named(shards):
    data = shards([member for i in range(300) for member in [*sample(f"{i:03d}"), (f"{i:03d}.npy", b"")]])
    (entry,) = data.left_out()
    assert (entry.count, len(entry.examples)) == (300, 8)
    assert str(entry).startswith(
        "300 members: '.npy' is not an image, caption or label (a.tar#000.npy, a.tar#001.npy"
    )


def test_hard_links_are_the_files_they_name(shards, read_all):
    members = [*sample("a"), ("b.png", "a.png"), ("b.txt", b"other"), ("c.png", "b.png"), ("c.txt", "a.txt")]
    members += [("d.png", "nowhere.png"), ("d.txt", b"d"), ("e.png", "e.png"), ("e.txt", b"e")]
    a, b, c, d, e = read_all(shards(members), 1)
    assert [pair.image for pair in (a, b, c)] == [b"image of a"] * 3
    assert [pair.captions for pair in (a, b, c)] == [("caption of a",), ("other",), ("caption of a",)]
    for pair in (d, e):
        assert isinstance(pair.error, ReadError) and "hard link" in pair.error.message


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the tar command")
@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))],
)
def test_sparse_members_are_the_files_they_stand_for(tmp_path, source, read_all, options):
    expected = {}
    for number in range(6):
        path = tmp_path / f"{number}.png"
        with open(path, "wb") as stream:
            for piece in range(number * 5):
                stream.seek(piece * 300_000 + 7 * number)
                stream.write(f"piece {piece} of {number}".encode() * 200)
            stream.truncate(2_000_000 + number)
        expected[f"a.tar#{number}"] = path.read_bytes()
        (tmp_path / f"{number}.txt").write_text("a caption")
    names = [f"{number}.{extension}" for number in range(6) for extension in ("png", "txt")]
    subprocess.run(["tar", "-S", *options, "-cf", "a.tar", *names], cwd=tmp_path, check=True)
    if (tmp_path / "a.tar").stat().st_size > 6_000_000:
        pytest.skip("this file system knows no holes")
    data = source("webdataset", str(tmp_path / "a.tar"))
    assert {pair.pair_id: pair.image for pair in read_all(data, 2)} == expected
    assert not data.left_out()


def test_a_damaged_map_costs_one_pair(tmp_path, source, read_all):
    header = tarfile.TarInfo("GNUSparseFile.0/a.png")
    header.size = 512
    header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.png"}
    header.pax_headers["GNU.sparse.realsize"] = "100"
    content = header.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n4000\n".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(content + archive([("a.txt", b"a"), *sample("b")]))
    a, b = read_all(source("webdataset", str(tmp_path / "a.tar")))
    assert a.pair_id == "a.tar#a" and "sparse member, and its map has a piece" in a.error.message
    assert b.image == b"image of b"
