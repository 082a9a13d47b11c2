"""SQL aggregates with 95% confidence intervals: what the pairs at hand say about the population they were drawn from.

    share_interval(holds, finished := true)     n, share, low, high; NULL does not hold, as in certified_share
    mean_interval(x, least := 0, most := 1)     n, mean, low, high; x between least and most; also from moments:
                                                interval_of_mean(n, mean, variance / (most - least)^2, min, max)
    median_interval(x)                          n, median, low, high
    quantile_interval(x, q)                     n, quantile, low, high

Each is a struct and works with GROUP BY: ``SELECT label, unnest(median_interval(certified_radius)) FROM certificates
GROUP BY label``. Means and quantiles leave NULL out, and n says how many were counted; ``coalesce(certified_radius,
0)`` counts pairs without a certificate too. Intervals are free of assumptions on the distribution. They are for a
number of pairs that was fixed beforehand, so for finished runs; ``finished := false`` makes a share valid at every
moment of a run. None contains the failures that alpha allows.
"""

from __future__ import annotations

from functools import partial
from math import log

import duckdb
import pyarrow as pa

from smoothcert.sql.definitions import Definitions

CONFIDENCE = 0.95
"""Coverage of the intervals."""
INTERVALS = ("share_interval", "mean_interval", "median_interval", "quantile_interval")
"""Names of the functions."""

_TERM = log(2.0 / ((1.0 - CONFIDENCE) / 2.0))
# sums over many rows round; the intervals are widened by more than that
_SLACK = 1e-9
_HALF = f"""(sqrt(2.0 * {_TERM!r} * variance / n) + 7.0 * {_TERM!r} / (3.0 * (n - 1)) + {_SLACK!r}) * (most - least)"""
# in every field: a query that takes one of them computes no other
_CHECK = """
            WHEN least >= most THEN error('mean_interval: least must be below most')
            WHEN smallest < least OR largest > most THEN error(
                'mean_interval: x holds ' || (CASE WHEN smallest < least THEN smallest ELSE largest END)::VARCHAR
                || ', outside of least=' || (least)::VARCHAR || ' and most=' || (most)::VARCHAR
                || '; name its range, e.g. mean_interval(x, least := -1, most := 1)')"""
_SORTED = "list_sort(list(x) FILTER (x IS NOT NULL))"

_MACROS = {
    "share_interval": """CREATE MACRO share_interval(holds, finished := true) AS {
        'n': count(*),
        'share': coalesce(count_if(holds), 0) / nullif(count(*), 0),
        'low': share_low(coalesce(count_if(holds), 0), count(*), (finished)::INTEGER),
        'high': share_high(coalesce(count_if(holds), 0), count(*), (finished)::INTEGER)
    }""",
    # empirical Bernstein (Maurer and Pontil 2009, theorem 4), from moments, each side at half of the failures
    "interval_of_mean": f"""
    CREATE MACRO interval_of_mean(n, mean, variance, smallest, largest, least := 0, most := 1) AS {{
        'n': n,
        'mean': CASE {_CHECK} ELSE mean END::DOUBLE,
        'low': CASE {_CHECK}
            WHEN n = 0 THEN NULL
            WHEN n = 1 THEN least
            ELSE greatest(least, mean - {_HALF}) END::DOUBLE,
        'high': CASE {_CHECK}
            WHEN n = 0 THEN NULL
            WHEN n = 1 THEN most
            ELSE least(most, mean + {_HALF}) END::DOUBLE
    }}""",
    "mean_interval": """CREATE MACRO mean_interval(x, least := 0, most := 1) AS interval_of_mean(
        count(x), avg(x), var_samp((x - least) / (most - least)), min(x), max(x), least := least, most := most
    )""",
    "quantile_interval": f"""CREATE MACRO quantile_interval(x, q) AS {{
        'n': count(x),
        'quantile': {_SORTED}[greatest(1, ceil(q * count(x)))::BIGINT],
        'low': {_SORTED}[quantile_rank_low(count(x), q)::BIGINT],
        'high': {_SORTED}[quantile_rank_high(count(x), q)::BIGINT]
    }}""",
    "median_interval": f"""CREATE MACRO median_interval(x) AS {{
        'n': count(x),
        'median': median(x),
        'low': {_SORTED}[quantile_rank_low(count(x), 0.5)::BIGINT],
        'high': {_SORTED}[quantile_rank_high(count(x), 0.5)::BIGINT]
    }}""",
}


def define_intervals(definitions: Definitions) -> None:
    """Define the aggregates; ``share_low`` and ``share_high`` are defined elsewhere."""
    for name, side in (("quantile_rank_low", 0), ("quantile_rank_high", 1)):
        definitions.add(name, partial(_register_rank, definitions.connection, name, side))
    for name, macro in _MACROS.items():
        definitions.add_sql(name, macro)


def _register_rank(connection: duckdb.DuckDBPyConnection, name: str, side: int) -> None:
    connection.create_function(
        name, _rank(side), ["BIGINT", "DOUBLE"], "BIGINT", type="arrow", null_handling="special"
    )


def _rank(side: int) -> object:
    def rank(n: pa.ChunkedArray, q: pa.ChunkedArray) -> pa.Array:
        # scipy takes longer to import than most queries to answer
        from smoothcert.statistics.intervals import quantile_ranks

        ranks = [
            None if count is None or share is None else quantile_ranks(count, share, CONFIDENCE)[side]
            for count, share in zip(n.to_pylist(), q.to_pylist(), strict=True)
        ]
        return pa.array(ranks, type=pa.int64())

    return rank
