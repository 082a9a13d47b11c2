"""Arrow files as Hugging Face datasets saves them: the layout of its folders, written by pyarrow alone."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from smoothcert.errors import CaptionError, SourceError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def save(tmp_path, picture):
    """``save(folder, parts, **columns)``: a saved data set of so many rows a part, in batches of 4."""

    def save(folder, parts, *, file_format=False, start=0, **columns):
        folder = tmp_path / folder
        folder.mkdir(parents=True, exist_ok=True)
        features = {"label": {"names": ["zero", "one"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        names = []
        for part, rows in enumerate(parts):
            numbers = range(start, start + rows)
            start += rows
            table = pa.table(
                {
                    "image": pa.array([{"bytes": picture(n), "path": None} for n in numbers], IMAGE),
                    "label": [n % 2 for n in numbers],
                    "caption": [f"caption {n}" for n in numbers],
                }
                | {name: [make(n) for n in numbers] for name, make in columns.items()}
            ).replace_schema_metadata(meta)
            names.append(f"data-{part:05d}-of-{len(parts):05d}.arrow")
            with pa.OSFile(str(folder / names[-1]), "wb") as sink:
                writer = (pa.ipc.new_file if file_format else pa.ipc.new_stream)(sink, table.schema)
                writer.write_table(table, max_chunksize=4)
                writer.close()
        (folder / "state.json").write_text(
            json.dumps({"_data_files": [{"filename": name} for name in names]})
        )
        (folder / "dataset_info.json").write_text("{}")
        return str(folder)

    return save


@pytest.mark.parametrize("file_format", [False, True])
@pytest.mark.parametrize("per_unit", [1, 3, 8, 100])
def test_every_row_is_a_pair(save, source, read_all, picture, file_format, per_unit):
    data = source("arrow", save("a", [10, 7], file_format=file_format))
    pairs = read_all(data, per_unit)
    assert [pair.image for pair in pairs] == [picture(n) for n in range(17)]
    assert [pair.captions for pair in pairs] == [(f"caption {n}",) for n in range(17)]
    assert [pair.label for pair in pairs] == [["zero", "one"][n % 2] for n in range(17)]
    assert pairs[11].pair_id == "data-00001-of-00002.arrow#1"
    assert data.labels().names == {"zero": 9, "one": 8}
    assert [captions for _, captions in data.captions()] == [pair.captions for pair in pairs]
    assert {entry.reason for entry in data.left_out()} == {"its name does not end in .arrow"}


def test_splits_and_caches(save, source, read_all, tmp_path):
    save("set/train", [5])
    save("set/test", [3])
    other = Path(save("elsewhere", [2])) / "data-00000-of-00001.arrow"
    for name in ("train/cache-1.arrow", "test/old.arrow"):
        shutil.copy(other, tmp_path / "set" / name)
    data = source("arrow", str(tmp_path / "set"))
    assert len(read_all(data)) == 8
    told = [name for entry in data.left_out() for name in entry.examples if name.endswith(".arrow")]
    assert sorted(name.rpartition("/")[2] for name in told) == ["cache-1.arrow", "old.arrow"]
    assert [file.name for file in data.files()] == [
        "test/data-00000-of-00001.arrow",
        "train/data-00000-of-00001.arrow",
    ]


def test_ids_limits_and_a_memory_store(save, source, read_all, put, tmp_path):
    folder = save("a", [10], key=lambda n: f"k{n}")
    data = source("arrow", folder, columns={"id": "key"}, limit=6)
    assert [pair.pair_id.partition("#")[2] for pair in read_all(data, 4)] == [f"k{n}" for n in range(6)]
    content = (tmp_path / "a/data-00000-of-00001.arrow").read_bytes()
    there = source("arrow", put("memory://arrow/data-00000-of-00001.arrow", content))
    assert len(read_all(there, 4)) == 10 and there.digest() == source("arrow", folder).digest()


def test_repeated_ids_and_missing_columns_stop_before_any_work(save, source):
    folder = save("a", [9], key=lambda n: n // 8)
    with pytest.raises(SourceError, match="holds 0 8 times"):
        source("arrow", folder, columns={"id": "key"}).digest()
    with pytest.raises(SourceError, match="no column 'text'"):
        source("arrow", folder, columns={"caption": "text"}).digest()


def test_a_selection_of_rows_beside_the_data_is_refused(save, source, tmp_path):
    folder = save("a", [9])
    state = json.loads((tmp_path / "a/state.json").read_text())
    (tmp_path / "a/state.json").write_text(
        json.dumps({**state, "_indices_data_files": [{"filename": "i.arrow"}]})
    )
    with pytest.raises(SourceError, match="flatten_indices"):
        source("arrow", folder).digest()


def test_cut_files_and_other_files(save, source, tmp_path):
    folder = save("a", [9])
    path = tmp_path / "a/data-00000-of-00001.arrow"
    content = path.read_bytes()
    for bad in (content[: len(content) // 2], b"PAR1" * 100, b""):
        path.write_bytes(bad)
        with pytest.raises(SourceError, match="data-00000-of-00001.arrow(.|\n)*remedy"):
            source("arrow", folder).digest()


def test_rows_without_captions(save, source, read_all):
    folder = save("a", [3], text=lambda n: None if n == 1 else "t")
    pairs = read_all(source("arrow", folder, columns={"caption": "text"}))
    assert [type(pair.error) for pair in pairs] == [type(None), CaptionError, type(None)]
    pairs = read_all(source("arrow", folder, columns={"caption": None}))
    assert [(pair.captions, pair.label) for pair in pairs] == [((), "zero"), ((), "one"), ((), "zero")]
