"""Claims that a run can make about all its pairs, each as an SQL condition on a row of ``certificates``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smoothcert.store.run_info import RunInfo


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim.

    Attributes:
        kind: ``target`` (named by the job, decided by a sequential test) or ``grid`` (read off the stored
            bounds).
        claim: a short label, e.g. ``angular>=0.8@0.25``.
        certificate: what it rests on.
        radius: l2 radius in [0,1] pixels.
        cosine: the cosine that must hold; ``None`` for predictions and ranks.
        condition: SQL, true exactly for rows that are certified.
    """

    kind: str
    claim: str
    certificate: str
    radius: float
    cosine: float | None
    condition: str


def claims(info: RunInfo) -> list[Claim]:
    """Every claim of a run: its targets, then the grid of its radii and cosines."""
    return [*_targets(info), *_grid(info)]


def _targets(info: RunInfo) -> Iterator[Claim]:
    for position, target in enumerate(info.job.certify.targets, start=1):
        yield Claim(
            "target",
            target.name,
            target.certificate,
            target.radius,
            target.cosine,
            f"target_decision[{position}] = 'certified'",
        )


def _grid(info: RunInfo) -> Iterator[Claim]:
    certify = info.job.certify
    for certificate in ("fcsb", "angular", "clean_reference", "large_radius"):
        for position, radius in enumerate(certify.radii, start=1):
            for cosine in certify.cosines:
                yield Claim(
                    "grid",
                    f"{certificate}>={cosine:g}@{radius:g}",
                    certificate,
                    radius,
                    cosine,
                    f"{certificate}[{position}] >= {cosine!r}::DOUBLE",
                )
    sections = {
        "class": ("certified_radius", info.job.zero_shot),
        "retrieval": ("retrieval_radius", info.job.retrieval),
    }
    for certificate, (column, section) in sections.items():
        for radius in certify.radii if section is not None else ():
            held = f"{column} >= {radius!r}::DOUBLE"
            yield Claim("grid", f"{certificate}@{radius:g}", certificate, radius, None, held)
