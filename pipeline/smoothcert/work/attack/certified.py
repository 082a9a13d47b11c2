"""What committed certificates say about a pair at any budget: the join behind attack rows and the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothcert.attacks import Subject
from smoothcert.certificates import angular_bound, fcsb
from smoothcert.store import RunDirectory
from smoothcert.store.units import plan_number

_COLUMNS = (
    "unit_id",
    "pair_id",
    "status",
    "sigma",
    "robustness_score_lcb",
    "smooth_norm_lcb",
    "clean_reference",
    "large_radius",
    "encoder_digest",
    "predicted_label",
)


@dataclass(frozen=True, slots=True)
class Claims:
    """The numbers of one certificate row that bounds follow from.

    Attributes:
        sigma: deviation of the noise.
        score: lower bound of the robustness score S; None where nothing is known.
        norm: lower bound of the smooth norm N; None where nothing is known.
        radii: the job's radii, rising.
        clean_reference: bound at each radius (T5 or T2), None where vacuous.
        large_radius: bound at each radius (T6), None where vacuous.
        encoder_digest: of the encoder that is certified.
        label: the class that the class certificate is about; None without one.
    """

    sigma: float
    score: float | None
    norm: float | None
    radii: tuple[float, ...]
    clean_reference: tuple[float | None, ...] = ()
    large_radius: tuple[float | None, ...] = ()
    encoder_digest: str = ""
    label: str | None = None

    def about(self, subject: Subject) -> bool:
        """Whether this is certified of a subject: the same encoder under the same noise."""
        return subject.encoder.digest == self.encoder_digest and subject.sigma == self.sigma

    def to_clean(self, radius: float) -> dict[str, float]:
        """Certified cosines to the clean feature at any radius, by certificate; vacuous ones are left out.

        ``fcsb`` is computed for this very radius. The others are known at the job's radii only: the bound at the
        next larger one covers every smaller perturbation too.
        """
        found = {} if self.score is None else {"fcsb": float(fcsb(self.score, radius, self.sigma))}
        beyond = next((i for i, known in enumerate(self.radii) if known >= radius), None)
        for name, values in (("clean_reference", self.clean_reference), ("large_radius", self.large_radius)):
            if beyond is not None and beyond < len(values):
                value = values[beyond]
                found[name] = float("nan") if value is None else value
        return _not_vacuous(found)

    def to_smoothed(self, radius: float) -> dict[str, float]:
        """Certified cosines to the smoothed clean feature at any radius, by certificate."""
        if self.norm is None:
            return {}
        return _not_vacuous({"angular": float(angular_bound(self.norm, radius, self.sigma))})


def _not_vacuous(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if value == value}


class CertificateReader:
    """Finds the certificates of the pairs of a unit among the run's committed files.

    Args:
        run: the run directory, as of now.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._storage = run.storage
        self._radii = run.info.job.certify.radii
        committed = run.commits.load()
        columns = (committed.table[name].to_pylist() for name in ("unit_id", "parts"))
        self._replaced = committed.replaced
        self._files: dict[str, set[str]] = {}
        for unit_id, parts in zip(*columns, strict=True):
            files = [part["file"] for part in parts if part["table"] == "certificates"]
            for number in _numbers(unit_id, self._replaced) if files else ():
                self._files.setdefault(number, set()).update(files)
        hidden = committed.hidden
        self._hidden = set(zip(hidden["unit_id"].to_pylist(), hidden["pair_id"].to_pylist(), strict=True))

    def claims(self, unit_id: str, pair_ids: Sequence[str]) -> dict[str, Claims]:
        """The claims about these pairs that have certificates.

        Args:
            unit_id: a unit of any kind that holds them; of a unit of retries, the one that it replaces rows of.
            pair_ids: the pairs.

        Raises:
            StoreError: a committed file cannot be read.
        """
        found: dict[str, Claims] = {}
        wanted = pa.array(list(pair_ids), pa.string())
        numbers = _numbers(unit_id, self._replaced)
        for file in sorted({file for number in numbers for file in self._files.get(number, ())}):
            with self._storage.open_input(file) as stream:
                table = pq.read_table(stream, columns=list(_COLUMNS))
            for row in table.filter(pc.is_in(table["pair_id"], wanted)).to_pylist():
                if row["status"] == "ok" and (row["unit_id"], row["pair_id"]) not in self._hidden:
                    found[row["pair_id"]] = claims_of(row, self._radii)
        return found


def _numbers(unit_id: str, replaced: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Numbers of the planned units that a unit's rows belong to; a retry stands for rows of others."""
    if unit_id not in replaced:
        return {plan_number(unit_id)}
    return {number for origin in replaced[unit_id] for number in _numbers(origin, replaced)}


def claims_of(row: Mapping[str, Any], radii: tuple[float, ...]) -> Claims:
    """The claims of a certificate row given as a mapping."""
    return Claims(
        sigma=row["sigma"],
        score=row["robustness_score_lcb"],
        norm=row["smooth_norm_lcb"],
        radii=radii,
        clean_reference=tuple(row["clean_reference"] or ()),
        large_radius=tuple(row["large_radius"] or ()),
        encoder_digest=row["encoder_digest"],
        label=row["predicted_label"],
    )
