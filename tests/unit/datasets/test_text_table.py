"""CSV and JSON-lines records against Python's csv and json modules, from any offset on."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.datasets import text_table
from smoothcert.datasets.text_table import CsvTable, JsonLinesTable
from smoothcert.errors import ReadError, SourceError


def table(content, delimiter=","):
    return CsvTable(io.BytesIO(content), "m.csv", delimiter)


def lines(content):
    return JsonLinesTable(io.BytesIO(content), "m.jsonl")


def fields(table, offset=0):
    return [record.fields for record in table.records(offset)]


cell = st.text("ab,\"'\n\r\t é猫", max_size=8)
rows = st.lists(st.tuples(cell.filter(bool), cell, cell), max_size=8)


@given(rows, st.sampled_from(["\n", "\r\n"]), st.sampled_from([",", "\t"]), st.integers(1, 20))
def test_csv_is_what_the_csv_module_wrote(rows, end, delimiter, chunk):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=end, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["image", "caption", "label"])
    writer.writerows(rows)
    content = stream.getvalue().encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_table, "_CHUNK_BYTES", chunk)
        got = table(content, delimiter)
        expected = [dict(zip(("image", "caption", "label"), row, strict=True)) for row in rows]
        assert fields(got) == expected
        for number, record in enumerate(got.records()):
            assert fields(got, record.offset) == expected[number:]


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), min_size=1), max_size=6),
    st.integers(1, 20),
)
def test_json_lines_are_what_the_json_module_wrote(objects, chunk):
    content = "\n\n".join(json.dumps(o, ensure_ascii=False) for o in objects).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_table, "_CHUNK_BYTES", chunk)
        got = lines(content)
        records = list(got.records())
        for number, record in enumerate(records):
            assert fields(got, record.offset) == [r.fields for r in records[number:]]
    clean = [o for o in objects if not any(0xD800 <= ord(c) < 0xE000 for c in str(o.items()))]
    if len(clean) == len(objects):
        assert [record.fields for record in records] == objects


def test_blank_rows_and_byte_order_marks():
    content = b"\xef\xbb\xbfimage, caption\n\na.png,one\n\r\nb.png,two"
    got = table(content)
    assert got.columns() == ["image", "caption"]
    assert [record.fields["image"] for record in got.records()] == ["a.png", "b.png"]
    assert [record.offset for record in got.records()] == [content.index(b"a.png"), content.index(b"b.png")]
    assert fields(lines(b'\xef\xbb\xbf{"a": 1}\n \n{"a": 2}')) == [{"a": 1}, {"a": 2}]


def test_blank_lines_are_noted():
    for got, expected in (
        (table(b"\nimage,caption\n\na.png,one\n\r\n"), {0, 15, 26}),
        (lines(b'\n{"a": 1}\n \n{"a": 2}\n\n'), {0, 10, 21}),
    ):
        list(got.records())
        assert got.blank == expected


def test_a_wide_cell_is_a_cell():
    wide = "x" * 200_000
    narrow, record = table(f"image,caption,embedding\na,b,c\na.png,one,{wide}\n".encode()).records()
    assert record.fields == {"image": "a.png", "caption": "one", "embedding": wide}


def test_rows_of_other_lengths():
    short, long = table(b"image,caption\na.png\nb.png,one, two\n").records()
    assert short.fields == {"image": "a.png"} and short.error is None
    assert isinstance(long.error, ReadError) and "has 3 cells, but there are 2 columns" in long.error.message


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        ("image,caption".encode("utf-16"), "is UTF-16"),
        (
            b'image,caption\na.png,ok\nb.png,"never closed\nc.png,lost\n',
            "the record at byte 23 cannot be read",
        ),
        (b'image,caption\na.png,"he said "hi" to me"\n', "the record at byte 14 cannot be read"),
        (b"image,caption\ra.png,one\r", "cannot be read"),
    ],
)
def test_tables_that_would_lose_rows_are_refused(content, said):
    with pytest.raises(SourceError, match=f"m.csv.*{said}(.|\n)*remedy"):
        list(table(content).records())


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(text_table, "_MOST_LINE_BYTES", 1000)
    monkeypatch.setattr(text_table, "_CHUNK_BYTES", 100)
    with pytest.raises(SourceError, match="a line of more than 1000 bytes at byte 6"):
        list(lines(b'{"a":\n' + b"x" * 5000).records())


@pytest.mark.parametrize("line", [b"{", b"[1]", b'"text"', b"\xff", b"[" * 100_000])
def test_a_bad_line_is_one_bad_record(line):
    first, bad, last = lines(b'{"a": 1}\n' + line + b'\n{"a": 2}').records()
    assert (first.fields, bad.fields, last.fields) == ({"a": 1}, {}, {"a": 2})
    assert isinstance(bad.error, ReadError) and "the line at byte 9" in bad.error.message


def test_bytes_that_are_not_utf8_are_kept_for_the_caption_check():
    (record,) = table(b"image,caption\na.png,caf\xe9\n").records()
    assert record.fields["caption"] == "caf\udce9"
    (record,) = lines(b'{"caption": "caf\xe9"}').records()
    assert record.fields["caption"] == "caf\udce9"
