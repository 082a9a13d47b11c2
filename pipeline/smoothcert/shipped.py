"""Where the files to copy from are: jobs, schemas and recipes.

jobs/       job files to copy and edit
schemas/    what editors complete jobs from, and every column of every table
recipes/    how the bundled model was made
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
FOLDERS = ("jobs", "schemas", "recipes")


def shipped_files() -> Path | None:
    """The directory that holds the folders: in an installed package, or the checkout; None where neither has them."""
    for place in (_PACKAGE / "share", _PACKAGE.parents[1]):
        if all((place / folder).is_dir() for folder in FOLDERS):
            return place
    return None
