"""Pairs set aside and the rest: together all pairs, each once, spread over the data, whatever the files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from smoothcert.datasets import open_source, write_demo_data
from smoothcert.datasets.part import BLOCKS, ranges_of, ranges_of_sample
from smoothcert.errors import JobError
from smoothcert.job import parse_job
from smoothcert.job.data import PartSection, SampleSection

JOB = """
name: a
data: {format: parquet, uri: nowhere}
encoder: {model: "bundled:digits-clip"}
certify: {sigma: 0.25}
"""


def positions(part: PartSection, pairs: int) -> list[int]:
    return [i for start, stop in ranges_of(part, pairs) for i in range(start, stop)]


@given(st.integers(4, 500), st.data())
def test_every_pair_is_in_one_part(pairs: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, pairs // 2))
    aside = positions(PartSection(set_aside=count, use="set_aside"), pairs)
    rest = positions(PartSection(set_aside=count, use="rest"), pairs)
    assert len(aside) == count and sorted(aside + rest) == list(range(pairs))
    first = data.draw(st.integers(1, count))
    few = positions(PartSection(set_aside=count, use="set_aside", first=first), pairs)
    assert len(few) == first and set(few) <= set(aside) and few == sorted(few)
    assert len(ranges_of(PartSection(set_aside=count, use="rest"), pairs)) <= BLOCKS + 1


def test_pairs_set_aside_come_from_everywhere() -> None:
    aside = positions(PartSection(set_aside=64, use="set_aside"), 1000)
    assert all(sum(low <= i < low + 100 for i in aside) >= 5 for low in range(0, 1000, 100))


@pytest.mark.parametrize("format", ["parquet", "webdataset", "manifest"])
def test_sources_read_the_pairs_of_a_part_with_their_own_ids(tmp_path: Path, format: str) -> None:
    write_demo_data(tmp_path, format)

    def ids(*part: str) -> list[str]:
        job = parse_job(JOB, [f"data.format={format}", f"data.uri={tmp_path}", "data.limit=150", *part])
        source = open_source(job.data)
        units = list(source.units(40))
        assert sum(map(len, units)) == sum(file.pairs for file in source.files())
        assert len({unit.unit_id for unit in units}) == len(units)
        return [pair.pair_id for unit in units for pair in source.read(unit)]

    everything = ids()
    aside = ids("data.part={set_aside: 20, use: set_aside}")
    rest = ids("data.part={set_aside: 20, use: rest}")
    few = ids("data.part={set_aside: 20, use: set_aside, first: 5}")
    sample = ids("data.sample={pairs: 30, seed: 3}")
    assert (
        len(set(sample)) == 30
        and set(sample) <= set(everything)
        and sample != ids("data.sample={pairs: 30, seed: 4}")
    )
    assert ids("data.sample={pairs: 151, seed: 3}") == everything
    assert len(everything) == 150 and len(aside) == 20 and len(few) == 5
    assert sorted(aside + rest) == sorted(everything) and set(few) <= set(aside)


def test_a_part_must_leave_at_least_as_many() -> None:
    with pytest.raises(JobError, match="set_aside=6 is more than half of the 11 pairs"):
        ranges_of(PartSection(set_aside=6, use="rest"), 11)
    for wrong in (
        {"set_aside": 4, "use": "rest", "first": 2},
        {"set_aside": 4, "use": "set_aside", "first": 5},
    ):
        with pytest.raises(ValueError, match="first="):
            PartSection.model_validate(wrong)


def test_jobs_without_a_part_keep_their_fingerprint() -> None:
    assert "part" not in parse_job(JOB).science()["data"]
    assert "part" in parse_job(JOB, ["data.part={set_aside: 4, use: rest}"]).science()["data"]


def test_every_sample_of_a_size_is_equally_likely() -> None:
    """All 10 pairs out of 5, over 10,000 seeds: chi-square with 9 degrees of freedom, fails falsely at 1e-6."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(10_000):
        ranges = ranges_of_sample(SampleSection(pairs=2, seed=seed), 5)
        chosen = tuple(i for start, stop in ranges for i in range(start, stop))
        counts[chosen] = counts.get(chosen, 0) + 1
    assert len(counts) == 10
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < chi2.isf(1e-6, 9)


def test_a_job_is_about_a_part_or_a_sample() -> None:
    with pytest.raises(JobError, match="part and sample are both given"):
        parse_job(JOB, ["data.part={set_aside: 20, use: rest}", "data.sample={pairs: 3, seed: 1}"])
