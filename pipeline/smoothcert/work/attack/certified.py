"""What committed certificates say about a pair at any budget: the join behind attack rows and the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smoothcert.attacks import Subject
from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.catalogue.quantities import Quantity
from smoothcert.store import CERTIFICATES, RunDirectory
from smoothcert.work.committed import CommittedRows

_SHOWN = tuple(each for each in CATALOGUE if each.quantity.shown and each.bound is not None)
_ANYWHERE = tuple(each for each in _SHOWN if each.anywhere)
_GRIDS = tuple(each for each in _SHOWN if not each.anywhere)
_COLUMNS = (
    *("unit_id", "pair_id", "status", "sigma", "encoder_digest", "predicted_label", "vote_label"),
    *dict.fromkeys(part.column for each in _ANYWHERE for part in each.basis),
    *(each.bound.column for each in _GRIDS if each.bound is not None),
)


@dataclass(frozen=True, slots=True)
class Claims:
    """The numbers of one certificate row that bounds follow from.

    Attributes:
        sigma: deviation of the noise.
        radii: the job's radii, rising.
        evidence: by column, what certificates that can be had at any radius rest on; None where nothing is known.
        grids: by column, bounds at each radius of the certificates that cannot, None where vacuous.
        encoder_digest: of the encoder that is certified.
        label: the class that the class certificate is about; None without one.
        voted: the class that the certificate of the vote is about; None without one.
    """

    sigma: float
    radii: tuple[float, ...]
    evidence: Mapping[str, float | None]
    grids: Mapping[str, tuple[float | None, ...]]
    encoder_digest: str = ""
    label: str | None = None
    voted: str | None = None

    def about(self, subject: Subject) -> bool:
        """Whether this is certified of a subject: the same encoder under the same noise."""
        return subject.encoder.digest == self.encoder_digest and subject.sigma == self.sigma

    def certified(self, quantity: Quantity, radius: float) -> dict[str, float]:
        """Certified lower bounds of a quantity at any radius, by certificate; vacuous ones are left out.

        Those that the row's numbers give at any radius are computed for this very one. The others are known at the
        job's radii only: the bound at the next larger one covers every smaller perturbation too.
        """
        found: dict[str, float] = {}
        for each in _ANYWHERE:
            known = [self.evidence[part.column] for part in each.basis]
            if each.bound is not None and each.quantity == quantity and None not in known:
                found[each.name] = float(each.bound.function(*known, radius, self.sigma))
        beyond = next((i for i, known in enumerate(self.radii) if known >= radius), None)
        for each in _GRIDS:
            values = self.grids[each.bound.column] if each.bound is not None else ()
            if each.quantity == quantity and beyond is not None and beyond < len(values):
                value = values[beyond]
                found[each.name] = float("nan") if value is None else value
        return {name: value for name, value in found.items() if value == value}


class CertificateReader:
    """Finds the certificates of the pairs of a unit among the run's committed files.

    Args:
        run: the run directory, as of now.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._rows = CommittedRows(run, CERTIFICATES, _COLUMNS)
        self._radii = run.info.job.certify.radii

    def claims(self, unit_id: str, pair_ids: Sequence[str]) -> dict[str, Claims]:
        """The claims about these pairs that have certificates.

        Args:
            unit_id: a unit of any kind that holds them; of a unit of retries, the one that it replaces rows of.
            pair_ids: the pairs.

        Raises:
            StoreError: a committed file cannot be read.
        """
        rows = self._rows.of(unit_id, pair_ids)
        return {row["pair_id"]: claims_of(row, self._radii) for row in rows}


def claims_of(row: Mapping[str, Any], radii: tuple[float, ...]) -> Claims:
    """The claims of a certificate row given as a mapping."""
    evidence = {part.column: row[part.column] for each in _ANYWHERE for part in each.basis}
    grids = {
        each.bound.column: tuple(row[each.bound.column] or ()) for each in _GRIDS if each.bound is not None
    }
    return Claims(
        row["sigma"],
        radii,
        evidence,
        grids,
        row["encoder_digest"],
        row["predicted_label"],
        row.get("vote_label"),
    )
