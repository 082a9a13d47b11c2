"""Every table that a unit may commit rows of."""

from __future__ import annotations

from smoothcert.store.tables.answers import ANSWERS
from smoothcert.store.tables.attacked_answers import ATTACKED_ANSWERS
from smoothcert.store.tables.attacks import ATTACKS
from smoothcert.store.tables.certificates import CERTIFICATES
from smoothcert.store.tables.columns import TableSchema

TABLES: dict[str, TableSchema] = {
    table.name: table for table in (CERTIFICATES, ATTACKS, ANSWERS, ATTACKED_ANSWERS)
}
"""By name."""
