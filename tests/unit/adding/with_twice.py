"""Everything about one run with one more certificate (twice.py); run as a program by the test."""

from __future__ import annotations

import sys
from pathlib import Path

from twice import TWICE

from smoothcert.catalogue import certificates

certificates.CATALOGUE = (*certificates.CATALOGUE, TWICE)

import pyarrow as pa  # noqa: E402  # behind the entry, as everything below
import pyarrow.parquet as pq  # noqa: E402
from told import collect, find, hand_in, smoothcert, write_job  # noqa: E402

from smoothcert.catalogue.page import page  # noqa: E402
from smoothcert.store import CERTIFICATES  # noqa: E402

CERTIFY = {
    "sigma": 0.25,
    "alpha": 0.01,
    "pilot_draws": 15,
    "max_draws": 160,
    "radii": [0.03125, 0.0625],
    "cosines": [0.3, 0.5],
    "targets": [{"certificate": "twice", "radius": 0.03125, "cosine": 0.3}],
}
ATTACK = {
    "attack": "pgd",
    "norm": "l2",
    "budgets": 0.05,
    "subjects": "smoothed",
    "steps": 1,
    "eot_draws": 2,
    "evaluate_draws": 8,
}


def raise_stored(here: Path) -> None:
    """Raise the first bound of every row by 0.05, in the committed files themselves."""
    for file in (here / "mine" / "certificates").glob("*.parquet"):
        table = pq.read_table(file)
        raised = [[(values[0] or 0.0) + 0.05, *values[1:]] for values in table["twice"].to_pylist()]
        place = table.schema.get_field_index("twice")
        column = pa.array(raised, table.schema.field(place).type)
        pq.write_table(table.set_column(place, table.schema.field(place), column), file)


def main(here: Path) -> None:
    """The run, and what each room says of the new certificate."""
    smoothcert("attack", write_job(here, certify=CERTIFY, attacks=[ATTACK]))
    told = collect(
        here,
        bounds="SELECT * FROM bounds WHERE certificate = 'twice'",
        shares="SELECT * FROM certified_share WHERE certificate = 'twice'",
        sql="SELECT twice_bound(0.95, 0.05, 0.25) AS found",
    )
    told["column"] = next(each.described() for each in CERTIFICATES.columns if each.name == "twice")
    told["page"] = page()
    raise_stored(here)
    told["raised"] = find(here)
    hand_in(told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
