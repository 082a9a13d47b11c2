"""OpenAI-compatible services: requests with retries and limits, the key from the environment, each reply paid once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from smoothcert.answerers.base import TextAnswer
from smoothcert.errors import EndpointError, JobError
from smoothcert.job.answer import AnswerSection
from smoothcert.job.judge import JudgeSection

log = logging.getLogger(__name__)

PAUSE_S = 0.5
"""The first pause before another attempt; each further one is twice as long, or what the service asks for."""
_TURNED_AWAY = (408, 429, 500, 502, 503, 504)
_LONGEST_QUOTE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Which service, and how it is asked.

    Attributes:
        field: of the job that names the service, for messages.
        url: its base URL.
        model: the name that it knows.
        key_variable: of the environment.
        timeout_s: for one request.
        retries: further attempts.
        max_tokens: longest reply.
        temperature: 0 for greedy replies.
        parallel: requests under way at once.
    """

    field: str
    url: str
    model: str
    key_variable: str
    timeout_s: float
    retries: int
    max_tokens: int
    temperature: float
    parallel: int

    @classmethod
    def of(
        cls, field: str, section: AnswerSection | JudgeSection, temperature: float = 0.0
    ) -> ServiceSettings:
        """What a section of the job with an endpoint asks for."""
        assert section.endpoint is not None and section.model is not None, "a section without an endpoint"
        return cls(
            field=field,
            url=section.endpoint,
            model=section.model,
            key_variable=section.key_variable,
            timeout_s=section.timeout_s,
            retries=section.retries,
            max_tokens=section.max_new_tokens,
            temperature=temperature,
            parallel=section.parallel,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One message.

    Attributes:
        content: text, or parts.
        key: of the reply; what has one key has one reply.
        seed: of sampled replies.
    """

    content: Any
    key: str
    seed: int = 0


class ChatService:
    """Asks ``<url>/chat/completions``.

    Attributes:
        settings: which service.
        recall: what was replied before, by key; None where it was not.
        remember: keeps a reply by key.

    Raises:
        JobError: the key is not in the environment.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.recall: Callable[[str], bytes | None] = lambda key: None
        self.remember: Callable[[str, bytes], object] = lambda key, reply: None
        self._url = settings.url.rstrip("/")
        key = os.environ.get(settings.key_variable, "").strip()
        if not key:
            raise JobError(
                f"{settings.field}='{settings.url}' needs a key, but the environment has no {settings.key_variable}",
                remedy=f"export {settings.key_variable}=... here and on every worker; any text where it takes no key",
            )
        self._key = key
        self._session = _session(key, settings.retries)

    def check(self) -> None:
        """Ask for the list of models, which costs nothing: whether the service is up, and takes the key.

        Raises:
            EndpointError: it is down, or turns the key away.
        """
        try:
            response = self._session.get(f"{self._url}/models", timeout=self.settings.timeout_s)
        except requests.RequestException as exc:
            raise self._unreachable(exc) from exc
        if response.status_code in (401, 403):
            raise self._turned_away(response)
        try:
            known = [str(each["id"]) for each in response.json()["data"]] if response.ok else []
        except (ValueError, KeyError, TypeError):
            return  # not every service lists its models
        if known and not any(is_same_model(each, self.settings.model) for each in known):
            log.warning(
                "%s='%s' does not list the model '%s' among its %d",
                self.settings.field,
                self.settings.url,
                self.settings.model,
                len(known),
            )

    def ask(self, requests: Sequence[Request]) -> list[TextAnswer]:
        """The reply to each message; what was replied before is not asked again, nor one key twice.

        Raises:
            EndpointError: the service is down, refuses us, or replies what is no reply; what was replied until then is
                kept.
        """
        once = {each.key: each for each in requests}
        failed = Event()

        def reply(request: Request) -> TextAnswer | None:
            if failed.is_set():
                return None  # after a failure nothing more is asked, and paid
            try:
                return self._ask(request)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(self.settings.parallel) as threads:
            replies = [threads.submit(reply, each) for each in once.values()]
        for each in replies:
            if (error := each.exception()) is not None:
                raise error
        found = {key: each.result() for key, each in zip(once, replies, strict=True)}
        return [answer for each in requests if (answer := found[each.key]) is not None]

    def _ask(self, request: Request) -> TextAnswer:
        known = self.recall(request.key)
        if known is not None:
            return TextAnswer(**json.loads(known))
        answer = self._read(self._post(request.content, request.seed))
        self.remember(request.key, json.dumps(asdict(answer)).encode())
        return answer

    def _post(self, content: Any, seed: int) -> dict[str, Any]:
        settings = self.settings
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
        }
        if settings.temperature:
            body["seed"] = seed % 2**31
        for attempt in range(settings.retries + 1):
            try:
                response = self._session.post(
                    f"{self._url}/chat/completions", json=body, timeout=settings.timeout_s
                )
            except requests.RequestException as exc:
                raise self._unreachable(exc) from exc
            if not response.ok:
                raise self._turned_away(response)
            try:
                data = response.json()
            except ValueError:
                if attempt == settings.retries:
                    raise self._failure("keeps answering with what is not JSON", "ask its operator") from None
                continue
            if isinstance(data, dict):
                return data
            break
        raise self._failure("answers with JSON that is not an object", "is it OpenAI-compatible?")

    def _read(self, data: dict[str, Any]) -> TextAnswer:
        told = data.get("model")
        if isinstance(told, str) and not is_same_model(told, self.settings.model):
            model = self.settings.field.replace("endpoint", "model")
            raise self._failure(
                f"answers with model '{told[:_LONGEST_QUOTE]}'",
                f"name that model in {model}, or another endpoint",
            )
        try:
            choice = data["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self._failure(
                "answers JSON without choices and message", "is it OpenAI-compatible?"
            ) from None
        usage = data.get("usage")
        tokens = usage.get("completion_tokens", 0) if isinstance(usage, dict) else 0
        ended = choice.get("finish_reason")
        refused = bool(refusal) or ended == "content_filter"
        said = text if isinstance(text, str) else (refusal if isinstance(refusal, str) else "")
        return TextAnswer(said.strip(), tokens if isinstance(tokens, int) else 0, ended != "length", refused)

    def _turned_away(self, response: requests.Response) -> EndpointError:
        said = response.text.replace(self._key, "<key>")[:_LONGEST_QUOTE]
        model = self.settings.field.replace("endpoint", "model")
        return self._failure(
            f"answers {response.status_code}: {said}",
            f"check {self.settings.key_variable}, {model} and your limits; what was answered is kept",
        )

    def _unreachable(self, exc: requests.RequestException) -> EndpointError:
        return self._failure(
            f"cannot be reached ({type(exc).__name__})",
            "check the URL, and that it is up; the same command goes on where it stopped",
        )

    def _failure(self, what: str, remedy: str) -> EndpointError:
        return EndpointError(f"{self.settings.field}='{self.settings.url}' {what}", remedy=remedy)


def is_same_model(told: str, asked: str) -> bool:
    """Services add a date or a revision to the name, or leave the owner out."""
    return (
        told.startswith(asked)
        or asked.endswith(told)
        or told.rpartition("/")[2].startswith(asked.rpartition("/")[2])
    )


class _Bearer:
    """The key as a header of each request; set this way no .netrc replaces it, and it is in no text of an error."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _session(key: str, retries: int) -> requests.Session:
    policy = Retry(
        total=retries,
        backoff_factor=PAUSE_S,
        status_forcelist=_TURNED_AWAY,
        allowed_methods=frozenset({"GET", "POST"}),
        respect_retry_after_header=True,
        raise_on_status=False,
    )
    session = requests.Session()
    session.auth = _Bearer(key)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=policy))
    return session
