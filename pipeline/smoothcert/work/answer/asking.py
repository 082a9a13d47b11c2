"""Asks questions about pairs: bare images, smoothed image tokens, and votes over noisy images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.answerers.base import Answerer, TextAnswer
from smoothcert.datasets import Pair
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.engine.noise import NoiseSource, Stream, noise_key
from smoothcert.job import Job
from smoothcert.job.answer import AnswerSection
from smoothcert.work.answer.vote import Vote, VoteResult
from smoothcert.work.attack.metered import Meter

_CHUNK = 16
"""Noisy images made together; part of what a draw is, so no setting."""
_FULL = 2
"""Batches that one chunk of several pairs' votes fills: few enough for memory, and the last is seldom nearly empty."""


@dataclass(frozen=True, slots=True)
class AskedPair:
    """A pair with what is asked about it: ``pixels`` uint8 (3, H, W), and the unit whose rows are about it."""

    pair: Pair
    pixels: NDArray[np.uint8]
    questions: tuple[ImageQuestion, ...]
    unit_id: str = ""


@dataclass(slots=True)
class _Open:
    """A question that is put to the vote: pair and place among its questions, and the tokens of its answers so far."""

    pair: int
    place: int
    vote: Vote
    tokens: int = 0


class Asker:
    """Puts questions to an answerer, with the noise of the job.

    Noise is a function of certify.seed, pair, stream and chunk, and sampled answers of answer.seed, pair, question and
    draw: neither depends on the batch or on what else is asked.

    Args:
        job: the job.
        section: its section ``answer``.
        answerer: what answers.
        meter: counts the answers, and ends the work.
    """

    def __init__(self, job: Job, section: AnswerSection, answerer: Answerer, meter: Meter) -> None:
        self._section, self._answerer, self._meter = section, answerer, meter
        self._certify = job.certify
        self._alpha = section.alpha if section.alpha is not None else job.certify.alpha
        self._noise = NoiseSource(job.certify.sigma, job.certify.seed, answerer.device)

    def bare(self, asked: Sequence[AskedPair]) -> list[list[TextAnswer]]:
        """Answers about the images as they are: for each pair, one for each question."""
        pixels = torch.stack([self._clean_image(each) for each in asked])
        where = [place for place, each in enumerate(asked) for _ in each.questions]
        texts = [question for each in asked for question in each.questions]
        seeds = [self._seed(asked[place], text, "bare", 0) for place, text in zip(where, texts, strict=True)]
        return _by_pair(self._ask(pixels, where, texts, seeds), asked)

    def smoothed(self, asked: Sequence[AskedPair]) -> list[list[TextAnswer]]:
        """Answers of image tokens that are means over noisy images."""
        tokens = torch.stack([self.smoothed_tokens(each, self._section.smooth_draws) for each in asked])
        where = [place for place, each in enumerate(asked) for _ in each.questions]
        texts = [question for each in asked for question in each.questions]
        seeds = [
            self._seed(asked[place], text, "smoothed", 0) for place, text in zip(where, texts, strict=True)
        ]
        return _by_pair(self._ask_tokens(tokens, where, texts, seeds), asked)

    def smoothed_tokens(self, asked: AskedPair, draws: int) -> torch.Tensor:
        """Mean image tokens (T, d) over noisy images."""
        total: torch.Tensor | None = None
        for chunk, part in enumerate(_parts(draws, _CHUNK)):
            tokens = self._answerer.image_tokens(
                self._noisy(asked, Stream.ANSWER_SMOOTHED, chunk, part.stop - part.start)
            )
            here = tokens.double().sum(dim=0)
            total = here if total is None else total + here
        assert total is not None, "draws is positive"
        return (total / draws).float()

    def votes(self, asked: Sequence[AskedPair]) -> list[list[tuple[VoteResult, int]]]:
        """The votes on the questions of each pair, and the tokens of all their answers.

        Noisy images are shared by a pair's questions, and batches by as many pairs as fill them.
        """
        found: list[list[tuple[VoteResult, int]]] = []
        group: list[AskedPair] = []
        for each in asked:
            group.append(each)
            if sum(len(one.questions) for one in group) * _CHUNK >= _FULL * self._section.batch:
                found += self._votes_together(group)
                group = []
        return found + self._votes_together(group)

    def _votes_together(self, asked: Sequence[AskedPair]) -> list[list[tuple[VoteResult, int]]]:
        """Votes on the questions of pairs that are asked at once; a question that is decided leaves the batch."""
        open_ = [
            _Open(number, place, self._vote_on(question))
            for number, each in enumerate(asked)
            for place, question in enumerate(each.questions)
        ]
        every = list(open_)
        pilot = (
            []
            if not open_
            else self._drawn(asked, open_, Stream.ANSWER_PILOT, 0, self._section.vote.pilot_draws)
        )
        for each, texts in zip(open_, pilot, strict=True):
            each.vote.choose(texts)
        chunk = 0
        while open_ := [each for each in open_ if not each.vote.closed]:
            # without a decision all have taken as many draws
            count = min(_CHUNK, open_[0].vote.wanted)
            for each, texts in zip(
                open_, self._drawn(asked, open_, Stream.ANSWER, chunk, count), strict=True
            ):
                each.vote.add(texts)
            chunk += 1
        found: list[list[tuple[VoteResult, int]]] = [[] for _ in asked]
        for each in every:
            found[each.pair].append((each.vote.result, each.tokens))
        return found

    def _vote_on(self, question: ImageQuestion) -> Vote:
        return Vote(
            self._section.vote,
            question.answers,
            sigma=self._certify.sigma,
            alpha=self._alpha,
            alpha_futility=self._certify.alpha_futility,
            percentile=self._certify.percentile,
        )

    def _drawn(
        self, asked: Sequence[AskedPair], open_: Sequence[_Open], stream: Stream, chunk: int, count: int
    ) -> list[list[str]]:
        """Texts of some questions on one chunk of noisy images each, in the order of draws."""
        pairs = list(dict.fromkeys(each.pair for each in open_))
        first = {pair: number * count for number, pair in enumerate(pairs)}
        pixels = torch.cat([self._noisy(asked[pair], stream, chunk, count) for pair in pairs])
        where = [first[each.pair] + draw for each in open_ for draw in range(count)]
        texts = [asked[each.pair].questions[each.place] for each in open_ for _ in range(count)]
        seeds = [
            self._seed(
                asked[each.pair], asked[each.pair].questions[each.place], stream.value, chunk * _CHUNK + draw
            )
            for each in open_
            for draw in range(count)
        ]
        answers = self._ask(pixels, where, texts, seeds)
        found = []
        for number, each in enumerate(open_):
            mine = answers[number * count : (number + 1) * count]
            each.tokens += sum(answer.tokens for answer in mine)
            question = asked[each.pair].questions[each.place]
            found.append([question.meant(answer.text) for answer in mine])
        return found

    def _ask(
        self, pixels: torch.Tensor, where: list[int], questions: list[ImageQuestion], seeds: list[int]
    ) -> list[TextAnswer]:
        """Answers to questions; ``where`` says which image each is about. Tokens are made once an image."""
        if self._answerer.has_tokens:
            parts = _parts(len(pixels), self._section.batch)
            tokens = torch.cat([self._answerer.image_tokens(pixels[part]) for part in parts])
            return self._ask_tokens(tokens, where, questions, seeds)
        return self._in_batches(self._answerer.answer, pixels, where, questions, seeds)

    def _ask_tokens(
        self, tokens: torch.Tensor, where: list[int], questions: list[ImageQuestion], seeds: list[int]
    ) -> list[TextAnswer]:
        return self._in_batches(self._answerer.answer_tokens, tokens, where, questions, seeds)

    def _in_batches(
        self,
        answer: Callable[[torch.Tensor, Sequence[str], Sequence[int]], list[TextAnswer]],
        seen: torch.Tensor,
        where: list[int],
        questions: list[ImageQuestion],
        seeds: list[int],
    ) -> list[TextAnswer]:
        """Answers in the order of the questions. Those alike share batches: a batch waits for its longest answer."""
        order = sorted(range(len(questions)), key=lambda number: _length(questions[number]))
        answers: list[TextAnswer | None] = [None] * len(questions)
        for part in _parts(len(order), self._section.batch):
            batch = order[part]
            said = [questions[number].question for number in batch]
            found = answer(
                seen[[where[number] for number in batch]], said, [seeds[number] for number in batch]
            )
            for number, each in zip(batch, found, strict=True):
                answers[number] = each
            self._meter.count(len(said))
        return [each for each in answers if each is not None]

    def _clean_image(self, asked: AskedPair) -> torch.Tensor:
        return torch.from_numpy(asked.pixels).to(self._answerer.device).float() / 255

    def _noisy(self, asked: AskedPair, stream: Stream, chunk: int, count: int) -> torch.Tensor:
        pixels = torch.from_numpy(asked.pixels).to(self._answerer.device)[None]
        batch = torch.empty((1, count, *pixels.shape[1:]), device=pixels.device)
        self._noise.fill(batch, pixels, [(0, asked.pair.pair_id, stream, chunk)])
        return batch[0]

    def _seed(self, asked: AskedPair, question: ImageQuestion, what: str, draw: int) -> int:
        about = f"{asked.pair.pair_id}\x1f{question.question_id}\x1f{what}"
        return noise_key(self._section.seed, about, Stream.ANSWER, draw) >> 65


def _length(question: ImageQuestion) -> tuple[int, str, int]:
    """What goes with the length of an answer: that of what people answered, the kind of question, its own length."""
    longest = max((len(each) for each in question.answers), default=0)
    return longest, question.kind or "", len(question.question)


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _by_pair(answers: Sequence[TextAnswer], asked: Sequence[AskedPair]) -> list[list[TextAnswer]]:
    found, start = [], 0
    for each in asked:
        found.append(list(answers[start : start + len(each.questions)]))
        start += len(each.questions)
    return found
