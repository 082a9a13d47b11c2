"""Brightness on this process's device: decode (threads), add noise, average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from smoothcert.datasets import Pair
from smoothcert.engine import DecodeAhead
from smoothcert.engine.decoding import DecodedPair
from smoothcert.engine.noise import NoiseSource, Stream
from smoothcert.errors import PairError
from smoothcert.work.inputs import Inputs
from smoothcert.work.task import Assignment


@dataclass(frozen=True, kw_only=True)
class BrightnessRow:
    """One row of the table; run_id and attempt are added when it is written."""

    unit_id: str
    pair_id: str
    source_uri: str
    status: str
    error_stage: str | None = None
    error_class: str | None = None
    error_message: str | None = None
    draws: int = 0
    brightness: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one pair: its brightness after so many draws (``passes``), or an error."""

    token: str
    pair: Pair
    passes: int
    brightness: float | None
    error: PairError | None
    size: int = 1

    @property
    def failed(self) -> bool:
        """See ``Outcome.failed``."""
        return self.error is not None


class BrightnessWorker:
    """See ``Worker``."""

    def __init__(self, inputs: Inputs, draws: int) -> None:
        self._job, self._encoder, self._draws = inputs.job, inputs.encoder, draws
        certify = self._job.certify
        self._noise = NoiseSource(certify.sigma, certify.seed, torch.device("cpu"))
        self._feed: DecodeAhead | None = None
        self.draws_done = 0

    def run(self, assignments: Iterator[Assignment]) -> Iterator[Measured]:
        """See ``Worker.run``."""
        pairs = ((each.token, pair) for each in assignments for pair in each.pairs)
        self._feed = DecodeAhead(pairs, self._encoder, max_pixels=self._job.data.max_pixels)
        while (decoded := self._feed.take(block=True)) is not None:
            yield self._measure(decoded)

    def rows(self, unit_id: str, outcomes: Sequence[Measured]) -> list[BrightnessRow]:
        """See ``Worker.rows``."""
        return [_row(unit_id, outcome) for outcome in outcomes]

    def stop(self) -> None:
        """See ``Worker.stop``."""
        if self._feed is not None:
            self._feed.close()

    def close(self) -> list[str]:
        """See ``Worker.close``."""
        self.stop()
        return []

    def _measure(self, decoded: DecodedPair) -> Measured:
        pair, pixels = decoded.pair, decoded.pixels
        if pixels is None:
            return Measured(decoded.token, pair, 0, None, decoded.error)
        noisy = torch.empty((1, self._draws, *pixels.shape))
        self._noise.fill(noisy, torch.from_numpy(pixels)[None], [(0, pair.pair_id, Stream.EVALUATE, 0)])
        self.draws_done += self._draws
        return Measured(decoded.token, pair, self._draws, float(noisy.double().mean()), None)


def quarantined_row(unit_id: str, pair: Pair, error: PairError) -> BrightnessRow:
    """The row of a pair that cannot be measured."""
    return BrightnessRow(
        unit_id=unit_id,
        pair_id=pair.pair_id,
        source_uri=pair.source_uri,
        status="quarantined",
        error_stage=error.stage,
        error_class=type(error).__name__,
        error_message=str(error),
    )


def _row(unit_id: str, outcome: Measured) -> BrightnessRow:
    if outcome.error is not None:
        return quarantined_row(unit_id, outcome.pair, outcome.error)
    return BrightnessRow(
        unit_id=unit_id,
        pair_id=outcome.pair.pair_id,
        source_uri=outcome.pair.source_uri,
        status="ok",
        draws=outcome.passes,
        brightness=outcome.brightness,
    )
