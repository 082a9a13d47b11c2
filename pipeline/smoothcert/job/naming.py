"""What a run is called by what varies between runs of one job: in file names, and by people who compare runs."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from smoothcert.job.encoder import EncoderSection, names_code
from smoothcert.job.job import Job
from smoothcert.redaction import without_secrets

_LONGEST = 24
"""Letters of one part of a name."""
_BUNDLED = "bundled:"
NO_DEFENCE = "no defence"


def variant(job: Job) -> str:
    """What sets a run apart, for people and file names: ``vit-base-patch32-s0.25-blur``.

    The encoder is left out where it is bundled, the defence where there is none. It is no identity: two runs may differ
    in other fields.
    """
    encoder = job.encoder
    parts = [] if encoder.model.startswith(_BUNDLED) else [_short(encoder.model)]
    parts.append(f"s{job.certify.sigma:g}")
    parts += [_short(part) for part in (encoder.purifier, encoder.mapper) if part is not None]
    return "-".join(part for part in parts if part)


def _short(place: str) -> str:
    """The last name in a path, hub id or ``module:callable``, in letters that any store takes."""
    name = place.rpartition(":")[2] if names_code(place) else PurePosixPath(place.rstrip("/")).name
    name = name.removesuffix(".safetensors").removeprefix(_BUNDLED)
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:_LONGEST].rstrip("-.")


def defence_name(encoder: EncoderSection) -> str:
    """Purifier and mapper in short, e.g. ``purifier unet + mapper psm``; of one place, its name; or ``no defence``."""
    if encoder.purifier is not None and encoder.purifier == encoder.mapper:
        return short_name(encoder.purifier)
    parts = [
        f"{kind} {short_name(value)}"
        for kind, value in (("purifier", encoder.purifier), ("mapper", encoder.mapper))
        if value is not None
    ]
    return " + ".join(parts) or NO_DEFENCE


def run_title(job: Job) -> str:
    """What distinguishes runs of one job, in short: defence, sigma, draws and encoder."""
    certify = job.certify
    draws = f"{'up to ' if certify.targets else ''}{certify.max_draws:,} draws"
    return f"{defence_name(job.encoder)}, sigma {certify.sigma:g}, {draws}, {short_name(job.encoder.model)}"


def short_name(place: str) -> str:
    """The last part of a path, URL or hub id, without the ending of weights; of code, what is called."""
    last = without_secrets(place).rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return last.removesuffix(".safetensors")
