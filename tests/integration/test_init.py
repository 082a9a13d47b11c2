"""`smoothcert init`: what it guesses of data in every format, and that what it writes validates and plans."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.datasets import open_source, write_demo_data
from smoothcert.datasets.guessing import guess_data
from smoothcert.errors import JobError, SourceError
from smoothcert.job import load_job

TARGETS = ["--target", "angular>=0.8@0.125", "--target", "class@0.25"]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["init", *arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.mark.parametrize("format", ["parquet", "webdataset", "manifest"])
def test_a_job_for_the_digits_in_every_format(tmp_path: Path, format: str) -> None:
    write_demo_data(tmp_path / "digits", format)
    job_file = tmp_path / "job.yaml"
    said = run(
        str(tmp_path / "digits"), "--encoder", "bundled:digits-clip", "--sigma", "0.5", *TARGETS,
        "-o", str(job_file),
    )  # fmt: skip
    assert f"data       {format}, 3 files" in said and "10 classes; 0 of 360 pairs without one" in said
    job = load_job(job_file)
    assert (job.name, job.data.format, job.certify.sigma) == ("digits", format, 0.5)
    assert [each.name for each in job.certify.targets] == ["angular>=0.8@0.125", "class@0.25"]
    assert job.zero_shot is not None and set(job.zero_shot.labels) >= {"zero", "nine"}
    assert len(job.zero_shot.labels) == 10
    source = open_source(job.data)
    assert sum(file.pairs for file in source.files()) == 360 and len(list(source.captions())) == 360
    if format == "manifest":
        assert "beside them 360 files like imagefolder; not taken" in said
    with pytest.raises(JobError, match="is there already"):
        run(str(tmp_path / "digits"), "-o", str(job_file))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


def test_folders_of_images(tmp_path: Path) -> None:
    for label in ("cat", "a dog"):
        picture(tmp_path / "animals" / label / "1.png")
    run(str(tmp_path / "animals"), "-o", str(tmp_path / "job.yaml"))
    job = load_job(tmp_path / "job.yaml")
    assert job.data.format == "imagefolder" and job.zero_shot is not None
    assert job.zero_shot.labels == ("a dog", "cat")


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("q.jsonl", "", "jsonl"),
        ("q.json", '{"questions": [{"question": "x"}]}', "vqa"),
        ("q.json", '{"images": [{"sentences": []}]}', "karpathy"),
        ("q.parquet", "", "parquet"),
        ("animals", None, "imagefolder"),
    ],
)
def test_questions_about_the_images(tmp_path: Path, name: str, text: str | None, format: str) -> None:
    picture(tmp_path / "animals" / "cat" / "1.png")
    if text is not None:
        (tmp_path / name).write_text(text)
    said = run(
        str(tmp_path / "animals"),
        "--questions",
        str(tmp_path / name),
        "-o",
        str(tmp_path / "job.yaml"),
    )
    job = load_job(tmp_path / "job.yaml")
    assert job.answer is not None and f"questions  {format}" in said
    assert (job.answer.format, job.answer.questions) == (format, str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"a": 1}', r"(?s)no format that is known.*scienceqa"),
        ('{"annotations": [{"question_id": 1}]}', r"(?s)answers of VQA.*answer\.annotations"),
    ],
)
def test_questions_of_no_format_are_refused(tmp_path: Path, text: str, message: str) -> None:
    picture(tmp_path / "animals" / "cat" / "1.png")
    (tmp_path / "q.json").write_text(text)
    with pytest.raises(JobError, match=message):
        run(
            str(tmp_path / "animals"),
            "--questions",
            str(tmp_path / "q.json"),
            "-o",
            str(tmp_path / "j.yaml"),
        )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            "file,caption,shape\n",
            r"(?s)'class' needs two classes.*called like labels: file \(string\).*without this target",
        ),
        ("file,caption,label\n{0},a,cat\n", r"(?s)'class' needs two classes.*labels found: cat"),
    ],
)
def test_a_target_about_classes_that_are_not_there(tmp_path: Path, columns: str, message: str) -> None:
    picture(tmp_path / "1.png")
    (tmp_path / "pairs.csv").write_text(columns.format(tmp_path / "1.png"))
    data = (str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "job.yaml"))
    with pytest.raises(JobError, match=message):
        run(*data, "--target", "class@0.25")
    assert not (tmp_path / "job.yaml").exists()
    run(*data, "--target", "angular>=0.8@0.25")
    assert load_job(tmp_path / "job.yaml").zero_shot is None


def test_the_bundled_model_that_is_certified_also_answers(tmp_path: Path) -> None:
    picture(tmp_path / "animals" / "cat" / "1.png")
    (tmp_path / "q.parquet").write_text("")
    told = (str(tmp_path / "animals"), "--questions", str(tmp_path / "q.parquet"))
    run(*told, "--encoder", "bundled:shapes-llava", "-o", str(tmp_path / "job.yaml"))
    job = load_job(tmp_path / "job.yaml")
    assert job.answer is not None and job.answer.model == "bundled:shapes-llava"
    assert "# columns: {question: ..." in (tmp_path / "job.yaml").read_text()


@pytest.mark.parametrize(("encoder", "told"), [("my_models:make", True), ("bundled:digits-clip", False)])
def test_classes_for_code_of_ones_own_say_that_it_must_encode_texts(
    tmp_path: Path, encoder: str, told: bool
) -> None:
    for label in ("cat", "dog"):
        picture(tmp_path / "animals" / label / "1.png")
    (tmp_path / "my_models.py").write_text("def make(): ...")
    run(str(tmp_path / "animals"), "--encoder", encoder, "-o", str(tmp_path / "job.yaml"))
    (line,) = [each for each in (tmp_path / "job.yaml").read_text().splitlines() if "zero_shot:" in each]
    assert ("encode_text" in line) is told
    assert load_job(tmp_path / "job.yaml").zero_shot is not None


def test_other_names_of_columns_and_odd_texts(tmp_path: Path) -> None:
    odd = 'it\'s: a "label" # with {braces}'
    table = pa.table(
        {
            "id": [1, 2],
            "IMG": pa.array([{"bytes": b"x", "path": "x"}, {"bytes": b"y", "path": None}]),
            "Text": [["a", "b"], ["c"]],
            "category": [odd, "plain"],
        }
    )
    pq.write_table(table, tmp_path / "odd 'name' #1.parquet")
    guess = guess_data(str(tmp_path / "odd 'name' #1.parquet"))
    assert (guess.format, guess.image, guess.caption, guess.label) == ("parquet", "IMG", "Text", "category")
    run(str(tmp_path / "odd 'name' #1.parquet"), "-o", str(tmp_path / "job.yaml"))
    job = load_job(tmp_path / "job.yaml")
    assert job.zero_shot is not None and set(job.zero_shot.labels) == {odd, "plain"}
    assert (job.data.columns.image, job.data.columns.caption) == ("IMG", "Text")
    assert job.name == "odd-name-1"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "file_name,title\nx.png,t\n", ("manifest", "file_name", "title", None)),
        ("a.tsv", "url\ty\nhttp://h/x.png\t3\n", ("manifest", "url", None, "y")),
        ("a.jsonl", '{"image": "x.png", "caption": "c", "cls": 1}\n', ("manifest", "image", "caption", "cls")),
        ("a.csv", "one,two\n1,2\n", ("manifest", None, None, None)),
    ],
)  # fmt: skip
def test_text_tables(tmp_path: Path, name: str, text: str, expected: tuple[str | None, ...]) -> None:
    (tmp_path / name).write_text(text)
    guess = guess_data(str(tmp_path / name))
    assert (guess.format, guess.image, guess.caption, guess.label) == expected


def test_data_on_a_store_and_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fs = fsspec.filesystem("memory")
    fs.pipe_file("memory://init/a.csv", b"image,caption\nx.png,c\n")
    run("memory://init/a.csv", "--encoder", "s3://models/clip", "--sigma", "0.1")
    job = load_job(tmp_path / "job.yaml")
    assert (job.data.uri, job.encoder.model, job.zero_shot) == (
        "memory://init/a.csv",
        "s3://models/clip",
        None,
    )
    fs.rm("memory://init", recursive=True)
    (tmp_path / "none.csv").write_text("one,two\n1,2\n")
    with pytest.raises(JobError, match="looks like images"):
        run("none.csv", "-o", "x.yaml")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError):
        run("notes.txt", "-o", "x.yaml")
    with pytest.raises(JobError, match="DATA is missing"):
        run("-o", "x.yaml")
    (tmp_path / "ok.csv").write_text("image,caption\nx.png,c\n")
    with pytest.raises(JobError, match="is not a target"):
        run("ok.csv", "--target", "angular", "-o", "x.yaml")
    with pytest.raises(JobError, match="needs 'cosine'"):
        run("ok.csv", "--target", "angular@0.2", "-o", "x.yaml")
    assert not (tmp_path / "x.yaml").exists()
