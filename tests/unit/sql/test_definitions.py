"""What SQL names is made when a statement first names it, and whatever comes first finds all that it rests on."""

from typing import Any

import duckdb
import pytest

from smoothcert.errors import QueryError
from smoothcert.sql import Query
from smoothcert.sql.definitions import Definitions
from smoothcert.sql.functions import define_functions
from smoothcert.store import RunDirectory
from smoothcert.store.tables.registry import TABLES

VIEWS = (
    *TABLES,
    *(f"replaced_{table}" for table in TABLES),
    *("runs", "units", "quarantine", "bounds", "certified_share", "worker_time", "task_time", "leaderboard"),
    *("attack_success", "robustness_gap", "worst_pairs", "attack_rules"),
    *("answer_accuracy", "attacked_answer_accuracy", "certified_answers(0.1)", "certified_scores(0.1)"),
    "ebh(1, 0.1)",
)


@pytest.fixture
def run(tmp_path: Any, make: Any) -> RunDirectory:
    run = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(1))
    for unit in run.plan():
        make.commit_unit(run, unit)
    return run


@pytest.mark.parametrize("many", [False, True])
def test_every_view_can_be_the_first_that_is_named(run: RunDirectory, many: bool) -> None:
    for view in VIEWS:
        with Query([run], many=many) as query:
            assert query.rows(f"SELECT count(*) AS n FROM {view}")[0]["n"] >= 0


def test_every_function_can_be_the_first_that_is_named() -> None:
    with duckdb.connect() as whole:
        definitions = Definitions(whole)
        define_functions(definitions)
        names = set(definitions._waiting)
        definitions.provide_all()
        known = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_name = ANY(?)"
        assert {name for (name,) in whole.execute(known, [sorted(names)]).fetchall()} == names
    for name in (
        "share_low",
        "share_interval",
        "mean_interval",
        "median_interval",
        "quantile_interval",
        "fcsb",
    ):
        with duckdb.connect() as connection:
            definitions = Definitions(connection)
            define_functions(definitions)
            definitions.provide(f"SELECT {name}(x)")
            assert connection.execute(known, [[name]]).fetchall() == [(name,)]


def test_what_a_statement_does_not_name_is_not_made() -> None:
    made: list[str] = []
    with duckdb.connect() as connection:
        definitions = Definitions(connection)
        definitions.add("numbers", lambda: made.append("numbers"))
        definitions.add("other", lambda: made.append("other"))
        definitions.add("large", lambda: made.append("large"), listed=False)
        definitions.add_sql(
            "doubled", "CREATE MACRO doubled(x) AS CASE WHEN x > 1e9 THEN error('large') ELSE 2 * x END"
        )
        definitions.provide("SELECT doubled(1) FROM Numbers, numbers_of_mine")
        definitions.provide("SELECT doubled(1) FROM numbers")
        assert made == ["numbers"]
        assert connection.execute("SELECT doubled(4)").fetchall() == [(8,)]
        definitions.provide("SHOW TABLES")
        assert made == ["numbers", "other"]
        definitions.provide("FROM large")
        definitions.forget()
        assert made == ["numbers", "other", "large"]


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("FROM numbers ORDER BY x DESC", False),
        ("SELECT row_number() OVER (ORDER BY x desc) FROM numbers", False),
        ("DESC", True),
        ("  desc numbers", True),
        ("FROM ( DESC numbers)", True),
        ("/* all */ desc", True),
        ("-- all\ndesc", True),
    ],
)
def test_an_order_is_not_taken_for_a_look_around(text: str, looks: bool) -> None:
    made: list[str] = []
    with duckdb.connect() as connection:
        definitions = Definitions(connection)
        definitions.add("other", lambda: made.append("other"))
        definitions.provide(text)
    assert made == (["other"] if looks else [])


def test_an_error_is_explained_where_what_there_is_cannot_be_made(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(definitions: Definitions) -> None:
        raise duckdb.InvalidInputException("a part file of another table is lost")

    monkeypatch.setattr(Definitions, "provide_all", fail)
    with Query([run]) as query, pytest.raises(QueryError, match='"unknown" not found'):
        query.sql("SELECT unknown FROM runs")


def test_what_could_not_be_made_is_tried_again() -> None:
    attempts: list[int] = []

    def make() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("the store is away")

    with duckdb.connect() as connection:
        definitions = Definitions(connection)
        definitions.add("rows", make)
        with pytest.raises(OSError):
            definitions.provide("FROM rows")
        definitions.provide("FROM rows")
        definitions.provide("FROM rows")
    assert len(attempts) == 2


def test_names_that_do_not_stand_in_the_text_are_found_too(run: RunDirectory) -> None:
    for sql in ("FROM query_table('certi' || 'ficates')", 'FROM "certificates"', "FROM main.CERTIFICATES"):
        with Query([run]) as query:
            assert query.sql(sql).num_rows == 4
    with Query([run]) as query, pytest.raises(QueryError, match='Did you mean "certificates"') as caught:
        query.sql("FROM certificate")
    assert "attack_success" in caught.value.remedy and "leaderboard" in caught.value.remedy
