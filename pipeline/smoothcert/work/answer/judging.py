"""What a subject answers about images of which each is asked one question, on noise that no search has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from smoothcert.answerers.base import Answerer
from smoothcert.attacks.noise import NoiseKey, draw_chunks
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.job.answer_attack import SubjectName
from smoothcert.work.answer.vote import class_of
from smoothcert.work.attack.metered import Meter

_CHUNK = 16
_Said = tuple[str, tuple[int, ...]]
"""An answer, and its token ids where they are shown."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one question.

    Attributes:
        answer: the text; of a vote the class that most draws are of, empty where none voted.
        texts: of every draw.
        ids: token ids of an answer of that class; empty where the answerer shows no tokens.
        draws: images behind it.
    """

    answer: str
    texts: tuple[str, ...]
    ids: tuple[int, ...]
    draws: int


class Judge:
    """Asks questions about perturbed or clean images.

    Args:
        of: who answers for a subject.
        meter: counts the answers, and ends the work.
        sigma: of the noise.
        smooth_draws: behind smoothed tokens.
        vote_draws: behind a vote.
        classes: of answers of votes.
        batch: noisy images that are answered together, at least.
    """

    def __init__(
        self,
        of: Callable[[str], Answerer],
        meter: Meter,
        *,
        sigma: float,
        smooth_draws: int,
        vote_draws: int,
        classes: str,
        batch: int,
    ) -> None:
        self._of, self._meter, self._sigma = of, meter, sigma
        self._draws = {"smoothed": smooth_draws, "defended": smooth_draws, "vote": vote_draws}
        self._classes, self._batch = classes, batch

    def ask(
        self,
        subject: SubjectName,
        images: torch.Tensor,
        asked: Sequence[ImageQuestion],
        keys: Sequence[NoiseKey],
    ) -> list[Judged]:
        """What a subject answers about each image (B, 3, H, W) in [0,1].

        Args:
            subject: bare, smoothed, defended or vote.
            images: float32, on the answerer's device.
            asked: B questions.
            keys: of the noise of each.
        """
        questions = [each.question for each in asked]
        answerer = self._of(subject)
        if subject == "bare":
            said = self._say(answerer, images, questions)
            return [Judged(text, (text,), ids, 1) for text, ids in said]
        count = self._draws[subject]
        if subject == "vote":
            drawn = self._say_draws(answerer, images, questions, keys, count)
            return [self._counted(each, one) for each, one in zip(drawn, asked, strict=True)]
        tokens = torch.stack(
            [self._mean_tokens(answerer, image, key, count) for image, key in zip(images, keys, strict=True)]
        )
        said = self._say_tokens(answerer, tokens, questions)
        return [Judged(text, (text,), ids, count) for text, ids in said]

    def _noisy(self, image: torch.Tensor, key: NoiseKey, count: int) -> Iterator[torch.Tensor]:
        for noise in draw_chunks(key, tuple(image.shape), count, _CHUNK, image.device):
            yield image + self._sigma * noise

    def _mean_tokens(
        self, answerer: Answerer, image: torch.Tensor, key: NoiseKey, count: int
    ) -> torch.Tensor:
        """(T, d) over noisy images."""
        sums = [answerer.image_tokens(part).double().sum(dim=0) for part in self._noisy(image, key, count)]
        return (torch.stack(sums).sum(dim=0) / count).float()

    def _say_draws(
        self,
        answerer: Answerer,
        images: torch.Tensor,
        questions: Sequence[str],
        keys: Sequence[NoiseKey],
        count: int,
    ) -> list[list[_Said]]:
        """The answers of each question's draws; draws of several questions share a batch."""
        found: list[list[_Said]] = [[] for _ in questions]
        waiting: list[torch.Tensor] = []
        places: list[int] = []

        def flush() -> None:
            if places:
                said = self._say(answerer, torch.cat(waiting), [questions[place] for place in places])
                for place, each in zip(places, said, strict=True):
                    found[place].append(each)
            waiting.clear()
            places.clear()

        for place, (image, key) in enumerate(zip(images, keys, strict=True)):
            for part in self._noisy(image, key, count):
                waiting.append(part)
                places += [place] * len(part)
                if len(places) >= self._batch:
                    flush()
        flush()
        return found

    def _counted(self, said: Sequence[_Said], one: ImageQuestion) -> Judged:
        classes = [class_of(one.meant(text), self._classes, one.answers) for text, _ in said]
        counts = Counter(each for each in classes if each is not None)
        winner = max(counts, key=lambda name: counts[name]) if counts else ""
        ids = next((ids for each, (_, ids) in zip(classes, said, strict=True) if each == winner), ())
        return Judged(winner, tuple(text for text, _ in said), ids, len(said))

    def _say(self, answerer: Answerer, images: torch.Tensor, questions: Sequence[str]) -> list[_Said]:
        if answerer.has_tokens:
            return self._say_tokens(answerer, answerer.image_tokens(images), questions)
        answers = answerer.answer(images, questions, [0] * len(questions))
        self._meter.count(len(questions))
        return [(answer.text, ()) for answer in answers]

    def _say_tokens(self, answerer: Answerer, tokens: torch.Tensor, questions: Sequence[str]) -> list[_Said]:
        said = answerer.say(tokens, questions)
        self._meter.count(len(questions))
        return [(answerer.read(ids).text, tuple(ids)) for ids in said]
