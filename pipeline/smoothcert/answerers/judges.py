"""How alike in meaning an answer is to its references: by a local encoder, or by a service that says a number."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from smoothcert.answerers.chat import ChatService, Request, ServiceSettings
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.errors import EndpointError, JobError
from smoothcert.job.judge import JudgeSection

_LONGEST_REPLY = 200


@dataclass(frozen=True, slots=True)
class JudgedText:
    """An answer to be judged: the question, the answer, and what people answered (at least one)."""

    question: str
    answer: str
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says.

    Attributes:
        similarity: in [0, 1]; None where the judge said no such number.
        reply: what a service said; None of an encoder.
    """

    similarity: float | None
    reply: str | None = None


class SimilarityJudge(ABC):
    """Judges answers.

    Attributes:
        name: what the user called it.
        digest: hex sha256 of what determines what it says, prompt included.
        threshold: of ``judged_match``.
    """

    name: str
    digest: str
    threshold: float

    def check(self) -> None:  # noqa: B027  a judge that computes here has nothing to be tried out
        """Try it out.

        Raises:
            EndpointError: it is a service that does not do what it is asked.
        """

    @abstractmethod
    def judge(self, texts: Sequence[JudgedText]) -> list[Judgement]:
        """A judgement of each text."""


class EncoderJudge(SimilarityJudge):
    """The cosine of text features, 0 where negative; the best reference counts.

    Args:
        encoder: with a text space.
        threshold: of ``judged_match``.

    Raises:
        JobError: the encoder has no text space.
    """

    def __init__(self, encoder: Encoder, threshold: float) -> None:
        if not encoder.has_texts:
            raise JobError(
                f"answer.judge.encoder.model='{encoder.name}' has no texts to compare",
                remedy="name an encoder with a text space, e.g. openai/clip-vit-base-patch32",
            )
        self._encoder, self.threshold = encoder, threshold
        self.name, self.digest = encoder.name, encoder.digest

    def judge(self, texts: Sequence[JudgedText]) -> list[Judgement]:
        """See ``SimilarityJudge.judge``."""
        every = list(dict.fromkeys(text for each in texts for text in (each.answer, *each.references)))
        place = {text: number for number, text in enumerate(every)}
        features = self._encoder.encode_texts(every).double()
        found = []
        for each in texts:
            cosines = features[[place[text] for text in each.references]] @ features[place[each.answer]]
            best = float(cosines.max())  # NaN where a text has no direction
            found.append(Judgement(min(1.0, max(0.0, best)) if best == best else None))
        return found


class ServiceJudge(SimilarityJudge):
    """A service that is asked for a number.

    Args:
        section: of the job, with an endpoint.

    Attributes:
        service: what is asked.

    Raises:
        JobError: the key is not in the environment.
    """

    def __init__(self, section: JudgeSection) -> None:
        self.service = ChatService(ServiceSettings.of("answer.judge.endpoint", section))
        self._prompt, self.threshold = section.prompt, section.threshold
        what = (section.endpoint, section.model, section.prompt, section.max_new_tokens)
        self.name = self.service.settings.model
        self.digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def check(self) -> None:
        """See ``SimilarityJudge.check``: one answer that is its reference is judged."""
        (found,) = self.judge([JudgedText("What is this?", "a cat", ("a cat",))])
        if found.similarity is None:
            raise EndpointError(
                f"the judge '{self.name}' replies {found.reply!r}, where a number in [0, 1] was asked for",
                remedy="let answer.judge.prompt ask for a number in [0, 1] and nothing else, or name another judge",
            )

    def judge(self, texts: Sequence[JudgedText]) -> list[Judgement]:
        """See ``SimilarityJudge.judge``."""
        replies = self.service.ask([self._request(each) for each in texts])
        return [Judgement(read_score(each.text), each.text[:_LONGEST_REPLY]) for each in replies]

    def _request(self, text: JudgedText) -> Request:
        prompt = fill(self._prompt, text)
        return Request(prompt, hashlib.sha256(f"judge {self.digest}\x1f{prompt}".encode()).hexdigest())


def fill(prompt: str, text: JudgedText) -> str:
    """A prompt with its slots filled; braces in what fills them stay as they are."""
    filled = {
        "{question}": text.question,
        "{references}": "; ".join(text.references),
        "{answer}": text.answer,
    }
    parts, rest = [], prompt
    while rest:
        place, slot = min((rest.find(name), name) if name in rest else (len(rest), "") for name in filled)
        parts.append(rest[:place] + filled.get(slot, ""))
        rest = rest[place + len(slot) :]
    return "".join(parts)


def read_score(reply: str) -> float | None:
    """A number in [0, 1], alone or as ``{"score": number}``; None where a reply is anything else."""
    try:
        found = json.loads(reply)
    except ValueError:
        return None
    if isinstance(found, dict):
        found = found.get("score")
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if 0 <= found <= 1 else None


def load_judge(section: JudgeSection) -> SimilarityJudge:
    """The judge of a job.

    Args:
        section: its encoder as this host can load it.

    Raises:
        EncoderError: its encoder cannot be loaded.
        JobError: it has no texts, or an endpoint's key is missing.
    """
    if section.encoder is None:
        return ServiceJudge(section)
    return EncoderJudge(load_encoder(section.encoder), section.threshold)
