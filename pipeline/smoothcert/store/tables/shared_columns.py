"""Columns that several tables have: where a row comes from, whether it says anything, and which model answered."""

from __future__ import annotations

import pyarrow as pa

from smoothcert.store.tables.columns import Column


def origin_columns(pair: str) -> tuple[Column, ...]:
    """Run, unit, attempt, pair and file of a row; all but run and attempt are in the rows that a worker makes.

    Args:
        pair: meaning of ``pair_id``, with how many rows there are for each.
    """
    return (
        Column("run_id", pa.string(), "The run directory that the row belongs to."),
        Column("unit_id", pa.string(), "The unit of work that the row was committed with."),
        Column("attempt", pa.string(), "The attempt at that unit; all rows of a unit come from one attempt."),
        Column("pair_id", pa.string(), pair),
        Column("source_uri", pa.string(), "The file that holds or lists the pair."),
    )


def status_columns(status: str, stages: str) -> tuple[Column, ...]:
    """Whether a row says anything, and why not.

    Args:
        status: meaning of ``status``, which is ok or quarantined.
        stages: where a pair may fail, in words.
    """
    return (
        Column("status", pa.string(), status, values=("ok", "quarantined")),
        Column(
            "error_stage",
            pa.string(),
            f"Where a quarantined pair failed: {stages}. NULL in ok rows.",
            nullable=True,
        ),
        Column(
            "error_class",
            pa.string(),
            "The kind of error, e.g. DecodeError. NULL in ok rows.",
            nullable=True,
        ),
        Column("error_message", pa.string(), "What went wrong, in words. NULL in ok rows.", nullable=True),
    )


def model_columns() -> tuple[Column, ...]:
    """The multimodal model behind an answer, its prompts and its arithmetic."""
    return (
        Column("model", pa.string(), "The model that answered."),
        Column("model_digest", pa.string(), "Digest of what determines its answers, without prompts."),
        Column("template_digest", pa.string(), "Digest of the prompt around the questions."),
        Column("questions_digest", pa.string(), "Digest of the file of questions."),
        Column("device", pa.string(), "Kind of device that answered."),
        Column("dtype", pa.string(), "Arithmetic inside the model."),
    )
