from array import array

from hypothesis import given
from hypothesis import strategies as st

from smoothcert.datasets.layout import CHECKPOINT_STRIDE, Checkpoints, RowGroups


def covered(cuts):
    return [position for cut in cuts for position in range(cut.start, cut.stop)]


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 50), st.data())
def test_row_group_cuts_cover_once_and_never_straddle(sizes, per_unit, data):
    layout = RowGroups(array("q", sizes))
    pairs = data.draw(st.integers(0, layout.pairs))
    cuts = list(layout.cuts(per_unit, pairs))
    assert covered(cuts) == list(range(pairs))
    assert all(0 < cut.stop - cut.start <= per_unit for cut in cuts)
    edges = {sum(sizes[:i]) for i in range(len(sizes) + 1)} | {pairs}
    for cut in cuts:
        inner = [edge for edge in edges if cut.start < edge < cut.stop]
        if inner:  # several groups: all of them whole
            assert cut.start in edges and cut.stop in edges


def test_row_group_cuts_are_even():
    assert [c.stop - c.start for c in RowGroups(array("q", [1000])).cuts(300, 1000)] == [250] * 4
    assert [c.stop for c in RowGroups(array("q", [10] * 10)).cuts(35, 100)] == [30, 60, 90, 100]


@given(st.integers(0, 100), st.integers(1, 40), st.sets(st.integers(0, 99)), st.data())
def test_checkpoint_cuts_begin_at_or_before_their_first_pair(count, per_unit, repeated, data):
    layout = Checkpoints()
    for position in range(count):
        layout.add(position * 512, repeated=position in repeated)
    pairs = data.draw(st.integers(0, count))
    cuts = list(layout.cuts(per_unit, pairs))
    assert covered(cuts) == list(range(pairs))
    for cut in cuts:
        assert cut.offset == cut.offset_pair * 512
        assert cut.start - CHECKPOINT_STRIDE < cut.offset_pair <= cut.start
        assert cut.repeated == tuple(sorted(r for r in repeated if cut.start <= r < cut.stop))
