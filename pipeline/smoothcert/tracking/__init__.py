"""MLflow: aggregates, lineage and documents of a run. MLflow itself is imported when a run is tracked."""

from smoothcert.tracking.track import TrackingResult, track_run

__all__ = ["TrackingResult", "track_run"]
