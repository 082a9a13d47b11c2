"""The views that users query.

certificates     one row per pair and run: schemas/certificates.v1.json, and the columns that data.keep names
quarantine       the quarantined ones: where and why
bounds           long form: run_id, pair_id, certificate, radius, cosine (NULL: nothing certified)
units            one row per committed unit
worker_time, task_time: how long each worker had units: see cost_view.py
runs             one row per run: the job's numbers, digests, progress
certified_share  per run and claim: how many pairs hold it, with a confidence interval
attacks, attack_success, robustness_gap, worst_pairs: see attack_views.py
attack_rules: see attack_rules_view.py
answers, answer_accuracy, certified_answers: see answer_views.py
leaderboard      every figure of every run, one a row: see leaderboard_view.py

Every table that tasks fill has a view of its name, and one ``replaced_<name>`` of the rows that a retry replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.sql.answer_views import create_answer_views
from smoothcert.sql.attack_rules_view import create_attack_rules_view
from smoothcert.sql.attack_views import REFERENCE_SQL, create_attack_views
from smoothcert.sql.committed_files import CommittedFiles, committed_files
from smoothcert.sql.cost_view import create_cost_view
from smoothcert.sql.leaderboard_view import create_leaderboard_view
from smoothcert.sql.share_view import create_share_view
from smoothcert.store.manifest import Committed
from smoothcert.store.run_directory import RunDirectory
from smoothcert.store.run_info import RunInfo
from smoothcert.store.tables.attacks import ATTACKS
from smoothcert.store.tables.certificates import CERTIFICATES
from smoothcert.store.tables.columns import TableSchema
from smoothcert.store.tables.registry import TABLES

_INTERNAL = "internal"
"""Schema of what users need not see."""


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


SMALL_TABLE = 20_000
"""Rows of one run and table up to which a copy in memory is small: at most about 100 MB."""


def create_views(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[OpenedRun], *, copy_small: bool = False
) -> list[str]:
    """Create all views over these runs; with ``copy_small`` on copies of the rows of small tables.

    Two are made when they are asked for: the leaderboard, and with ``copy_small`` the certified shares.

    Returns:
        The relation of each run's visible rows of certification.
    """
    connection.execute(f"CREATE SCHEMA {_INTERNAL}")
    _register_table(connection, "runs", _runs_table(runs))
    _register_table(connection, "units", _units_table(runs))
    _register_table(connection, "spans", _spans_table(runs), shown=False)
    create_cost_view(connection, f"{_INTERNAL}.spans")
    relations = {
        table.name: _create_table(connection, table, runs, copy_small=copy_small) for table in TABLES.values()
    }
    connection.execute(
        "CREATE VIEW quarantine AS SELECT run_id, unit_id, pair_id, source_uri, caption, label, error_stage, "
        "error_class, error_message FROM certificates WHERE status = 'quarantined'"
    )
    certified = relations[CERTIFICATES.name]
    connection.execute("CREATE VIEW bounds AS " + _bounds_sql(runs, certified))
    create_attack_views(connection)
    create_attack_rules_view(connection)
    create_answer_views(connection)
    if not copy_small:
        create_share_view(connection, _INTERNAL, _about(runs, certified))
    connection.execute(_EBH)
    return certified


def add_leaderboard(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[OpenedRun], certified: Sequence[str]
) -> None:
    """Create the view ``leaderboard``: apart, since DuckDB takes long to read it.

    Args:
        connection: as of ``create_views``.
        runs: the same ones.
        certified: what ``create_views`` returned.
    """
    create_leaderboard_view(connection, _INTERNAL, _about(runs, certified))


def add_shares(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[OpenedRun], certified: Sequence[str]
) -> None:
    """Count ``certified_share`` where ``create_views`` did not create it, once for all statements to come.

    Args:
        connection: as of ``create_views``, with ``copy_small``.
        runs: the same ones.
        certified: what ``create_views`` returned.

    Raises:
        duckdb.Error: reading rows failed.
    """
    create_share_view(connection, _INTERNAL, _about(runs, certified), counted_once=True)


def _about(runs: Sequence[OpenedRun], certified: Sequence[str]) -> list[tuple[RunInfo, str, bool]]:
    """For each run what it is about, the relation of its visible rows, and whether it is finished."""
    return [(run.directory.info, name, run.finished) for run, name in zip(runs, certified, strict=True)]


_SELECTIONS = {ATTACKS.name: REFERENCE_SQL}
"""What a view shows of its table, where that is not every column as it is."""


def _create_table(
    connection: duckdb.DuckDBPyConnection, table: TableSchema, runs: Sequence[OpenedRun], *, copy_small: bool
) -> list[str]:
    """Create what a table is to users, and return the relation of each run's rows that count.

    Where all of them together are few, and copies are wanted, it is a copy: DuckDB binds every column of a view anew in
    each statement that names it, but none of a table's that is not used.
    """
    small = copy_small and sum(run.rows(table) for run in runs) <= SMALL_TABLE
    kind = "TABLE" if small else "VIEW"
    relations = [
        _rows_of(
            connection,
            table,
            number,
            run,
            copy=copy_small and run.rows(table) <= SMALL_TABLE and not (small and len(runs) == 1),
        )
        for number, run in enumerate(runs)
    ]
    selection = _SELECTIONS.get(table.name, "SELECT *")
    rows = " UNION ALL BY NAME ".join(f"{selection} FROM {name}" for name in relations)
    connection.execute(f"CREATE {kind} {table.name} AS {rows}")
    replaced = " UNION ALL ".join(_replaced(i, run, table) for i, run in enumerate(runs))
    connection.execute(f"CREATE {kind} replaced_{table.name} AS {replaced}")
    return [table.name] if small and len(runs) == 1 else relations


def _rows_of(
    connection: duckdb.DuckDBPyConnection, table: TableSchema, number: int, run: OpenedRun, *, copy: bool
) -> str:
    """A relation of the rows of one run and table that count: a view on its files, or a copy."""
    name, committed = f"{_INTERNAL}.{table.name}_{number}", f"_{table.name}_{number}"
    connection.register(committed, run.files(table))
    rows = committed
    if run.committed.hidden.num_rows:
        hidden = f"{_INTERNAL}.hidden_{number}"
        connection.register("_hidden", run.committed.hidden)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {hidden} AS SELECT * FROM _hidden")
        connection.unregister("_hidden")
        rows = f"(SELECT * FROM {committed} ANTI JOIN {hidden} USING (unit_id, pair_id))"
    kept = _kept_sql(run) if table is CERTIFICATES else ""
    connection.execute(f"CREATE {'TABLE' if copy else 'VIEW'} {name} AS SELECT *{kept} FROM {rows}")
    return name


_SQL_TYPES = {"text": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}


def _kept_sql(run: OpenedRun) -> str:
    """The own columns of the data that the run's job keeps, each by its name."""
    return "".join(
        f', kept[{position}]::{_SQL_TYPES[kind]} AS "{name.replace(chr(34), chr(34) * 2)}"'
        for position, (name, kind) in enumerate(run.directory.info.job.data.kept.items(), start=1)
    )


def _replaced(number: int, run: OpenedRun, table: TableSchema) -> str:
    """Selects the rows that a retry replaced; after ``_rows_of`` of the same run and table."""
    sql = f"SELECT * FROM _{table.name}_{number}"
    if not run.committed.hidden.num_rows:
        return f"{sql} WHERE false"
    return f"{sql} SEMI JOIN {_INTERNAL}.hidden_{number} USING (unit_id, pair_id)"


def _register_table(
    connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table, *, shown: bool = True
) -> None:
    """Small tables are copied in, so that they look and behave like the other views."""
    connection.register(f"_{name}", table)
    connection.execute(f"CREATE TABLE {_INTERNAL}.{name} AS SELECT * FROM _{name}")
    connection.unregister(f"_{name}")
    if shown:
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {_INTERNAL}.{name}")


def _bounds_sql(runs: Sequence[OpenedRun], relations: Sequence[str]) -> str:
    """Each run's name and radii stand in the SQL: to read or join them for every row costs more than the rest."""
    selects = []
    for run, relation in zip(runs, relations, strict=True):
        info = run.directory.info
        radii = ", ".join(f"'{radius!r}'::DOUBLE" for radius in info.job.certify.radii)
        selects += [
            f"SELECT '{info.run_id}' AS run_id, pair_id, '{each.name}' AS certificate, unnest([{radii}]) AS radius, "
            f"unnest({each.bound.column}) AS cosine FROM {relation} WHERE {each.bound.column} IS NOT NULL"
            for each in CATALOGUE
            if each.bound is not None
        ]
    return " UNION ALL ".join(selects)


_EBH = f"""
CREATE MACRO ebh(target, q) AS TABLE
WITH asked AS (
    SELECT run_id, pairs, coalesce(
        list_position(targets, target::VARCHAR),
        CASE WHEN try_cast(target::VARCHAR AS INTEGER) BETWEEN 1 AND len(targets)
             THEN try_cast(target::VARCHAR AS INTEGER) END
    ) AS position
    FROM {_INTERNAL}.runs
),
known AS (
    SELECT run_id, pairs, position FROM asked
    WHERE CASE
        WHEN NOT (q > 0 AND q < 1) THEN error('q must be between 0 and 1')
        WHEN (SELECT count(position) FROM asked) = 0 THEN error(
            'no run has the target ''' || target::VARCHAR || '''; see SELECT targets FROM runs'
        )
        ELSE position IS NOT NULL
    END
),
ordered AS (
    SELECT c.run_id, k.position, k.pairs, list_reverse_sort(list(c.log_e_value[k.position])) AS largest_first
    FROM certificates c JOIN known k USING (run_id)
    WHERE c.log_e_value[k.position] >= -ln(q)
    GROUP BY ALL
),
placed AS (
    SELECT run_id, position, pairs, unnest(largest_first) AS log_e, generate_subscripts(largest_first, 1) AS place
    FROM ordered
),
selected AS (
    SELECT run_id, position, min(log_e) AS least FROM placed
    WHERE log_e >= ln(pairs) - ln(q) - ln(place) + 1e-9
    GROUP BY ALL
)
SELECT c.run_id, c.pair_id, c.log_e_value[s.position] AS log_e_value
FROM certificates c JOIN selected s USING (run_id)
WHERE c.log_e_value[s.position] >= s.least
"""
"""e-BH (Wang and Ramdas 2022) in each run: of the n pairs asked for, the k with the largest e-values, for the
largest k with e_(k) >= n/(q k). Pairs without an e-value count in n. The slack of 1e-9 covers rounding. None of
them can have e < 1/q. Sorted lists, since a window over a million rows takes four times as long."""


def _units_table(runs: Sequence[OpenedRun]) -> pa.Table:
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


def _spans_table(runs: Sequence[OpenedRun]) -> pa.Table:
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


def _runs_table(runs: Sequence[OpenedRun]) -> pa.Table:
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
