"""Brightness as a task: pairs in, one row of the table ``brightness`` each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from brightness.section import BrightnessSection
from brightness.table import BRIGHTNESS
from brightness.worker import BrightnessRow, BrightnessWorker, quarantined_row
from smoothcert.datasets import Pair, Source, UnitSpec
from smoothcert.errors import PairError
from smoothcert.store import RunDirectory, TableSchema
from smoothcert.store.asked import AskedTask, note_asked
from smoothcert.work.inputs import Inputs


@dataclass(frozen=True)
class BrightnessTask:
    """Measures the brightness of every pair."""

    section: BrightnessSection
    task_id: ClassVar[str] = "brightness"
    name: ClassVar[str] = "brightness"
    table: ClassVar[TableSchema] = BRIGHTNESS
    rests_on: ClassVar[TableSchema | None] = None

    def draws_per_pair(self, inputs: Inputs) -> float:
        """See ``Task.draws_per_pair``."""
        return float(self.section.draws)

    def check(self, inputs: Inputs, source: Source, units: Sequence[UnitSpec]) -> None:
        """See ``Task.check``: nothing can be wrong."""

    def begin(self, run: RunDirectory) -> None:
        """See ``Task.begin``: from now on every pair is owed a row, and ``smoothcert status`` counts them."""
        note_asked(run, AskedTask(self.task_id, self.name, self.section.model_dump(mode="json")))

    def open(self, inputs: Inputs, run: RunDirectory) -> BrightnessWorker:
        """See ``Task.open``."""
        return BrightnessWorker(inputs, self.section.draws)

    def quarantined(self, inputs: Inputs, unit_id: str, pair: Pair, error: PairError) -> list[BrightnessRow]:
        """See ``Task.quarantined``."""
        return [quarantined_row(unit_id, pair, error)]

    def end(self, run: RunDirectory) -> list[str]:
        """See ``Task.end``."""
        return []
