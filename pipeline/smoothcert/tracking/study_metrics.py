"""What a figure of one run is called among the metrics of its study: ``<figure>/<run>``, in letters that MLflow takes.

MLflow takes letters, digits, spaces and ``_ - .`` (colons not everywhere); names of runs have ``+`` and commas too.
Two names of runs never become one, and the name of the run can be read back, unless it is very long:

``FS + PSM``                 FS plus PSM
``sigma 0.25, max_draws 9``  sigma 0.25 - max_draws 9
``PSM`` of subject ``bare``  PSM -- bare

Where a run's own name has what would be read back as something else, it is told by a word between underscores:
``a+b`` is ``a_plus_b``, ``a - b`` is ``a _dash_ b``.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 250
"""Characters of a metric's name in MLflow."""
_LONGEST_RUN = 150
"""Characters of it that tell the run."""
_ALONE = r"(?:(?<= )|^){word}(?= |,|$)"
_NAMES = r"(?:plus|dash|underscore|word_plus)"
_SPELLING = re.compile(
    "|".join(
        (
            rf"(?P<plus>{_ALONE.format(word=r'[+]')})",
            rf"(?P<_word_plus_>{_ALONE.format(word='plus')})",
            r"(?P<_plus_>[+])",
            r"(?P<_dash_>(?<= )-(?=[ ,-]))",
            rf"(?P<_underscore_>_(?={_NAMES}[_+]))",
            r"(?P<separator>, )",
        )
    )
)


def metric_of(figure: str, label: str, subject: str = "") -> str:
    """The metric of a figure.

    Args:
        figure: its title in the leaderboard.
        label: of the run: letters, digits, spaces and ``. _ + - ,``.
        subject: whose it is where it is not the smoothed encoder's.
    """
    run = spell(label) + (f" -- {spell(subject)}" if subject else "")
    if len(run) > _LONGEST_RUN:
        run = f"{run[:_LONGEST_RUN]}... {hashlib.sha256(run.encode()).hexdigest()[:8]}"
    words = re.sub(r"[^\w. -]+", " ", figure.replace(">=", " at least ").replace("<", " below "))
    return f"{' '.join(words.split())[: LONGEST - len(run) - 1].rstrip()}/{run}"


def spell(label: str) -> str:
    """The name of a run in letters that MLflow takes."""
    return _SPELLING.sub(_say, label)


def _say(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    return " - " if kind == "separator" else kind
