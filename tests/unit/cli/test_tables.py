"""Tables of every command: at any width each word stands whole, each cell is there, and no line is too long."""

import io
import string
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.cli.tables import fit_widths, print_table, split_columns
from smoothcert.cli.terminal import Terminal

CERTIFIED = (
    ("radius", "certified accuracy", "accuracy by distribution", "accuracy by vote", "cosine >= 0.5")
    + ("cosine >= 0.8", "mean cosine", "caption in top k", "top k by distribution", "top k by vote"),
    [
        ("0.0625", "100.0%", "100.0%", "97.2%", "100.0%", "98.1%", "0.977", "66.7%", "67.1%", "66.9%"),
        ("0.25 target", "", "83.3%", "", "", "", "", "", "", ""),
    ],
)
ATTACKED = (
    ("subject", "budget", "attack", "clean accuracy", "robust accuracy", "success among right")
    + ("wrong under attack", "no outcome"),
    [("smoothed", "l2 0.5", "carlini_wagner", "96.7%", "93.3% [85%, 98%]", "3.4%", "6.7%", "2 quarantined")],
)


def printed(width, *args, **options):
    terminal = Terminal()
    terminal.width = width
    terminal.file = io.StringIO()
    print_table(terminal, *args, **options)
    return terminal.file.getvalue()


@pytest.mark.parametrize("header, rows", [CERTIFIED, ATTACKED])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_widest_tables_keep_their_words(header, rows, width):
    shown = printed(width, "Title", header, rows, names=3 if header is ATTACKED[0] else 1)
    assert all(len(line) <= width for line in shown.splitlines())
    words = shown.split()
    assert not {word for text in chain(header, *rows) for word in text.split()} - set(words)
    assert shown.count("Title") == 1 and words.count(header[0]) >= 1


words = st.text(string.ascii_lowercase, min_size=1, max_size=12)
cells = st.lists(words, max_size=4).map(" ".join)


@settings(max_examples=100)
@given(st.integers(1, 9).flatmap(lambda n: st.lists(st.tuples(*[cells] * n), min_size=1, max_size=4)))
def test_no_word_is_cut_whatever_the_cells(table):
    header, *rows = table
    shown = printed(40, "", header, rows)
    assert all(len(line) <= 40 for line in shown.splitlines())
    assert not {word for text in chain(*table) for word in text.split()} - set(shown.split())


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(10, 100), st.integers(0, 2))
def test_each_column_stands_in_one_table_and_names_in_all(widths, width, names):
    tables = split_columns(widths, width, names)
    first = list(range(min(names, len(widths))))
    assert all(columns[: len(first)] == first for columns in tables)
    assert first + [at for columns in tables for at in columns[len(first) :]] == list(range(len(widths)))


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), max_size=8), st.integers(0, 200))
def test_widths_fit_where_they_can(pairs, room):
    least = [low for low, _ in pairs]
    natural = [low + more for low, more in pairs]
    got = fit_widths(natural, least, room)
    assert all(low <= width <= high for low, width, high in zip(least, got, natural, strict=True))
    assert sum(got) == min(sum(natural), max(room, sum(least)))
