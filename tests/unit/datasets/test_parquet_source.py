"""Parquet files written here, read back pair by pair."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets import decode_image
from smoothcert.errors import CaptionError, ReadError, SourceError
from smoothcert.storage import steady


@pytest.fixture
def write(folder, put):
    """``write(name, columns, **options)``: a Parquet file in the folder; its URL."""

    def write(name, columns, **options):
        stream = io.BytesIO()
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, stream, **options)
        return put(f"{folder}/{name}", stream.getvalue())

    return write


def captions(count):
    return [f"caption {i}" for i in range(count)]


@pytest.mark.parametrize("group", [1, 3, 10, 1000])
@pytest.mark.parametrize("per_unit", [1, 4, 1000])
def test_every_pair_comes_back_in_order(write, source, read_all, picture, group, per_unit):
    images = [picture(i) for i in range(25)]
    uri = write(
        "a.parquet", {"image": images, "caption": captions(25), "label": captions(25)}, row_group_size=group
    )
    pairs = read_all(source("parquet", uri), per_unit)
    assert [pair.image for pair in pairs] == images
    assert [pair.captions for pair in pairs] == [(c,) for c in captions(25)]
    assert [pair.label for pair in pairs] == captions(25)
    assert [pair.pair_id for pair in pairs] == [f"a.parquet#{i}" for i in range(25)]


@pytest.mark.parametrize(
    "image_type",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    ],
)
@pytest.mark.parametrize(
    "caption_type",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.list_(pa.string()),
    ],
)
def test_every_type_that_holds_images_and_captions(
    write, source, read_all, picture, image_type, caption_type
):
    images, texts = [picture(0), picture(1)], ["one", "two"]
    if pa.types.is_struct(image_type):
        cells = pa.array([{"bytes": image, "path": "x.png"} for image in images], image_type)
    else:
        cells = pa.array(images, image_type)
    if pa.types.is_list(caption_type):
        texts = [["one", "eins"], ["two"]]
    uri = write("a.parquet", {"image": cells, "caption": pa.array(texts, caption_type)})
    pairs = read_all(source("parquet", uri))
    assert [pair.image for pair in pairs] == images
    assert pairs[1].captions == ("two",) and pairs[0].captions[0] == "one"
    assert pairs[0].label is None


def test_columns_by_other_names(write, source, read_all, picture):
    uri = write(
        "a.parquet", {"img": [picture(0)], "text": ["hello"], "class": ["cat"], "key": ["k0"], "x": [1]}
    )
    names = {"image": "img", "caption": "text", "label": "class", "id": "key"}
    (pair,) = read_all(source("parquet", uri, columns=names))
    assert (pair.pair_id, pair.captions, pair.label) == ("a.parquet#k0", ("hello",), "cat")
    (pair,) = read_all(source("parquet", uri, columns=names | {"label": None}))
    assert pair.label is None


def test_class_names_of_a_hugging_face_file(write, source, read_all, picture):
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": [picture(i) for i in range(4)], "label": [1, 0, -1, 2]})
    uri = write("a.parquet", table.replace_schema_metadata(meta))
    pairs = read_all(source("parquet", uri, columns={"caption": "label"}))
    assert [pair.captions for pair in pairs] == [("dog",), ("cat",), (), ()]
    assert [pair.label for pair in pairs] == ["dog", "cat", None, None]
    assert "-1" not in str(pairs[2].error) and "names for 2 classes" in str(pairs[3].error)


def test_a_path_in_the_struct_stands_in_for_bytes(write, put, folder, source, read_all, picture):
    put(f"{folder}/sub/pic.png", picture(5))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": "sub/pic.png"}, {"bytes": None, "path": None}], kind)
    good, bad = read_all(source("parquet", write("a.parquet", {"image": cells, "caption": ["a", "b"]})))
    assert good.image == picture(5)
    assert isinstance(bad.error, ReadError)


def test_each_bad_row_is_one_bad_pair(write, source, read_all, picture):
    # pyarrow does not check the bytes behind a string column: that is how broken captions get into files.
    bad_utf8 = pa.StringArray.from_buffers(
        6,
        pa.py_buffer(b"".join(x.to_bytes(4, "little") for x in (0, 2, 2, 5, 6, 7, 8))),
        pa.py_buffer(b"okcaf\xe9bc"),
    )
    texts = pa.array(bad_utf8.cast(pa.binary()).to_pylist(), pa.binary()).view(pa.string())
    images = [picture(0), picture(1), None, picture(3), b"", picture(5)]
    uri = write("a.parquet", {"image": pa.array(images, pa.binary()), "caption": texts}, use_dictionary=False)
    pairs = read_all(source("parquet", uri))
    assert [type(pair.error) for pair in pairs] == [
        type(None),
        CaptionError,
        ReadError,
        CaptionError,
        type(None),
        type(None),
    ]
    assert pairs[1].error.message == "column 'caption' is empty ('')"
    assert pairs[3].error.message == "column 'caption' is not valid UTF-8 (byte 0)"
    assert pairs[2].captions == ("caf",) and pairs[4].image == b""


def test_bad_captions_of_every_kind(write, source, read_all, picture):
    cells = pa.array([None, [], [None], ["", " "], ["ok"]], pa.list_(pa.string()))
    pairs = read_all(source("parquet", write("a.parquet", {"image": [picture(0)] * 5, "caption": cells})))
    assert [isinstance(pair.error, CaptionError) for pair in pairs] == [True] * 4 + [False]


@pytest.mark.parametrize(
    "columns, wanted, said",
    [
        ({"img": [b""], "caption": ["a"]}, {}, "has no column 'image' (data.columns.image)"),
        (
            {"image": [b""], "captoin": ["a"]},
            {},
            "has no column 'caption' (data.columns.caption) (did you mean 'captoin'?)",
        ),
        ({"image": [b""], "caption": ["a"], "lable": ["b"]}, {"label": "lbl"}, "(did you mean 'lable'?)"),
        ({"image": [b""], "caption": ["a"]}, {"id": "key"}, "has no column 'key' (data.columns.id)"),
        ({"image": ["a.png"], "caption": ["a"]}, {}, "set data.format to manifest"),
        ({"image": [3], "caption": ["a"]}, {}, "is int64, not image bytes"),
        ({"image": [{"path": "a"}], "caption": ["a"]}, {}, "without a field 'bytes'"),
        ({"image": [b""], "caption": [3]}, {}, "is int64, not text or a list of texts"),
        ({"image": [b"", b""], "caption": ["a", "b"], "key": [7, 7]}, {"id": "key"}, "holds 7 2 times"),
        ({"image": [b"", b""], "caption": ["a", "b"], "key": [7, None]}, {"id": "key"}, "is null in 1 rows"),
        ({"image": [b""], "caption": ["a"], "key": [0.5]}, {"id": "key"}, "is double, not text or integers"),
    ],
)
def test_wrong_columns_stop_before_any_work(write, source, columns, wanted, said):
    uri = write("a.parquet", columns)
    with pytest.raises(SourceError, match=r"a\.parquet(.|\n)*remedy: .+") as caught:
        list(source("parquet", uri, columns=wanted).files())
    assert said in str(caught.value).replace("; columns", " ; columns")


def test_a_second_file_with_other_columns_is_found_too(write, source, folder, picture):
    write("a.parquet", {"image": [picture(0)], "caption": ["a"]})
    write("b.parquet", {"image": [picture(0)], "text": ["a"]})
    with pytest.raises(SourceError, match=r"b\.parquet has no column 'caption'.*columns: image, text"):
        source("parquet", folder).digest()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not a parquet file at all, but long enough to look at"])
def test_what_is_no_parquet_file(folder, put, source, content):
    uri = put(f"{folder}/a.parquet", content)
    with pytest.raises(SourceError, match=r"cannot open the Parquet file '.*a.parquet'(.|\n)*remedy"):
        list(source("parquet", uri).units(10))


def test_an_empty_source(write, source, folder):
    write("a.parquet", {"image": pa.array([], pa.binary()), "caption": pa.array([], pa.string())})
    with pytest.raises(SourceError, match=r"has no pairs in its 1 file"):
        list(source("parquet", folder).files())


def test_a_file_without_rows_among_others(write, source, folder, read_all, picture):
    write("a.parquet", {"image": pa.array([], pa.binary()), "caption": pa.array([], pa.string())})
    write("b.parquet", {"image": [picture(0)], "caption": ["a"]})
    assert [pair.pair_id for pair in read_all(source("parquet", folder))] == ["b.parquet#0"]


def test_only_reads_the_wanted_pairs(write, source, picture):
    columns = {
        "image": [picture(i) for i in range(20)],
        "caption": captions(20),
        "key": [f"k{i}" for i in range(20)],
    }
    uri = write("a.parquet", columns, row_group_size=6)
    by_row = source("parquet", uri)
    (unit,) = by_row.units(100)
    wanted = {"a.parquet#3", "a.parquet#19", "other#1"}
    assert [pair.pair_id for pair in by_row.read(unit, wanted)] == ["a.parquet#3", "a.parquet#19"]
    by_key = source("parquet", uri, columns={"id": "key"})
    assert [pair.pair_id for pair in by_key.read(unit, {"a.parquet#k7"})] == ["a.parquet#k7"]
    assert list(by_row.read(unit, set())) == []


def test_parts_of_a_unit_hold_the_same_pairs(write, source, picture):
    uri = write(
        "a.parquet", {"image": [picture(i) for i in range(50)], "caption": captions(50)}, row_group_size=20
    )
    parquet = source("parquet", uri)
    (unit,) = parquet.units(100)
    whole = list(parquet.read(unit))
    for start, stop in ((0, 1), (19, 21), (33, 50)):
        assert list(parquet.read(unit.part(start, stop))) == whole[start:stop]


def test_captions_skip_what_cannot_be_a_caption(write, source, picture):
    uri = write("a.parquet", {"image": [picture(0)] * 3, "caption": ["a", None, "c"]})
    assert list(source("parquet", uri).captions()) == [("a.parquet#0", ("a",)), ("a.parquet#2", ("c",))]


@pytest.fixture
def damaged(tmp_path, picture, noise):
    """A file of three row groups of 40 rows; bytes inside the second one's image column are overwritten."""
    path = tmp_path / "a.parquet"
    table = pa.table(
        {"image": [noise(3000, i) for i in range(120)], "caption": captions(120), "key": captions(120)}
    )
    pq.write_table(
        table,
        path,
        row_group_size=40,
        use_dictionary=False,
        write_batch_size=4,
        data_page_size=8192,
        write_page_checksum=True,
    )
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    content[middle : middle + 30_000] = bytes(30_000)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("columns", [{}, {"id": "key"}])
def test_damage_costs_only_the_rows_it_touches(damaged, source, read_all, columns):
    parquet = source("parquet", str(damaged), columns=columns)
    pairs = read_all(parquet, 20)
    bad = [i for i, pair in enumerate(pairs) if pair.error is not None]
    assert bad and bad == list(range(bad[0], 80)) and bad[0] >= 40
    assert all(isinstance(pairs[i].error, ReadError) for i in bad)
    assert "row group 1 of" in pairs[bad[0]].error.message
    keys = captions(120) if columns else range(120)
    assert [pair.pair_id for pair in pairs] == [f"a.parquet#{key}" for key in keys]
    # Cut differently, the same rows are bad.
    assert [i for i, pair in enumerate(read_all(parquet, 1000)) if pair.error is not None] == bad


def test_a_file_cut_after_planning_is_a_source_error(tmp_path, source, noise):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [noise(999, i) for i in range(90)], "caption": captions(90)}), path)
    parquet = source("parquet", str(path))
    (unit,) = parquet.units(1000)
    pq.write_table(pa.table({"image": [b"x"] * 80, "caption": captions(80)}), path)
    with pytest.raises(SourceError, match="has 80 rows, but the plan has rows up to 90"):
        list(parquet.read(unit))
    path.unlink()
    with pytest.raises(SourceError, match="does not exist"):
        list(parquet.read(unit))


def test_a_store_that_fails_in_the_middle_is_a_source_error(monkeypatch, put, source, noise):
    """The data is whole but the store stops answering: nothing may be quarantined for that."""
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(steady, "WAITS_S", (0.0, 0.0))
    columns = {"image": [noise(50_000, i) for i in range(200)], "caption": captions(200)}
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, use_dictionary=False, row_group_size=100)
    uri = put("memory://failing/a.parquet", stream.getvalue())
    parquet = source("parquet", uri)
    (unit,) = parquet.units(1000)
    pairs = parquet.read(unit)
    assert next(pairs).error is None

    def fail(*_, **__):
        raise TimeoutError("store is away")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(SourceError, match="row group . of .*: TimeoutError: store is away"):
        list(pairs)


@pytest.mark.parametrize("kind", ["cut", "failed"])
def test_a_store_that_fails_now_and_then_costs_no_row(monkeypatch, put, source, noise, kind):
    """Every third answer is half of what was asked for, or an error: each is asked for again."""
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(steady, "WAITS_S", (0.0, 0.0))
    columns = {"image": [noise(50_000, i) for i in range(100)], "caption": captions(100)}
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, use_dictionary=False, row_group_size=50)
    parquet = source("parquet", put("memory://now-and-then/a.parquet", stream.getvalue()))
    (unit,) = parquet.units(1000)
    asked, whole = [], MemoryFileSystem.cat_file

    def sometimes(self, path, start=None, end=None, **options):
        asked.append((start, end))
        data = whole(self, path, start, end, **options)
        if len(asked) % 3:
            return data
        if kind == "failed":
            raise TimeoutError("slow")
        return data[: len(data) // 2]

    monkeypatch.setattr(MemoryFileSystem, "cat_file", sometimes)
    assert [pair.image for pair in parquet.read(unit)] == columns["image"]
    assert len(asked) > len(set(asked)) > 3, "some were asked for twice"


def test_a_unit_touches_only_its_row_groups(monkeypatch, put, source, noise):
    from fsspec.implementations.memory import MemoryFileSystem

    stream = io.BytesIO()
    columns = {"image": [noise(20_000, i) for i in range(300)], "caption": captions(300)}
    pq.write_table(pa.table(columns), stream, row_group_size=50, use_dictionary=False, compression="none")
    parquet = source("parquet", put("memory://touched/a.parquet", stream.getvalue()))
    metadata = pq.ParquetFile(stream).metadata
    *_, unit, _ = parquet.units(50)
    assert (unit.start, unit.stop) == (200, 250)
    touched, read = [], MemoryFileSystem.cat_file

    def noted(self, path, start=None, end=None):
        touched.append((start, end))
        return read(self, path, start, end)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", noted)
    assert len(list(parquet.read(unit))) == 50
    low = metadata.row_group(4).column(0).data_page_offset
    high = metadata.row_group(5).column(0).data_page_offset
    footer = len(stream.getvalue()) - 100_000
    assert all(low <= start and stop <= high for start, stop in touched if start < footer)
    assert sum(stop - start for start, stop in touched) < 1.5 * (high - low) + 200_000


def test_memory_stays_far_below_a_row_group(tmp_path, source, noise):
    path = tmp_path / "a.parquet"
    count, size = 1200, 50_000
    schema = pa.schema([("image", pa.binary()), ("caption", pa.string())])
    with pq.ParquetWriter(
        path, schema, use_dictionary=False, compression="none", write_batch_size=16
    ) as writer:
        writer.write_table(
            pa.table({"image": [noise(size, i) for i in range(count)], "caption": captions(count)}, schema),
            row_group_size=count,
        )
    parquet = source("parquet", str(path))
    before, most, seen = pa.total_allocated_bytes(), 0, 0
    for unit in parquet.units(400):
        for pair in parquet.read(unit):
            most = max(most, pa.total_allocated_bytes() - before)
            seen += len(pair.image)
    assert seen == count * size
    assert most < count * size / 4


def test_images_survive_the_way_to_pixels(write, source, read_all, picture):
    (pair,) = read_all(source("parquet", write("a.parquet", {"image": [picture(9)], "caption": ["a"]})))
    assert decode_image(pair.image, max_pixels=100).getpixel((0, 0)) == (9, 246, 7)
