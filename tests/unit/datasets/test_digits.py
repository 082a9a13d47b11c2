"""The bundled digits against scikit-learn, and their split against its written rule."""

import hashlib

import numpy as np
import pytest

from smoothcert.datasets import DIGIT_NAMES, load_digits_pairs
from smoothcert.datasets.digits import _bundled, numbered_digits, split_rows
from smoothcert.errors import JobError


def test_scans_and_labels_are_those_of_scikit_learn():
    reference = pytest.importorskip("sklearn.datasets").load_digits()
    scans, labels, _ = _bundled()
    np.testing.assert_array_equal(scans, reference.images)
    np.testing.assert_array_equal(labels, reference.target)


def test_split_follows_its_written_rule():
    _, labels, held_out = _bundled()
    expected = []
    for digit in range(10):
        rows = [int(row) for row in np.flatnonzero(labels == digit)]
        rows.sort(key=lambda row: hashlib.sha256(f"digits-split:{row}".encode()).hexdigest())
        expected += rows[:36]
    assert held_out.tolist() == sorted(expected)


def test_splits_part_the_data():
    test, train = split_rows("test"), split_rows("train")
    assert (len(test), len(train)) == (360, 1437)
    assert sorted([*test, *train]) == list(range(1797)) == split_rows("all").tolist()


def test_pairs_show_the_scan_under_its_own_name():
    scans, labels, _ = _bundled()
    for row, image, caption, label in numbered_digits("test")[:40]:
        assert (image.mode, image.size) == ("RGB", (32, 32))
        assert label == DIGIT_NAMES[labels[row]]
        assert caption == f"a photo of the digit {label}"
        # Averaging the 4x4 block of each cell undoes the enlargement up to smoothing between neighbours.
        cells = np.asarray(image, dtype=float)[..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)) * 16 / 255
        assert np.corrcoef(cells.ravel(), scans[row].ravel())[0, 1] > 0.9
    assert len(load_digits_pairs("train")) == 1437


def test_unknown_split_is_named():
    with pytest.raises(JobError, match="split='tets'.*did you mean 'test'"):
        load_digits_pairs("tets")
