"""The section ``certify`` of a job: the noise, the statistics, and what is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from smoothcert.catalogue.certificates import CATALOGUE, of_name
from smoothcert.job.section import PositiveInt, Probability, Radius, Section

Cosine = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]

if TYPE_CHECKING:
    CertificateName = str
else:
    CertificateName = Literal[tuple(each.name for each in CATALOGUE if each.target)]


class Target(Section):
    """A statement to decide for every pair; drawing stops when all targets are decided."""

    certificate: CertificateName
    """fcsb, angular: cosine at a radius. class: prediction unchanged. caption: similarity at a radius.
    retrieval: rank of the own caption at most k. vote: most draws predict the class. retrieval_vote: for most draws the
    own caption is among the first k. clean_percentile, pilot_percentile, caption_percentile, class_percentile: the
    job's percentile of a draw's cosine to the clean feature or the pilot direction, similarity to the caption, or
    smallest margin over another class."""
    radius: Radius
    """l2 radius in units of [0,1] pixels."""
    cosine: Annotated[float, Field(ge=-1, lt=1)] | None = None
    """Cosine (fcsb, angular, clean_percentile, pilot_percentile: >= 0), similarity (caption, caption_percentile) or
    margin (class_percentile) that must hold."""

    @model_validator(mode="after")
    def _cosine_where_needed(self) -> Target:
        certificate = of_name(self.certificate)
        if certificate.bound is not None:
            if self.cosine is None:
                raise ValueError(f"a target on '{self.certificate}' needs 'cosine'; add e.g. cosine: 0.8")
            if certificate.quantity.cosine and self.cosine < 0:
                raise ValueError(
                    f"cosine={self.cosine} certifies nothing for '{self.certificate}'; use 0 or more"
                )
        elif self.cosine is not None:
            raise ValueError(f"a target on '{self.certificate}' takes no 'cosine'; remove it")
        return self

    @property
    def needs_captions(self) -> bool:
        """Whether it is about a pair's own caption and nothing else."""
        return of_name(self.certificate).quantity.of == "caption"

    @property
    def name(self) -> str:
        """A short stable label, e.g. ``angular>=0.8@0.25``."""
        cosine = "" if self.cosine is None else f">={self.cosine:g}"
        return f"{self.certificate}{cosine}@{self.radius:g}"


def pilots_for(draws: int) -> int:
    """Pilot draws that serve so many fresh ones: about 2 sqrt(draws), one less than a multiple of 16.

    More would choose better, but are then missing among the fresh ones; measured in docs/benchmarks.md.
    """
    return 16 * max(1, round(math.sqrt(draws) / 8.0)) - 1


class CertifySection(Section):
    """The noise, the statistics, and what is asked."""

    sigma: Annotated[float, Field(gt=0, le=30, allow_inf_nan=False)]
    """Standard deviation of the noise, in units of [0,1] pixels."""
    alpha: Probability = 0.001
    """Failure probability of each certificate of each row."""
    alpha_futility: Probability = 0.01
    """Probability of giving up on a target that does hold. It can cost results, never soundness."""
    pilot_draws: Annotated[int, Field(ge=2)] = 63
    """Draws that choose directions and the predicted class and are then discarded; default about 2 sqrt(max_draws): 63
    for 1,000, 31 for 300, and 15 for 100 or fewer (with the clean pass, whole chunks of 16)."""
    max_draws: Annotated[int, Field(ge=2)] = 1000
    """Fresh draws per pair: exactly this many without targets, at most this many with them."""
    method: Literal["betting", "empirical_bernstein", "hoeffding"] = "betting"
    """Method of the confidence bounds. Targets need betting, the one that is valid at any stopping time."""
    radii: tuple[Radius, ...] = ()
    """l2 radii at which bounds are stored; default sigma x (0.25, 0.5, 1, 1.5)."""
    cosines: tuple[Cosine, ...] = (0.5, 0.8, 0.9)
    """Cosine thresholds for which certified radii are stored."""
    targets: tuple[Target, ...] = ()
    percentile: Probability | None = 0.5
    """Which percentile of scores is certified, 0.5 being the median; null certifies none."""
    second_moment: bool = False
    """Whether to measure how much features scatter, for the certificate 'second_moment': a matrix of d x d numbers a
    slot (d at most 2,048), and about a millisecond of a core for each pair and radius. It pays where they scatter in
    many directions."""
    rivals: PositiveInt = 8
    """Rival classes (or captions) whose margins are measured one by one; the others are bounded together."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Root of all noise keys of this job."""

    @model_validator(mode="before")
    @classmethod
    def _default_radii(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("radii") is not None:
            return data
        try:
            sigma = float(data["sigma"])
        except (KeyError, TypeError, ValueError):
            sigma = math.nan
        # a bad sigma is reported as itself, not as radii that nobody wrote; 1.0 stands in until then
        sigma = sigma if 0 < sigma < math.inf else 1.0
        return {**data, "radii": tuple(float(f"{sigma * k:.10g}") for k in (0.25, 0.5, 1.0, 1.5))}

    @model_validator(mode="before")
    @classmethod
    def _default_pilots(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("pilot_draws") is not None:
            return data
        try:
            draws = int(data.get("max_draws", cls.model_fields["max_draws"].default))
        except (TypeError, ValueError, OverflowError):
            draws = 0
        # a bad number of draws is reported as itself, not as one of pilots that nobody wrote
        return {**data, "pilot_draws": pilots_for(draws if draws > 0 else 1)}

    @field_validator("radii", "cosines")
    @classmethod
    def _strictly_increasing(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values:
            raise ValueError("[] is empty; give at least one number, or leave it out for the default")
        if any(b <= a for a, b in zip(values, values[1:], strict=False)):
            ordered = sorted(set(values))
            raise ValueError(f"{list(values)} is not strictly increasing; write {ordered}")
        return values

    @model_validator(mode="after")
    def _percentile_for_targets(self) -> CertifySection:
        for target in self.targets:
            if of_name(target.certificate).rule == "percentile" and self.percentile is None:
                raise ValueError(
                    f"target '{target.name}' needs certify.percentile, which is null; set e.g. percentile: 0.5 for the "
                    "median, or remove the target"
                )
        return self

    @model_validator(mode="after")
    def _anytime_for_targets(self) -> CertifySection:
        if self.targets and self.method != "betting":
            raise ValueError(
                f"method='{self.method}' is valid only at a fixed number of draws, but targets stop early; "
                "use method: betting or remove the targets"
            )
        return self
