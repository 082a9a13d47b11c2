"""Texts are held to the same contract as images: each has a feature of its own, whatever it is encoded with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from smoothcert.defences import DefendedEncoder
from smoothcert.encoders import Encoder, KnownEncoder, bundled_models, check_encoder, load_encoder
from smoothcert.errors import EncoderError
from smoothcert.job import EncoderSection

DIGITS = Path(str(files("smoothcert.encoders") / "bundled" / "digits-clip"))
END = 339  # of the bundled tokenizer


def load(directory, **settings) -> Encoder:
    return load_encoder(EncoderSection(model=str(directory), device="cpu", **settings))


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def digits(tmp_path) -> Path:
    directory = Path(shutil.copytree(DIGITS, tmp_path / "digits"))
    for file in directory.iterdir():
        file.chmod(0o644)
    return directory


# --- CLIP reads the feature of a text at its end token -------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("absent", r"the tokens of 'a' have no text_config.eos_token_id=49407"),  # what transformers fills in
        (None, r"text_config.eos_token_id=None in config.json is not a token"),
        (7, r"the tokens of 'a' have no text_config.eos_token_id=7"),
        (
            338,
            r"gives the texts 'a' and 'a photo' the same feature",
        ),  # the start token: it has seen nothing yet
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_text_tower_that_reads_its_feature_elsewhere_is_refused(digits, end, message, dtype):
    def change(config):
        config["text_config"]["eos_token_id"] = end
        if end == "absent":
            del config["text_config"]["eos_token_id"]

    edit(digits / "config.json", change)
    with pytest.raises(EncoderError, match=message) as caught:
        load(digits, dtype=dtype)
    assert "eos_token_id" in caught.value.remedy
    if end != 338:
        assert f"text_config.eos_token_id: {END}" in caught.value.remedy


def test_a_tower_that_pools_at_the_largest_token_as_early_configurations_say_is_accepted(digits):
    # the end token is the largest of the vocabulary, so both ways of finding it are the same
    expected = load(digits).encode_texts(["the digit seven", "a one"])
    edit(digits / "config.json", lambda config: config["text_config"].update(eos_token_id=2))
    found = load(digits).encode_texts(["the digit seven", "a one"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_padding_that_shifts_a_text_is_refused(digits, dtype):
    edit(digits / "tokenizer_config.json", lambda settings: settings.update(padding_side="left"))
    with pytest.raises(EncoderError, match="the feature of 'a' depends on the other texts") as caught:
        load(digits, dtype=dtype)
    assert "padding_side: right" in caught.value.remedy


def test_without_texts_nothing_is_asked_of_the_text_tower(digits):
    edit(digits / "tokenizer_config.json", lambda settings: settings.update(padding_side="left"))
    encoder = load(digits, feature="pooled")
    assert not encoder.has_texts and encoder.text_limit is None


# --- any encoder ---------------------------------------------------------------------------------------------


class TextEncoder(Encoder):
    """Letter counts as features, with a place to break the contract."""

    def __init__(self, spoil=lambda features, texts: features) -> None:
        super().__init__(name="letters", digest="0", feature_dim=128, input_size=(2, 2))
        self._spoil = spoil

    def prepare(self, image: Image.Image) -> np.ndarray:
        raise NotImplementedError

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(pixels.flatten(1), (0, 116))

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        counts = torch.zeros(len(texts), 128)
        for row, text in zip(counts, texts, strict=True):
            row.index_add_(0, torch.tensor([ord(c) for c in text]), torch.ones(len(text)))
        return self._spoil(counts, texts)


class WithoutTexts(TextEncoder):
    @property
    def has_texts(self) -> bool:
        return False


def first_word(features, texts):
    return TextEncoder()._text_features([text.split()[0] for text in texts])


def fail(features, texts):
    raise KeyError("odd")


def sort(features, texts):
    return features[sorted(range(len(texts)), key=texts.__getitem__)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f, t: torch.ones_like(f), "gives the texts 'a' and 'a photo' the same feature"),
        (first_word, "gives the texts 'a' and 'a photo' the same feature"),
        (lambda f, t: f + f.mean(0), "the feature of 'a' depends on the other texts"),
        (lambda f, t: f + torch.rand_like(f), "two answers for the same texts"),
        (lambda f, t: f + torch.arange(len(f)).float()[:, None], "depend on their order"),
        (sort, "depend on their order"),
        (lambda f, t: f * float("nan"), "NaN or infinite features of short texts"),
        (lambda f, t: f[:1], "of short texts; expected"),
        (lambda f, t: f[:, :3], "of short texts; expected"),
        (fail, "fails on the texts .* KeyError: 'odd'"),
    ],
)
def test_a_broken_promise_about_texts_is_refused(spoil, message):
    with pytest.raises(EncoderError, match=message) as caught:
        check_encoder(TextEncoder(spoil))
    assert caught.value.remedy
    check_encoder(WithoutTexts(spoil))


def test_what_keeps_the_contract_is_accepted():
    check_encoder(TextEncoder())
    check_encoder(KnownEncoder.rotating(feature_dim=5))
    for name in bundled_models():
        check_encoder(load(name))


def test_an_encoder_that_knows_other_words_brings_its_own():
    def digits_only(features, texts):
        return torch.stack([features[:, ord("0")] + 1, features[:, ord("1")]], dim=1) @ torch.eye(2, 128)

    encoder = TextEncoder(digits_only)
    with pytest.raises(EncoderError, match="the same feature") as caught:
        check_encoder(encoder)
    assert "probe_texts" in caught.value.remedy
    encoder.probe_texts = ("0", "01", "011")
    check_encoder(encoder)
    check_encoder(DefendedEncoder(encoder, purifier=None, mapper=None, name="bare", parts_digest=""))


# --- what is read of a text ----------------------------------------------------------------------------------


def test_cut_texts_are_those_whose_tokens_do_not_fit():
    encoder = load(DIGITS)
    tokenizer = Tokenizer.from_file(str(DIGITS / "tokenizer.json"))
    tokenizer.no_padding()
    texts = ["", "seven", *("seven " * n for n in range(25, 37)), "☃" * 9, "\U0001f600" * 30, "<end> seven"]
    lengths = [len(tokenizer.encode(text).ids) for text in texts]
    assert encoder.text_limit == 32 and 32 in lengths and 33 in lengths
    read = encoder.read_texts(texts)
    assert [text.cut for text in read[:-1]] == [length > 32 for length in lengths[:-1]]
    # the end token, written in a caption, ends it: what CLIP sees of that one is an empty text
    assert read[-1].cut and read[-1].content == read[0].content
    assert encoder.read_texts([]) == []
    # the same content is the same feature, and another is another
    contents = [text.content for text in read]
    features = encoder.encode_texts(texts)
    for one in range(len(texts)):
        for other in range(one):
            near = (features[one] - features[other]).norm() < 1e-5
            assert near == (contents[one] == contents[other]), (texts[one], texts[other])


def test_siglip_reads_lower_case_and_up_to_its_own_length(siglip_directory):
    encoder = load(siglip_directory)
    assert encoder.text_limit == 16
    upper, lower, cut = encoder.read_texts(["THE CAT", "the cat", "the " * 16])
    assert upper == lower and not lower.cut and cut.cut


def test_an_encoder_that_says_nothing_about_lengths_cuts_nothing():
    read = KnownEncoder.rotating().read_texts(["a", "b" * 10_000, "a"])
    assert [text.cut for text in read] == [False] * 3 and read[0] == read[2] != read[1]


def test_a_defended_encoder_reads_what_its_base_reads():
    base = load(DIGITS)
    defended = DefendedEncoder(base, purifier=None, mapper=None, name="bare", parts_digest="")
    assert defended.text_limit == 32 and defended.has_texts
    assert defended.read_texts(["seven " * 40]) == base.read_texts(["seven " * 40])
