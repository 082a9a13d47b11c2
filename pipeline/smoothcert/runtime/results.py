"""What a finished unit tells the driver, and what writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from smoothcert.datasets import UnitSpec
from smoothcert.engine import CertificateRow


@dataclass(frozen=True, slots=True)
class UnitResult:
    """A unit, or a segment of one, after its rows were written.

    Attributes:
        unit_id: the unit.
        attempt: unique name of the attempt that wrote these rows.
        files: part files, relative to the run directory, by table.
        committed: the rows are visible; False while the driver still has to commit them.
        rows: rows written.
        quarantined: rows among them without certificates.
        draws: pilot and certify draws spent.
        seconds: from submission to the end.
        worker: who did it.
    """

    unit_id: str
    attempt: str
    files: dict[str, str]
    committed: bool
    rows: int
    quarantined: int
    draws: int
    seconds: float
    worker: str


class UnitWriter(Protocol):
    """Writes the rows of a unit so that they appear exactly once."""

    def write(self, unit: UnitSpec, rows: Sequence[CertificateRow], seconds: float) -> UnitResult:
        """Write, check and (where workers may) commit the rows of one unit.

        Raises:
            StoreError: writing failed; nothing of this attempt is visible.
        """
