"""An attack at work on this process's device.

decode -> attack a batch of pairs -> judge on fresh draws -> join certificates -> rows
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from smoothcert.datasets import Pair
from smoothcert.errors import EncodeError, OutOfMemoryError, PairError, SmoothcertError
from smoothcert.job import AttackSection
from smoothcert.store import RunDirectory
from smoothcert.store.retry_unit import origin_of
from smoothcert.work.attack.attacker import Attacker, JudgedAttack
from smoothcert.work.attack.certified import CertificateReader, Claims
from smoothcert.work.attack.examples import ExampleShelf
from smoothcert.work.attack.goal import ReadyPair
from smoothcert.work.attack.inputs import AttackInputs
from smoothcert.work.attack.metered import Meter
from smoothcert.work.attack.rows import AttackRow, AttackRowMaker
from smoothcert.work.inputs import Inputs
from smoothcert.work.task import Assignment, DeviceLoad, UnitFailed

log = logging.getLogger(__name__)

PAIRS_AT_ONCE = 64
"""Pairs attacked together: enough to fill a device, few enough to hold in memory with their draws."""

_Result = tuple[str, float, tuple[JudgedAttack, ...]]


@dataclass(frozen=True, slots=True)
class AttackedPair:
    """The rows of one pair under one attack.

    Attributes:
        token: what the pair came with.
        rows: one for each subject and budget.
        passes: its share of the images that its batch took.
        failed: whether it was quarantined.
    """

    token: str
    rows: tuple[AttackRow, ...]
    passes: int
    failed: bool

    @property
    def size(self) -> int:
        """Numbers that it holds: images are let go."""
        return 0


class AttackWorker:
    """Makes one attack, unit by unit.

    Args:
        inputs: encoders, texts and targets.
        section: the attack.
        run: where the certificates are, and where examples go.
    """

    def __init__(self, inputs: Inputs, section: AttackSection, run: RunDirectory) -> None:
        self._run = run
        self._meter = Meter(inputs.encoder.device)
        self._shelf = ExampleShelf(run.storage)
        self._attacker = Attacker(inputs.job, section, inputs.share(AttackInputs), self._meter)
        self._maker = AttackRowMaker(inputs.job, self._attacker, inputs.encoder)

    @property
    def draws_done(self) -> int:
        """See ``Worker.draws_done``: images put through the encoder."""
        return self._meter.images

    @property
    def load(self) -> DeviceLoad:
        """See ``ShowsLoad.load``; pairs are read when their batch begins."""
        return DeviceLoad(self._meter.busy.seconds, 0)

    def run(self, assignments: Iterator[Assignment]) -> Iterator[AttackedPair | UnitFailed]:
        """See ``Worker.run``."""
        for assignment in assignments:
            try:
                # the last batch waits for the examples, which must be there before the unit is committed
                attacked: list[AttackedPair] = []
                pairs = iter(assignment.pairs)
                while batch := list(itertools.islice(pairs, PAIRS_AT_ONCE)):
                    yield from attacked
                    attacked = self._attack(assignment, batch)
                self._shelf.write(assignment.unit.unit_id, assignment.token)
            except Exception as exc:
                self._shelf.forget()
                yield UnitFailed(assignment.token, exc)
            else:
                yield from attacked

    def rows(self, unit_id: str, outcomes: Sequence[AttackedPair]) -> list[AttackRow]:
        """See ``Worker.rows``."""
        return [row for outcome in outcomes for row in outcome.rows]

    def stop(self) -> None:
        """See ``Worker.stop``: the attack ends at its next query."""
        self._meter.stop()

    def close(self) -> list[str]:
        """See ``Worker.close``."""
        self._attacker.close()
        return []

    def _attack(self, assignment: Assignment, pairs: Sequence[Pair]) -> list[AttackedPair]:
        unit = assignment.unit
        before = self._meter.images
        ready: list[ReadyPair] = []
        failed: dict[str, PairError] = {}
        for pair in pairs:
            try:
                ready.append(self._attacker.ready(pair))
            except PairError as exc:
                failed[pair.pair_id] = exc
        claims = self._certificates.claims(origin_of(unit), [each.pair.pair_id for each in ready])
        rows: dict[str, list[AttackRow]] = {pair.pair_id: [] for pair in pairs}
        for group, result in self._results(ready, claims, failed):
            for subject, budget, outcomes in result:
                for each, outcome in zip(group, outcomes, strict=True):
                    rows[each.pair.pair_id].append(
                        self._row(unit.unit_id, each, subject, budget, outcome, claims)
                    )
        for pair in pairs:
            if pair.pair_id in failed:
                rows[pair.pair_id] = self._maker.quarantined(unit.unit_id, pair, failed[pair.pair_id])
        each_took, rest = divmod(self._meter.images - before, len(pairs))
        return [
            AttackedPair(
                assignment.token,
                tuple(rows[pair.pair_id]),
                each_took + (place < rest),
                pair.pair_id in failed,
            )
            for place, pair in enumerate(pairs)
        ]

    def _row(
        self,
        unit_id: str,
        each: ReadyPair,
        subject: str,
        budget: float,
        outcome: JudgedAttack,
        claims: Mapping[str, Claims],
    ) -> AttackRow:
        name = each.pair.pair_id
        row = self._maker.row(unit_id, each.pair, subject, budget, outcome, claims.get(name))
        if row.status == "ok":
            image = outcome.image.cpu().numpy()
            margin = outcome.score.margin
            self._shelf.offer(self._attacker.section, subject, budget, name, margin, each.pixels, image)
        return row

    def _results(
        self, ready: list[ReadyPair], claims: Mapping[str, Claims], failed: dict[str, PairError]
    ) -> Iterator[tuple[list[ReadyPair], list[_Result]]]:
        """Outcomes of a batch, or of its pairs one by one where the batch as a whole fails.

        Raises:
            Exception: what is raised on every pair alike: the attack is at fault, and the unit fails.
        """
        if not ready:
            return
        try:
            yield ready, list(self._attacker.run(ready, claims))
            return
        except SmoothcertError:
            raise  # a wrong job or encoder, or the order to stop: no pair's fault
        except Exception as exc:
            log.warning(
                "an attack failed on a batch (%s: %s); trying its pairs one at a time",
                type(exc).__name__,
                exc,
            )
        causes: list[Exception] = []
        for each in ready:
            name = each.pair.pair_id
            try:
                result = list(self._attacker.run([each], claims))
            except SmoothcertError:
                raise
            except torch.OutOfMemoryError as exc:
                failed[name] = OutOfMemoryError(f"out of memory on this pair alone: {exc}")
            except Exception as exc:
                causes.append(exc)
                failed[name] = EncodeError(f"{type(exc).__name__} under attack: {exc}")
            else:
                yield [each], result
        if _is_no_pairs_fault(causes, [each.pair.pair_id in claims for each in ready]):
            raise causes[0]

    @cached_property
    def _certificates(self) -> CertificateReader:
        return CertificateReader(self._run)


def _is_no_pairs_fault(causes: Sequence[Exception], certified: Sequence[bool]) -> bool:
    """Whether several pairs, all of them certified by the same encoder, failed one by one and in the same way.

    A pair alone is quarantined, and so is what a surrogate gave no number for.
    """
    if not 1 < len(causes) == len(certified) or not all(certified):
        return False
    return len({type(cause) for cause in causes}) == 1 and not isinstance(causes[0], FloatingPointError)
