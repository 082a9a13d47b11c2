"""Continuous batching: from decoded pairs to scores, on one device that is never idle.

A fixed device batch of slots x chunk images. Each step every busy slot contributes one chunk of draws; features
are projected at once on the slot's few directions, so only scalars are kept. A pair that stops frees its slot
at once, and the next decoded pair takes it, across unit borders.

Slots are divided into lanes. On an accelerator there are two, each with a stream of its own: while the device works on
one lane's batch, the host absorbs the other's results, so neither waits for the other. On a CPU there is one lane a
core, each in a thread of its own with one core: lanes never wait for each other, which threads inside an operation do
(ten times slower on a shared machine), and one lane's noise is drawn while the other's batch is encoded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.encoders import Encoder
from smoothcert.engine.busy import BusyTime
from smoothcert.engine.cores import start_threads
from smoothcert.engine.decoding import DecodedPair, Feed
from smoothcert.engine.draw_scores import DrawScores
from smoothcert.engine.layout import Layout, plan_layout
from smoothcert.engine.moments import LARGEST_DIMENSION, MomentTracker
from smoothcert.engine.noise import DrawKey, NoiseSource, Stream
from smoothcert.engine.question import Question, Questioner
from smoothcert.engine.records import Failure, Measurement, PairResult, StopReason
from smoothcert.engine.targets import TargetTracker
from smoothcert.engine.texts import CaptionFeatures, Texts
from smoothcert.errors import EncodeError, EncoderError, NonFiniteError, OutOfMemoryError, PairError
from smoothcert.job import CertifySection

log = logging.getLogger(__name__)


@dataclass
class Slot:
    """One active pair: where it is, and what it has given so far."""

    pair: DecodedPair
    pilot: list[NDArray[np.float64]] = field(default_factory=list)
    clean: NDArray[np.float64] | None = None
    question: Question | None = None
    chunk: int = 0
    pilot_draws: int = 0
    draws: int = 0
    scores: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def stream(self) -> Stream:
        """Pilot until the question is fixed."""
        return Stream.PILOT if self.question is None else Stream.CERTIFY


@dataclass
class Lane:
    """Slots whose draws share one device batch."""

    slots: list[Slot | None]
    pixels: torch.Tensor
    batch: torch.Tensor
    directions: torch.Tensor
    others: DrawScores
    tracker: TargetTracker
    moments: MomentTracker
    stream: torch.cuda.Stream | None
    launched: list[int] = field(default_factory=list)
    features: Future[torch.Tensor | PairwiseFailure] | torch.Tensor | PairwiseFailure | None = None

    @property
    def busy(self) -> list[int]:
        """Indices of slots that hold a pair."""
        return [index for index, slot in enumerate(self.slots) if slot is not None]

    def own_stream(self) -> AbstractContextManager[object]:
        """What the device is given inside waits for nothing of other lanes."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


@dataclass(frozen=True)
class PairwiseFailure:
    """Features computed slot by slot after the batch as a whole failed; failed slots carry the reason."""

    features: torch.Tensor
    errors: dict[int, PairError]


class Engine:
    """Certifies pairs on one device.

    Args:
        encoder: the base encoder.
        certify: noise, statistics and targets.
        texts: class, pool and caption references.
        slots: pairs in work at once.
        chunk: draws that one pair contributes to a step.
        threads: CPU cores to use, default all that torch would.
        lanes: parts of the slots; default 2 on an accelerator, one a core on a CPU.

    Attributes:
        busy: the time that the device takes for draws.
        captions: features of the pairs' captions, and how many were cut.
    """

    def __init__(
        self,
        encoder: Encoder,
        certify: CertifySection,
        texts: Texts,
        *,
        slots: int = 8,
        chunk: int = 16,
        threads: int | None = None,
        lanes: int | None = None,
    ) -> None:
        self.encoder = encoder
        self.certify = certify
        self.texts = texts
        self.chunk = chunk
        self.layout: Layout = plan_layout(
            certify,
            classes=len(texts.labels),
            pool=len(texts.pool_captions),
            captions=texts.captions,
            retrieval_k=texts.retrieval_k,
        )
        self.draws_done = 0
        self._questioner = Questioner(self.layout, texts, certify)
        self.captions = CaptionFeatures(encoder)
        if certify.second_moment and encoder.feature_dim > LARGEST_DIMENSION:
            log.warning(
                "second moments are measured of at most %d numbers a feature, and encoder '%s' has %d: "
                "'second_moment' stays empty, use 'angular'",
                LARGEST_DIMENSION,
                encoder.name,
                encoder.feature_dim,
            )
        self._noise = NoiseSource(certify.sigma, certify.seed, encoder.device)
        # full shapes always where shapes are expensive to change; on a CPU idle slots are left out
        self._static = encoder.device.type != "cpu"
        lane_count = min(slots, lanes or (2 if self._static else threads or torch.get_num_threads()))
        self.busy = BusyTime(encoder.device, lane_count)
        sizes = [len(part) for part in np.array_split(np.arange(slots), lane_count)]
        self._lanes = [self._new_lane(size) for size in sizes]
        self._pool: ThreadPoolExecutor | None = None
        if not self._static:
            self._pool = start_threads(lane_count, "lane")

    def _new_lane(self, size: int) -> Lane:
        height, width = self.encoder.input_size
        device = self.encoder.device
        return Lane(
            slots=[None] * size,
            pixels=torch.zeros((size, 3, height, width), dtype=torch.uint8, device=device),
            batch=torch.zeros((size, self.chunk, 3, height, width), dtype=torch.float32, device=device),
            directions=torch.zeros(
                (size, self.encoder.feature_dim, self.layout.directions), dtype=torch.float64, device=device
            ),
            others=DrawScores(self.layout, self.texts, size, device),
            tracker=TargetTracker(self.layout, self.certify, size),
            moments=MomentTracker(
                size, self.encoder.feature_dim if self.certify.second_moment else 0, device
            ),
            stream=_new_stream(device),
        )

    def run(self, feed: Feed) -> Iterator[PairResult]:
        """Certify all pairs of the feed; outcomes come in the order in which pairs stop.

        Raises:
            EncoderError: the encoder fails on every pair.
            SourceError: the feed's source failed as a whole; outcomes before it were delivered.
        """
        for outcomes in self.steps(feed):
            yield from outcomes

    def steps(self, feed: Feed) -> Iterator[list[PairResult]]:
        """Like ``run``, but yields after every step of every lane, with the outcomes of that step."""
        self._wait_for_device()  # the encoder's weights may be on their way
        warm = False
        while True:
            active = False
            for lane in self._lanes:
                # handed over before anything may wait for the feed: the feed may wait for them
                if lane.launched:
                    with lane.own_stream():
                        outcomes = list(self._absorb(lane))
                    yield outcomes
                others_busy = any(other.launched for other in self._lanes if other is not lane)
                for failure in self._admit(lane, feed, may_wait=not others_busy):
                    yield [failure]
                if lane.busy:
                    with lane.own_stream():
                        self._launch(lane)
                    if not warm:  # what an encoder makes once and keeps must be there for other streams
                        self._wait_for_device()
                    active = warm = True
            if not active and feed.exhausted:
                return

    def _wait_for_device(self) -> None:
        if self.encoder.device.type == "cuda":
            torch.cuda.synchronize(self.encoder.device)

    def close(self) -> None:
        """Release threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _admit(self, lane: Lane, feed: Feed, *, may_wait: bool) -> Iterator[PairResult]:
        for index, held in enumerate(lane.slots):
            while held is None and not feed.exhausted:
                # wait for the first pair only: as long as any slot is busy the device has work
                pair = feed.take(block=may_wait and not lane.busy)
                if pair is None:
                    return
                if pair.error is not None or pair.pixels is None:
                    yield Failure(pair.token, pair.pair, pair.error or NonFiniteError("no pixels"))
                    continue
                with lane.own_stream():
                    lane.pixels[index].copy_(torch.from_numpy(pair.pixels))
                held = Slot(pair)
                lane.slots[index] = held

    def _launch(self, lane: Lane) -> None:
        """Start the next step of every busy slot: draw noise, run the encoder."""
        lane.launched = lane.busy
        keys = []
        for index in lane.launched:
            slot = lane.slots[index]
            assert slot is not None
            keys.append((index, slot.pair.pair.pair_id, slot.stream, slot.chunk))
        if self._pool is None:
            lane.features = self._timed_step(lane, keys)
        else:
            lane.features = self._pool.submit(self._timed_step, lane, keys)

    def _timed_step(self, lane: Lane, keys: list[DrawKey]) -> torch.Tensor | PairwiseFailure:
        with self.busy.measure():
            return self._step(lane, keys)

    @torch.no_grad()
    def _step(self, lane: Lane, keys: list[DrawKey]) -> torch.Tensor | PairwiseFailure:
        self._noise.fill(lane.batch, lane.pixels, keys)
        full = self._static or len(lane.launched) == len(lane.slots)
        batch = lane.batch if full else lane.batch[lane.launched]
        try:
            return self._encode(batch)
        except torch.OutOfMemoryError:
            return self._one_by_one(lane)
        except EncoderError:
            raise
        except Exception as exc:
            log.warning(
                "the encoder failed on a batch (%s: %s); trying its pairs one at a time",
                type(exc).__name__,
                exc,
            )
            return self._one_by_one(lane)

    def _encode(self, batch: torch.Tensor) -> torch.Tensor:
        """(s, chunk, 3, H, W) to float64 unit features (s, chunk, d)."""
        flat = self.encoder.encode_images(batch.flatten(0, 1)).to(torch.float64)
        # rounding of the float32 normalisation removed; a zero feature becomes NaN, hence an error row
        flat = flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        features: torch.Tensor = flat.unflatten(0, batch.shape[:2])
        return features

    def _one_by_one(self, lane: Lane) -> PairwiseFailure:
        """Find the pairs on which the encoder fails; the others lose nothing."""
        rows: list[torch.Tensor] = []
        errors: dict[int, PairError] = {}
        shape = (1, self.chunk, self.encoder.feature_dim)
        for index in lane.launched:
            try:
                rows.append(self._encode(lane.batch[index : index + 1]))
                continue
            except torch.OutOfMemoryError as exc:
                errors[index] = OutOfMemoryError(
                    f"out of memory on {self.chunk} draws of this pair alone: {exc}"
                )
            except Exception as exc:
                errors[index] = EncodeError(f"{type(exc).__name__} in the encoder: {exc}")
            rows.append(torch.full(shape, torch.nan, dtype=torch.float64, device=self.encoder.device))
        if len(errors) == len(lane.launched) > 1:
            first = next(iter(errors.values()))
            raise EncoderError(
                f"the encoder fails on every pair of a batch: {first}",
                remedy="if it ran out of memory, lower encoder.chunk; otherwise fix the error that the model raised",
            )
        return PairwiseFailure(torch.cat(rows), errors)

    @torch.no_grad()
    def _absorb(self, lane: Lane) -> Iterator[PairResult]:
        """Take in the lane's last step: advance pilots, store scores, test targets, free slots."""
        launched, features = lane.launched, lane.features
        errors: dict[int, PairError] = {}
        if isinstance(features, Future):
            features = features.result()
        lane.launched, lane.features = [], None
        if isinstance(features, PairwiseFailure):
            errors = features.errors
            features = features.features
            positions = list(range(len(launched)))
        else:
            assert features is not None
            positions = launched if len(features) == len(lane.slots) else list(range(len(launched)))
        certifying: list[tuple[int, int]] = []
        ready: list[int] = []
        for index, position in zip(launched, positions, strict=True):
            slot = lane.slots[index]
            assert slot is not None
            if index in errors:
                yield self._fail(lane, index, errors[index])
            elif slot.question is None:
                self._absorb_pilot(slot, features[position])
                if slot.pilot_draws >= self.certify.pilot_draws:
                    ready.append(index)
            else:
                certifying.append((index, position))
        if certifying:
            yield from self._absorb_scores(lane, features, certifying)
        if ready:
            yield from self._fix_questions(lane, ready)

    def _absorb_pilot(self, slot: Slot, features: torch.Tensor) -> None:
        first = 0
        if slot.chunk == 0:
            slot.clean = features[0].cpu().numpy()
            first = 1
        stop = min(self.chunk, first + self.certify.pilot_draws - slot.pilot_draws)
        slot.pilot.append(features[first:stop].cpu().numpy().copy())
        slot.pilot_draws += stop - first
        slot.chunk += 1
        self.draws_done += stop - first

    def _fix_questions(self, lane: Lane, ready: list[int]) -> Iterator[PairResult]:
        slots = [(index, slot) for index in ready if (slot := lane.slots[index]) is not None]
        captions: list[NDArray[np.float64] | EncodeError] | list[None] = [None] * len(slots)
        if self.layout.caption:
            captions = self._encode_captions([slot.pair.pair.captions for _, slot in slots])
        for (index, slot), caption in zip(slots, captions, strict=True):
            assert slot.clean is not None
            if isinstance(caption, EncodeError):
                yield self._fail(lane, index, caption)
                continue
            pilot = np.concatenate(slot.pilot)
            try:
                slot.question = self._questioner.ask(pilot, slot.clean, caption, slot.pair.pair.captions)
            except PairError as exc:
                yield self._fail(lane, index, exc)
                continue
            lane.moments.start(index, pilot)
            slot.pilot.clear()
            slot.chunk = 0
            directions = torch.from_numpy(np.ascontiguousarray(slot.question.directions.T))
            lane.directions[index].copy_(directions)
            lane.others.start(index, slot.question)
            lane.tracker.start(index, slot.question)

    def _encode_captions(
        self, captions: Sequence[tuple[str, ...]]
    ) -> list[NDArray[np.float64] | EncodeError]:
        """A feature a pair; where the encoder fails on them together, each alone, so that one costs only its pair."""
        try:
            return list(self.captions.of(captions))
        except Exception as exc:
            if len(captions) == 1:
                return [EncodeError(f"{type(exc).__name__} in the encoder, on the caption: {exc}")]
        return [found for each in captions for found in self._encode_captions([each])]

    def _absorb_scores(
        self, lane: Lane, features: torch.Tensor, certifying: list[tuple[int, int]]
    ) -> Iterator[PairResult]:
        slots = [index for index, _ in certifying]
        positions = [position for _, position in certifying]
        drawn = features[positions]
        products = torch.bmm(drawn, lane.directions[slots])
        others = lane.others.of(slots, drawn, products)
        scores = torch.cat((((1.0 + products) / 2.0).clamp_(0.0, 1.0), others), dim=2)  # clamp keeps NaN
        counts = np.array([self._take(lane, index) for index in slots])
        lane.moments.update(slots, features[positions], counts)
        on_host = scores.cpu().numpy()
        lane.tracker.update(slots, on_host, counts)
        decided = lane.tracker.decided(slots)
        reported, directions = self.layout.reported, self.layout.directions
        kept = np.concatenate((on_host[:, :, :reported], on_host[:, :, directions:]), axis=2)
        for row, index in enumerate(slots):
            slot = lane.slots[index]
            assert slot is not None
            taken = kept[row, : counts[row]]
            if not np.isfinite(taken).all():
                yield self._fail(
                    lane, index, NonFiniteError("the encoder returned a NaN, infinite or zero feature")
                )
                continue
            slot.scores.append(taken.T)
            slot.draws += int(counts[row])
            slot.chunk += 1
            self.draws_done += int(counts[row])
            if decided[row] or slot.draws >= self.certify.max_draws:
                yield self._finish(lane, index, bool(decided[row]))

    def _take(self, lane: Lane, index: int) -> int:
        slot = lane.slots[index]
        assert slot is not None
        return min(self.chunk, self.certify.max_draws - slot.draws)

    def _finish(self, lane: Lane, index: int, decided: bool) -> Measurement:
        slot = lane.slots[index]
        assert slot is not None and slot.question is not None
        reason: StopReason = "budget"
        if not self.layout.targets:
            reason = "fixed"
        elif decided:
            reason = "decided"
        decisions, log_e_values = lane.tracker.result(index)
        lane.slots[index] = None
        return Measurement(
            slot.pair.token,
            slot.pair.pair,
            slot.question,
            np.concatenate(slot.scores, axis=1),
            slot.draws,
            slot.pilot_draws,
            reason,
            decisions,
            log_e_values,
            lane.moments.result(index),
        )

    def _fail(self, lane: Lane, index: int, error: PairError) -> Failure:
        slot = lane.slots[index]
        assert slot is not None
        lane.slots[index] = None
        return Failure(slot.pair.token, slot.pair.pair, error)


def _new_stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
