"""The view ``worker_time``: how long each worker of a certification had work.

run_id, worker
units, draws        that it committed
seconds             in which it had at least one unit; units held at once count once, and breaks do not count
wall_seconds        from the beginning of its first unit to the end of its last

Neither contains what comes before the first unit and after the last one (start-up, loading the encoder).
"""

from __future__ import annotations

import duckdb

_WORKER_TIME = """
CREATE VIEW worker_time AS
WITH spans AS (
    SELECT run_id, worker, draws, epoch(committed_at) - seconds AS began, epoch(committed_at) AS ended FROM units
),
before AS (
    SELECT *, max(ended) OVER (PARTITION BY run_id, worker ORDER BY began, ended
                               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM spans
)
SELECT run_id, worker, count(*) AS units, sum(draws)::BIGINT AS draws,
       sum(greatest(0, ended - greatest(began, coalesce(reached, began)))) AS seconds,
       max(ended) - min(began) AS wall_seconds
FROM before GROUP BY run_id, worker ORDER BY run_id, worker
"""


def create_cost_view(connection: duckdb.DuckDBPyConnection) -> None:
    """Create ``worker_time``; the table ``units`` must exist."""
    connection.execute(_WORKER_TIME)
