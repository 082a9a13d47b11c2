"""A unit of retried pairs: it stands beside the plan, and its rows replace those of an earlier unit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields

from smoothcert.datasets import UnitSpec
from smoothcert.store.units import number_under, task_of


@dataclass(frozen=True, slots=True)
class RetryUnit(UnitSpec):
    """Some pairs of an earlier unit, to be done again. Make one with ``retry_unit``.

    It is never split in the store: the rows it replaces show until a commit replaces them, and of two commits that
    replace one row the earlier counts, so parts and a late attempt at the whole can never double a pair.

    Attributes:
        origin: the unit whose rows are replaced.
        pairs: ids of the pairs, sorted.
    """

    origin: str = ""
    pairs: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def cut(self, count: int) -> tuple[RetryUnit, ...]:
        """The same pairs in at most ``count`` units."""
        size = -(-len(self.pairs) // min(count, len(self.pairs)))
        starts = range(0, len(self.pairs), size)
        return tuple(retry_unit(self, self.origin, self.pairs[i : i + size]) for i in starts)


def retry_unit(place: UnitSpec, origin: str, pairs: tuple[str, ...]) -> RetryUnit:
    """The unit that does ``pairs`` of the unit ``origin`` again.

    Its id is made of what it replaces: whoever asks for the same, at any time, gets the same unit, so that a retry
    that was interrupted resumes; and a retry of a retry, which replaces other rows, gets another. It belongs to the
    task of ``origin``.

    Args:
        place: where the pairs are: ``origin`` itself, or the planned unit that it goes back to.
        origin: the unit whose rows show these pairs now.
        pairs: their ids.
    """
    ordered = tuple(sorted(pairs))
    digest = hashlib.sha256("\0".join((origin, *ordered)).encode()).hexdigest()[:12]
    where = {f.name: getattr(place, f.name) for f in fields(UnitSpec) if f.name != "unit_id"}
    number = number_under("retry", task_of(origin))
    return RetryUnit(unit_id=f"{number}-{digest}", origin=origin, pairs=ordered, **where)


def chosen_pairs(unit: UnitSpec) -> frozenset[str] | None:
    """The pairs that a unit means, where it does not mean all between its positions."""
    return frozenset(unit.pairs) if isinstance(unit, RetryUnit) else None


def superseded_rows(unit: UnitSpec) -> Mapping[str, tuple[str, ...]]:
    """Rows that the unit's rows replace, by unit."""
    return {unit.origin: unit.pairs} if isinstance(unit, RetryUnit) else {}


def origin_of(unit: UnitSpec) -> str:
    """The unit whose rows a unit of retries replaces; of any other, the unit itself."""
    return unit.origin if isinstance(unit, RetryUnit) else unit.unit_id
