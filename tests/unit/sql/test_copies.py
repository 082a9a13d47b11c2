"""Queries that copy the rows of small tables: they say the same as others, and fail where these do."""

from typing import Any

import pytest

from smoothcert.errors import QueryError, StoreError
from smoothcert.sql import Query, asking, views
from smoothcert.store import RunDirectory
from smoothcert.store.tables.registry import TABLES


@pytest.fixture
def run(tmp_path: Any, make: Any) -> RunDirectory:
    """Three units of four pairs, one of which was retried."""
    run = RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(3))
    for unit in run.plan():
        make.commit_unit(run, unit)
    row = make.ok_row("r1", "a.parquet#3")
    assert run.commits.commit(make.attempt_unit(run, "r1", [row], supersedes={"u00000-0": ("a.parquet#3",)}))
    return run


def test_every_view_has_the_same_rows_and_types(run: RunDirectory) -> None:
    with Query([run]) as on_files, Query([run], many=True) as on_copies:
        for view in (
            *TABLES,
            *(f"replaced_{table}" for table in TABLES),
            "bounds",
            "quarantine",
            "units",
            "certified_share",
        ):
            expected, found = (
                each.sql(f"SELECT * FROM {view} ORDER BY ALL") for each in (on_files, on_copies)
            )
            assert found.schema == expected.schema
            assert found.to_pylist() == expected.to_pylist()


def test_a_leaderboard_is_the_same_up_to_the_order_of_its_sums(run: RunDirectory) -> None:
    with Query([run]) as on_files, Query([run], many=True) as on_copies:
        tables = [each.sql("SELECT * FROM leaderboard") for each in (on_files, on_copies)]
    assert tables[0].schema == tables[1].schema
    expected, found = (each.to_pylist() for each in tables)
    for before, after in zip(expected, found, strict=True):
        numbers = [name for name in ("value", "low", "high") if before[name] is not None]
        assert [after.pop(name) for name in numbers] == pytest.approx([before.pop(name) for name in numbers])
        assert after == before


@pytest.mark.parametrize("many", [False, True])
def test_runs_together_have_the_leaderboard_of_each_alone(
    run: RunDirectory, tmp_path: Any, make: Any, many: bool
) -> None:
    """One with a retried row, one whole, and one without any row, whose figures are over none."""
    runs = [run]
    for name, units in (("whole", 2), ("none", 0)):
        identity = make.identity(data=name[0] * 64)
        runs.append(RunDirectory.create_or_open(str(tmp_path / name), identity, make.units(2)))
        for unit in runs[-1].plan()[:units]:
            make.commit_unit(runs[-1], unit)
    alone = []
    for each in runs:
        with Query([each], many=many) as query:
            alone += query.rows("SELECT * FROM leaderboard")
    with Query(runs, many=many) as query:
        together = query.rows("SELECT * FROM leaderboard")
    alone.sort(key=lambda row: row["run_id"])
    assert len({row["run_id"] for row in together}) == 3 and len(together) == len(alone)
    for before, after in zip(alone, together, strict=True):
        numbers = [name for name in ("value", "low", "high") if before[name] is not None]
        assert [after.pop(name) for name in numbers] == pytest.approx([before.pop(name) for name in numbers])
        assert after == before


def test_rows_are_those_of_the_arrow_table(run: RunDirectory) -> None:
    with Query([run]) as query:
        for view in ("certificates", "certified_share", "units", "runs"):
            text = f"SELECT * FROM {view} ORDER BY ALL"
            assert query.rows(text) == query.sql(text).to_pylist()
        assert query.rows("SELECT pair_id FROM certificates WHERE false") == []
        for text in ("SELECT nothing FROM certificates", "DROP VIEW runs", "SELECT 1; SELECT 2"):
            with pytest.raises(QueryError):
                query.rows(text)


def test_a_lost_file_is_named_when_it_is_opened(run: RunDirectory) -> None:
    file = run.commits.load().files("certificates")[0]
    run.storage.remove(file)
    with pytest.raises(StoreError, match=file.rpartition("/")[2]):
        Query([run], many=True)


def test_only_small_tables_are_copied(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 rows are committed, the replaced one among them: a copy does not miss files that are gone."""
    for most, copied in ((13, True), (12, False)):
        monkeypatch.setattr(views, "SMALL_TABLE", most)
        with Query([run], many=True) as query:
            kept = {file: run.storage.read(file) for file in run.commits.load().files("certificates")}
            for file in kept:
                run.storage.remove(file)
            if copied:
                assert query.sql("SELECT count(*) AS n FROM certificates").to_pylist() == [{"n": 12}]
            else:
                with pytest.raises(StoreError):
                    query.sql("SELECT count(DISTINCT draws) FROM certificates")
            for file, content in kept.items():
                run.storage.replace(file, content)


def test_an_open_query_is_asked_and_stays_open(run: RunDirectory) -> None:
    with Query([run], many=True) as query:
        with asking([run], query) as same:
            assert same is query
        assert query.committed(run.run_id).unit_ids == run.commits.load().unit_ids
        with pytest.raises(KeyError):
            query.committed("another")
    with asking([run]) as opened:
        assert opened.rows("SELECT count(*) AS n FROM certificates") == [{"n": 12}]
    with pytest.raises(QueryError):
        opened.rows("SELECT 1")
