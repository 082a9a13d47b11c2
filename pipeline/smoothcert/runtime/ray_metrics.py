"""A worker's numbers on Ray's own metrics endpoints, one on each node, which Prometheus finds by itself.

Ray puts ``ray_`` before names and ``_total`` behind those of counters.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from smoothcert.runtime.metrics import INSTRUMENTS, Labels
from smoothcert.runtime.progress import Progress, RateWindow


class RayMetrics:
    """Shows what one process does.

    Args:
        labels: which run and worker it is.
    """

    def __init__(self, labels: Labels) -> None:
        keys = tuple(labels)
        self._window = RateWindow()
        self._counted: dict[str, float] = {}
        self._series: dict[str, Counter | Gauge] = {}
        for each in INSTRUMENTS:
            make = Counter if each.kind == "counter" else Gauge
            series = make(each.name.removesuffix("_total"), each.meaning, keys)
            series.set_default_tags(dict(labels))
            self._series[each.name] = series

    def show(self, progress: Progress) -> None:
        """Take over the newest numbers."""
        rates = self._window.note(progress)
        for each in INSTRUMENTS:
            value = each.value(progress, rates)
            series = self._series[each.name]
            if value is None:
                continue
            if isinstance(series, Gauge):
                series.set(value)
            elif (more := value - self._counted.get(each.name, 0.0)) > 0:
                series.inc(more)
                self._counted[each.name] = value
