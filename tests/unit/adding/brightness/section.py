"""The section ``brightness`` of a job."""

from __future__ import annotations

from smoothcert.job.section import PositiveInt, Section


class BrightnessSection(Section):
    """How bright images are under the job's noise."""

    draws: PositiveInt = 8
    """Noisy copies of each image."""
