"""The catalogue against what it is about: alpha is spent once, columns have entries, and caps are caps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from smoothcert.catalogue.answers import ANSWER_CERTIFICATES
from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.certificates import CATALOGUE, evidence, of_quantity, quantities
from smoothcert.catalogue.evidence import EXCEEDANCE, Evidence
from smoothcert.catalogue.page import PAGE, page
from smoothcert.certificates import LARGE_RADIUS_THRESHOLDS
from smoothcert.store import ATTACKS, CERTIFICATES
from smoothcert.store.tables.answers import ANSWERS
from smoothcert.store.tables.columns import Column

SIGMA = 0.5
OF_TARGETS = {"log_e_value"}
"""Numbers by target: evidence of a sequential test, and no bound."""
IDS = [each.name for each in CATALOGUE]


def without_entry(columns: tuple[Column, ...]) -> set[str]:
    """Lists of numbers that nobody's entry stands for: they would be neither queried nor audited."""
    lists = {each.name for each in columns if each.type == pa.list_(pa.field("element", pa.float64()))}
    forms = {form.column for each in CATALOGUE for form in each.forms}
    return lists - forms - {each.column for each in evidence()} - OF_TARGETS


def test_every_list_of_numbers_has_an_entry() -> None:
    assert without_entry(CERTIFICATES.columns) == set()
    stray = Column("stray", pa.list_(pa.field("element", pa.float64())), "A bound.", nullable=True)
    assert without_entry((*CERTIFICATES.columns, stray)) == {"stray"}


def test_every_entry_has_its_columns() -> None:
    columns = {each.name: each for each in CERTIFICATES.columns}
    for certificate in CATALOGUE:
        for form in certificate.forms:
            assert columns[form.column].nullable and columns[form.column].meaning == form.meaning
    for each in evidence():
        assert each.column in columns and (not each.estimate or each.estimate in columns)
    attacked = {each.name for each in ATTACKS.columns}
    for quantity in quantities():
        assert not quantity.attacked or {quantity.attacked, f"{quantity.attacked}_ucb"} <= attacked
        assert (
            not quantity.label or {quantity.label} <= columns.keys() and quantity.attacked_label in attacked
        )
        assert not quantity.shown or quantity.shown in attacked
        assert of_quantity(quantity)


def test_every_entry_about_answers_has_its_columns() -> None:
    columns = {each.name: each for each in ANSWERS.columns}
    for certificate in ANSWER_CERTIFICATES:
        for form in certificate.forms:
            assert columns[form.column].nullable and columns[form.column].meaning == form.meaning
        for each in certificate.basis:
            assert each.column in columns and (not each.estimate or each.estimate in columns)


@pytest.mark.parametrize("certificate", [*CATALOGUE, *ANSWER_CERTIFICATES], ids=lambda each: each.name)
def test_alpha_is_spent_at_most_once(certificate: Certificate) -> None:
    # by the union bound: as many confidence bounds as it uses, each at its share
    bounds = sum(each.bounds for each in certificate.basis)
    assert 0 < bounds * certificate.share_of_alpha <= 1


@pytest.mark.parametrize("certificate", CATALOGUE, ids=IDS)
def test_a_row_has_its_basis_at_the_same_level_or_a_larger_one(certificate: Certificate) -> None:
    # so that what the audit computes from the row is a cap, and exact where the entry says so
    levels = [each.level for each in certificate.basis if not each.exact]
    assert all(level >= certificate.share_of_alpha for level in levels)
    if certificate.anywhere:
        assert set(levels) == {certificate.share_of_alpha}


def test_names_are_used_once() -> None:
    for certificate in ANSWER_CERTIFICATES:
        assert certificate.name not in IDS
    for names in (IDS, [form.column for each in CATALOGUE for form in each.forms]):
        assert len(set(names)) == len(names)
    arguments: dict[str, set[tuple[str, ...]]] = {}
    for certificate in (*CATALOGUE, *ANSWER_CERTIFICATES):
        for form in certificate.forms:
            arguments.setdefault(form.sql, set()).add(certificate.arguments(form))
    assert all(len(found) == 1 for found in arguments.values()), arguments


def test_the_size_of_a_list_is_that_of_its_thresholds() -> None:
    assert len(LARGE_RADIUS_THRESHOLDS) == EXCEEDANCE.size
    scores = np.random.default_rng(0).uniform(0.3, 1.0, 200)
    assert EXCEEDANCE.statistic is not None
    for anytime in (False, True):
        bounds = EXCEEDANCE.statistic(scores, 0.01, anytime)
        share = [(2 * scores - 1 >= c).mean() for c in LARGE_RADIUS_THRESHOLDS]
        assert bounds.shape == (EXCEEDANCE.size,) and np.all(bounds <= share)


def drawn(each: Evidence, generator: np.random.Generator, count: int) -> np.ndarray:
    if each.kind == "law":
        return generator.uniform([0.0, 0.02, 0.5, 0.2, 0.0], [0.8, 0.3, 3.0, 1.5, 1.0], (count, each.size))
    values = generator.uniform(each.low, 1.0, (count, max(1, each.size)))
    # probabilities of exceeding rising thresholds fall
    return np.sort(values, axis=1)[:, ::-1] if each.size else values[:, 0]


@pytest.mark.parametrize("certificate", CATALOGUE, ids=IDS)
def test_more_evidence_never_certifies_less_and_a_larger_radius_never_more(certificate: Certificate) -> None:
    """What a row's bounds at a larger level give is at least what was certified: the audit rests on it."""
    generator = np.random.default_rng(7)
    low = [drawn(each, generator, 300) for each in certificate.basis]
    # more evidence: larger lower bounds, and smaller upper ones
    high = [
        known
        if each.exact
        else known + generator.uniform(0, 1, known.shape) * ((0.0 if each.kind == "upper" else 1.0) - known)
        for each, known in zip(certificate.basis, low, strict=True)
    ]
    # larger in every element, and still falling: sorting keeps both
    high = [
        np.sort(more, axis=1)[:, ::-1] if each.size and not each.exact else more
        for each, more in zip(certificate.basis, high, strict=True)
    ]
    forms = [(certificate.bound, (0.1, 0.4)), (certificate.radius_at, (0.3, 0.7)), (certificate.radius, ())]
    for form, points in forms:
        if form is None:
            continue
        found = []
        for known in (low, high):
            values = [form.function(*known, point, SIGMA) for point in points or ()]
            found.append(np.stack(values or [form.function(*known, SIGMA)]))
        less, more = (np.where(np.isnan(values), -2.0, values) for values in found)
        # a search for the best multipliers ends within 1e-4 of them
        assert np.all(less <= more + 1e-4), form.column
        assert np.all(more[1:] <= more[:-1] + 1e-4), form.column
        assert np.any(more > less + 0.01), form.column


def test_the_page_is_that_of_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make schemas"
