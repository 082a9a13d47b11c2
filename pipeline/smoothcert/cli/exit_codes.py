"""Exit codes that commands choose themselves; errors carry their own (``errors.py``)."""

NOT_SOUND = 1
"""The audit found something."""
MISSING_ROWS = 5
"""Pairs have no row, or workers failed."""
OVER_QUARANTINE_BUDGET = 6
"""More pairs are quarantined than the job accepts."""
