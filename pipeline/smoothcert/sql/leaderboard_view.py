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

from collections.abc import Sequence

import pyarrow as pa

from smoothcert.sql.attack_views import WORST_CASE
from smoothcert.sql.definitions import Definitions
from smoothcert.sql.measures import Measure, measures
from smoothcert.store.run_info import RunInfo


def create_leaderboard_view(
    definitions: Definitions, schema: str, runs: list[tuple[RunInfo, str, bool]]
) -> None:
    """Create ``leaderboard``.

    Args:
        definitions: of the connection: the views of attacks, ``runs``, ``worker_time``, the functions of intervals.
        schema: where tables that users need not see go.
        runs: for each run what it is about, the relation of its visible rows, and whether it is finished.
    """
    rows = []
    alike: dict[tuple[Measure, ...], list[tuple[str, str]]] = {}
    for info, relation, finished in runs:
        listed = tuple(measures(info))
        rows += [_row(info, position, each, finished) for position, each in enumerate(listed, start=1)]
        alike.setdefault(listed, []).append((info.run_id, relation))
    counted = [_counted(relations, listed) for listed, relations in alike.items()]
    connection = definitions.connection
    connection.register("_measures", pa.Table.from_pylist(rows, schema=_MEASURES))
    connection.execute(f"CREATE OR REPLACE TABLE {schema}.measures AS SELECT * FROM _measures")
    connection.unregister("_measures")
    definitions.execute(_VIEW.format(schema=schema, counted=" UNION ALL ".join(counted), worst=WORST_CASE))


def _row(info: RunInfo, position: int, each: Measure, finished: bool) -> dict[str, object]:
    return {
        "run_id": info.run_id,
        "position": position,
        "kind": each.kind,
        "finished": finished,
        "subject": each.subject,
        "figure": each.figure,
        "certificate": each.certificate or None,
        "rule": each.rule or None,
        "radius": each.radius,
        "cosine": each.cosine,
    }


def _counted(relations: Sequence[tuple[str, str]], listed: Sequence[Measure]) -> str:
    """Every figure of runs with the same measures out of one pass over their rows, as lists that follow the measures.

    Intervals are computed once, over these lists: written out for every figure, DuckDB would take seconds to bind them;
    and what it takes for hundreds of aggregates it takes once for all runs of a grid.
    """
    values = "".join(f", {each.value} AS v{i}" for i, each in enumerate(listed))
    lists = ", ".join(
        f"[{', '.join(_moment(each, f'v{i}', name) for i, each in enumerate(listed))}]::{kind}[] AS {name}"
        for name, kind in _MOMENTS.items()
    )
    if len(relations) == 1:
        ((run_id, relation),) = relations
        return f"SELECT '{run_id}' AS run_id, {lists} FROM (SELECT pair_id{values} FROM {relation})"
    rows = " UNION ALL BY NAME ".join(
        f"SELECT '{run_id}' AS _of_run, * FROM {name}" for run_id, name in relations
    )
    # a run without rows has figures over none, as it has alone
    none = "".join(f" UNION ALL BY NAME SELECT '{run_id}' AS _of_run" for run_id, _ in relations)
    measured = f"SELECT _of_run, pair_id{values} FROM ({rows}){none}"
    return f"SELECT _of_run AS run_id, {lists} FROM ({measured}) GROUP BY _of_run"


_MOMENTS = {
    "counts": "BIGINT",
    "hits": "BIGINT",
    "means": "DOUBLE",
    "variances": "DOUBLE",
    "smallest": "DOUBLE",
    "largest": "DOUBLE",
}
_OF_MEAN = {"means": "avg", "variances": "var_samp", "smallest": "min", "largest": "max"}


def _moment(each: Measure, column: str, name: str) -> str:
    """One number about the column of a measure; NULL where shares, or means, have none."""
    if name == "counts":
        return f"count({column})"
    if name == "hits":
        return f"coalesce(count_if({column}), 0)" if each.kind == "share" else "NULL"
    return f"{_OF_MEAN[name]}({column})" if each.kind == "mean" else "NULL"


_MEASURES = pa.schema(
    {
        "run_id": pa.string(),
        "position": pa.int32(),
        "kind": pa.string(),
        "finished": pa.bool_(),
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
placed AS (
    SELECT m.*, c.counts[m.position] AS n, c.hits[m.position] AS hits, c.means[m.position] AS mean,
           interval_of_mean(n, mean, c.variances[m.position], c.smallest[m.position], c.largest[m.position]) AS ends
    FROM {{schema}}.measures m JOIN counted c USING (run_id)
),
certified AS (
    SELECT run_id, subject, figure, certificate, rule, radius, cosine, {_NO_ATTACK}, n,
           CASE kind WHEN 'share' THEN hits / nullif(n, 0) ELSE mean END AS value,
           CASE WHEN kind = 'share' THEN share_low(hits, n, finished::INTEGER)
                WHEN finished THEN ends.low END AS low,
           CASE WHEN kind = 'share' THEN share_high(hits, n, finished::INTEGER)
                WHEN finished THEN ends.high END AS high,
           position
    FROM placed
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
