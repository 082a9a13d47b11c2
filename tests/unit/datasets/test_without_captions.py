"""Images with labels and no captions, in every format."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.errors import JobError
from smoothcert.job import parse_job

NO_CAPTION = {"caption": None}


def check(pairs):
    assert [(pair.image, pair.captions, pair.label, pair.error) for pair in pairs] == [
        (b"0", (), "zero", None),
        (b"1", (), "one", None),
    ]


def test_parquet(tmp_path, source, read_all):
    pq.write_table(pa.table({"image": [b"0", b"1"], "label": ["zero", "one"]}), tmp_path / "a.parquet")
    data = source("parquet", str(tmp_path), columns=NO_CAPTION)
    check(read_all(data))
    assert list(data.captions()) == []


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifests(tmp_path, source, read_all, kind):
    rows = [{"image": "0.png", "label": "zero"}, {"image": "1.png", "label": "one"}]
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(b"%d" % i)
    path = tmp_path / f"m.{kind}"
    if kind == "csv":
        path.write_text("image,label\n0.png,zero\n1.png,one\n")
    elif kind == "jsonl":
        path.write_text('{"image": "0.png", "label": "zero"}\n{"image": "1.png", "label": "one"}\n')
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    check(read_all(source("manifest", str(path), columns=NO_CAPTION)))


def test_archives(tmp_path, source, read_all):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("0.png", b"0"), ("0.cls", b"zero"), ("1.cls", b"one"), ("1.png", b"1")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    check(read_all(source("webdataset", str(tmp_path), columns=NO_CAPTION)))


JOB = """
name: j
data: {format: FORMAT, uri: x, columns: {caption: CAPTION}}
encoder: {model: "bundled:digits-clip"}
certify: {sigma: 0.5}
"""
NEEDS = [
    "retrieval={candidates: 10}",
    "certify.targets=[{certificate: caption, radius: 0.1, cosine: 0.2}]",
    "attacks=[{attack: pgd, norm: l2, budgets: [0.5], objective: caption}]",
]


@pytest.mark.parametrize("needs", NEEDS)
@pytest.mark.parametrize("format, caption", [("parquet", "null"), ("imagefolder", "caption")])
def test_what_needs_captions_is_refused_where_there_are_none(needs, format, caption):
    text = JOB.replace("FORMAT", format).replace("CAPTION", caption)
    assert not parse_job(text).data.has_captions
    said = f"needs captions, but the data has none .*data.columns.caption={caption}\\)"
    with pytest.raises(JobError, match=said):
        parse_job(text, [needs])
