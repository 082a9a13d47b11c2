"""Everything about one run with one more metric (steady.py); run as a program by the test."""

from __future__ import annotations

import sys
from pathlib import Path

from steady import STEADY

from smoothcert.catalogue import metrics

metrics.METRICS = {**metrics.METRICS, "steady": STEADY}

from told import collect, hand_in, smoothcert, write_job  # noqa: E402  # behind the entry, as everything below

from smoothcert.catalogue.page import page  # noqa: E402

CERTIFY = {
    "sigma": 0.375,
    "alpha": 0.1,
    "pilot_draws": 63,
    "max_draws": 400,
    "radii": [0.1],
    "cosines": [0.5],
}


def main(here: Path) -> None:
    """The run, and what each room says of the metric."""
    smoothcert("certify", write_job(here, certify=CERTIFY))
    hand_in({**collect(here), "page": page()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
