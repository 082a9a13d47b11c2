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
from functools import partial

import pyarrow as pa

from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.sql.answer_views import define_answer_views
from smoothcert.sql.attack_rules_view import define_attack_rules_view
from smoothcert.sql.attack_views import REFERENCE_SQL, define_attack_views
from smoothcert.sql.cost_view import define_cost_views
from smoothcert.sql.definitions import Definitions
from smoothcert.sql.leaderboard_view import create_leaderboard_view
from smoothcert.sql.run_tables import OpenedRun, runs_table, spans_table, units_table
from smoothcert.sql.share_view import create_share_view
from smoothcert.store.tables.attacks import ATTACKS
from smoothcert.store.tables.certificates import CERTIFICATES
from smoothcert.store.tables.columns import TableSchema
from smoothcert.store.tables.registry import TABLES

_INTERNAL = "internal"
"""Schema of what users need not see."""
SMALL_TABLE = 20_000
"""Rows of one run and table up to which a copy in memory is small: at most about 100 MB, in Arrow and in DuckDB."""


def define_views(definitions: Definitions, runs: Sequence[OpenedRun], *, copy_small: bool = False) -> None:
    """Define all views over these runs; with ``copy_small`` on copies of the rows of small tables.

    Raises:
        StoreError: rows that are copied cannot be read.
    """
    definitions.connection.execute(f"CREATE SCHEMA {_INTERNAL}")
    definitions.add("runs", lambda: _create_table(definitions, "runs", runs_table(runs)))
    definitions.add("units", lambda: _create_table(definitions, "units", units_table(runs)))
    definitions.add("spans", lambda: _create_table(definitions, "spans", spans_table(runs), shown=False))
    define_cost_views(definitions, f"{_INTERNAL}.spans")
    relations = {
        table.name: _define_table(definitions, table, runs, copy_small=copy_small)
        for table in TABLES.values()
    }
    definitions.add_sql(
        "quarantine",
        "CREATE VIEW quarantine AS SELECT run_id, unit_id, pair_id, source_uri, caption, label, error_stage, "
        "error_class, error_message FROM certificates WHERE status = 'quarantined'",
    )
    certified = relations[CERTIFICATES.name]
    definitions.add_sql("bounds", "CREATE VIEW bounds AS " + _bounds_sql(runs, certified))
    define_attack_views(definitions)
    define_attack_rules_view(definitions)
    define_answer_views(definitions)
    about = [(run.directory.info, name, run.finished) for run, name in zip(runs, certified, strict=True)]
    definitions.add(
        "certified_share", lambda: create_share_view(definitions, _INTERNAL, about, counted_once=copy_small)
    )
    definitions.add_sql("ebh", _EBH)
    # DuckDB takes long to read it
    definitions.add(
        "leaderboard", lambda: create_leaderboard_view(definitions, _INTERNAL, about), listed=False
    )


_SELECTIONS = {ATTACKS.name: REFERENCE_SQL}
"""What a view shows of its table, where that is not every column as it is."""


def _define_table(
    definitions: Definitions, table: TableSchema, runs: Sequence[OpenedRun], *, copy_small: bool
) -> list[str]:
    """Define what a table is to users, and return the relation of each run's rows that count.

    Where all of them together are few, and copies are wanted, it is a copy: DuckDB binds every column of a view anew in
    each statement that names it, but none of a table's that is not used.
    """
    small = copy_small and sum(run.rows(table) for run in runs) <= SMALL_TABLE
    kind = "TABLE" if small else "VIEW"
    relations = []
    for number, run in enumerate(runs):
        copy = copy_small and run.rows(table) <= SMALL_TABLE
        rows = _define_rows(definitions, table, number, run, copy=copy)
        if small and len(runs) == 1:
            relations = [f"({rows})"]
            break
        name, one = f"{table.name}_{number}", "TABLE" if copy else "VIEW"
        definitions.add_sql(name, f"CREATE {one} {_INTERNAL}.{name} AS {rows}")
        relations.append(f"{_INTERNAL}.{name}")
    selection = _SELECTIONS.get(table.name, "SELECT *")
    rows = " UNION ALL BY NAME ".join(f"{selection} FROM {name}" for name in relations)
    definitions.add_sql(table.name, f"CREATE {kind} {table.name} AS {rows}")
    _define_replaced(definitions, table, runs, kind)
    return [table.name] if small and len(runs) == 1 else relations


def _define_rows(
    definitions: Definitions, table: TableSchema, number: int, run: OpenedRun, *, copy: bool
) -> str:
    """SQL that selects the rows of one run and table that count, from its files or from a copy.

    Raises:
        StoreError: rows that are copied cannot be read.
    """
    committed = f"_{table.name}_{number}"
    content = run.read(table) if copy else run.files(table)
    definitions.add(committed, partial(_register, definitions, committed, content))
    rows = committed
    if run.committed.hidden.num_rows:
        hidden = f"hidden_{number}"
        replaced = run.committed.hidden
        definitions.add(hidden, lambda: _create_table(definitions, hidden, replaced, shown=False))
        rows = f"(SELECT * FROM {committed} ANTI JOIN {_INTERNAL}.{hidden} USING (unit_id, pair_id))"
    kept = _kept_sql(run) if table is CERTIFICATES else ""
    return f"SELECT *{kept} FROM {rows}"


def _define_replaced(
    definitions: Definitions, table: TableSchema, runs: Sequence[OpenedRun], kind: str
) -> None:
    """Define the rows of a table that a retry replaced; most runs have none."""
    replaced = [
        f"SELECT * FROM _{table.name}_{i} SEMI JOIN {_INTERNAL}.hidden_{i} USING (unit_id, pair_id)"
        for i, run in enumerate(runs)
        if run.committed.hidden.num_rows
    ]
    if not replaced:
        none = table.arrow.remove_metadata().empty_table()
        definitions.add(f"_{table.name}_none", partial(_register, definitions, f"_{table.name}_none", none))
        replaced = [f"SELECT * FROM _{table.name}_none"]
    name = f"replaced_{table.name}"
    definitions.add_sql(name, f"CREATE {kind} {name} AS {' UNION ALL '.join(replaced)}")


def _register(definitions: Definitions, name: str, content: object) -> None:
    definitions.connection.register(name, content)


_SQL_TYPES = {"text": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}


def _kept_sql(run: OpenedRun) -> str:
    """The own columns of the data that the run's job keeps, each by its name."""
    return "".join(
        f', kept[{position}]::{_SQL_TYPES[kind]} AS "{name.replace(chr(34), chr(34) * 2)}"'
        for position, (name, kind) in enumerate(run.directory.info.job.data.kept.items(), start=1)
    )


def _create_table(definitions: Definitions, name: str, table: pa.Table, *, shown: bool = True) -> None:
    """Small tables are copied in, so that they look and behave like the other views."""
    connection = definitions.connection
    connection.register("_copied", table)
    connection.execute(f"CREATE OR REPLACE TABLE {_INTERNAL}.{name} AS SELECT * FROM _copied")
    connection.unregister("_copied")
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
