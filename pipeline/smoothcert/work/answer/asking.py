"""Asks questions about pairs: bare images, smoothed image tokens, and votes over noisy images."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class AskedPair:
    """A pair with what is asked about it: ``pixels`` uint8 (3, H, W), and the unit whose rows are about it."""

    pair: Pair
    pixels: NDArray[np.uint8]
    questions: tuple[ImageQuestion, ...]
    unit_id: str = ""


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
        pixels = torch.stack([self._clean(each) for each in asked])
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

    def vote(self, asked: AskedPair) -> list[tuple[VoteResult, int]]:
        """The vote on each question of a pair, and the tokens of all its answers; noisy images are shared."""
        section = self._section.vote
        votes = [
            Vote(
                section,
                question.answers,
                sigma=self._certify.sigma,
                alpha=self._alpha,
                alpha_futility=self._certify.alpha_futility,
                percentile=self._certify.percentile,
            )
            for question in asked.questions
        ]
        tokens = [0] * len(votes)
        pilot: list[list[str]] = [[] for _ in votes]
        for place, answer in self._drawn(
            asked, Stream.ANSWER_PILOT, 0, section.pilot_draws, range(len(votes))
        ):
            pilot[place].append(asked.questions[place].meant(answer.text))
            tokens[place] += answer.tokens
        for vote, texts in zip(votes, pilot, strict=True):
            vote.choose(texts)
        chunk = 0
        while open_ := [place for place, vote in enumerate(votes) if not vote.closed]:
            fresh: dict[int, list[str]] = {place: [] for place in open_}
            count = min(_CHUNK, votes[open_[0]].wanted)
            for place, answer in self._drawn(asked, Stream.ANSWER, chunk, count, open_):
                fresh[place].append(asked.questions[place].meant(answer.text))
                tokens[place] += answer.tokens
            for place, texts in fresh.items():
                votes[place].add(texts)
            chunk += 1
        return [(vote.result, count) for vote, count in zip(votes, tokens, strict=True)]

    def _drawn(
        self, asked: AskedPair, stream: Stream, chunk: int, count: int, places: Sequence[int]
    ) -> list[tuple[int, TextAnswer]]:
        """Answers to some questions on one chunk of noisy images: (question, answer), each in the order of draws."""
        pixels = self._noisy(asked, stream, chunk, count)
        pairs = [(draw, place) for draw in range(count) for place in places]
        texts = [asked.questions[place] for _, place in pairs]
        seeds = [
            self._seed(asked, asked.questions[place], stream.value, chunk * _CHUNK + draw)
            for draw, place in pairs
        ]
        answers = self._ask(pixels, [draw for draw, _ in pairs], texts, seeds)
        return [(place, answer) for (_, place), answer in zip(pairs, answers, strict=True)]

    def _ask(
        self, pixels: torch.Tensor, where: list[int], questions: list[ImageQuestion], seeds: list[int]
    ) -> list[TextAnswer]:
        """Answers to questions; ``where`` says which image each is about. Tokens are made once an image."""
        if self._answerer.has_tokens:
            parts = _parts(len(pixels), self._section.batch)
            tokens = torch.cat([self._answerer.image_tokens(pixels[part]) for part in parts])
            return self._ask_tokens(tokens, where, questions, seeds)
        answers: list[TextAnswer] = []
        for part in _parts(len(questions), self._section.batch):
            said = [question.question for question in questions[part]]
            answers += self._answerer.answer(pixels[where[part]], said, seeds[part])
            self._meter.count(len(said))
        return answers

    def _ask_tokens(
        self, tokens: torch.Tensor, where: list[int], questions: list[ImageQuestion], seeds: list[int]
    ) -> list[TextAnswer]:
        answers: list[TextAnswer] = []
        for part in _parts(len(questions), self._section.batch):
            said = [question.question for question in questions[part]]
            answers += self._answerer.answer_tokens(tokens[where[part]], said, seeds[part])
            self._meter.count(len(said))
        return answers

    def _clean(self, asked: AskedPair) -> torch.Tensor:
        return torch.from_numpy(asked.pixels).to(self._answerer.device).float() / 255

    def _noisy(self, asked: AskedPair, stream: Stream, chunk: int, count: int) -> torch.Tensor:
        pixels = torch.from_numpy(asked.pixels).to(self._answerer.device)[None]
        batch = torch.empty((1, count, *pixels.shape[1:]), device=pixels.device)
        self._noise.fill(batch, pixels, [(0, asked.pair.pair_id, stream, chunk)])
        return batch[0]

    def _seed(self, asked: AskedPair, question: ImageQuestion, what: str, draw: int) -> int:
        about = f"{asked.pair.pair_id}\x1f{question.question_id}\x1f{what}"
        return noise_key(self._section.seed, about, Stream.ANSWER, draw) >> 65


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _by_pair(answers: Sequence[TextAnswer], asked: Sequence[AskedPair]) -> list[list[TextAnswer]]:
    found, start = [], 0
    for each in asked:
        found.append(list(answers[start : start + len(each.questions)]))
        start += len(each.questions)
    return found
