"""Jobs whose texts or text tower are wrong end before any work, with one clear error; what is cut is told."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets import load_digits_pairs
from smoothcert.errors import EncoderError
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor

DIGITS = Path(str(files("smoothcert.encoders") / "bundled" / "digits-clip"))
LONG = "a long description of a scanned figure on white paper with dark ink and soft edges in the middle of a page: "
JOB = """
name: texts
data: {format: parquet, uri: data}
encoder: {model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1}
certify: {sigma: 0.25, pilot_draws: 7, max_draws: 8, radii: [0.1]}
tracking: {enabled: false}
"""
CAPTION = "{certificate: caption, radius: 0.1, cosine: 0.1}"


@pytest.fixture
def drive(tmp_path):
    """A driver over six digits with these captions."""

    def make(captions: list[str], *overrides: str) -> Driver:
        images, rows = [], []
        for (image, _, label), caption in zip(load_digits_pairs("test"), captions, strict=False):
            file = tmp_path / f"{len(images)}.png"
            image.save(file)
            images.append(file.read_bytes())
            rows.append({"image": images[-1], "caption": caption, "label": label})
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "a.parquet")
        settings = [f"data.uri={tmp_path / 'data'}", f"output.runs={tmp_path / 'runs'}", *overrides]
        return Driver(parse_job(JOB, settings))

    return make


def certify(driver: Driver) -> int:
    driver.check()
    report = driver.work("certification", Monitor(lambda result: None))
    assert (report.missing, report.failed) == (0, {})
    return report.done


@pytest.mark.parametrize(
    "override",
    ["retrieval={candidates: 6, k: 1}", f"certify.targets=[{CAPTION}]"],
    ids=["retrieval", "target"],
)
def test_captions_that_are_one_to_the_encoder_end_before_work(drive, tmp_path, override):
    driver = drive([f"{LONG}{n}" for n in range(6)], override, "certify.max_draws=24")
    with pytest.raises(EncoderError, match=r"all 6 captions.* are the same to encoder 'bundled:digits-clip'"):
        certify(driver)
    assert not (tmp_path / "runs").exists()


def test_cut_captions_are_told_before_work_and_counted_at_its_end(drive, caplog):
    driver = drive(["one", "two", f"{LONG}three", f"{LONG}four", "five", "six"])
    assert certify(driver) == 6
    told = [record.message for record in caplog.records if "32 tokens" in record.message]
    assert [line.split(" are longer")[0] for line in told] == [
        "2 of 6 captions read first",
        "2 of 6 pairs have captions that",
    ]


def test_captions_that_nothing_is_asked_about_do_not_stop_a_job(drive, caplog):
    assert certify(drive([f"{LONG}{n}" for n in range(6)])) == 6
    assert "all 6 captions are the same" in caplog.text


@pytest.mark.parametrize("fault", ["end absent", "end null", "left padding", "one mean"])
def test_a_model_with_a_faulty_configuration_ends_before_work(drive, tmp_path, fault):
    model = Path(shutil.copytree(DIGITS, tmp_path / "model"))
    file, change = {
        "end absent": ("config.json", lambda c: c["text_config"].pop("eos_token_id")),
        "end null": ("config.json", lambda c: c["text_config"].update(eos_token_id=None)),
        "left padding": ("tokenizer_config.json", lambda c: c.update(padding_side="left")),
        "one mean": ("preprocessor_config.json", lambda c: c.update(image_mean=[0.5], image_std=[0.5])),
    }[fault]
    content = json.loads((model / file).read_text())
    change(content)
    (model / file).chmod(0o644)
    (model / file).write_text(json.dumps(content))
    driver = drive(["one", "two", "a one", "a two", "five", "six"], f"encoder.model={model}")
    with pytest.raises(EncoderError) as caught:
        certify(driver)
    assert caught.value.remedy and "model" in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "needs",
    ["zero_shot={labels: [one, two]}", "retrieval={candidates: 6, k: 1}", f"certify.targets=[{CAPTION}]"],
    ids=["classes", "retrieval", "target"],
)
def test_texts_for_an_encoder_without_any_end_before_work(drive, tmp_path, needs):
    (tmp_path / "no_texts.py").write_text(
        "import torch\n"
        "from smoothcert.encoders import ModuleEncoder\n"
        "def make():\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))\n"
        "    return ModuleEncoder(net, input_size=(8, 8))\n"
    )
    words = ["one", "two", "three", "four", "five", "six"]
    driver = drive(words, f"encoder.model={tmp_path / 'no_texts.py'}:make", "certify.max_draws=24", needs)
    with pytest.raises(EncoderError, match="has no text space"):
        certify(driver)
    assert not (tmp_path / "runs").exists()
