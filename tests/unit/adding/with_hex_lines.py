"""Everything about one run on data of one more format (hex_lines.py); run as a program by the test."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from smoothcert.catalogue import formats
from smoothcert.catalogue.formats import FormatEntry

formats.FORMATS = {
    **formats.FORMATS,
    "hexlines": FormatEntry("hex_lines", "HexLinesSource", "text files of images in hex", numbered=True),
}

import smoothcert.datasets  # noqa: E402  # behind the entry, as everything below

smoothcert.datasets.__path__.append(str(Path(__file__).parent))

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from told import collect, find, hand_in, smoothcert, write_job  # noqa: E402

from smoothcert.datasets import open_source  # noqa: E402
from smoothcert.datasets.digits import numbered_digits  # noqa: E402
from smoothcert.datasets.png import encode_pngs  # noqa: E402
from smoothcert.job import DataSection  # noqa: E402


def write_lines(here: Path) -> Path:
    """Two files of five and three lines; the last line of the first is broken."""
    digits = numbered_digits("test")[:8]
    pngs = encode_pngs(np.stack([np.asarray(image) for _, image, _, _ in digits]), level=9)
    lines = [
        f"{label}\t{caption}\t{png.hex()}\n" for (_, _, caption, label), png in zip(digits, pngs, strict=True)
    ]
    (here / "lines").mkdir()
    (here / "lines" / "a.hex").write_text("".join([*lines[:4], lines[4].replace("\t", "\tzz", 2)]))
    (here / "lines" / "b.hex").write_text("".join(lines[5:]))
    return here / "lines"


def by_units(folder: Path) -> list[dict[str, object]]:
    """Every unit as a worker reads it, by a source that has listed nothing, whole and without its first pair."""
    data = DataSection(format="hexlines", uri=str(folder))
    found: list[dict[str, object]] = []
    for unit in open_source(data).units(2):
        parts = [unit] if len(unit) == 1 else [unit, unit.part(unit.start + 1, unit.stop)]
        for part in parts:
            pairs = open_source(data).read(part)
            images = [
                None if each.image is None else hashlib.sha256(each.image).hexdigest() for each in pairs
            ]
            found.append({"name": unit.name, "start": part.start, "stop": part.stop, "images": images})
    return found


def exchange_pairs(here: Path) -> None:
    """Give a row of one unit the pair_id of another unit's row, and the other way round, in the committed files."""
    first, second = (
        file
        for file in sorted((here / "mine" / "certificates").glob("*.parquet"))
        if "a.hex" in pq.read_table(file)["pair_id"].to_pylist()[0]
    )
    tables = {file: pq.read_table(file) for file in (first, second)}
    ids = {file: table["pair_id"].to_pylist() for file, table in tables.items()}
    ids[first][0], ids[second][0] = ids[second][0], ids[first][0]
    for file, table in tables.items():
        place = table.schema.get_field_index("pair_id")
        column = pa.array(ids[file], table.schema.field(place).type)
        pq.write_table(table.set_column(place, table.schema.field(place), column), file)


def main(here: Path) -> None:
    """The run, and what each room says of the data."""
    folder = write_lines(here)
    job = write_job(here, data={"format": "hexlines", "uri": str(folder)})
    plan = smoothcert("plan", job, "--no-probe")
    smoothcert("certify", job)
    told = collect(here, quarantine="SELECT pair_id, error_class, error_message FROM quarantine")
    told["plan"], told["units"] = plan, by_units(folder)
    told["lines"] = {file.name: file.read_text().splitlines() for file in sorted(folder.iterdir())}
    exchange_pairs(here)
    told["exchanged"] = find(here)
    hand_in(told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
