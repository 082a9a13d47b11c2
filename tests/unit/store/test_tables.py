import json
from pathlib import Path

import pytest

from smoothcert.store.tables.certificates import CERTIFICATES
from smoothcert.store.tables.contract import main, make_documents
from smoothcert.store.tables.registry import TABLES


def test_every_column_says_what_it_means() -> None:
    for table in TABLES.values():
        for column in table.columns:
            assert column.meaning.endswith("."), column.name
            if column.nullable and column.name != "captions":
                known = "NULL" in column.meaning or "if any" in column.meaning
                assert known or column.name in ("class_margin",), f"{column.name}: when is it NULL?"


def test_radii_have_units_and_bounds_have_sources() -> None:
    for column in CERTIFICATES.columns:
        if column.name.endswith("radius") and column.name != "large_radius":
            assert "pixels" in column.unit
        if column.name in ("fcsb", "angular", "clean_reference", "large_radius", "certified_radius"):
            assert column.source.startswith("theory T")


def test_the_checkouts_schemas_are_fresh() -> None:
    assert main(["--check"]) == 0


def test_a_stale_contract_is_noticed_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--directory", str(tmp_path)]
    assert main(["--check", *where]) == 1
    assert main(where) == 0
    assert main(["--check", *where]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(make_documents())
    changed = tmp_path / "certificates.v1.json"
    changed.write_text(changed.read_text().replace("float64", "double", 1).replace("double", "float", 1))
    capsys.readouterr()
    assert main(["--check", *where]) == 1
    assert "certificates.v1.json" in capsys.readouterr().out


def test_published_columns_are_in_file_order() -> None:
    description = json.loads(make_documents()["certificates.v1.json"])
    assert [column["name"] for column in description["columns"]] == CERTIFICATES.arrow.names
    assert description["version"] == 1
