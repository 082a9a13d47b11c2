"""Formats whose pairs are numbered: the audit tells from a pair's id alone where it stands in its file."""

from pathlib import Path

import pyarrow as pa
import pytest

from smoothcert.catalogue.formats import FORMATS
from smoothcert.datasets import open_source
from smoothcert.job import DataSection

WRITTEN = {"parquet": "parquet", "manifest": "jsonl", "arrow": "arrow"}


def test_every_numbered_format_is_tried_here() -> None:
    assert {name for name, entry in FORMATS.items() if entry.numbered} == set(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("id_column", [None, "key"])
def test_a_key_is_the_position_in_the_file(tmp_path: Path, picture, name: str, id_column: str | None) -> None:
    import json

    import pyarrow.parquet as pq

    file = tmp_path / f"pairs.{WRITTEN[name]}"
    rows = [{"image": picture(i), "caption": f"c{i}", "key": f"k{i}"} for i in range(23)]
    if name == "manifest":
        for i in range(23):
            (tmp_path / f"{i}.png").write_bytes(rows[i]["image"])
        file.write_text("\n".join(json.dumps({**row, "image": f"{i}.png"}) for i, row in enumerate(rows)))
    elif name == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=5)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    columns = {"label": None, "id": id_column}
    source = open_source(DataSection(format=name, uri=str(file), columns=columns))
    for unit in source.units(4):
        for at, pair in enumerate(source.read(unit), start=unit.start):
            assert pair.pair_id == f"{file.name}#{at if id_column is None else f'k{at}'}"
