"""Certified robustness of image-text encoders over whole datasets.

In a notebook or a program::

    import smoothcert as sc

    found = sc.certify(image, "openai/clip-vit-base-patch32", sigma=0.25, draws=500, texts=["a cat", "a dog"])
    found["certified_radius"]

    run = sc.open_run("runs/digits-1a2b3c4d")
    run.sql("SELECT label, median(certified_radius) FROM certificates GROUP BY 1")

Importing this package imports nothing of weight: names are resolved when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.late_names import resolve_late
from smoothcert.version import VERSION

if TYPE_CHECKING:
    from smoothcert.api.certify import Certificates, certify
    from smoothcert.api.runs import Run, compare, open_run, run
    from smoothcert.encoders.base import Encoder
    from smoothcert.encoders.loading import load_encoder
    from smoothcert.job.encoder import EncoderSection
    from smoothcert.job.job import Job
    from smoothcert.job.reading import load_job, parse_job

__version__ = VERSION

__all__ = [
    "Certificates",
    "Encoder",
    "EncoderSection",
    "Job",
    "Run",
    "certify",
    "compare",
    "load_encoder",
    "load_job",
    "open_run",
    "parse_job",
    "run",
]

_HOME = {
    "Certificates": "api.certify",
    "Encoder": "encoders.base",
    "EncoderSection": "job.encoder",
    "Job": "job.job",
    "Run": "api.runs",
    "certify": "api.certify",
    "compare": "api.runs",
    "load_encoder": "encoders.loading",
    "load_job": "job.reading",
    "open_run": "api.runs",
    "parse_job": "job.reading",
    "run": "api.runs",
}

__getattr__, __dir__ = resolve_late(__name__, _HOME, [*__all__, "__version__"])
