"""What is measured of a run while it goes on, for Prometheus: one entry an instrument, the same everywhere.

Workers on Ray show these through Ray's own endpoints (ray_metrics.py); the driver writes those of all workers together
as a text file, which the textfile collector of the node exporter reads (metrics_file.py). Ray puts ``ray_`` before
every name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from smoothcert.runtime.progress import Progress, Rates

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One measured quantity.

    Attributes:
        name: in Prometheus; counters end in ``_total``.
        kind: a counter only grows within one process.
        meaning: what it is, with its unit.
        value: its value; None while it is not known.
    """

    name: str
    kind: Literal["counter", "gauge"]
    meaning: str
    value: Callable[[Progress, Rates], float | None]


INSTRUMENTS = (
    Instrument("smoothcert_draws_total", "counter", "Noisy forward passes.", lambda p, r: p.draws),
    Instrument("smoothcert_pairs_total", "counter", "Pairs with an outcome.", lambda p, r: p.pairs),
    Instrument(
        "smoothcert_quarantined_pairs_total",
        "counter",
        "Pairs among them that claim nothing.",
        lambda p, r: p.quarantined,
    ),
    Instrument("smoothcert_units_total", "counter", "Units written.", lambda p, r: p.units),
    Instrument(
        "smoothcert_device_busy_seconds_total",
        "counter",
        "Seconds in which devices worked on draws.",
        lambda p, r: p.load.busy_s,
    ),
    Instrument(
        "smoothcert_device_seconds_total",
        "counter",
        "Seconds in which devices were there for it.",
        lambda p, r: p.load.open_s,
    ),
    Instrument("smoothcert_workers", "gauge", "Workers that are ready.", lambda p, r: p.load.workers),
    Instrument("smoothcert_units_in_flight", "gauge", "Units at work.", lambda p, r: p.load.units_in_flight),
    Instrument(
        "smoothcert_pairs_waiting",
        "gauge",
        "Pairs read ahead that wait for a device; 0 with an idle device: reading or decoding is too slow.",
        lambda p, r: p.load.pairs_waiting,
    ),
    Instrument(
        "smoothcert_outcomes_waiting",
        "gauge",
        "Measured pairs whose rows are not made yet.",
        lambda p, r: p.load.outcomes_waiting,
    ),
    Instrument("smoothcert_draws_per_second", "gauge", "Draws a second, lately.", lambda p, r: r.draws_per_s),
    Instrument("smoothcert_pairs_per_second", "gauge", "Pairs a second, lately.", lambda p, r: r.pairs_per_s),
    Instrument(
        "smoothcert_device_busy_ratio",
        "gauge",
        "Share of the devices' time in which they worked, lately, in [0, 1].",
        lambda p, r: r.busy_share,
    ),
)


def prometheus_text(values: Iterable[tuple[Instrument, float | None]], labels: Labels) -> str:
    """Instruments with their values in Prometheus' text format 0.0.4; those without a value are left out."""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    lines = []
    for instrument, value in values:
        if value is not None:
            lines += [
                f"# HELP {instrument.name} {instrument.meaning}",
                f"# TYPE {instrument.name} {instrument.kind}",
                f"{instrument.name}{{{inside}}} {value:.17g}",
            ]
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
