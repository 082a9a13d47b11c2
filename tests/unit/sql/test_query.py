import io
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import smoothcert.certificates as certificates
import smoothcert.statistics as statistics
from smoothcert.errors import QueryError, RunDirectoryError, StoreError
from smoothcert.sql import Query, open_query
from smoothcert.store import CERTIFICATES, RunDirectory

Opener = Callable[..., RunDirectory]


def filled(url: Any, make: Any) -> RunDirectory:
    """Three units of four pairs; pair 3 is quarantined."""
    run = RunDirectory.create_or_open(url, make.identity(), make.units(3))
    for unit in run.plan():
        make.commit_unit(run, unit)
    return run


@pytest.fixture
def run(url: str, make: Any) -> RunDirectory:
    """A run of its own, on each kind of file system."""
    return filled(url, make)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, make: Any) -> RunDirectory:
    """A run for tests that only read."""
    return filled(tmp_path_factory.mktemp("shared") / "run", make)


@pytest.fixture(scope="module")
def query(shared: RunDirectory) -> Iterator[Query]:
    with open_query([shared.url]) as opened:
        yield opened


def values(query: Query, sql: str) -> list[Any]:
    """The result as plain values; tuples if there are several columns."""
    table = query.sql(sql)
    columns = [column.to_pylist() for column in table.columns]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


# what counts


def test_every_pair_counts_once(run: RunDirectory) -> None:
    sql = "SELECT status, count(*), count(DISTINCT pair_id) FROM certificates GROUP BY 1 ORDER BY 1"
    with open_query([run.url]) as query:
        found = values(query, sql)
    assert found == [("ok", 11, 11), ("quarantined", 1, 1)]


def test_rows_come_back_as_they_went_in(query: Query, make: Any) -> None:
    [back] = query.sql(
        "SELECT * EXCLUDE (run_id, attempt) FROM certificates WHERE pair_id = 'a.parquet#1'"
    ).to_pylist()
    row = make.ok_row("u00000-0", "a.parquet#1")
    assert back == {name: list(v) if isinstance(v, tuple) else v for name, v in row.items()}


def test_losers_and_leftovers_do_not_count(run: RunDirectory, make: Any) -> None:
    unit = run.plan()[0]
    assert not make.commit_unit(run, unit)
    run.write_rows(CERTIFICATES, "u99", "a", [make.ok_row("u99", "stray")])
    with open_query([run.url]) as query:
        assert values(query, "SELECT count(*) FROM certificates") == [12]
        assert values(query, "SELECT count(*) FROM certificates WHERE pair_id = 'stray'") == [0]


def test_a_query_sees_the_moment_it_was_opened(open_run: Opener, make: Any) -> None:
    run = open_run()
    make.commit_unit(run, run.plan()[0])
    with open_query([run.url]) as before:
        make.commit_unit(run, run.plan()[1])
        assert values(before, "SELECT count(*) FROM certificates") == [4]
    with open_query([run.url]) as after:
        assert values(after, "SELECT count(*) FROM certificates") == [8]


def test_a_run_without_rows_can_be_asked(open_run: Opener) -> None:
    with open_query([open_run().url]) as query:
        for view in ("certificates", "bounds", "quarantine", "units"):
            assert values(query, f"SELECT count(*) FROM {view}") == [0]
        assert values(query, "SELECT committed_pairs, finished FROM runs") == [(0, False)]
        shares = values(query, "SELECT DISTINCT pairs, certified, share, share_low FROM certified_share")
        assert shares == [(0, 0, None, None)]


def test_split_and_superseded_rows_show_once(run: RunDirectory, make: Any) -> None:
    again = make.attempt_unit(
        run, "r1", [make.ok_row("r1", "a.parquet#3")], supersedes={"u00000-0": ("a.parquet#3",)}
    )
    assert run.commits.commit(again)
    with open_query([run.url]) as query:
        assert values(query, "SELECT status, count(*) FROM certificates GROUP BY 1") == [("ok", 12)]
        assert values(query, "SELECT count(*) FROM quarantine") == [0]
        assert values(query, "SELECT unit_id FROM certificates WHERE pair_id = 'a.parquet#3'") == ["r1"]
        assert values(query, "SELECT committed_pairs, finished FROM runs") == [(12, True)]


# views


def test_bounds_are_long(query: Query) -> None:
    found = values(
        query, "SELECT certificate, radius, cosine FROM bounds WHERE pair_id = 'a.parquet#1' ORDER BY 1, 2"
    )
    assert found == [
        ("angular", 0.25, 0.9),
        ("angular", 0.5, 0.6),
        ("caption", 0.25, 0.05),
        ("caption", 0.5, -0.2),
        ("caption_distribution", 0.25, 0.1),
        ("caption_distribution", 0.5, -0.1),
        ("caption_percentile", 0.25, 0.2),
        ("caption_percentile", 0.5, -0.1),
        ("class_distribution", 0.25, 0.1),
        ("class_distribution", 0.5, None),
        ("class_percentile", 0.25, 0.2),
        ("class_percentile", 0.5, -0.1),
        ("clean_distribution", 0.25, 0.75),
        ("clean_distribution", 0.5, None),
        ("clean_percentile", 0.25, 0.9),
        ("clean_percentile", 0.5, 0.7),
        ("clean_reference", 0.25, 0.8),
        ("clean_reference", 0.5, None),
        ("fcsb", 0.25, 0.7),
        ("fcsb", 0.5, None),
        ("large_radius", 0.25, None),
        ("large_radius", 0.5, None),
        ("pilot_percentile", 0.25, 0.9),
        ("pilot_percentile", 0.5, 0.7),
        ("second_moment", 0.25, 0.95),
        ("second_moment", 0.5, 0.7),
    ]
    assert values(query, "SELECT count(*) FROM bounds") == [11 * 26]


def test_quarantine_says_where_and_why(query: Query) -> None:
    assert values(query, "SELECT pair_id, error_stage, error_class, error_message FROM quarantine") == [
        ("a.parquet#3", "decode", "DecodeError", "cut")
    ]


def test_units_come_from_the_commits(query: Query) -> None:
    found = values(
        query, "SELECT unit_id, rows, ok, quarantined, draws, seconds, worker FROM units ORDER BY 1"
    )
    assert found == [
        ("u00000-0", 4, 3, 1, 464, 1.5, "w1"),
        ("u00001-0", 4, 4, 0, 464, 1.5, "w1"),
        ("u00002-0", 4, 4, 0, 464, 1.5, "w1"),
    ]
    assert values(
        query, "SELECT count(*) FROM units WHERE committed_at > now()::TIMESTAMP - INTERVAL 1 HOUR"
    ) == [3]


def test_runs_say_what_they_are_about(query: Query, shared: RunDirectory) -> None:
    [row] = query.sql("SELECT * FROM runs").to_pylist()
    assert row["run_id"] == shared.run_id and row["name"] == "tiny" and row["url"] == shared.url
    assert (row["sigma"], row["alpha"], row["radii"], row["cosines"]) == (0.5, 0.001, [0.25, 0.5], [0.5, 0.8])
    assert row["targets"] == ["angular>=0.8@0.25", "class@0.5"]
    assert (row["pairs"], row["committed_pairs"], row["finished"], row["units"]) == (12, 12, True, 3)


def test_certified_shares_of_targets(query: Query) -> None:
    rows = query.sql("SELECT * FROM certified_share WHERE kind = 'target'").to_pylist()
    assert [(row["claim"], row["certified"], row["pairs"]) for row in rows] == [
        ("angular>=0.8@0.25", 11, 12),
        ("class@0.5", 0, 12),
    ]
    low, high = statistics.share_interval(11, 12, 0.95)
    assert (rows[0]["share"], rows[0]["share_low"], rows[0]["share_high"]) == (11 / 12, low, high)
    assert rows[0]["interval"] == "exact"
    assert rows[0]["expected_false_certificates"] == pytest.approx(0.012)
    assert (rows[0]["certificate"], rows[0]["radius"], rows[0]["cosine"]) == ("angular", 0.25, 0.8)
    assert rows[1]["cosine"] is None


def test_certified_shares_of_the_grid(query: Query) -> None:
    found = dict(values(query, "SELECT claim, certified FROM certified_share WHERE kind = 'grid'"))
    assert len(found) == 7 * 2 * 2 + 3 * 2
    assert found["vote@0.25"] == found["vote@0.5"] == 11 and found["clean_percentile>=0.8@0.5"] == 0
    assert found["fcsb>=0.5@0.25"] == 11 and found["fcsb>=0.8@0.25"] == 0 and found["fcsb>=0.5@0.5"] == 0
    assert found["angular>=0.5@0.5"] == 11 and found["angular>=0.8@0.5"] == 0
    assert found["class_distribution@0.25"] == 11 and found["class_distribution@0.5"] == 0
    assert found["class@0.25"] == 11 and found["class@0.5"] == 0


def test_shares_of_an_unfinished_run_hold_at_any_moment(open_run: Opener, make: Any) -> None:
    run = open_run()
    make.commit_unit(run, run.plan()[0])
    with open_query([run.url]) as query:
        [row] = query.sql("SELECT * FROM certified_share WHERE claim = 'class@0.25'").to_pylist()
    low, high = statistics.share_interval(3, 4, 0.95, anytime=True)
    assert (row["interval"], row["share_low"], row["share_high"]) == ("anytime", low, high)


def test_runs_are_compared(shared: RunDirectory, make: Any, tmp_path: Path) -> None:
    other = RunDirectory.create_or_open(
        tmp_path / "other", make.identity("certify.radii=[0.1,0.2]"), make.units(2)
    )
    make.commit_unit(other, other.plan()[0])
    with Query([shared, other]) as query:
        found = dict(values(query, "SELECT run_id, count(*) FROM certificates GROUP BY 1"))
        assert found == {shared.run_id: 12, other.run_id: 4}
        radii = values(
            query, f"SELECT DISTINCT radius FROM bounds WHERE run_id = '{other.run_id}' ORDER BY 1"
        )
        assert radii == [0.1, 0.2]
        shares = values(
            query, "SELECT run_id, max(pairs), bool_and(interval = 'exact') FROM certified_share GROUP BY 1"
        )
        assert sorted(shares) == sorted([(shared.run_id, 12, True), (other.run_id, 4, False)])


def test_a_run_is_not_counted_twice(shared: RunDirectory) -> None:
    with pytest.raises(QueryError, match="given twice"):
        open_query([shared.url, shared.url + "/"])
    with pytest.raises(QueryError, match="no run"):
        open_query([])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        open_query([tmp_path])


# functions


ROUNDING = 1e-12
"""A vector of DuckDB and an array of numpy may take different kernels: thousands of roundings of float64, no more."""


def test_functions_are_the_certificates(query: Query) -> None:
    grid = "(SELECT unnest([0.3, 0.6, 0.9, 0.99]::DOUBLE[]) AS n)"
    n = np.array([0.3, 0.6, 0.9, 0.99])
    for sql, expected in (
        ("fcsb((1 + n) / 2, 0.3, 0.5)", certificates.fcsb((1 + n) / 2, 0.3, 0.5)),
        ("angular_bound(n, 0.3, 0.5)", certificates.angular_bound(n, 0.3, 0.5)),
        ("angular_radius(n, 0.8, 0.5)", certificates.angular_radius(n, 0.8, 0.5)),
        ("margin_radius(n - 0.5, n, 0.4, 0.5)", certificates.margin_radius(n - 0.5, n, 0.4, 0.5)),
        (
            "similarity_bound(n - 0.5, n, 0.4, 0.3, 0.5)",
            certificates.similarity_bound(n - 0.5, n, 0.4, 0.3, 0.5),
        ),
        (
            "large_radius_bound([n, n, n, n, n, n, n, n / 2], n / 10, 0.5)",
            certificates.large_radius_bound(
                n[:, None] * [1, 1, 1, 1, 1, 1, 1, 0.5], certificates.LARGE_RADIUS_THRESHOLDS, n / 10, 0.5
            ),
        ),
    ):
        found = values(query, f"SELECT {sql} FROM {grid} ORDER BY n")
        wanted = [
            None if math.isnan(value) else pytest.approx(value, rel=ROUNDING) for value in expected.tolist()
        ]
        assert found == wanted, sql
        assert None in found or ("fcsb" not in sql and "large" not in sql)
        assert any(value is not None for value in found), sql


def test_functions_take_columns_and_whole_numbers(query: Query) -> None:
    found = values(query, "SELECT DISTINCT angular_bound(smooth_norm_lcb, 0.1, sigma) FROM certificates")
    expected = float(certificates.angular_bound(0.85, 0.1, 0.5))
    assert len(found) == 2 and None in found
    assert max(value for value in found if value is not None) == pytest.approx(expected, rel=ROUNDING)
    assert values(query, "SELECT fcsb(1, 0, 1)") == [pytest.approx(float(certificates.fcsb(1.0, 0.0, 1.0)))]


def test_null_in_is_null_out(query: Query) -> None:
    for call in ("fcsb(NULL, 1, 1)", "angular_bound(0.9, NULL, 1)", "angular_radius(0.9, 0.8, NULL)"):
        assert values(query, f"SELECT {call}") == [None]
    assert values(query, "SELECT margin_radius(NULL, NULL, NULL, NULL) FROM range(3)") == [None] * 3
    assert values(query, "SELECT similarity_bound(0.5, 0.9, NULL, 0.1, 0.5)") == [None]
    # a list counts as NULL with any of its numbers, and leaves its neighbours alone
    sure, holed, less = ("[1, 1, 1, 1, 1, 1, 1, " + last + "]" for last in ("1", "NULL", "0"))
    lists = f"(VALUES (0, {sure}), (1, NULL), (2, {holed}), (3, {less}))"
    found = values(query, f"SELECT large_radius_bound(p, 0, 0.5) FROM {lists} t(i, p) ORDER BY i")
    assert found == [pytest.approx(0.875), None, None, pytest.approx(0.75)]
    assert values(query, "SELECT fcsb(x, 0.1, 0.5) IS NULL FROM (VALUES (0.9), (NULL), (0.8)) t(x)") == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "call",
    [
        "fcsb(2, 0.1, 0.5)",
        "fcsb(0.9, 0.1, 0)",
        "fcsb('nan'::DOUBLE, 0.1, 0.5)",
        "similarity_bound(1.1, 0.9, 0.4, 0.1, 0.5)",
        "large_radius_bound([0.9, 0.8], 0.1, 0.5)",
        "large_radius_bound([1, 1, 1, 1, 1, 1, 1, 'nan'::DOUBLE], 0.1, 0.5)",
    ],
)
def test_numbers_outside_the_domain_are_errors(query: Query, call: str) -> None:
    with pytest.raises(QueryError) as caught:
        query.sql(f"SELECT {call}")
    assert "UDF" not in str(caught.value) and caught.value.remedy == "check the arguments of the function"


# e-BH


def e_value_run(url: str, make: Any, e_values: list[float | None], pairs: int) -> None:
    run = RunDirectory.create_or_open(url, make.identity(), make.units(1, pairs))
    rows = [
        make.quarantined_row("u00000-0", f"p{i:03d}")
        if e is None
        else make.ok_row("u00000-0", f"p{i:03d}", log_e_value=(e, -1.0))
        for i, e in enumerate(e_values)
    ]
    assert run.commits.commit(make.attempt_unit(run, "u00000-0", rows))


@pytest.mark.parametrize("q", [0.01, 0.05, 0.2])
def test_ebh_selects_as_the_definition_does(url: str, make: Any, q: float) -> None:
    rng = np.random.default_rng(7)
    log_e = np.concatenate([rng.normal(-2, 1, 60), rng.normal(5, 3, 40), [np.inf, -np.inf]])
    e_value_run(url, make, [*map(float, log_e), None], pairs=110)
    with open_query([url]) as query:
        found = set(values(query, f"SELECT pair_id FROM ebh('angular>=0.8@0.25', {q})"))
        by_position = set(values(query, f"SELECT pair_id FROM ebh(1, {q})"))
    ordered = np.sort(np.exp(log_e))[::-1]
    fitting = [k for k in range(1, len(ordered) + 1) if ordered[k - 1] >= 110 / (q * k)]
    count = max(fitting, default=0)
    assert count > 3
    assert found == by_position == {f"p{i:03d}" for i in np.argsort(-log_e)[:count]}
    # 8 pairs have no e-value yet and count as such
    padded = np.concatenate([log_e, np.full(8, -np.inf)])
    assert found == {f"p{i:03d}" for i in np.flatnonzero(statistics.ebh(padded, q))}


def test_ebh_selects_nobody_where_nothing_is_shown(url: str, make: Any) -> None:
    e_value_run(url, make, [0.0, 1.0, 2.0], pairs=3)
    with open_query([url]) as query:
        assert values(query, "SELECT pair_id FROM ebh(1, 0.05)") == []
        assert values(query, "SELECT pair_id FROM ebh('class@0.5', 0.05)") == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("ebh('nosuch', 0.1)", "nosuch"),
        ("ebh(3, 0.1)", "3"),
        ("ebh(1, 0)", "between 0 and 1"),
        ("ebh(1, 1.5)", "between"),
    ],
)
def test_ebh_refuses_what_it_cannot_mean(query: Query, call: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        query.sql(f"FROM {call}")


# safety and errors


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{file}'",
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM parquet_scan('{file}')",
        "SELECT * FROM glob('{folder}/*')",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "ATTACH '{folder}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "RESET enable_external_access",
        "PRAGMA enable_external_access",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW certificates",
        "INSERT INTO runs SELECT * FROM runs",
        "DELETE FROM units",
        "EXPORT DATABASE '{folder}'",
        "SELECT 1; DROP VIEW certificates",
        "",
        "SELECT * FROM secret_frame",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{folder}/out.csv''')",
    ],
)
def test_only_the_runs_can_be_read_and_nothing_written(query: Query, tmp_path: Path, sql: str) -> None:
    secret_frame = pa.table({"x": [1]})
    folder = tmp_path / "beside"
    folder.mkdir()
    (folder / "secret.csv").write_text("a,b\n1,2\n")
    with pytest.raises(QueryError) as caught:
        query.sql(sql.format(file=folder / "secret.csv", folder=folder))
    assert caught.value.remedy
    assert [path.name for path in folder.iterdir()] == ["secret.csv"]
    assert values(query, "SELECT count(*) FROM certificates") == [12]
    assert secret_frame.num_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "FROM runs",
        "DESCRIBE certificates",
        "SHOW TABLES",
        "SUMMARIZE units",
        "EXPLAIN SELECT 1",
        "VALUES (1)",
    ],
)
def test_other_ways_to_read_work(query: Query, sql: str) -> None:
    assert query.sql(sql).num_rows > 0


def test_a_wrong_column_is_answered_with_the_right_ones(query: Query) -> None:
    with pytest.raises(QueryError) as caught:
        query.sql("SELECT smooth_nrm FROM certificates")
    text = str(caught.value)
    assert "did you mean 'smooth_norm'?" in text and "SELECT smooth_nrm" in text
    assert "angular_radius" in text and "committed_units" not in text


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "SELECT * FROM certificats",
            "views: answer_accuracy, answers, attack_rules, attack_success, attacked_answer_accuracy, "
            "attacked_answers, attacks, bounds, certificates, certified_share, leaderboard, quarantine, "
            "replaced_answers, replaced_attacked_answers, replaced_attacks",
        ),
        ("SELEC 1", "arrow"),
        ("SELECT nosuch(1)", "margin_radius"),
        ("SELECT 'a'::INTEGER", "DESCRIBE"),
    ],
)
def test_errors_say_what_to_do(query: Query, sql: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        query.sql(sql)


def test_a_lost_part_is_an_error_and_no_smaller_number(run: RunDirectory) -> None:
    file = run.commits.load().files("certificates")[0]
    run.storage.remove(file)
    with open_query([run.url]) as query, pytest.raises(StoreError) as caught:
        query.sql("SELECT avg(draws) FROM certificates")
    assert os.path.basename(file) in str(caught.value) and caught.value.remedy


@pytest.mark.timeout(120)
def test_a_failing_store_never_hangs_a_query(run: RunDirectory) -> None:
    # pyarrow's own reader hangs here in about one of 300 scans (seen on memory://, where a failure comes at once)
    run.storage.remove(run.commits.load().files("certificates")[0])
    with open_query([run.url]) as query:
        for _ in range(100):
            with pytest.raises(StoreError):
                query.sql("SELECT avg(draws) FROM certificates")


def test_filters_and_columns_reach_the_reader(query: Query) -> None:
    plan = io.StringIO()
    for row in query.sql("EXPLAIN SELECT pair_id FROM certificates WHERE draws > 5").to_pylist():
        plan.write(row["explain_value"])
    text = plan.getvalue()
    assert "ARROW_SCAN" in text and "Filters" in text and "caption" not in text


def test_nothing_is_left_when_it_is_closed(shared: RunDirectory) -> None:
    query = open_query([shared.url])
    spill = query._spill.name
    query.sql("SELECT 1")
    query.close()
    assert not os.path.exists(spill)
