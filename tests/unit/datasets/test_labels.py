"""Labels as class names, in every format, and how many of them a job's classes name."""

import io
import json
import math
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets.labels import LabelTally, count_known, label_from
from smoothcert.datasets.partitions import partition_values
from smoothcert.errors import LabelError, SourceError

NAMES = ("zero", "one", "two")


@pytest.mark.parametrize(
    "value, names, expected",
    [
        (None, (), None),
        ("", (), None),
        (math.nan, (), None),
        ("cat", (), "cat"),
        (b"cat\n", (), "cat"),
        (3, (), "3"),
        (3.0, (), "3"),
        (1, ("cat", "dog"), "dog"),
        (-1, ("cat", "dog"), None),
        ("cat", ("x",), "cat"),
        ("1\n", ("cat", "dog"), "dog"),
        (b"1", ("cat", "dog"), "dog"),
        ("1.0", ("cat", "dog"), "dog"),
        ("-1", ("cat", "dog"), None),
        ("1", ("3", "1", "2"), "1"),
        (1, ("3", "4", "2"), "4"),
        ("1", (), "1"),
    ],
)
def test_labels(value, names, expected):
    assert label_from(value, "column 'l'", names) == expected


def test_bad_labels():
    with pytest.raises(LabelError, match="is 2, but there are names for 2 classes"):
        label_from(2, "column 'l'", ("cat", "dog"))
    with pytest.raises(LabelError, match="not valid UTF-8"):
        label_from(b"\xff", "column 'l'")
    for value in (["cat"], {"name": "cat"}, ("a", "b")):
        with pytest.raises(LabelError, match="not one class") as caught:
            label_from(value, "column 'l'")
        assert caught.value.stage == "label"


def test_folders_spell_columns():
    assert partition_values("s3://b/run=3/label=zero%20point/split=/a=b.parquet") == {
        "run": "3",
        "label": "zero point",
        "split": None,
    }
    assert partition_values("/x/label=one/label=__HIVE_DEFAULT_PARTITION__/a.csv") == {"label": None}


def test_known_unknown_missing():
    tally = LabelTally()
    for label, count in {"zero": 3, "Zero": 5, "twoo": 1, None: 2}.items():
        tally.add(label, count)
    tally.refused = 1
    count = count_known(tally, NAMES)
    assert (count.known, count.unknown, count.missing, count.refused) == (3, 6, 2, 1)
    assert str(count) == (
        "3 with a class of the job, 6 unknown, 2 missing, 1 unreadable; "
        "unknown: 'Zero', 'twoo' (did you mean 'zero'?)"
    )


def test_memory_for_names_is_bounded():
    tally = LabelTally()
    for number in range(100_100):
        tally.add(str(number))
    assert len(tally.names) == 100_001 and sum(tally.names.values()) == 100_100


WRITERS = {}


def writer(format):
    def register(write):
        WRITERS[format] = write
        return write

    return register


@writer("parquet")
def _parquet(folder, labels, folder_label):
    columns = {"image": [b"x"] * len(labels), "caption": ["c"] * len(labels)}
    if folder_label is None:
        columns["label"] = pa.array(labels)
    pq.write_table(pa.table(columns), folder / "a.parquet")


@writer("jsonl")
def _jsonl(folder, labels, folder_label):
    rows = [
        {"image": "i.png", "caption": "c", **({} if folder_label else {"label": label})} for label in labels
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@writer("csv")
def _csv(folder, labels, folder_label):
    label_name = "other" if folder_label else "label"
    rows = [f"i.png,c,{'' if label is None else label}\n" for label in labels]
    (folder / "a.csv").write_text(f"image,caption,{label_name}\n" + "".join(rows))


@writer("cls")
def _cls(folder, labels, folder_label):
    with tarfile.open(folder / "a.tar", "w") as archive:
        for number, label in enumerate(labels):
            parts = {"png": b"x", "txt": b"c"}
            if folder_label is None and label is not None:
                parts["cls"] = str(label).encode()
            for extension, content in parts.items():
                entry = tarfile.TarInfo(f"{number:03d}.{extension}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


@writer("json")
def _json(folder, labels, folder_label):
    with tarfile.open(folder / "a.tar", "w") as archive:
        for number, label in enumerate(labels):
            fields = {"caption": "c"} if folder_label else {"caption": "c", "label": label}
            for extension, content in {"png": b"x", "json": json.dumps(fields).encode()}.items():
                entry = tarfile.TarInfo(f"{number:03d}.{extension}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


@pytest.fixture(params=WRITERS)
def data_of(request, tmp_path, source):
    """``data_of(labels, folder_label, **data)``: a source with these labels, in each format."""
    formats = {
        "parquet": "parquet",
        "jsonl": "manifest",
        "csv": "manifest",
        "cls": "webdataset",
        "json": "webdataset",
    }

    def make(labels, folder_label=None, **data):
        folder = tmp_path / f"label={folder_label}" if folder_label else tmp_path
        folder.mkdir(exist_ok=True)
        (folder / "i.png").write_bytes(b"x")
        WRITERS[request.param](folder, labels, folder_label)
        format = formats[request.param]
        uri = str(folder if format == "manifest" else tmp_path)
        return source(format, uri, **data)

    return make


def test_integers_get_the_names_that_the_job_gives(data_of, read_all):
    data = data_of([2, 0, None, 1], class_names=NAMES)
    assert [pair.label for pair in read_all(data)] == ["two", "zero", None, "one"]
    assert data.labels() == LabelTally(Counter(["two", "zero", "one"]), 1, 0)


def test_names_that_no_class_has_are_counted(data_of):
    count = count_known(data_of(["Zero", "one", "one", None, "face"]).labels(), NAMES)
    assert (count.known, count.unknown, count.missing, count.refused) == (2, 2, 1, 0)
    assert "did you mean 'zero'?" in count.hint


def test_a_number_without_a_name_is_a_bad_pair(data_of, read_all):
    data = data_of([2, 3], class_names=NAMES)
    good, bad = read_all(data)
    assert good.label == "two" and isinstance(bad.error, LabelError)
    assert data.labels().refused == 1


def test_a_limit_counts_the_labels_of_its_pairs_alone(data_of):
    assert sum(data_of(["zero"] * 5 + ["one"] * 5, limit=7).labels().names.values()) == 7


def test_a_folder_gives_the_label(data_of, read_all):
    data = data_of(["zero"] * 3, folder_label="one")
    assert [pair.label for pair in read_all(data)] == ["one"] * 3
    assert data.labels().names == {"one": 3}
    assert [captions for _, captions in data.captions()] == [("c",)] * 3


@pytest.mark.parametrize(("folder", "label"), [("2", "two"), ("7", None)])
def test_the_number_of_a_folder_is_that_of_a_class(data_of, read_all, folder, label):
    data = data_of(["zero"] * 3, folder_label=folder, class_names=NAMES)
    assert [pair.label for pair in read_all(data)] == [label] * 3
    tally = data.labels()
    assert (tally.names, tally.refused) == (({label: 3}, 0) if label else ({}, 3))


def test_without_a_label_column_nothing_is_labelled(data_of):
    assert data_of(["zero"], columns={"label": None}).labels() == LabelTally(missing=1)


@pytest.mark.parametrize("labels", [[["zero"]], [{"name": "zero"}], pa.array([[0]], pa.list_(pa.int8(), 1))])
def test_lists_and_structures_are_refused(tmp_path, source, labels):
    pq.write_table(pa.table({"image": [b"x"], "caption": ["c"], "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="'label' .* not one class a row(.|\\n)*data.columns.label to null"):
        source("parquet", str(tmp_path)).digest()


@pytest.mark.parametrize("label", [["zero"], {"name": "zero"}])
def test_lists_and_structures_in_json_are_bad_pairs(tmp_path, source, read_all, label):
    (tmp_path / "i.png").write_bytes(b"x")
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "i.png", "caption": "c", "label": label}))
    data = source("manifest", str(tmp_path / "a.jsonl"))
    (pair,) = read_all(data)
    assert isinstance(pair.error, LabelError) and data.labels().refused == 1


def test_damaged_rows_have_no_label_that_counts(tmp_path, source):
    path = tmp_path / "a.parquet"
    table = pa.table(
        {"image": [b"x"] * 50, "caption": ["c"] * 50, "label": [f"class {i}" for i in range(50)]}
    )
    pq.write_table(
        table, path, row_group_size=10, compression="none", use_dictionary=False, write_page_checksum=True
    )
    content = bytearray(path.read_bytes())
    at = content.index(b"class 23")
    content[at : at + 8] = b"CLASS 23"
    path.write_bytes(content)
    tally = source("parquet", str(path)).labels()
    assert tally.refused == 10 and sum(tally.names.values()) == 40 and "class 23" not in tally.names
