"""The first sentences of the page: what was certified, with the confidence behind it, for a reader who is new to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smoothcert.catalogue.certificates import of_name
from smoothcert.sql import Query
from smoothcert.sql.claims import claims
from smoothcert.sql.literals import quote
from smoothcert.store import RunInfo
from smoothcert.summary.rounding import at_most, interval_text, share_text
from smoothcert.work.published.importing import PUBLISHED

_ENOUGH = 0.5
"""Of a grid, the largest radius at which so many hold is the one that the headline is about."""
_WORDS = {
    "mean": "the smoothed encoder",
    "vote": "the vote over noisy copies",
    "percentile": "the percentile over noisy copies",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """One claim, in words and in SQL.

    Attributes:
        claim: what holds of a certified pair.
        sentence: the share with interval and expected false certificates.
        condition: SQL over a row of ``certificates``.
    """

    claim: str
    sentence: str
    condition: str


def headlines(query: Query, info: RunInfo) -> list[Headline]:
    """What to say first of a run: of its targets, or where it has none of its grid; at most three sentences."""
    rows = query.sql(
        f"SELECT * FROM certified_share WHERE run_id = {quote(info.run_id)} AND pairs > 0"
    ).to_pylist()
    conditions = {(each.kind, each.claim): each.condition for each in claims(info)}
    targets = [row for row in rows if row["kind"] == "target"]
    # a published log tells of the vote alone: of all else nothing is known, not even that it is not certified
    names = ("vote",) if _published(query, info) else ("angular", "class", "vote")
    chosen = targets[:3] or [row for name in names for row in _telling(rows, name, info.job.certify.cosines)]
    return [
        Headline(_claim(row), _sentence(row), f"coalesce({conditions[row['kind'], row['claim']]}, false)")
        for row in chosen
    ]


def _published(query: Query, info: RunInfo) -> bool:
    (row,) = query.sql(
        f"SELECT coalesce(bool_and(noise = {quote(PUBLISHED)}), false) AS all_of_it FROM certificates "
        f"WHERE run_id = {quote(info.run_id)}"
    ).to_pylist()
    return bool(row["all_of_it"])


def _telling(
    rows: list[dict[str, Any]], certificate: str, cosines: tuple[float, ...]
) -> list[dict[str, Any]]:
    """The row of a certificate that tells most: the middle cosine, the largest radius that half of the pairs have."""
    cosine = sorted(cosines)[len(cosines) // 2] if cosines else None
    found = [row for row in rows if row["certificate"] == certificate and row["cosine"] in (None, cosine)]
    found.sort(key=lambda row: row["radius"])
    enough = [row for row in found if row["share"] >= _ENOUGH]
    return enough[-1:] or found[:1]


def _claim(row: dict[str, Any]) -> str:
    certificate = of_name(row["certificate"])
    if certificate.quantity.cosine:
        to = "the image without noise" if certificate.quantity.name == "clean" else "the unchanged image"
        what = f"the feature keeps a cosine of at least {row['cosine']:g} to that of {to}"
    elif certificate.quantity.label:
        what = "the predicted class stays the same"
    elif certificate.quantity.section == "retrieval":
        what = "the own caption stays among the nearest ones"
    else:
        cosine = "" if row["cosine"] is None else f" of at least {row['cosine']:g}"
        what = f"the similarity to the caption{cosine} is kept"
    return (
        f"{what} under any change of the image of l2 size at most {row['radius']:g} "
        f"(for {_WORDS[certificate.rule]})"
    )


def _sentence(row: dict[str, Any]) -> str:
    interval = (
        f"95% interval {interval_text(row['share_low'], row['share_high'])}"
        if row["share_low"] is not None
        else "no interval"
    )
    false = row["expected_false_certificates"]
    right = (
        f" For {share_text(row['right_and_certified'], row['labelled'])} of the {row['labelled']:,} labelled pairs "
        "that class is also right."
        if row["certified_accuracy"] is not None
        else ""
    )
    return (
        f"For {share_text(row['certified'], row['pairs'])} of {row['pairs']:,} pairs {_claim(row)}; {interval}; "
        f"at most {at_most(false)} of these {row['certified']:,} certificates are expected to be false.{right}"
    )
