"""The published tables: every column with type, unit and meaning, and rows that keep to them."""

from smoothcert.store.tables.attacks import ATTACKS
from smoothcert.store.tables.certificates import CERTIFICATES
from smoothcert.store.tables.columns import Column, TableSchema
from smoothcert.store.tables.registry import TABLES
from smoothcert.store.tables.rows import rows_to_table

__all__ = ["ATTACKS", "CERTIFICATES", "Column", "TABLES", "TableSchema", "rows_to_table"]
