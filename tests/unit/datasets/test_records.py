import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.datasets import UnitSpec
from smoothcert.datasets.records import broken_pair, pair_id, unit_id
from smoothcert.errors import ReadError

UNIT = UnitSpec("u000003-0a1b2c3d", "s3://b/x/a.tar", 20, 30, 4096, 16, "x/a.tar", (21, 25))


def test_units_travel_between_processes():
    assert pickle.loads(pickle.dumps(UNIT)) == UNIT
    assert len(UNIT) == 10


def test_a_part_keeps_what_decides_pair_ids():
    part = UNIT.part(24, 26)
    assert (part.start, part.stop, part.offset, part.offset_pair) == (24, 26, 4096, 16)
    assert (part.name, part.repeated) == ("x/a.tar", (21, 25))
    assert part.unit_id == unit_id("u000003", "x/a.tar", 24, 26) != UNIT.unit_id


@pytest.mark.parametrize("bounds", [(19, 25), (25, 31), (25, 25), (26, 25)])
def test_a_part_lies_inside(bounds):
    with pytest.raises(ValueError, match="not inside unit 'u000003-0a1b2c3d'"):
        UNIT.part(*bounds)


@pytest.mark.parametrize("start, stop, offset_pair", [(5, 5, 0), (-1, 2, 0), (5, 9, 6)])
def test_a_unit_has_pairs(start, stop, offset_pair):
    with pytest.raises(ValueError, match="must hold"):
        UnitSpec("u", "a.tar", start, stop, 0, offset_pair)


def test_name_without_a_plan_is_the_last_part():
    assert UnitSpec("u", "memory:///a/b.parquet", 0, 1).name == "b.parquet"


@given(*[st.text("ab#%~", max_size=6)] * 4)
def test_pair_ids_are_injective(name, key, other_name, other_key):
    assert (pair_id(name, key) == pair_id(other_name, other_key)) == ((name, key) == (other_name, other_key))


def test_broken_pairs_hold_valid_text_and_no_frames():
    try:
        raise ReadError("no '\udcff.png'", remedy="\ud800")
    except ReadError as exc:
        pair = broken_pair("a#0", "a", exc)
    str(pair.error).encode()
    assert pair.error.message == "no '\\udcff.png'"
    assert pair.error.__traceback__ is None and type(pair.error) is ReadError
