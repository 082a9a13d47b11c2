"""One row of the table ``certificates`` in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, make_dataclass
from typing import Any

from smoothcert.catalogue.certificates import CATALOGUE, evidence
from smoothcert.engine.pair_row import PairRow


def _columns() -> Iterator[tuple[str, Any, Any]]:
    """What the catalogue's certificates fill, NULL unless filled."""
    several, one = "tuple[float | None, ...] | None", "float | None"
    for each in evidence():
        if each.meaning:
            yield each.column, several if each.listed else one, field(default=None)
    for certificate in CATALOGUE:
        for form in certificate.forms:
            yield form.column, one if form is certificate.radius else several, field(default=None)


_CertifiedColumns: Any = make_dataclass("_CertifiedColumns", _columns(), frozen=True, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class CertificateRow(PairRow, _CertifiedColumns):  # type: ignore[misc]  # columns that only the catalogue knows
    """One pair of the input: its certificates, or why it has none. Columns are documented in ``schemas/``.

    The columns of bounds and radii, and of what else they rest on, are the catalogue's.
    """

    caption: str | None
    captions: tuple[str, ...]
    label: str | None
    kept: tuple[str | None, ...] | None = None
    image_digest: str | None = None
    sigma: float
    alpha: float
    input_height: int
    input_width: int
    draws: int = 0
    pilot_draws: int = 0
    stop_reason: str | None = None
    smooth_norm: float | None = None
    smooth_norm_lcb: float | None = None
    robustness_score: float | None = None
    robustness_score_lcb: float | None = None
    eigenvalue: float | None = None
    caption_similarity: float | None = None
    caption_similarity_lcb: float | None = None
    caption_alignment: float | None = None
    clean_label: str | None = None
    predicted_label: str | None = None
    vote_label: str | None = None
    vote_share: float | None = None
    vote_share_lcb: float | None = None
    class_margin: float | None = None
    class_margin_lcb: float | None = None
    class_rival: str | None = None
    class_rival_margin_lcb: float | None = None
    class_rival_alignment: float | None = None
    retrieval_rank: int | None = None
    retrieval_rival_margin_lcb: float | None = None
    retrieval_rival_alignment: float | None = None
    retrieval_vote_share: float | None = None
    retrieval_vote_share_lcb: float | None = None
    target_decision: tuple[str, ...] | None = None
    log_e_value: tuple[float, ...] | None = None
    encoder_digest: str
    seed: int
    noise: str
    device: str
    dtype: str
