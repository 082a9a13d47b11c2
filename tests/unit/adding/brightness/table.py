"""The published table ``brightness`` and the meaning of every column."""

from __future__ import annotations

import pyarrow as pa

from smoothcert.store.tables.columns import Column, TableSchema
from smoothcert.store.tables.shared_columns import origin_columns, status_columns

BRIGHTNESS = TableSchema(
    name="brightness",
    version=1,
    meaning="How bright one pair's image is under noise.",
    columns=(
        *origin_columns("The pair, as in certificates. One row per pair."),
        *status_columns("ok: measured. quarantined: nothing is known.", "read, decode, caption or worker"),
        Column("draws", pa.int32(), "Noisy copies behind the mean; 0 in quarantined rows.", unit="draws"),
        Column(
            "brightness", pa.float64(), "Mean over pixels and draws. NULL in quarantined rows.", nullable=True
        ),
    ),
)
