"""Certificates in SQL, computed anew from what a row says they follow from.

A function refuses what is outside its domain, and one such row would end the whole audit: so every argument is NULL
where it is none. Where a certificate rests on a part of alpha and the row has the bound at a larger one, what is
computed is a cap.
"""

from __future__ import annotations

from math import isfinite

from smoothcert.catalogue.certificate import Certificate, Form
from smoothcert.catalogue.evidence import Evidence

SLACK = 1e-9
"""Differences of float64 arithmetic that are none of anybody's rounding."""


def number(value: float) -> str:
    """A number as an SQL literal, every digit of it."""
    text = repr(float(value))
    if not isfinite(value):
        return f"'{text}'::DOUBLE"
    # with an exponent it is a DOUBLE, and nothing that DuckDB has to cast
    text = text if "e" in text else f"{text}e0"
    return f"({text})" if text.startswith("-") else text


def argument(evidence: Evidence, table: str = "", position: int = 1) -> str:
    """What a row says of one piece of evidence; NULL where that is impossible, or nothing is known.

    Args:
        evidence: the column.
        table: alias of the table and a dot, where there are several.
        position: number of the radius in the job, from 1 on, where there is something for each.
    """
    name = f"{table}{evidence.column}"
    if evidence.per_radius and evidence.size:
        name = f"list_slice({name}, {evidence.size * (position - 1) + 1}, {evidence.size * position})"
    elif evidence.per_radius:
        name = f"{name}[{position}]"
    low, high = f"{evidence.low:g}", f"{evidence.high:g}"
    if evidence.size:
        inside = f"len({name}) = {evidence.size} AND list_min({name}) >= {low} AND list_max({name}) <= {high}"
        return f"CASE WHEN {inside} THEN {name} END"
    inside = f"WHEN {name} BETWEEN {low} AND {high} THEN {name}"
    if evidence.kind == "known":
        # an inner product of unit vectors, which rounding may have put outside its range
        inside = f"WHEN abs({name}) <= 1 + {number(SLACK)} THEN greatest(-1, least(1, {name}))"
    if evidence.null is None:
        return f"CASE {inside} END"
    return f"CASE WHEN {name} IS NULL THEN {evidence.null:g} {inside} END"


def compute_sql(
    certificate: Certificate, form: Form, sigma: str, point: str = "", table: str = "", position: int = 1
) -> str:
    """A bound or radius as it follows from a row; NULL where nothing does.

    Args:
        certificate: the certificate.
        form: one of its forms.
        sigma: SQL of the noise.
        point: SQL of a radius, or of a cosine, where the form takes one.
        table: alias of the table and a dot, where there are several.
        position: number of that radius in the job, from 1 on, where the row rests on something else at each.
    """
    arguments = [argument(each, table, position) for each in certificate.basis]
    return f"{form.sql}({', '.join([*arguments, *([point] if point else []), sigma])})"
