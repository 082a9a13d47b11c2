"""Questions at work on this process's device: decode (threads), ask, judge.

A group of pairs is asked together, so that batches are full where pairs have few questions; where a group fails, its
pairs are tried one by one, and those at fault are quarantined.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from smoothcert.datasets import Pair
from smoothcert.engine import DecodeAhead
from smoothcert.engine.decoding import DecodedPair
from smoothcert.engine.pair_row import of_unit
from smoothcert.errors import EncodeError, OutOfMemoryError, PairError, QuestionError, SmoothcertError
from smoothcert.job.answer import AnswerSection
from smoothcert.store.retry_unit import origin_of
from smoothcert.work.answer.asking import AskedPair
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.attack.metered import Meter
from smoothcert.work.inputs import Inputs
from smoothcert.work.task import Assignment

log = logging.getLogger(__name__)

_DEPTH = 512
"""Pairs that are decoded ahead at most."""


@dataclass(frozen=True, slots=True)
class AnsweredPair:
    """The rows of one pair.

    Attributes:
        token: what the pair came with.
        rows: one for each question and subject; their unit is filled in when they are written.
        passes: answers that they took.
        failed: whether it was quarantined.
        size: numbers that it holds until it is written: none of its images.
    """

    token: str
    rows: tuple[Any, ...]
    passes: int
    failed: bool
    size: int = 0


class RowsOfPairs(Protocol):
    """What is done with the questions about pairs."""

    def rows(self, asked: Sequence[AskedPair]) -> list[list[Any]]:
        """The rows of each pair."""

    def quarantined(self, pair: Pair, error: PairError) -> list[Any]:
        """The rows of a pair that failed."""


class AnswerWorker:
    """See ``Worker``.

    Args:
        inputs: of the job.
        named: its answerer and questions.
        section: what is asked, contents filled in.
        work: what is done with the questions.
        meter: what ``work`` counts with.
        batches: of questions that are given to ``work`` together, where so many pairs are there.
    """

    def __init__(
        self,
        inputs: Inputs,
        named: AnswerInputs,
        section: AnswerSection,
        work: RowsOfPairs,
        meter: Meter,
        *,
        batches: int = 1,
    ) -> None:
        self._batches = batches
        self._job, self._section, self._work, self._meter = inputs.job, section, work, meter
        self._questions, self._answerer = named.questions, named.answerer
        self._feed: DecodeAhead | None = None
        self._units: dict[str, str] = {}

    @property
    def draws_done(self) -> int:
        """See ``Worker.draws_done``: answers so far."""
        return self._meter.images

    def run(self, assignments: Iterator[Assignment]) -> Iterator[AnsweredPair]:
        """See ``Worker.run``."""
        pairs = ((each.token, pair) for each in assignments for pair in self._noted(each).pairs)
        wanted = self._batches * self._section.batch
        self._feed = DecodeAhead(
            pairs, self._answerer, depth=min(max(16, wanted), _DEPTH), max_pixels=self._job.data.max_pixels
        )
        while (decoded := self._feed.take(block=True)) is not None:
            group, count = [decoded], self._count(decoded)
            # what is not there yet is not waited for: its unit may come only when these pairs are done
            while count < wanted and (more := self._feed.take(block=False)):
                group.append(more)
                count += self._count(more)
            yield from self._answer(group)

    def rows(self, unit_id: str, outcomes: Sequence[AnsweredPair]) -> list[Any]:
        """See ``Worker.rows``."""
        return [row for outcome in outcomes for row in of_unit(outcome.rows, unit_id)]

    def stop(self) -> None:
        """See ``Worker.stop``: ends at the next batch of answers."""
        self._meter.stop()
        if self._feed is not None:
            self._feed.close()

    def close(self) -> list[str]:
        """See ``Worker.close``."""
        if self._feed is not None:
            self._feed.close()
        return []

    def _noted(self, assignment: Assignment) -> Assignment:
        self._units[assignment.token] = origin_of(assignment.unit)
        return assignment

    def _count(self, decoded: DecodedPair) -> int:
        return max(1, len(self._questions.of(decoded.pair.pair_id, decoded.pair.image_name)))

    def _answer(self, group: Sequence[DecodedPair]) -> list[AnsweredPair]:
        """Outcomes of a group, in order."""
        asked: dict[int, AskedPair] = {}
        failed: dict[int, PairError] = {}
        for place, each in enumerate(group):
            questions = self._questions.of(each.pair.pair_id, each.pair.image_name)
            if each.error is not None or each.pixels is None:
                failed[place] = each.error or EncodeError("the image was not decoded")
            elif not questions:
                failed[place] = _unasked(each.pair, self._section.questions)
            else:
                asked[place] = AskedPair(each.pair, each.pixels, questions, self._units[each.token])
        rows = self._together(asked, failed)
        return [
            AnsweredPair(
                each.token,
                tuple(rows[place] if place in rows else self._work.quarantined(each.pair, failed[place])),
                sum(row.passes for row in rows[place]) if place in rows else 0,
                place not in rows,
            )
            for place, each in enumerate(group)
        ]

    def _together(self, asked: dict[int, AskedPair], failed: dict[int, PairError]) -> dict[int, list[Any]]:
        """Rows by place; pairs that fail alone are added to ``failed``."""
        if not asked:
            return {}
        try:
            return dict(zip(asked, self._work.rows(list(asked.values())), strict=True))
        except SmoothcertError:
            raise  # the job, an endpoint, or the order to stop: no pair's fault
        except Exception as exc:
            log.warning(
                "a group of pairs failed (%s: %s); trying them one at a time", type(exc).__name__, exc
            )
        rows = {}
        for place, each in asked.items():
            try:
                (rows[place],) = self._work.rows([each])
            except SmoothcertError:
                raise
            except torch.OutOfMemoryError as exc:
                failed[place] = OutOfMemoryError(f"out of memory on this pair alone: {exc}")
            except Exception as exc:
                failed[place] = EncodeError(f"{type(exc).__name__} while answering: {exc}")
        return rows


def _unasked(pair: Pair, uri: str) -> QuestionError:
    return QuestionError(
        f"'{uri}' has no question about pair '{pair.pair_id}'",
        remedy="add one, or leave the pair out of the data",
    )
