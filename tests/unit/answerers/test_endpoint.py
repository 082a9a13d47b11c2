"""An endpoint, played by a small server on loopback: what it may do wrong, and that each answer is asked for once."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smoothcert.answerers import chat
from smoothcert.answerers.base import TextAnswer
from smoothcert.answerers.endpoint import EndpointAnswerer
from smoothcert.encoders import KnownEncoder
from smoothcert.errors import EndpointError, JobError
from smoothcert.job.answer import AnswerSection

KEY = "sk-very-secret"
Reply = tuple[int, dict[str, str], bytes]


def said(text: str = "a cat", **changes: Any) -> Reply:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | changes
    data = {"model": "eye-1-2026", "choices": [choice], "usage": {"completion_tokens": 2}}
    return 200, {}, json.dumps(data).encode()


class Service:
    """Answers each request with the next of ``replies``, or by what ``replies`` makes of it."""

    def __init__(self) -> None:
        self.models: Reply = (200, {}, b'{"data": [{"id": "eye-1"}]}')
        self.listed = 0
        self.replies: list[Reply | Callable[[], Reply]] = []
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.listed += 1
                status, headers, data = service.models
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.seen.append((dict(self.headers), json.loads(body)))
                reply = service.replies.pop(0) if service.replies else said()
                status, headers, data = reply() if callable(reply) else reply
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the client has gone
                    pass

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SMOOTHCERT_API_KEY", KEY)
    monkeypatch.setattr(chat, "PAUSE_S", 0.01)
    made = Service()
    yield made
    made.close()


def make(service: Service, **settings: Any) -> EndpointAnswerer:
    section = AnswerSection(
        **{
            "model": "eye-1",
            "endpoint": service.url,
            "questions": "-",
            "subjects": ("bare", "vote"),
            "retries": 2,
            "timeout_s": 5,
            "parallel": 1,
            **settings,
        }
    )
    return EndpointAnswerer(section, KnownEncoder.rotating(input_size=(4, 6)))


X = torch.tensor(np.random.default_rng(0).integers(0, 256, (1, 3, 4, 6))).float() / 255


def test_the_image_is_x_as_png_and_the_answer_is_read(service: Service) -> None:
    service.replies = [said(" A cat. ")]
    noisy = X.clone()
    noisy[0, 0, 0, 0], noisy[0, 1, 0, 0] = -0.5, 1.5
    (answer,) = make(service, template="Look. {question}").answer(noisy, ["What is it?"], [3])
    assert answer == TextAnswer("A cat.", 2, True, False)
    headers, body = service.seen[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == (
        "eye-1",
        0.0,
        32,
    ) and "seed" not in body
    image, text = body["messages"][0]["content"]
    assert text["text"] == "Look. What is it?"
    sent = Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].partition(",")[2])))
    assert np.array_equal(
        np.asarray(sent), (noisy.clamp(0, 1)[0] * 255).round().numpy().transpose(1, 2, 0).astype(np.uint8)
    )


def test_an_answer_is_paid_once_and_a_resume_asks_for_the_rest(service: Service) -> None:
    kept: dict[str, bytes] = {}
    first = make(service)
    first.service.recall, first.service.remember = kept.get, kept.__setitem__
    questions = ["one?", "two?"]
    before = first.answer(X.expand(2, -1, -1, -1), questions, [0, 0])
    again = make(service)
    again.service.recall, again.service.remember = kept.get, kept.__setitem__
    after = again.answer(X.expand(3, -1, -1, -1), [*questions, "three?"], [5, 6, 7])
    assert after[:2] == before and len(service.seen) == 3
    brighter = again.answer(X * 0.5, ["one?"], [0])
    assert len(brighter) == 1 and len(service.seen) == 4, "another image is another question"
    assert KEY not in "".join(kept) + b"".join(kept.values()).decode()


def test_answers_that_are_under_way_together_come_back_in_order_and_one_key_is_asked_once(
    service: Service,
) -> None:
    def echo() -> Reply:
        return said(service.seen[-1][1]["messages"][0]["content"][1]["text"])

    service.replies = [echo] * 12
    questions = [f"number {place % 9}" for place in range(12)]
    answers = make(service, parallel=5).answer(X.expand(12, -1, -1, -1), questions, [0] * 12)
    assert [each.text for each in answers] == questions and len(service.seen) == 9


def test_it_comes_back_after_limits_and_failures(service: Service) -> None:
    service.replies = [(429, {"Retry-After": "0"}, b"slow down"), (503, {}, b""), said("yes")]
    assert make(service).answer(X, ["?"], [0])[0].text == "yes"
    service.replies = [(200, {}, b'{"choices": [{"mess'), said("no")]
    assert make(service).answer(X, ["?"], [0])[0].text == "no"
    assert len(service.seen) == 5


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        ([(429, {}, b"slow down")] * 3, "answers 429: slow down"),
        ([(401, {}, f"bad key {KEY}".encode())], r"(?s)answers 401: bad key <key>.*SMOOTHCERT_API_KEY"),
        ([(200, {}, b"{")] * 3, "not JSON"),
        ([(200, {}, b"[1]")], "not an object"),
        ([(200, {}, b'{"model": "eye-1", "choices": []}')], "without choices"),
        ([(200, {}, b'{"model": "ear-7", "choices": []}')], "answers with model 'ear-7'"),
    ],
)
def test_what_it_does_wrong_is_said_without_the_key(
    service: Service, replies: list[Reply], message: str
) -> None:
    service.replies = list(replies)
    with pytest.raises(EndpointError, match=message) as caught:
        make(service).answer(X, ["?"], [0])
    assert KEY not in str(caught.value) and service.url in str(caught.value)


def test_refusals_and_cut_answers_are_marked(service: Service) -> None:
    service.replies = [
        said("", message={"content": None, "refusal": "I cannot say"}),
        said("no", finish_reason="content_filter"),
        said("a very", finish_reason="length"),
    ]
    answers = make(service).answer(X.expand(3, -1, -1, -1), ["?", "??", "???"], [0] * 3)
    assert [(each.text, each.refused, each.complete) for each in answers] == [
        ("I cannot say", True, True),
        ("no", True, True),
        ("a very", False, False),
    ]


def test_one_that_hangs_or_is_down_is_an_error(service: Service) -> None:
    def slow() -> Reply:
        time.sleep(0.4)
        return said()

    service.replies = [slow]
    with pytest.raises(EndpointError, match=r"cannot be reached \(ReadTimeout|ConnectionError\)"):
        make(service, timeout_s=0.1, retries=0).answer(X, ["?"], [0])
    nowhere = make(service, endpoint="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(EndpointError, match=r"cannot be reached \(ConnectionError\)"):
        nowhere.answer(X, ["?"], [0])


def test_before_work_it_is_asked_for_its_models_which_costs_nothing(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    made = make(service)
    made.service.check()
    assert (service.listed, service.seen, caplog.records) == (1, [], [])
    service.models = (404, {}, b"no such page")  # not every service lists its models
    made.service.check()
    service.models = (200, {}, b'{"data": [{"id": "ear-7"}]}')
    made.service.check()
    assert "does not list the model 'eye-1'" in caplog.text
    service.models = (401, {}, f"no {KEY}".encode())
    with pytest.raises(EndpointError, match=r"(?s)answers 401: no <key>.*SMOOTHCERT_API_KEY"):
        made.service.check()
    with pytest.raises(EndpointError, match=r"(?s)cannot be reached.*is up"):
        make(service, endpoint="http://127.0.0.1:9/v1", retries=0).service.check()


def test_sampled_answers_carry_their_seed(service: Service) -> None:
    make(service, temperature=0.7).answer(X, ["?"], [2**40 + 5])
    assert service.seen[0][1]["seed"] == (2**40 + 5) % 2**31


def test_without_a_key_nothing_begins(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMOOTHCERT_API_KEY")
    with pytest.raises(JobError, match=r"(?s)no SMOOTHCERT_API_KEY.*export"):
        make(service)


def test_what_an_endpoint_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes images, not image tokens"):
        AnswerSection(model="eye-1", endpoint="http://x", questions="-", subjects=("smoothed",))
    with pytest.raises(ValueError, match="not an http"):
        AnswerSection(model="eye-1", endpoint="x", questions="-", subjects=("bare",))
