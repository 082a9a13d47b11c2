"""Interval aggregates: against our statistics and scipy, and what they refuse."""

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy.stats import binom

from smoothcert import statistics
from smoothcert.errors import QueryError
from smoothcert.sql import open_query
from smoothcert.sql.definitions import Definitions
from smoothcert.sql.functions import define_functions
from smoothcert.store import RunDirectory


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        definitions = Definitions(made)
        define_functions(definitions)
        definitions.provide_all()
        yield made


def ask(connection: duckdb.DuckDBPyConnection, sql: str, values: np.ndarray) -> dict[str, Any]:
    connection.register("given", {"x": values})
    ((answer,),) = connection.sql(f"SELECT {sql} AS answer FROM given").fetchall()
    found: dict[str, Any] = answer
    return found


@pytest.mark.parametrize("n", [2, 7, 100, 5000])
def test_means_have_the_interval_of_the_statistics(connection: duckdb.DuckDBPyConnection, n: int) -> None:
    values = np.random.default_rng(n).beta(2.0, 1.0, n)
    found = ask(connection, "mean_interval(x)", values)
    low, high = statistics.mean_interval(values, 0.95)
    assert found["n"] == n and found["mean"] == pytest.approx(values.mean())
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-8)
    # another range is the same interval on another scale
    scaled = ask(connection, "mean_interval(x, least := -1, most := 3)", 4.0 * values - 1.0)
    assert (scaled["low"], scaled["high"]) == pytest.approx((4 * low - 1, 4 * high - 1), abs=1e-7)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("n", [1, 5, 6, 40, 2001])
def test_quantiles_lie_between_the_ranks_that_scipy_gives(
    connection: duckdb.DuckDBPyConnection, n: int, q: float
) -> None:
    values = np.random.default_rng(n).normal(size=n)
    found = ask(connection, f"quantile_interval(x, {q})", values)
    ordered = np.sort(values)
    below, above = int(binom.ppf(0.025, n, q)), int(binom.isf(0.025, n, q)) + 1
    assert found["low"] == (ordered[below - 1] if below >= 1 else None)
    assert found["high"] == (ordered[above - 1] if above <= n else None)
    assert found["quantile"] == np.quantile(values, q, method="inverted_cdf")
    if q == 0.5:
        median = ask(connection, "median_interval(x)", values)
        assert (median["low"], median["high"]) == (found["low"], found["high"])
        assert median["median"] == np.median(values)


def test_shares_have_the_exact_interval_and_null_does_not_hold(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    sql = "SELECT share_interval(CASE WHEN i % 4 = 0 THEN NULL ELSE i % 4 = 1 END{}) FROM range(100) t(i)"
    for more, anytime in (("", False), (", finished := false", True)):
        ((found,),) = connection.sql(sql.format(more)).fetchall()
        low, high = statistics.share_interval(25, 100, 0.95, anytime=anytime)
        assert found == {"n": 100, "share": 0.25, "low": low, "high": high}
    ((unknown,),) = connection.sql("SELECT share_interval(NULL::BOOLEAN) FROM range(100)").fetchall()
    assert unknown["share"] == 0.0 and (unknown["low"], unknown["high"]) == statistics.share_interval(
        0, 100, 0.95
    )


def test_groups_nulls_and_nothing_at_all(connection: duckdb.DuckDBPyConnection) -> None:
    sql = (
        "SELECT g, unnest(median_interval(x)) FROM (SELECT i % 2 AS g, CASE WHEN i < 40 THEN i END AS x "
        "FROM range(100) t(i)) GROUP BY g ORDER BY g"
    )
    rows = connection.sql(sql).fetchall()
    assert [row[:3] for row in rows] == [(0, 20, 19.0), (1, 20, 20.0)]
    # 20 values: the 6th and the 15th, as in every table of the sign test
    assert [row[3:] for row in rows] == [(10, 28), (11, 29)]
    (empty,) = connection.sql(
        "SELECT share_interval(x > 0), mean_interval(x), median_interval(x) FROM (SELECT 1.0 AS x) WHERE x > 2"
    ).fetchall()
    assert all(each["n"] == 0 and each["low"] is each["high"] is None for each in empty)
    (one,) = connection.sql("SELECT mean_interval(x), median_interval(x) FROM (SELECT 0.5 AS x)").fetchall()
    assert (one[0]["low"], one[0]["high"]) == (0.0, 1.0)
    assert (one[1]["low"], one[1]["high"]) == (None, None)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("mean_interval(2.0 * draws)", "outside of least=0 and most=1"),
        ("mean_interval(2.0 * draws).high", "outside of least=0 and most=1"),
        ("mean_interval(2.0 * draws).mean", "outside of least=0 and most=1"),
        ("mean_interval('nan'::DOUBLE)", "holds nan"),
        ("mean_interval(smooth_norm, least := 1, most := 0)", "least must be below most"),
        ("quantile_interval(draws, 1.5)", "quantile=1.5 must be between 0 and 1"),
    ],
)
def test_what_has_no_interval_is_refused(tmp_path: Any, make: Any, sql: str, said: str) -> None:
    run = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(1))
    make.commit_unit(run, run.plan()[0])
    with open_query([run.url]) as query, pytest.raises(QueryError, match=said):
        query.sql(f"SELECT {sql} FROM certificates")


def test_unknown_functions_are_answered_with_these(tmp_path: Any, make: Any) -> None:
    run = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(1))
    make.commit_unit(run, run.plan()[0])
    with open_query([run.url]) as query:
        with pytest.raises(QueryError, match="median_interval"):
            query.sql("SELECT interval_of_median(draws) FROM certificates")
        found = query.sql("SELECT unnest(share_interval(certified_radius >= 0.25)) FROM certificates")
        share = query.sql(
            "SELECT pairs, share, share_low, share_high FROM certified_share WHERE claim = 'class@0.25'"
        )
    assert list(found.to_pylist()[0].values()) == list(share.to_pylist()[0].values())


def test_ebh_takes_the_name_that_runs_shows(tmp_path: Any, make: Any) -> None:
    run = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(1))
    rows = [make.ok_row("u00000-0", f"p{i}", log_e_value=(9.0 if i < 2 else 0.0, 0.0)) for i in range(4)]
    assert run.commits.commit(make.attempt_unit(run, "u00000-0", rows))
    with open_query([run.url]) as query:
        (names,) = query.sql("SELECT targets FROM runs")["targets"].to_pylist()
        assert names == ["angular>=0.8@0.25", "class@0.5"]
        chosen = [
            query.sql(f"SELECT pair_id FROM ebh({target}, 0.05) ORDER BY 1")["pair_id"].to_pylist()
            for target in (f"'{names[0]}'", "1", f"'{names[1]}'")
        ]
    assert chosen == [["p0", "p1"], ["p0", "p1"], []]
