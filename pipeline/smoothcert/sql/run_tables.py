"""Tables about runs themselves, out of their directories and commits: ``runs``, ``units``, and spans of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.sql.committed_files import CommittedFiles, committed_files, read_files
from smoothcert.sql.failed_reading import explain_failed_reading
from smoothcert.store.manifest import Committed
from smoothcert.store.run_directory import RunDirectory
from smoothcert.store.tables.columns import TableSchema


@dataclass(frozen=True)
class OpenedRun:
    """A run directory and its commits at one moment.

    Attributes:
        directory: the run directory.
        committed: its commits.
        failures: what reading its files raised.
    """

    directory: RunDirectory
    committed: Committed
    failures: list[Exception] = field(default_factory=list)

    @classmethod
    def load(cls, directory: RunDirectory) -> OpenedRun:
        """Read the commits of a run."""
        return cls(directory, directory.commits.load())

    @property
    def finished(self) -> bool:
        """Whether every pair of the plan has its row."""
        return self.committed.pairs == self.directory.info.pairs

    def rows(self, table: TableSchema) -> int:
        """Committed rows of a table, those that a retry replaced included."""
        return sum(part.rows for part in self.committed.parts(table.name))

    def files(self, table: TableSchema) -> CommittedFiles:
        """The committed files of a table; nothing is opened yet."""
        return committed_files(self.directory.storage, table, self.committed.files(table.name), self.failures)

    def read(self, table: TableSchema) -> pa.Table:
        """All committed rows of a table.

        Raises:
            StoreError: a file is lost, cut or damaged, or the store does not answer.
        """
        try:
            return read_files(self.directory.storage, table, self.committed.files(table.name))
        except Exception as exc:
            raise explain_failed_reading(self.directory, self.committed, exc) from exc


def units_table(runs: Sequence[OpenedRun]) -> pa.Table:
    """One row a committed unit."""
    tables = []
    for run in runs:
        table = run.committed.certification.table
        table = table.filter(pc.equal(table["split"], ""))
        seconds = pc.cast(pc.multiply(table["committed_at"], 1e6), pa.int64(), safe=False)
        tables.append(
            pa.table(
                {
                    "run_id": pa.array([run.directory.run_id] * table.num_rows, pa.string()),
                    "unit_id": table["unit_id"],
                    "attempt": table["attempt"],
                    "rows": pc.add(table["ok"], table["quarantined"]),
                    "ok": table["ok"],
                    "quarantined": table["quarantined"],
                    "draws": table["draws"],
                    "seconds": table["seconds"],
                    "worker": table["worker"],
                    "committed_at": pc.cast(seconds, pa.timestamp("us")),
                }
            )
        )
    return pa.concat_tables(tables)


def spans_table(runs: Sequence[OpenedRun]) -> pa.Table:
    """When each commit of any task was worked on."""
    tables = []
    for run in runs:
        table = run.committed.table.filter(pc.equal(run.committed.table["split"], ""))
        tables.append(
            pa.table(
                {
                    "run_id": pa.array([run.directory.run_id] * table.num_rows, pa.string()),
                    "table_name": pc.struct_field(pc.list_element(table["parts"], 0), "table"),
                    "worker": table["worker"],
                    "draws": table["draws"],
                    "began": pc.subtract(table["committed_at"], table["seconds"]),
                    "ended": table["committed_at"],
                }
            )
        )
    return pa.concat_tables(tables)


def runs_table(runs: Sequence[OpenedRun]) -> pa.Table:
    """One row a run."""
    rows = []
    for run in runs:
        info, certify = run.directory.info, run.directory.info.job.certify
        rows.append(
            {
                "run_id": info.run_id,
                "name": info.job.name,
                "sigma": certify.sigma,
                "alpha": certify.alpha,
                "radii": list(certify.radii),
                "cosines": list(certify.cosines),
                "targets": [target.name for target in certify.targets],
                "pilot_draws": certify.pilot_draws,
                "max_draws": certify.max_draws,
                "method": certify.method,
                "seed": certify.seed,
                "encoder": info.job.encoder.model,
                "data": list(info.job.data.uris),
                "pairs": info.pairs,
                "committed_pairs": run.committed.pairs,
                "finished": run.finished,
                "units": info.units,
                "committed_units": len(run.committed.certification),
                "draws": run.committed.draws,
                "created": datetime.fromisoformat(info.created).astimezone(UTC).replace(tzinfo=None),
                "fingerprint": info.fingerprint,
                "data_digest": info.data_digest,
                "encoder_digest": info.encoder_digest,
                "code_version": info.code_version,
                "url": run.directory.url,
            }
        )
    return pa.Table.from_pylist(rows, schema=_RUNS)


_RUNS = pa.schema(
    {
        "run_id": pa.string(),
        "name": pa.string(),
        "sigma": pa.float64(),
        "alpha": pa.float64(),
        "radii": pa.list_(pa.float64()),
        "cosines": pa.list_(pa.float64()),
        "targets": pa.list_(pa.string()),
        "pilot_draws": pa.int64(),
        "max_draws": pa.int64(),
        "method": pa.string(),
        "seed": pa.int64(),
        "encoder": pa.string(),
        "data": pa.list_(pa.string()),
        "pairs": pa.int64(),
        "committed_pairs": pa.int64(),
        "finished": pa.bool_(),
        "units": pa.int64(),
        "committed_units": pa.int64(),
        "draws": pa.int64(),
        "created": pa.timestamp("us"),
        "fingerprint": pa.string(),
        "data_digest": pa.string(),
        "encoder_digest": pa.string(),
        "code_version": pa.string(),
        "url": pa.string(),
    }
)
