"""A metric of its own."""

from __future__ import annotations

from smoothcert.catalogue.metrics import Metric

STEADY = Metric(
    "share", "smooth_norm_lcb >= 0.9", "pairs whose smoothed feature keeps nine tenths of its length"
)
