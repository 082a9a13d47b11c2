"""What can be known to be wrong with an attack before any work."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence

from smoothcert.datasets import Pair, Source, UnitSpec
from smoothcert.errors import CaptionError, JobError, LabelError, PairError
from smoothcert.job import AttackSection
from smoothcert.job.attacks import EOT_DRAWS, EVALUATE_DRAWS
from smoothcert.work.attack.attacker import Attacker
from smoothcert.work.attack.inputs import AttackInputs
from smoothcert.work.attack.metered import Meter
from smoothcert.work.inputs import Inputs

log = logging.getLogger(__name__)

_PROBED = 16
"""Pairs looked at before work starts, to see whether the source has what an objective needs."""


def check_attack(
    section: AttackSection, number: int, inputs: Inputs, source: Source, units: Sequence[UnitSpec]
) -> None:
    """Try out an attack on the first pair that has what it needs, without searching.

    That is nearly always one of the first; a source is looked through only where none of them will do.

    Raises:
        JobError: an attack cannot pursue its objective, or no pair has what it needs.
        EncoderError: an attack needs gradients, or patch features, and the encoder gives none.
    """
    if few := _few_draws(section):
        log.warning(
            "attacks.%d (%s): %s: under noise this attack may look weaker than it is",
            number,
            section.attack,
            few,
        )
    attacker = Attacker(inputs.job, section, inputs.share(AttackInputs), Meter(inputs.encoder.device))
    attacker.check_gradients()
    probed = list(itertools.islice(_first_pairs(source, units), _PROBED))
    if _tried_out(attacker, probed):
        return
    lacking = next(filter(None, (_lacking(attacker, pair) for pair in probed)), None)
    looked = f"the first {len(probed)} pairs"
    if not (isinstance(lacking, LabelError) and inputs.job.data.columns.label is None):
        log.warning(
            "attacks.%d (%s) does not apply to any of the first %d pairs; searching all pairs",
            number,
            section.attack,
            len(probed),
        )
        looked = "the pairs"
        if _tried_out(attacker, _all_pairs(source, units)):
            return
    if lacking is not None:
        raise JobError(
            f"attacks.{number} ({section.attack}): none of {looked} has what objective "
            f"'{section.objective}' needs: {lacking.message}",
            remedy=lacking.remedy or "choose another objective, or name the column in data.columns",
        )


def _few_draws(section: AttackSection) -> str:
    """What of an attack under noise is too little for an honest picture."""
    if section.subjects == ("bare",):
        return ""
    return " and ".join(
        f"{name}={value} (use at least {least:,})"
        for name, value, least in (
            ("eot_draws", section.eot_draws, EOT_DRAWS),
            ("evaluate_draws", section.evaluate_draws, EVALUATE_DRAWS),
        )
        if value < least
    )


def _tried_out(attacker: Attacker, pairs: Iterable[Pair]) -> bool:
    """Check an attack on the first of some pairs that has what it needs; whether there was one."""
    for pair in pairs:
        if pair.error is None and _lacking(attacker, pair) is None:  # before its image is decoded
            try:
                ready = attacker.ready(pair)
            except PairError:
                continue  # this pair's own fault: it will be quarantined
            attacker.check([ready])
            return True
    return False


def _lacking(attacker: Attacker, pair: Pair) -> PairError | None:
    """Which text that the objective needs a pair lacks, if its texts can be read."""
    if pair.error is not None:
        return pair.error if isinstance(pair.error, (CaptionError, LabelError)) else None
    try:
        attacker.need_texts(pair)
    except (CaptionError, LabelError) as exc:
        return exc
    return None


def _first_pairs(source: Source, units: Sequence[UnitSpec]) -> Iterator[Pair]:
    for unit in units:
        yield from source.read(unit.part(unit.start, min(unit.stop, unit.start + _PROBED)))


def _all_pairs(source: Source, units: Sequence[UnitSpec]) -> Iterator[Pair]:
    """Every pair, but one of each unit first: what some files lack others may have."""
    for unit in units:
        yield from source.read(unit.part(unit.start, unit.start + 1))
    for unit in units:
        yield from source.read(unit)
