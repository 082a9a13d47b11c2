r"""Text that a terminal shows and does not obey.

Captions, ids, paths and the messages of other libraries come from outside. A terminal takes some of their characters
for orders: escape sequences repaint the screen, set its title or write to the clipboard, a carriage return overwrites
the line, and marks of direction show a text in another order than it has. Bytes of a path that are no UTF-8 cannot be
written at all. All of these are shown as the escapes that Python would show, e.g. ``\x1b``.
"""

from __future__ import annotations

import re

_ORDERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction
    "\u2028\u2029\ufff9-\ufffb"  # lines and annotations
    "\U000e0000-\U000e007f"  # tags, which nothing shows
    "\ud800-\udfff]"  # halves of characters; bytes of file names that are no UTF-8
)


def printable(text: str) -> str:
    """The text with every character that a terminal would obey, or could not write, shown as its escape.

    Tabs and line feeds stay, as do letters, marks and symbols of all scripts.
    """
    return _ORDERS.sub(
        lambda found: found.group().encode("unicode_escape", "surrogatepass").decode("ascii"), text
    )
