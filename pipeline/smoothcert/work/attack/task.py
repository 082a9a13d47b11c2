"""One attack as a task: certified pairs in, judged outcomes beside their certificates out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smoothcert.datasets import Pair, Source, UnitSpec
from smoothcert.errors import PairError
from smoothcert.job import AttackSection
from smoothcert.store import ATTACKS, CERTIFICATES, RunDirectory, TableSchema
from smoothcert.store.asked import AskedTask, note_asked
from smoothcert.work.attack.attacker import Attacker
from smoothcert.work.attack.checking import check_attack
from smoothcert.work.attack.examples import publish_examples
from smoothcert.work.attack.inputs import AttackInputs
from smoothcert.work.attack.metered import Meter
from smoothcert.work.attack.rows import AttackRow, AttackRowMaker
from smoothcert.work.attack.worker import AttackWorker
from smoothcert.work.inputs import Inputs


@dataclass(frozen=True, eq=False)
class AttackTask:
    """Makes one attack of a job on every pair.

    Attributes:
        section: the attack, its contents filled in (``with_contents``).
        number: its place in the job.
    """

    section: AttackSection
    number: int

    @property
    def task_id(self) -> str:
        """See ``Task.task_id``."""
        return self.section.attack_id

    @property
    def name(self) -> str:
        """See ``Task.name``."""
        return f"{self.section.attack} {self.section.norm} {self.task_id}"

    @property
    def table(self) -> TableSchema:
        """See ``Task.table``."""
        return ATTACKS

    def draws_per_pair(self, inputs: Inputs) -> float:
        """See ``Task.draws_per_pair``: a rough number of images, of which random searches take fewer."""
        section = self.section
        each = sum(
            (section.steps or 100) * (1 if name == "bare" else section.eot_draws) + 2 * section.evaluate_draws
            for name in section.subjects
        )
        return each * len(section.budgets)

    @property
    def rests_on(self) -> TableSchema | None:
        """See ``Task.rests_on``: rows are joined with certificates."""
        return CERTIFICATES

    def check(self, inputs: Inputs, source: Source, units: Sequence[UnitSpec]) -> None:
        """See ``Task.check``: the attack is tried out on a pair, without searching."""
        check_attack(self.section, self.number, inputs, source, units)

    def begin(self, run: RunDirectory) -> None:
        """See ``Task.begin``."""
        note_asked(run, AskedTask(self.task_id, self.name, self.section.model_dump(mode="json")))

    def open(self, inputs: Inputs, run: RunDirectory) -> AttackWorker:
        """See ``Task.open``."""
        return AttackWorker(inputs, self.section, run)

    def quarantine(self, inputs: Inputs, unit_id: str, pair: Pair, error: PairError) -> list[AttackRow]:
        """See ``Task.quarantine``: one row for each subject and budget."""
        attacker = Attacker(
            inputs.job, self.section, inputs.share(AttackInputs), Meter(inputs.encoder.device)
        )
        return AttackRowMaker(inputs.job, attacker, inputs.encoder).quarantined(unit_id, pair, error)

    def end(self, run: RunDirectory) -> list[str]:
        """See ``Task.end``: keeps the strongest examples."""
        stored, wanted = publish_examples(run, self.section)
        if not wanted:
            return []
        lines = [f"{self.name}: {stored:,} strongest examples are stored under {run.url}/examples"]
        if stored < wanted:
            lines.append(
                f"{self.name}: keep asks for {wanted:,}: what was attacked before keep was raised is not stored; "
                "another seed, or another output.run, attacks anew"
            )
        return lines
