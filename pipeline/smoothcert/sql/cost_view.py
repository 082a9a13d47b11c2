"""The views ``worker_time`` and ``task_time``: how long each worker had work.

worker_time: of a certification
    run_id, worker
    units, draws        that it committed
    seconds             in which it had at least one unit; units held at once count once, and breaks do not count
    wall_seconds        from the beginning of its first unit to the end of its last
task_time: likewise for every table that tasks fill
    run_id, table_name (certificates, attacks, answers, ...), worker, units, draws, seconds, wall_seconds

None contains what comes before the first unit and after the last one (start-up, loading the encoder).
"""

from __future__ import annotations

from smoothcert.sql.definitions import Definitions


def define_cost_views(definitions: Definitions, spans: str) -> None:
    """Define both views.

    Args:
        definitions: where to.
        spans: a table of one row a commit: run_id, table_name, worker, draws, began, ended (seconds since 1970).
    """
    definitions.add_sql(
        "task_time",
        f"""
CREATE VIEW task_time AS
WITH before AS (
    SELECT *, max(ended) OVER (PARTITION BY run_id, table_name, worker ORDER BY began, ended
                               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM {spans}
)
SELECT run_id, table_name, worker, count(*) AS units, sum(draws)::BIGINT AS draws,
       sum(greatest(0, ended - greatest(began, coalesce(reached, began)))) AS seconds,
       max(ended) - min(began) AS wall_seconds
FROM before GROUP BY run_id, table_name, worker ORDER BY run_id, table_name, worker
""",
    )
    definitions.add_sql(
        "worker_time",
        "CREATE VIEW worker_time AS SELECT * EXCLUDE (table_name) FROM task_time WHERE table_name = 'certificates'",
    )
