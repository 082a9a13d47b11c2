"""Short names of runs that show what varies between runs of one job: noise, encoder and defence."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from smoothcert.job.encoder import names_code
from smoothcert.job.job import Job

_LONGEST = 24
"""Letters of one part of a name."""
_BUNDLED = "bundled:"


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
