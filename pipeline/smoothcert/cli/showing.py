"""What each phase shows at its end, by the name of the phase."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from smoothcert.cli.show_attacks import show_attacks
from smoothcert.cli.show_certificates import show_certificates
from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport


SHOW: dict[str, Callable[[Driver, PhaseReport, Terminal], int]] = {
    "certification": show_certificates,
    "attacks": show_attacks,
}
