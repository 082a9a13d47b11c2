"""What rows of an honest run never show, whatever table they are of: one set of rules for every task."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from smoothcert.audit.rules import Rule
from smoothcert.sql.literals import quote
from smoothcert.store import CERTIFICATES, RunInfo, TableSchema


def table_rules(info: RunInfo, table: TableSchema) -> Iterator[Rule]:
    """What the rows of one table show, for one run."""
    here = f"FROM {table.name} WHERE run_id = {quote(info.run_id)}"
    yield Rule("not-a-number", "4.1", "a number is NaN or infinite", _broken_numbers(table, here))
    key = ", ".join(table.key)
    yield Rule(
        "doubled-row",
        "4.4",
        f"table {table.name} has more than one row with the same {key}",
        f"SELECT pair_id, concat_ws(', ', {key}, count(*) || ' rows') AS detail {here} GROUP BY {key} "
        "HAVING count(*) > 1",
    )
    yield Rule(
        "merged-attempts",
        "4.4",
        f"rows of one unit of table {table.name} come from several attempts",
        f"SELECT any_value(pair_id) AS pair_id, unit_id AS detail {here} "
        "GROUP BY unit_id HAVING count(DISTINCT attempt) > 1",
    )
    if table is not CERTIFICATES:
        yield Rule(
            "foreign-pair",
            "4.4",
            f"a row of table {table.name} is about a pair that the run has no certificate row of",
            f"SELECT o.pair_id, o.unit_id AS detail FROM (SELECT * {here}) o ANTI JOIN (SELECT pair_id FROM "
            f"certificates WHERE run_id = {quote(info.run_id)}) c ON o.pair_id = c.pair_id",
        )


def _broken_numbers(table: TableSchema, here: str) -> str:
    """Rows where a number is NaN, or infinite where it may not be."""
    conditions = []
    for column in table.columns:
        if pa.types.is_floating(column.type):
            conditions.append(f"isnan({column.name})")
            if not column.infinite:
                conditions.append(f"isinf({column.name})")
        elif pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type):
            # as text: one test for any length
            test = "NaN" if column.infinite else "NaN|Infinity|inf"
            conditions.append(f"regexp_matches({column.name}::VARCHAR, '{test}', 'i')")
    return f"SELECT pair_id, 'see the row' AS detail {here} AND ({' OR '.join(conditions)})"
