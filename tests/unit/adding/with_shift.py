"""Everything about one run with one more attack (shift.py); run as a program by the test."""

from __future__ import annotations

import sys
from pathlib import Path

from smoothcert.catalogue import attacks
from smoothcert.catalogue.attacks import AttackEntry

attacks.ATTACKS = {
    **attacks.ATTACKS,
    "shift": AttackEntry("shift", "Shift", "ShiftSettings", "all pixels brighter or darker alike"),
}

import smoothcert.attacks  # noqa: E402  # behind the entry, as everything below

smoothcert.attacks.__path__.append(str(Path(__file__).parent))

from told import collect, hand_in, smoothcert, write_job  # noqa: E402

ATTACK = {
    "attack": "shift",
    "norm": "l2",
    "budgets": [0.05, 20.0],
    "threshold": 0.95,
    "eot_draws": 4,
    "evaluate_draws": 32,
}


def main(here: Path) -> None:
    """The run, and what each room says of the new attack."""
    job = write_job(here, attacks=[ATTACK])
    told_by_attack = smoothcert("attack", job)
    run = str(here / "mine")
    told = collect(here, attack_success="SELECT * FROM attack_success WHERE attack = 'shift'")
    told["said"], told["status"] = told_by_attack, smoothcert("status", run)
    wrong = write_job(here, attacks=[{**ATTACK, "settings": {"step": 1}}])
    try:
        smoothcert("attack", wrong, code=None)
    except Exception as exc:
        told["refused"] = str(exc)
    hand_in(told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
