"""Certification as a task: pairs in, one row of the table ``certificates`` each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from smoothcert.datasets import Pair, Source, UnitSpec
from smoothcert.engine import (
    CertificateRow,
    DecodeAhead,
    Engine,
    Failure,
    PairResult,
    RowMaker,
    check_captions,
    check_pool,
    check_prompts,
)
from smoothcert.engine.layout import plan_layout
from smoothcert.errors import PairError
from smoothcert.store import CERTIFICATES, RunDirectory, TableSchema
from smoothcert.store.units import CERTIFICATION
from smoothcert.work.certify.reach import check_reach
from smoothcert.work.inputs import Inputs
from smoothcert.work.task import Assignment, DeviceLoad


@dataclass(frozen=True)
class CertifyTask:
    """Certifies every pair."""

    task_id: ClassVar[str] = CERTIFICATION
    name: ClassVar[str] = "certification"
    table: ClassVar[TableSchema] = CERTIFICATES
    rests_on: ClassVar[TableSchema | None] = None

    def draws_per_pair(self, inputs: Inputs) -> float:
        """See ``Task.draws_per_pair``: pilot draws, and certify draws at most."""
        return float(inputs.job.certify.pilot_draws + inputs.job.certify.max_draws)

    def check(self, inputs: Inputs, source: Source, units: Sequence[UnitSpec]) -> None:
        """See ``Task.check``: targets out of reach, and what the encoder does not read of the texts (not encoded)."""
        job, encoder = inputs.job, inputs.encoder
        check_reach(job.certify)
        needed = any(target.needs_captions for target in job.certify.targets)
        if not encoder.has_texts:
            if needed or job.zero_shot is not None or job.retrieval is not None:
                encoder.encode_texts(["a text"])  # refuses it, in words of its own
            return
        if job.zero_shot is not None:
            check_prompts(encoder, job.zero_shot)
        if inputs.pool:
            check_pool(encoder, inputs.pool)
        elif job.data.has_captions:
            captions = (text for _, texts in source.captions() for text in texts)
            check_captions(encoder, captions, needed=needed)

    def begin(self, run: RunDirectory) -> None:
        """See ``Task.begin``: the run directory itself says what is certified."""

    def open(self, inputs: Inputs, run: RunDirectory) -> CertifyWorker:
        """See ``Task.open``."""
        return CertifyWorker(inputs)

    def quarantine(self, inputs: Inputs, unit_id: str, pair: Pair, error: PairError) -> list[CertificateRow]:
        """See ``Task.quarantine``."""
        # nothing is asked of what has no draws; targets might be about texts that this layout has none of
        certify = inputs.job.certify.model_copy(update={"targets": ()})
        layout = plan_layout(certify, classes=0, pool=0, captions=False, retrieval_k=1)
        maker = RowMaker(inputs.encoder, certify, inputs.texts, layout)
        return maker.rows(unit_id, [Failure(unit_id, pair, error)])

    def end(self, run: RunDirectory) -> list[str]:
        """See ``Task.end``."""
        return []


class CertifyWorker:
    """Certification on this process's device: decode (threads), draw (engine), bound.

    Units overlap: while the last pairs of one are drawing, the first of the next are already in slots.

    Args:
        inputs: encoder and texts.
    """

    def __init__(self, inputs: Inputs) -> None:
        job, section = inputs.job, inputs.job.encoder
        self._job = job
        self._encoder = inputs.encoder
        self._engine = Engine(
            inputs.encoder,
            job.certify,
            inputs.texts,
            slots=section.slots,
            chunk=section.chunk,
            threads=section.threads,
        )
        self._rows = RowMaker(inputs.encoder, job.certify, inputs.texts, self._engine.layout)
        self._feed: DecodeAhead | None = None

    @property
    def draws_done(self) -> int:
        """See ``Worker.draws_done``."""
        return self._engine.draws_done

    @property
    def load(self) -> DeviceLoad:
        """See ``ShowsLoad.load``."""
        waiting = 0 if self._feed is None else self._feed.waiting
        return DeviceLoad(self._engine.busy.seconds, waiting)

    def run(self, assignments: Iterator[Assignment]) -> Iterator[PairResult]:
        """See ``Worker.run``.

        Raises:
            EncoderError: the encoder fails on every pair.
        """
        self._feed = DecodeAhead(
            ((each.token, pair) for each in assignments for pair in each.pairs),
            self._encoder,
            threads=self._job.executor.decode_threads,
            depth=2 * self._job.encoder.slots,
            max_pixels=self._job.data.max_pixels,
        )
        yield from self._engine.run(self._feed)

    def rows(self, unit_id: str, outcomes: Sequence[PairResult]) -> list[CertificateRow]:
        """See ``Worker.rows``."""
        return self._rows.rows(unit_id, outcomes)

    def stop(self) -> None:
        """See ``Worker.stop``."""
        if self._feed is not None:
            self._feed.close()

    def close(self) -> list[str]:
        """See ``Worker.close``: how many captions were cut, if any."""
        self.stop()
        self._engine.close()
        cut = self._engine.captions.describe_cut()
        return [] if cut is None else [cut]
