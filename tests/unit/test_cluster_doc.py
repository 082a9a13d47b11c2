"""The sums in docs/cluster.md, made again from what they are said to be made of."""

import math
import re
from pathlib import Path

from smoothcert.job import load_job
from smoothcert.runtime.plan import DRAWS_PER_UNIT, pairs_per_unit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/cluster.md").read_text(encoding="utf-8").partition("## Ten million pairs overnight")[2]
PAIRS = 10_000_000
SECONDS = 10 * 3600 * 0.9


def numbers(line: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,.]*", line)]


def test_gpus_of_a_night() -> None:
    table = [line for line in TEXT.splitlines() if re.match(r"\| \d", line)][:3]
    rates = (2_000, 10_000, 40_000)
    assert len(table) == 3
    for line in table:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        draws = numbers(cells[0])[0]
        needed = PAIRS * draws / SECONDS
        assert numbers(cells[1]) == [round(needed)]
        assert [int(cell) for cell in cells[2:]] == [math.ceil(needed / rate) for rate in rates]


def test_the_most_draws_and_the_units_are_those_of_the_job_named_there() -> None:
    certify = (job := load_job(ROOT / "jobs/clip-vit-b32.yaml")).certify
    draws, per_unit = certify.pilot_draws + certify.max_draws, pairs_per_unit(job, PAIRS)
    units = math.ceil(PAIRS / per_unit)
    assert f"| {draws:,}, all of `jobs/clip-vit-b32.yaml`" in TEXT
    assert (
        f"{DRAWS_PER_UNIT:,} draws at most: {per_unit} pairs, {units:,} units, {units / SECONDS:.1f} commits/s"
        in TEXT
    )
    pairs_a_second = PAIRS / SECONDS
    assert f"{pairs_a_second:.0f} pairs a second" in TEXT
    assert f"{pairs_a_second * 100e3 / 1e6:.0f} MB/s, {PAIRS * 100e3 / 1e12:.0f} TB in all" in TEXT
    assert f"{2 * DRAWS_PER_UNIT / 10_000:.0f} s at 10,000 draws/s" in TEXT
