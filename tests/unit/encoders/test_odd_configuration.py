"""Odd settings in a model's files: a clear error with a remedy, or an encoder that keeps its contract; nothing else."""

from __future__ import annotations

import json
import os
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

from smoothcert.encoders import load_encoder
from smoothcert.errors import EncoderError
from smoothcert.job import EncoderSection

DIGITS = Path(str(files("smoothcert.encoders") / "bundled" / "digits-clip"))
ABSENT = object()


@pytest.fixture
def digits(tmp_path) -> Path:
    directory = Path(shutil.copytree(DIGITS, tmp_path / "digits"))
    for file in directory.iterdir():
        file.chmod(0o644)
    return directory


def change(file: Path, path: str, value: object) -> None:
    content = json.loads(file.read_text())
    *sections, last = path.split(".")
    section = content
    for name in sections:
        section = section[name]
    section.pop(last, None)
    if value is not ABSENT:
        section[last] = value
    file.write_text(json.dumps(content))


def load(directory: Path):
    return load_encoder(EncoderSection(model=str(directory), device="cpu"))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("image_mean", [0.5], "3 numbers, one a channel"),
        ("image_mean", [0.5, 0.5], "3 numbers"),
        ("image_mean", None, "3 numbers"),
        ("image_mean", [0.5, None, 0.5], "3 numbers"),
        ("image_mean", ["a", "b", "c"], "3 numbers"),
        ("image_std", [0.5], "3 numbers"),
        ("image_std", [0.5, 0.0, 0.5], "3 numbers, one a channel, all above 0"),
        ("image_std", -0.5, "all above 0"),
        ("rescale_factor", None, "one positive number"),
        ("rescale_factor", 0, "one positive number"),
        ("rescale_factor", [1, 1], "one positive number"),
    ],
)
def test_a_number_that_cannot_be_is_named_with_its_field(digits, field, value, expected):
    change(digits / "preprocessor_config.json", "do_normalize", True)
    change(digits / "preprocessor_config.json", field, value)
    with pytest.raises(
        EncoderError, match=rf"{field}=.* in preprocessor_config.json; expected .*{expected}"
    ) as caught:
        load(digits)
    assert str(digits) in caught.value.message and f"correct {field}" in caught.value.remedy


@pytest.mark.parametrize(
    ("file", "field", "value", "message"),
    [
        (
            "config.json",
            "text_config.hidden_size",
            "x",
            "configuration cannot be loaded: .*'hidden_size' expected int",
        ),
        ("config.json", "vision_config", [], "its configuration cannot be loaded"),
        ("config.json", "projection_dim", 3.5, "its configuration cannot be loaded"),
        (
            "config.json",
            "projection_dim",
            16,
            r"the weights hold .*projection.* as \(32, 64\), but config.json asks",
        ),
        ("config.json", "text_config.vocab_size", 17, "the weights hold .*token_embedding"),
        ("config.json", "vision_config.patch_size", 0, "its model cannot be loaded"),
        ("config.json", "vision_config.image_size", 64, "the weights hold .*position"),
        ("preprocessor_config.json", "size", "x", "its image processor cannot be loaded"),
        ("preprocessor_config.json", "resample", -1, "image processor .* refuses a 131x97 RGB image"),
        ("preprocessor_config.json", "image_processor_type", 7, "its image processor cannot be loaded"),
        ("tokenizer_config.json", "pad_token", 7, "its tokenizer cannot be loaded"),
        ("tokenizer_config.json", "pad_token", None, "fails on the texts"),
        ("tokenizer_config.json", "model_max_length", [], "fails on the length of the texts"),
        ("tokenizer_config.json", "truncation_side", "x", "its tokenizer cannot be loaded"),
        ("tokenizer_config.json", "padding_side", "x", "its tokenizer cannot be loaded"),
    ],
)
def test_odd_settings_are_said_to_be_wrong_in_the_model(digits, file, field, value, message):
    change(digits / file, field, value)
    with pytest.raises(EncoderError, match=message) as caught:
        load(digits)
    assert str(digits) in str(caught.value) and caught.value.remedy


ODD = [None, ABSENT, [], -1, "x"]
EACH = min(int(os.environ.get("SMOOTHCERT_TEST_SCALE", "1")), len(ODD))
"""How many odd values each field gets, each field others than the one before: all of them at a scale of 5."""


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
def test_no_setting_of_any_kind_ends_in_a_foreign_error(digits, file):
    """Every field there is, each with an odd value; what loads must also encode."""
    original = (digits / file).read_text()
    fields = []
    for name, value in json.loads(original).items():
        fields += [f"{name}.{inner}" for inner in value] if isinstance(value, dict) else []
        fields.append(name)
    for place, field in enumerate(fields):
        for value in (ODD[(place + k) % len(ODD)] for k in range(EACH)):
            (digits / file).write_text(original)
            change(digits / file, field, value)
            try:
                encoder = load(digits)
            except EncoderError as exc:
                assert exc.remedy, (field, value)
                continue
            assert encoder.prepare(Image.new("L", (50, 20))).shape == (3, *encoder.input_size), (field, value)
            assert encoder.encode_texts(["seven " * 100, "b"]).isfinite().all(), (field, value)
