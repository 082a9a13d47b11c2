"""Transfer: perturbations made on one encoder, judged on another."""

from __future__ import annotations

from smoothcert.encoders.base import Encoder
from smoothcert.errors import JobError


def check_transfer(source: Encoder, target: Encoder) -> None:
    """Raise ``JobError`` unless both encoders have the same canonical input.

    A budget is a norm on the canonical input, so perturbed images only mean the same on the same grid. Judge
    a transferred perturbation by scoring its images on a subject made of ``target``.
    """
    if source.input_size != target.input_size:
        ours, theirs = ("x".join(map(str, encoder.input_size)) for encoder in (source, target))
        raise JobError(
            f"perturbations made on encoder '{source.name}' ({ours}) do not fit encoder '{target.name}' "
            f"({theirs})",
            remedy="use encoders with the same canonical input size",
        )
