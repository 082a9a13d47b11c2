"""The first sentences of the page: what was certified, with the confidence behind it, for a reader who is new to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smoothcert.catalogue.certificates import of_name
from smoothcert.sql import Query
from smoothcert.sql.claims import claims
from smoothcert.sql.functions import SHARE_CONFIDENCE
from smoothcert.sql.literals import quote
from smoothcert.statistics import share_interval
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
_SCORES = {
    "clean_percentile": "the cosine to the image without noise",
    "pilot_percentile": "the cosine to the mean of other noisy copies",
    "caption_percentile": "the similarity to the caption",
    "class_percentile": "the margin of the class",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """One claim, in words and in SQL.

    Attributes:
        claim: what holds of a certified pair.
        sentence: the share with interval and expected false certificates.
        condition: SQL over a row of ``certificates``.
        choices: among how many radii the data chose this one; 1 for a target of the job.
    """

    claim: str
    sentence: str
    condition: str
    choices: int = 1

    @property
    def confidence(self) -> float:
        """Of an interval about this claim, so that it covers at the level of all shares though the data chose it."""
        return confidence_among(self.choices)


def confidence_among(choices: int) -> float:
    """The level of one interval, if one of so many is shown that was chosen by the data (Bonferroni, theory 3.8)."""
    return 1.0 - (1.0 - SHARE_CONFIDENCE) / choices


def headlines(query: Query, info: RunInfo) -> list[Headline]:
    """What to say first of a run: of its targets, or where it has none of its grid; at most three sentences."""
    rows = query.rows(f"SELECT * FROM certified_share WHERE run_id = {quote(info.run_id)} AND pairs > 0")
    conditions = {(each.kind, each.claim): each.condition for each in claims(info)}
    targets = [(row, 1) for row in rows if row["kind"] == "target"]
    # a published log tells of the vote alone: of all else nothing is known, not even that it is not certified
    names = ("vote",) if _published(query, info) else ("angular", "class", "vote")
    grid = [row for row in rows if row["kind"] == "grid"]
    found = [choose_radius(_rows_of(grid, name, info.job.certify.cosines)) for name in names]
    return [
        Headline(
            _claim(row),
            _sentence(row, choices),
            f"coalesce({conditions[row['kind'], row['claim']]}, false)",
            choices,
        )
        for row, choices in targets[:3] or [each for each in found if each is not None]
    ]


def _published(query: Query, info: RunInfo) -> bool:
    (row,) = query.rows(
        f"SELECT coalesce(bool_and(noise = {quote(PUBLISHED)}), false) AS all_of_it FROM certificates "
        f"WHERE run_id = {quote(info.run_id)}"
    )
    return bool(row["all_of_it"])


def _rows_of(
    rows: Sequence[dict[str, Any]], certificate: str, cosines: tuple[float, ...]
) -> list[dict[str, Any]]:
    """A certificate's rows at all radii, at the middle cosine of the job."""
    cosine = sorted(cosines)[len(cosines) // 2] if cosines else None
    return [row for row in rows if row["certificate"] == certificate and row["cosine"] in (None, cosine)]


def choose_radius(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], int] | None:
    """The row of the largest radius that half of the pairs have, else of the smallest, and how many there were.

    The data choose: an interval for this row needs ``confidence_among`` that many.

    Args:
        rows: of ``certified_share``, one claim at several radii.
    """
    ordered = sorted(rows, key=lambda row: float(row["radius"]))
    enough = [row for row in ordered if row["share"] >= _ENOUGH]
    chosen = enough[-1:] or ordered[:1]
    return (chosen[0], len(ordered)) if chosen else None


def interval_of(row: dict[str, Any], choices: int) -> tuple[float, float]:
    """The 95% interval of a row that was chosen among so many by the data."""
    return share_interval(
        row["certified"], row["pairs"], confidence_among(choices), anytime=row["interval"] == "anytime"
    )


def _claim(row: dict[str, Any]) -> str:
    return say_claim(row["certificate"], row["radius"], row["cosine"])


def say_claim(name: str, radius: float, cosine: float | None) -> str:
    """What holds of a pair that a certificate certifies at a radius, in words.

    Raises:
        KeyError: no certificate has this name.
    """
    certificate = of_name(name)
    if certificate.rule == "percentile":
        what = f"the percentile of {_SCORES[name]} of its noisy copies is at least {cosine:g}"
    elif certificate.quantity.cosine:
        to = "the image without noise" if certificate.quantity.name == "clean" else "the unchanged image"
        what = f"the feature keeps a cosine of at least {cosine:g} to that of {to}"
    elif certificate.quantity.label:
        what = "the predicted class stays the same"
    elif certificate.quantity.section == "retrieval":
        what = "the own caption stays among the nearest ones"
    else:
        least = "" if cosine is None else f" of at least {cosine:g}"
        what = f"the similarity to the caption{least} is kept"
    return (
        f"{what} under any change of the image of l2 size at most {radius:g} (for {_WORDS[certificate.rule]})"
    )


def _sentence(row: dict[str, Any], choices: int) -> str:
    chosen = f", which allows for the choice among {choices} radii" if choices > 1 else ""
    interval = f"95% interval {interval_text(*interval_of(row, choices))}{chosen}"
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
