"""How long something takes, roughly, for people."""


def span(seconds: float) -> str:
    """``90 s``, ``14 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
