"""MLflow: aggregates, lineage and documents of a run. MLflow itself is imported when a run is tracked."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothcert.tracking.track import TrackingResult, track_run

__all__ = ["TrackingResult", "track_run"]


def __getattr__(name: str) -> object:
    # summaries and DuckDB are loaded when a run is tracked: where it would be tracked can be told without
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smoothcert.tracking import track

    return getattr(track, name)


def __dir__() -> list[str]:
    return __all__
