"""What an encoder does not read of texts is told with its count, and refused where nothing is left to certify."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from smoothcert.encoders import Encoder, KnownEncoder
from smoothcert.encoders.base import ReadText
from smoothcert.engine import (
    Engine,
    Failure,
    Measurement,
    Texts,
    check_captions,
    check_pool,
    check_prompts,
    encode_texts,
)
from smoothcert.engine.texts import CaptionFeatures
from smoothcert.errors import EncodeError, EncoderError
from smoothcert.job import ZeroShotSection

LIMIT = 8


class ShortSighted(Encoder):
    """Reads eight letters of a text; fails on texts that hold a ``!``."""

    def __init__(self) -> None:
        self._known = KnownEncoder.rotating(1.0, input_size=(4, 4))
        super().__init__(name="short", digest="s", feature_dim=2, input_size=(4, 4))
        self.texts_encoded = 0

    def prepare(self, image):
        return self._known.prepare(image)

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._known.encode_images(pixels)

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts_encoded += len(texts)
        if any("!" in text for text in texts):
            raise KeyError("!")
        return self._known.encode_texts([text[:LIMIT] for text in texts])

    @property
    def text_limit(self) -> int:
        return LIMIT

    def read_texts(self, texts: Sequence[str]) -> list[ReadText]:
        return [ReadText(text[:LIMIT], len(text) > LIMIT) for text in texts]


@pytest.fixture
def encoder() -> ShortSighted:
    return ShortSighted()


def zero_shot(*labels: str, prompts: tuple[str, ...] = ("{label}",)) -> ZeroShotSection:
    return ZeroShotSection(labels=labels, prompts=prompts)


def test_cut_prompts_are_counted(encoder, caplog):
    check_prompts(encoder, zero_shot("one", "two", prompts=("{label}", "{label} on paper")))
    (told,) = caplog.messages
    assert (
        told
        == "2 of 4 prompts are longer than the 8 tokens that encoder 'short' reads: the rest of each is ignored"
    )


def test_classes_that_differ_where_nothing_is_read_are_refused(encoder):
    with pytest.raises(EncoderError, match="labels 'one' and 'two' have the same text feature"):
        check_prompts(encoder, zero_shot("one", "two", prompts=("a photo of {label}", "a photo {label}")))
    # one prompt that tells them apart is enough
    check_prompts(encoder, zero_shot("one", "two", prompts=("a photo of {label}", "{label}")))


def test_nothing_is_said_where_everything_is_read(encoder, caplog):
    check_prompts(encoder, zero_shot("one", "two"))
    check_pool(encoder, ["one", "two"])
    check_captions(encoder, ["one", "two"], needed=True)
    assert caplog.messages == [] and encoder.texts_encoded == 0


def test_a_pool_that_is_one_caption_to_the_encoder_is_refused(encoder):
    with pytest.raises(EncoderError, match="all 3 captions of the retrieval pool are the same") as caught:
        check_pool(encoder, [f"the same beginning {n}" for n in range(3)])
    assert "reads 8 tokens" in str(caught.value) and "shorten" in caught.value.remedy
    assert "beginning 0" in str(caught.value) and "beginning 1" in str(caught.value)


def test_cut_and_equal_captions_of_a_pool_are_counted(encoder, caplog):
    check_pool(encoder, ["one", "a photo of one", "a photo of two", "12345678", "123456789"])
    cut, equal = caplog.messages
    assert cut.startswith("3 of 5 captions of the retrieval pool are longer than the 8 tokens")
    assert equal.startswith(
        "2 of 5 captions of the retrieval pool are the same to encoder 'short' as another"
    )


def test_captions_that_all_begin_alike_are_refused_where_the_job_needs_them(encoder, caplog):
    captions = [f"a photo of {n}" for n in range(700)]
    with pytest.raises(
        EncoderError, match="all 700 captions are the same to encoder 'short', which reads 8 tokens"
    ):
        check_captions(encoder, captions, needed=True)
    caplog.clear()
    check_captions(encoder, captions, needed=False)
    same, cut = caplog.messages
    assert same.startswith("all 700 captions are the same") and cut.startswith("700 of 700 captions")


def test_one_caption_that_differs_is_found_however_late_and_reading_ends_there(encoder, caplog):
    asked: list[int] = []

    def captions() -> Iterator[str]:
        for number in range(10_000):
            asked.append(number)
            yield "something else" if number == 600 else "a photo of it"

    check_captions(encoder, captions(), needed=True)
    assert 600 < len(asked) < 1000
    assert caplog.messages[0].startswith(f"{len(asked)} of {len(asked)} captions read first are longer")


@pytest.mark.parametrize("captions", [[], ["a photo of it"], ["a photo of it"] * 600])
def test_a_source_with_one_caption_has_nothing_to_tell_apart(encoder, captions):
    check_captions(encoder, captions, needed=True)


# --- features that turn out the same -------------------------------------------------------------------------


def classes(*angles: float) -> KnownEncoder:
    return KnownEncoder.rotating(text_angles={f"c{i}": angle for i, angle in enumerate(angles)})


@pytest.mark.parametrize("gap", [0.0, 3e-8, 1e-6, 9e-6])
def test_classes_with_one_feature_up_to_rounding_are_refused_wherever_they_stand(gap):
    """Also those whose features round to different decimals."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = list(rng.uniform(0, 2 * np.pi, 30))
        one, other = rng.choice(30, 2, replace=False)
        angles[other] = angles[one] + gap
        low, high = sorted((one, other))
        with pytest.raises(EncoderError, match=f"'c{low}' and 'c{high}' have the same"):
            encode_texts(classes(*angles), zero_shot=zero_shot(*(f"c{i}" for i in range(30))))


def test_classes_that_are_near_but_not_the_same_are_kept():
    angles = np.arange(200) * 1e-4
    texts = encode_texts(classes(*angles), zero_shot=zero_shot(*(f"c{i}" for i in range(200))))
    assert texts.class_features.shape == (200, 2)


def test_a_pool_with_one_feature_is_refused():
    with pytest.raises(EncoderError, match="all 3 captions of the retrieval pool have the same text feature"):
        encode_texts(classes(1.0, 1.0, 1.0), pool=["c0", "c1", "c2"])
    encode_texts(classes(1.0, 1.0, 1.5), pool=["c0", "c1", "c2"])


# --- captions of pairs ---------------------------------------------------------------------------------------


def test_pairs_with_cut_captions_are_counted_also_from_the_cache(encoder):
    captions = CaptionFeatures(encoder)
    assert captions.describe_cut() is None
    groups = [("one",), ("a photo of one",), ("one", "a photo of one"), ("a photo of one",)]
    captions.of(groups[:2])
    captions.of(groups)
    assert (captions.pairs, captions.cut_pairs) == (6, 4)
    assert captions.describe_cut() == (
        "4 of 6 pairs have captions that are longer than the 8 tokens that encoder 'short' reads: the rest of each is "
        "ignored"
    )


def test_a_caption_on_which_the_encoder_fails_costs_its_own_pair_only(encoder, make):
    certify = make.section(targets=({"certificate": "caption", "radius": 0.1, "cosine": 0.1},))
    captions = ["one", "two", "oh!", "three", "a photo of four"]
    outcomes = make.run(encoder, certify, make.pairs(make.pixels(5), captions), Texts(captions=True))
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert len(outcomes) == 5 and sum(isinstance(outcome, Measurement) for outcome in outcomes) == 4
    (failure,) = failed
    assert failure.pair.captions == ("oh!",) and isinstance(failure.error, EncodeError)
    assert "KeyError in the encoder, on the caption" in str(failure.error)


def test_an_engine_counts_the_pairs_whose_captions_were_cut(encoder, make):
    certify = make.section()
    engine = Engine(encoder, certify, Texts(captions=True), slots=2, chunk=8, lanes=1)
    feed = make.pairs(make.pixels(3), ["one", "a photo of two", "a photo of three"])
    source = make.DecodeAhead(feed, encoder, max_pixels=10_000)
    assert len(list(engine.run(source))) == 3
    source.close()
    engine.close()
    assert (engine.captions.pairs, engine.captions.cut_pairs) == (3, 2)


def test_logging_goes_through_the_package(encoder, caplog):
    with caplog.at_level(logging.WARNING, logger="smoothcert"):
        check_pool(encoder, ["one", "a photo of one"])
    assert [record.name.split(".")[0] for record in caplog.records] == ["smoothcert"]
