"""The view ``leaderboard``: every figure of every run, one a row, so that runs can be ranked by any of them.

run_id, name, subject       whose figure; subject as in attacks: bare, smoothed, or the name of a defence
figure                      accuracy, certified_share, certified_accuracy, certified_cosine, target_certified, a metric
                            of the catalogue; robust_accuracy, attack_success (among the right ones, worst case);
                            draws_per_pair, seconds_per_pair
certificate, rule, radius, cosine   what is certified; NULL elsewhere
norm, budget, objective     of the attacks; NULL elsewhere
value, low, high            the figure and its 95% interval; pairs: how many it is over

Figures are over all pairs of a run, as in ``certified_share`` (see ``measures.py``). ``seconds_per_pair`` is the time
in which a worker had units of the certification, summed over workers: what one worker would take.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from smoothcert.sql.attack_views import WORST_CASE
from smoothcert.sql.measures import Measure, measures
from smoothcert.store.run_info import RunInfo


def create_leaderboard_view(
    connection: duckdb.DuckDBPyConnection, schema: str, runs: list[tuple[RunInfo, str, bool]]
) -> None:
    """Create ``leaderboard``; the views of attacks, ``runs`` and ``worker_time`` must exist.

    Args:
        connection: with the functions of intervals.
        schema: where tables that users need not see go.
        runs: for each run what it is about, the relation of its visible rows, and whether it is finished.
    """
    rows, counted = [], []
    for info, relation, finished in runs:
        listed = measures(info)
        rows += [_row(info, position, each) for position, each in enumerate(listed, start=1)]
        figures = ", ".join(_figure(each, finished) for each in listed)
        counted.append(f"SELECT '{info.run_id}' AS run_id, [{figures}] AS figures FROM {relation}")
    connection.register("_measures", pa.Table.from_pylist(rows, schema=_MEASURES))
    connection.execute(f"CREATE TABLE {schema}.measures AS SELECT * FROM _measures")
    connection.unregister("_measures")
    connection.execute(_VIEW.format(schema=schema, counted=" UNION ALL ".join(counted), worst=WORST_CASE))


def _row(info: RunInfo, position: int, each: Measure) -> dict[str, object]:
    return {
        "run_id": info.run_id,
        "position": position,
        "subject": each.subject,
        "figure": each.figure,
        "certificate": each.certificate or None,
        "rule": each.rule or None,
        "radius": each.radius,
        "cosine": each.cosine,
    }


def _figure(each: Measure, finished: bool) -> str:
    """One figure as a struct, out of one pass over the rows."""
    if each.kind == "share":
        hits, pairs = f"coalesce(count_if({each.value}), 0)::BIGINT", f"count({each.value})"
        ends = ", ".join(f"'{end}': share_{end}({hits}, {pairs}, {int(finished)})" for end in ("low", "high"))
        return f"{{'n': {pairs}, 'value': {hits} / nullif({pairs}, 0), {ends}}}"
    ends = ", ".join(
        f"'{end}': mean_interval({each.value}).{end}" if finished else f"'{end}': NULL::DOUBLE"
        for end in ("low", "high")
    )
    return f"{{'n': count({each.value}), 'value': avg({each.value})::DOUBLE, {ends}}}"


_MEASURES = pa.schema(
    {
        "run_id": pa.string(),
        "position": pa.int32(),
        "subject": pa.string(),
        "figure": pa.string(),
        "certificate": pa.string(),
        "rule": pa.string(),
        "radius": pa.float64(),
        "cosine": pa.float64(),
    }
)

QUESTION = (
    "(objective || CASE WHEN reference IN ('smoothed', 'predicted') THEN ' from ' || reference ELSE '' END "
    "|| coalesce(' < ' || threshold::VARCHAR, '') || coalesce(' ' || target, ''))"
)
"""SQL: the objective of an attack and what makes it one question, in words."""
_PLACES = "norm, budget, objective"
_NO_ATTACK = "NULL::VARCHAR AS norm, NULL::DOUBLE AS budget, NULL::VARCHAR AS objective"
_NO_CERTIFICATE = (
    "NULL::VARCHAR AS certificate, NULL::VARCHAR AS rule, NULL::DOUBLE AS radius, NULL::DOUBLE AS cosine"
)

_VIEW = f"""
CREATE VIEW leaderboard AS
WITH counted AS ({{counted}}),
certified AS (
    SELECT m.run_id, m.subject, m.figure, m.certificate, m.rule, m.radius, m.cosine, {_NO_ATTACK},
           unnest(n.figures[m.position]), m.position
    FROM {{schema}}.measures m JOIN counted n USING (run_id)
),
attacked AS (
    SELECT run_id, subject, unnest(['robust_accuracy', 'attack_success']) AS figure, {_NO_CERTIFICATE},
           norm, budget, {QUESTION} AS objective,
           unnest([pairs_asked, right_before]) AS n, unnest([robust_accuracy, success_among_right]) AS value,
           unnest([robust_accuracy_low, success_among_right_low]) AS low,
           unnest([robust_accuracy_high, success_among_right_high]) AS high, 1000000 AS position
    FROM attack_success WHERE attack = '{{worst}}'
),
busy AS (
    SELECT run_id, sum(seconds) AS seconds FROM worker_time GROUP BY run_id
),
cost AS (
    SELECT r.run_id, 'smoothed' AS subject, unnest(['draws_per_pair', 'seconds_per_pair']) AS figure,
           {_NO_CERTIFICATE}, {_NO_ATTACK}, r.committed_pairs AS n,
           unnest([r.draws, b.seconds]) / nullif(r.committed_pairs, 0) AS value,
           NULL::DOUBLE AS low, NULL::DOUBLE AS high, 2000000 AS position
    FROM runs r JOIN busy b USING (run_id)
)
SELECT run_id, r.name, subject, figure, certificate, rule, radius, cosine, {_PLACES}, value, low, high, n AS pairs
FROM (SELECT * FROM certified UNION ALL BY NAME SELECT * FROM attacked UNION ALL BY NAME SELECT * FROM cost)
JOIN (SELECT run_id, name FROM runs) r USING (run_id)
ORDER BY run_id, position, figure, norm, budget, subject
"""
