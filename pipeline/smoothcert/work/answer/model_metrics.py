"""How well answers fit image and references, by models: what rows get once all answers about some pairs are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from smoothcert.answerers.judges import JudgedText, SimilarityJudge
from smoothcert.encoders import Encoder
from smoothcert.work.answer.rows import AnswerRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from smoothcert.work.answer.asking import AskedPair


class ModelMetrics:
    """Fills in CLIP scores and judgements.

    Args:
        clip: the encoder of the CLIP score; None without.
        judge: None without.
    """

    def __init__(self, clip: Encoder | None, judge: SimilarityJudge | None) -> None:
        self._clip, self._judge = clip, judge

    def fill(self, asked: Sequence[AskedPair], rows: Sequence[Sequence[AnswerRow]]) -> list[list[AnswerRow]]:
        """The rows of each pair, with these metrics; those without a text of their own stay as they are."""
        filled = [list(each) for each in rows]
        if self._clip is not None:
            filled = self._clip_scored(self._clip, asked, filled)
        if self._judge is not None:
            filled = [_judged(self._judge, each) for each in filled]
        return filled

    @staticmethod
    def _clip_scored(
        clip: Encoder, asked: Sequence[AskedPair], rows: list[list[AnswerRow]]
    ) -> list[list[AnswerRow]]:
        texts = list(dict.fromkeys(text for each in rows for row in each if (text := _said(row))))
        place = {text: number for number, text in enumerate(texts)}
        features = clip.encode_texts(texts).double()
        with torch.inference_mode():
            images = clip.encode_images(torch.stack([_pixels(clip, each.pixels) for each in asked]))
        scores = (images.cpu().double() @ features.T).clamp(0.0, 1.0).tolist()
        return [
            [
                replace(
                    row,
                    clip_score=_number(here[place[text]]),
                    clip_model=clip.name,
                    clip_digest=clip.digest,
                )
                if (text := _said(row))
                else row
                for row in each
            ]
            for each, here in zip(rows, scores, strict=True)
        ]


def _judged(judge: SimilarityJudge, rows: list[AnswerRow]) -> list[AnswerRow]:
    places = [place for place, row in enumerate(rows) if _said(row) is not None and row.reference_answers]
    texts = [
        JudgedText(rows[place].question or "", _said(rows[place]) or "", rows[place].reference_answers or ())
        for place in places
    ]
    filled = list(rows)
    for place, found in zip(places, judge.judge(texts), strict=True):
        filled[place] = replace(
            rows[place],
            judged_similarity=found.similarity,
            judge=judge.name,
            judge_digest=judge.digest,
            judge_threshold=judge.threshold,
            judge_reply=found.reply,
        )
    return filled


def _pixels(clip: Encoder, x: NDArray[np.uint8]) -> torch.Tensor:
    """What the answering model saw, on the grid of the encoder."""
    image = Image.fromarray(np.ascontiguousarray(x.transpose(1, 2, 0)))
    return torch.from_numpy(np.ascontiguousarray(clip.prepare(image))).to(clip.device).float() / 255


def _said(row: AnswerRow) -> str | None:
    """The text that a row is about, of a vote as a draw put it; None where there is none, but the class 'right'."""
    return None if row.vote_classes == "right" else row.wording or row.answer


def _number(value: float) -> float | None:
    return value if value == value else None
