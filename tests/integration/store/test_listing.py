"""Runs of an object store, listed and asked as one directory."""

from typing import Any

from smoothcert.runtime.listing import list_runs
from smoothcert.sql import open_query
from smoothcert.store import RunDirectory


def test_a_prefix_of_runs_is_a_directory_of_runs(s3: str, make: Any) -> None:
    for name, sigma, units in (("a", 0.25, 2), ("b", 0.5, 1)):
        run = RunDirectory.create_or_open(
            f"{s3}/runs/{name}", make.identity(f"certify.sigma={sigma}"), make.units(2, 4)
        )
        for unit in run.plan()[:units]:
            make.commit_unit(run, unit)
    for place in (f"{s3}/runs", f"{s3}/runs/"):
        entries = list_runs(place)
        assert [(each.name, each.state, each.committed) for each in entries] == [
            ("a", "complete", 8),
            ("b", "incomplete", 4),
        ]
        assert [dict(each.varies) for each in entries] == [
            {"certify.sigma": "0.25"},
            {"certify.sigma": "0.5"},
        ]
    with open_query([f"{s3}/runs"]) as query:
        assert query.sql("SELECT count(*) AS n FROM certificates").to_pylist() == [{"n": 12}]
