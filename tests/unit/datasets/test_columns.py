"""Columns without any value, and columns of one name."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.errors import CaptionError, ReadError, SourceError

NULLS = [pa.null(), pa.list_(pa.null()), pa.dictionary(pa.int8(), pa.null())]


@pytest.fixture
def write(tmp_path):
    """``write(names, columns)``: a Parquet file, of whatever names."""

    def write(names, columns):
        pq.write_table(pa.Table.from_arrays([pa.array(c) for c in columns], names), tmp_path / "a.parquet")
        return str(tmp_path / "a.parquet")

    return write


def test_a_shard_without_any_caption_is_a_shard_of_bad_pairs(write, source, read_all):
    data = source("parquet", write(["image", "caption"], [[b"x", b"y"], pa.nulls(2)]))
    assert [type(pair.error) for pair in read_all(data)] == [CaptionError] * 2
    assert "column 'caption' is missing" in str(read_all(data)[0].error)
    assert list(data.captions()) == []
    data = source("parquet", write(["image", "caption"], [[b"x", b"y"], pa.nulls(2, pa.list_(pa.null()))]))
    assert [type(pair.error) for pair in read_all(data)] == [CaptionError] * 2


@pytest.mark.parametrize("kind", [pa.null(), pa.struct([("bytes", pa.null()), ("path", pa.null())])])
def test_a_shard_without_any_image_is_a_shard_of_bad_pairs(write, source, read_all, kind):
    data = source("parquet", write(["image", "caption"], [pa.nulls(2, kind), ["a", "b"]]))
    pairs = read_all(data)
    assert [type(pair.error) for pair in pairs] == [ReadError] * 2
    assert [pair.captions for pair in pairs] == [("a",), ("b",)]


def test_a_shard_without_any_label_has_none(write, source, read_all):
    data = source("parquet", write(["image", "caption", "label"], [[b"x"], ["a"], pa.nulls(1)]))
    assert [(pair.label, pair.error) for pair in read_all(data)] == [(None, None)]
    assert data.labels().missing == 1


def test_a_manifest_without_any_path_is_a_manifest_of_bad_pairs(write, source, read_all):
    data = source("manifest", write(["image", "caption"], [pa.nulls(2), ["a", "b"]]))
    assert [type(pair.error) for pair in read_all(data)] == [ReadError] * 2


def test_columns_of_one_name_matter_only_where_they_are_used(write, source, read_all, tmp_path):
    names = ["image", "caption", "extra", "extra"]
    data = source("parquet", write(names, [[b"x"], ["a"], [1], [2]]))
    assert [pair.captions for pair in read_all(data)] == [("a",)]
    with pytest.raises(SourceError, match=r"has 2 columns 'extra' \(data.columns.label\)"):
        source("parquet", write(names, [[b"x"], ["a"], [1], [2]]), columns={"label": "extra"}).digest()

    (tmp_path / "i.png").write_bytes(b"x")
    (tmp_path / "a.csv").write_text("image,caption,extra,extra\ni.png,a,1,2\n")
    data = source("manifest", str(tmp_path / "a.csv"))
    assert [pair.captions for pair in read_all(data)] == [("a",)]
    with pytest.raises(SourceError, match=r"has 2 columns 'extra' \(data.columns.label\)"):
        source("manifest", str(tmp_path / "a.csv"), columns={"label": "extra"}).digest()
