"""pyarrow without pandas, in processes of our own."""

from __future__ import annotations

import sys
from typing import Any


def leave_pandas_out() -> None:
    """Let pyarrow do without pandas in this process, unless somebody has imported pandas already.

    With the first array that it makes, pyarrow imports pandas, only to be able to tell whether it was given something
    of pandas: a third of a second in every process that never gives it any. From then on pandas can be imported, and
    tables turned into its frames, as always; until pyarrow made such a frame, it reads a series of pandas like any
    other sequence. So this is for processes of the package's own, not for those of users who import it. Sources whose
    columns hold nanoseconds bring pandas back (``datasets.nanoseconds``).
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.scalar(True)
    finally:
        sys.meta_path.remove(absent)


class _Absent:
    """Says that pandas is not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
