"""Claims that a run can make about all its pairs, each as an SQL condition on a row of ``certificates``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.certificates import of_name
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
        right: SQL, true for rows whose prediction is right, where the claim is about a prediction; else empty.
    """

    kind: str
    claim: str
    certificate: str
    radius: float
    cosine: float | None
    condition: str
    right: str = ""


def _right(certificate: Certificate) -> str:
    return f"{certificate.quantity.label} = label" if certificate.right_figure else ""


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
            _right(of_name(target.certificate)),
        )


def _grid(info: RunInfo) -> Iterator[Claim]:
    certify = info.job.certify
    for certificate in info.job.certificates:
        name = certificate.name
        if certificate.bound is not None and certificate.quantity.cosine:
            for position, radius in enumerate(certify.radii, start=1):
                for cosine in certify.cosines:
                    held = f"{certificate.bound.column}[{position}] >= {cosine!r}::DOUBLE"
                    yield Claim("grid", f"{name}>={cosine:g}@{radius:g}", name, radius, cosine, held)
        if certificate.figure:
            for position, radius in enumerate(certify.radii, start=1):
                held = certificate.holds_at(position, radius)
                yield Claim("grid", f"{name}@{radius:g}", name, radius, None, held, _right(certificate))
