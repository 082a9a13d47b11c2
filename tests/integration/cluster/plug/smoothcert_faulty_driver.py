"""The driver of the fault tests: the shipped one, whose workers get a faulty encoder.

Apart from what workers import, which would load all that a driver needs.
"""

from __future__ import annotations

from collections.abc import Callable

from smoothcert_faults import Faults, FaultyOpening, make_encoder

from smoothcert.errors import SmoothcertError
from smoothcert.job import Job, parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.opening import Opening

__all__ = ["Faults", "FaultyDriver", "certify", "guarded"]


class FaultyDriver(Driver):
    """The shipped driver; workers get the faulty encoder."""

    def __init__(self, job: Job, faults: Faults) -> None:
        super().__init__(job, make_encoder())
        self._faults = faults

    def opening(self) -> Opening:
        plain = super().opening()
        given = (plain.job, plain.run_url, plain.encoder_digest, plain.pool)
        return FaultyOpening(*given, self._faults, exclusive=plain.exclusive)


def certify(job_text: str, faults: Faults) -> int:
    """``smoothcert certify`` with the faulty encoder: same signals, same exit code."""
    from smoothcert.cli import running as command

    return command.run_job(FaultyDriver(parse_job(job_text), faults))


def guarded(main: Callable[[], int]) -> int:
    """What the console script does with errors: a message and the error's exit code."""
    try:
        return main()
    except SmoothcertError as exc:
        print(f"error: {exc}")
        return exc.exit_code
