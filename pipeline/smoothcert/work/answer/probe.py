"""How fast a model answers here, measured on the first pair that has a question."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from smoothcert.datasets import decode_image
from smoothcert.errors import PairError
from smoothcert.work.answer.inputs import AnswerInputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothcert.datasets import Source, UnitSpec
    from smoothcert.work.inputs import Inputs

_AT_LEAST_S = 1.0
_LOOKED_AT = 64


def measure_answers_per_second(inputs: Inputs, source: Source, units: Sequence[UnitSpec]) -> float | None:
    """Answers a second in full batches; None where no pair that was looked at can be asked.

    Raises:
        JobError: the model cannot be loaded, or its prompt does not fit.
    """
    named = inputs.share(AnswerInputs)
    size = named.section.batch
    for pair in itertools.islice((pair for unit in units for pair in source.read(unit)), _LOOKED_AT):
        questions = named.questions.of(pair.pair_id, pair.image_name)
        if not questions or pair.image is None:
            continue
        try:
            image = decode_image(pair.image, max_pixels=inputs.job.data.max_pixels)
            x = torch.from_numpy(np.ascontiguousarray(named.answerer.prepare(image)))
        except PairError:
            continue
        pixels = x[None].to(named.answerer.device).float().div(255).expand(size, -1, -1, -1)
        texts = [questions[place % len(questions)].question for place in range(size)]
        named.answerer.answer(pixels, texts, [0] * size)  # the first one is slower
        count, start = 0, time.perf_counter()
        while (taken := time.perf_counter() - start) < _AT_LEAST_S:
            named.answerer.answer(pixels, texts, [0] * size)
            count += size
        return count / taken
    return None
