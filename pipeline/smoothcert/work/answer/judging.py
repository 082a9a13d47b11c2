"""What a subject answers about images of which each is asked one question, on noise that no search has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from smoothcert.answerers.base import Answerer
from smoothcert.attacks.noise import NoiseKey, draw_chunks
from smoothcert.attacks.token_subject import Rule
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.work.answer.vote import class_of
from smoothcert.work.attack.metered import Meter

_CHUNK = 16


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
        answerer: what answers.
        meter: counts the answers, and ends the work.
        sigma: of the noise.
        smooth_draws: behind smoothed tokens.
        vote_draws: behind a vote.
        classes: of answers of votes.
    """

    def __init__(
        self,
        answerer: Answerer,
        meter: Meter,
        *,
        sigma: float,
        smooth_draws: int,
        vote_draws: int,
        classes: str,
    ) -> None:
        self._answerer, self._meter, self._sigma = answerer, meter, sigma
        self._draws: dict[Rule, int] = {"bare": 1, "smoothed": smooth_draws, "vote": vote_draws}
        self._classes = classes

    def ask(
        self,
        rule: Rule,
        images: torch.Tensor,
        asked: Sequence[ImageQuestion],
        keys: Sequence[NoiseKey],
    ) -> list[Judged]:
        """What is answered about each image (B, 3, H, W) in [0,1], by a rule.

        Args:
            rule: bare, smoothed or vote.
            images: float32, on the answerer's device.
            asked: B questions.
            keys: of the noise of each.
        """
        questions = [each.question for each in asked]
        if rule == "bare":
            said = self._say(images, questions)
            return [Judged(text, (text,), ids, 1) for text, ids in said]
        count = self._draws[rule]
        found = []
        for image, one, key in zip(images, asked, keys, strict=True):
            noisy = (
                image + self._sigma * noise
                for noise in draw_chunks(key, tuple(image.shape), count, _CHUNK, image.device)
            )
            if rule == "smoothed":
                total = torch.stack(
                    [self._answerer.image_tokens(part).double().sum(dim=0) for part in noisy]
                ).sum(0)
                ((text, ids),) = self._say_tokens((total / count).float()[None], [one.question])
                found.append(Judged(text, (text,), ids, count))
                continue
            said = [each for part in noisy for each in self._say(part, [one.question] * len(part))]
            found.append(self._counted(said, one))
        return found

    def _counted(self, said: Sequence[tuple[str, tuple[int, ...]]], one: ImageQuestion) -> Judged:
        classes = [class_of(one.meant(text), self._classes, one.answers) for text, _ in said]
        counts = Counter(each for each in classes if each is not None)
        winner = max(counts, key=lambda name: counts[name]) if counts else ""
        ids = next((ids for each, (_, ids) in zip(classes, said, strict=True) if each == winner), ())
        return Judged(winner, tuple(text for text, _ in said), ids, len(said))

    def _say(self, images: torch.Tensor, questions: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
        if self._answerer.has_tokens:
            return self._say_tokens(self._answerer.image_tokens(images), questions)
        answers = self._answerer.answer(images, questions, [0] * len(questions))
        self._meter.count(len(questions))
        return [(answer.text, ()) for answer in answers]

    def _say_tokens(
        self, tokens: torch.Tensor, questions: Sequence[str]
    ) -> list[tuple[str, tuple[int, ...]]]:
        said = self._answerer.say(tokens, questions)
        self._meter.count(len(questions))
        return [(self._answerer.read(ids).text, tuple(ids)) for ids in said]
