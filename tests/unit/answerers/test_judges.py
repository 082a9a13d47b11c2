"""Judges: a local encoder against cosines by hand, and a service whose replies must be numbers."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from smoothcert.answerers import chat
from smoothcert.answerers.judges import (
    EncoderJudge,
    JudgedText,
    ServiceJudge,
    fill,
    read_score,
)
from smoothcert.encoders import KnownEncoder, load_encoder
from smoothcert.errors import EndpointError, JobError
from smoothcert.job import EncoderSection
from smoothcert.job.judge import JudgeSection

played = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_endpoint.py")))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SMOOTHCERT_JUDGE_KEY", played.KEY)
    monkeypatch.setattr(chat, "PAUSE_S", 0.01)
    made = played.Service()
    yield made
    made.close()


def make(service: object, **settings: object) -> ServiceJudge:
    return ServiceJudge(
        JudgeSection(**{"endpoint": service.url, "model": "eye-1", "retries": 0, "parallel": 1, **settings})
    )


def test_a_local_judge_says_the_largest_cosine() -> None:
    encoder = load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu", threads=1))
    judge = EncoderJudge(encoder, 0.8)
    texts = ["seven", "a photo of seven", "three", "a photo of the digit one"]
    features = encoder.encode_texts(texts).double().numpy()
    found = judge.judge([JudgedText("?", texts[0], tuple(texts[1:])), JudgedText("?", texts[2], (texts[2],))])
    by_hand = max(float(np.dot(features[0], each)) for each in features[1:])
    assert found[0].similarity == pytest.approx(max(0.0, by_hand), abs=1e-6)
    assert found[1].similarity == pytest.approx(1.0, abs=1e-6) and found[0].reply is None


def test_an_encoder_without_texts_judges_nothing() -> None:
    class Mute(KnownEncoder):
        has_texts = property(lambda self: False)

    with pytest.raises(JobError, match=r"(?s)answer\.judge\.encoder.*no texts to compare"):
        EncoderJudge(Mute.rotating(input_size=(4, 4)), 0.5)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("0.75", 0.75),
        ("1", 1.0),
        (' {"score": 0.5} ', 0.5),
        ("I think it is 0.9", None),
        ("85", None),
        ("-0.1", None),
        ("true", None),
        ("NaN", None),
        ("7/10", None),
        ("", None),
        ('{"rating": 1}', None),
        ("[1]", None),
    ],
)
def test_only_a_number_between_0_and_1_is_a_score(reply: str, score: float | None) -> None:
    assert read_score(reply) == score


def test_a_service_is_asked_with_its_prompt_once(service: object) -> None:
    kept: dict[str, bytes] = {}
    judge = make(service, prompt="{references} | {answer} | {question}")
    judge.service.recall, judge.service.remember = kept.get, kept.__setitem__
    service.replies = [played.said("0.25"), played.said("rather alike")]
    texts = [JudgedText("what?", "a {question}", ("cat", "dog")), JudgedText("what?", "x", ("y",))]
    found = judge.judge([*texts, texts[0]])
    assert [each.similarity for each in found] == [0.25, None, 0.25]
    assert [each.reply for each in found] == ["0.25", "rather alike", "0.25"]
    assert [body["messages"][0]["content"] for _, body in service.seen] == [
        "cat; dog | a {question} | what?",
        "y | x | what?",
    ]
    assert all(body["temperature"] == 0 for _, body in service.seen)
    assert played.KEY not in json.dumps([each.decode() for each in kept.values()])


def test_one_that_replies_in_prose_is_refused_before_work(service: object) -> None:
    service.replies = [played.said("Sure! I would rate this a solid 0.9.")]
    with pytest.raises(EndpointError, match=r"(?s)replies 'Sure!.*answer\.judge\.prompt ask for a number"):
        make(service).check()
    service.replies = [played.said("1.0")]
    make(service).check()


def test_prompt_and_model_are_its_identity_and_the_threshold_is_not(service: object) -> None:
    one, other = make(service), make(service, prompt="{answer}?")
    assert one.digest != other.digest and one.digest == make(service, threshold=0.9).digest
    assert fill("{answer}{answer}", JudgedText("q", "a", ("r",))) == "aa"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either encoder .* or endpoint"),
        ({"endpoint": "http://x"}, "give both or neither"),
        ({"endpoint": "ftp://x", "model": "m"}, "not an http"),
        ({"endpoint": "http://x", "model": "m", "prompt": "how good?"}, "has no {answer}"),
        ({"encoder": {"model": "m"}, "prompt": "{answer}"}, "is for judge.endpoint"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JudgeSection(**settings)
