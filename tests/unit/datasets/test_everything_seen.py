"""Whatever lies in a folder is a pair or is named: seen = rows + named refusals, over random trees."""

import io
import json
import shutil
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.datasets import left_out, open_source
from smoothcert.datasets.left_out import LeftOut
from smoothcert.errors import SourceError
from smoothcert.job import DataSection

FOLDERS = ("", "a/", "a/b=1/", ".hidden/", "_tmp/", "c.d/")
ODD = ("README", "notes.txt", ".dot.tar", "_x.parquet", "x.csv.bak", "a.tar.md5", "thumbs.db")
KEYS = ("0", "1", "scan 2.0 left", "v1", "v1.5", "v1.5-crop", ".h", "d/0", "d.e/0", "2021.05.03", "2021")
EXTENSIONS = ("png", "JPG", "txt", "json", "cls", "npy", "seg.png", "")

IMAGES = ("0.png", "1.JPG", "scan 2.0 left.webp", "v1.5.tif", ".hidden.png", "notes.txt", "0.png.bak")

folders = st.sampled_from(FOLDERS)
members = st.lists(
    st.tuples(st.sampled_from(KEYS), st.lists(st.sampled_from(EXTENSIONS), min_size=1, max_size=4)),
    max_size=12,
)
texts = st.sampled_from(
    ["image,caption", "", "i.png,one", "i.png", '"i.png","two\nlines"', ",", "gone.png,x,y"]
)


def tar_names(samples):
    return [
        f"{key}.{extension}" if extension else key for key, extensions in samples for extension in extensions
    ]


def write_tar(path, samples):
    with tarfile.open(path, "w") as archive:
        for name in tar_names(samples):
            content = json.dumps({"caption": "a", "label": 1}).encode() if name.endswith("json") else b"x"
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def split(name):
    key, _, extension = name.rpartition(".")
    return key, extension.lower()


class Tree:
    """A folder of its own for one example."""

    def __enter__(self):
        self.root = Path(tempfile.mkdtemp(prefix="seen-"))
        (self.root / "data").mkdir()
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root)

    def path(self, name):
        path = self.root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def files(self):
        return {str(path) for path in (self.root / "data").rglob("*") if path.is_file()}


def outcome(format, uri):
    """(source, pairs, what is left out), every name kept; None where the source is refused as a whole."""
    before, left_out.MOST_EXAMPLES = left_out.MOST_EXAMPLES, 10_000
    try:
        source = open_source(DataSection(format=format, uri=str(uri)))
        pairs = [pair for unit in source.units(3) for pair in source.read(unit)]
        assert [pair.pair_id for unit in source.units(5) for pair in source.read(unit)] == [
            pair.pair_id for pair in pairs
        ]
        return source, pairs, source.left_out()
    except SourceError as exc:
        assert exc.remedy
        return None
    finally:
        left_out.MOST_EXAMPLES = before


def named(entries: tuple[LeftOut, ...], kind: str) -> set[str]:
    found = [name for entry in entries if entry.kind == kind for name in entry.examples]
    assert len(found) == sum(entry.count for entry in entries if entry.kind == kind)
    return set(found)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(folders, st.sampled_from(("0.parquet", "1.pq", *ODD)), st.integers(0, 5)), max_size=8)
)
def test_tables_and_files(entries):
    with Tree() as tree:
        for folder, name, rows in entries:
            table = pa.table({"image": pa.array([b"x"] * rows, pa.binary()), "caption": ["c"] * rows})
            pq.write_table(table, tree.path(folder + name))
        if not (got := outcome("parquet", tree.root / "data")):
            return
        source, pairs, left = got
        read = {file.uri for file in source.files()}
        told = named(left, "file") | named(left, "folder")
        unread = tree.files() - read
        assert not read & told
        assert all(any(path == t or path.startswith(t + "/") for t in told) for path in unread)
        assert len(pairs) == sum(pq.read_metadata(path).num_rows for path in read)


@settings(max_examples=120)
@given(members)
def test_members_of_archives(samples):
    """Each member's name is in a pair's sample, or told; nothing is in both."""
    with Tree() as tree:
        write_tar(tree.path("0.tar"), samples)
        if not (got := outcome("webdataset", tree.root / "data")):
            return
        _, pairs, left = got
        told = [name for entry in left if entry.kind == "member" for name in entry.examples]
        assert len(told) == sum(entry.count for entry in left if entry.kind == "member")
        seen = [f"0.tar#{name}" for name in tar_names(samples)]
        remaining = list(seen)
        for name in told:
            remaining.remove(name)  # raises for a name that was never there
        # what is left makes up the pairs: each has a key's members, of each extension and of images one at most
        pairs_of = Counter(pair.pair_id.partition("~")[0] for pair in pairs)
        images = Counter(key for key, extension in map(split, remaining) if extension in ("png", "jpg"))
        assert {key for key, _ in map(split, remaining)} == set(pairs_of)
        assert all(count <= pairs_of[key] for key, count in images.items())
        assert all(count <= pairs_of[key] for (key, _), count in Counter(map(split, remaining)).items())
        # a complete sample whose members are neighbours is a pair, whatever its name
        for key, extensions in samples:
            whole = {"png", "txt"} <= set(extensions) and [each for each, _ in samples].count(key) == 1
            if whole and not key.startswith("."):
                assert f"0.tar#{key}" in {pair.pair_id for pair in pairs}


@settings(max_examples=80)
@given(st.lists(texts, max_size=10), st.booleans())
def test_lines_of_manifests(lines, newline_at_end):
    with Tree() as tree:
        (tree.root / "data/i.png").write_bytes(b"x")
        content = "\n".join(["image,caption", *lines]) + ("\n" if newline_at_end else "")
        tree.path("m.csv").write_text(content)
        if not (got := outcome("manifest", tree.root / "data/m.csv")):
            return
        _, pairs, left = got
        blank = {f"m.csv#byte {at}" for at, line in _offsets(content) if not line.strip()}
        assert named(left, "line") == blank
        assert len(pairs) + len(blank) == sum(1 for _ in _offsets(content)) - 1 - lines.count(
            '"i.png","two\nlines"'
        )
        good = ("i.png,one", '"i.png","two\nlines"')
        assert sum(pair.error is None for pair in pairs) == sum(line in good for line in lines)


def _offsets(content):
    at = 0
    for line in content.splitlines(keepends=True):
        yield at, line
        at += len(line.encode())


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["", " ", '{"image": "i.png", "caption": "c"}', "{", "[1]", "{}"]), max_size=10)
)
def test_lines_of_json(lines):
    with Tree() as tree:
        (tree.root / "data/i.png").write_bytes(b"x")
        content = "".join(line + "\n" for line in lines)
        tree.path("m.jsonl").write_text(content)
        if not (got := outcome("manifest", tree.root / "data/m.jsonl")):
            return
        _, pairs, left = got
        assert len(named(left, "line")) == sum(not line.strip() for line in lines)
        assert len(pairs) + len(named(left, "line")) == len(lines)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(folders, st.sampled_from(("zero/", "one/", "label=zero/", "")), st.sampled_from(IMAGES)),
        max_size=10,
    ),
    st.booleans(),
)
def test_folders_of_images(entries, linked):
    """Each image is a pair with its folder's label, whatever stands beside it; a linked folder is entered."""
    with Tree() as tree:
        for folder, label, name in entries:
            tree.path(folder + label + name).write_bytes(b"x")
        if linked:
            (tree.root / "elsewhere").mkdir()
            (tree.root / "elsewhere/9.png").write_bytes(b"x")
            (tree.root / "data/linked").symlink_to("../elsewhere")
        if not (got := outcome("imagefolder", tree.root / "data")):
            return
        _, pairs, left = got
        told = named(left, "file") | named(left, "folder")
        seen = tree.files() | ({str(tree.root / "data/linked/9.png")} if linked else set())
        untold = {path for path in seen if not any(path == t or path.startswith(t + "/") for t in told)}
        ids = {f"{pair.source_uri}/{pair.pair_id.rpartition('#')[2]}": pair for pair in pairs}
        assert ids.keys() == untold and len(ids) == len(pairs)
        for path, pair in ids.items():
            assert pair.label == Path(path).parent.name.removeprefix("label=")
