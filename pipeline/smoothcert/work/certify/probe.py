"""A short measurement of this device: real pairs of the job, a fixed number of draws, nothing written."""

from __future__ import annotations

import itertools
import time

from smoothcert.datasets import Source, UnitSpec
from smoothcert.encoders import Encoder
from smoothcert.engine import DecodeAhead, Engine
from smoothcert.job import Job
from smoothcert.work.inputs import Inputs

_SECONDS = 3.0


def measure_draws_per_second(job: Job, source: Source, unit: UnitSpec, encoder: Encoder) -> float:
    """Draws per second of the engine on the first pairs of a unit, repeated for about three seconds.

    The first step, which warms the device up, is not counted. Targets are left out: they change how many draws a
    pair takes, not how fast they are.
    """
    certify = job.certify.model_copy(update={"targets": ()})
    slots = job.encoder.slots
    texts = Inputs(job, encoder).texts
    engine = Engine(
        encoder, certify, texts, slots=slots, chunk=job.encoder.chunk, threads=job.encoder.threads
    )
    pairs = [pair for pair in itertools.islice(source.read(unit), slots) if pair.error is None]
    endless = ((unit.unit_id, pair) for pair in itertools.cycle(pairs)) if pairs else iter(())
    feed = DecodeAhead(endless, encoder, depth=slots, max_pixels=job.data.max_pixels)
    started, counted_from = time.monotonic(), 0
    try:
        for _ in engine.steps(feed):
            if not counted_from:
                started, counted_from = time.monotonic(), engine.draws_done
            elif time.monotonic() - started > _SECONDS:
                break
    finally:
        feed.close()
        engine.close()
    elapsed = time.monotonic() - started
    return max((engine.draws_done - counted_from) / elapsed, 1e-9)
