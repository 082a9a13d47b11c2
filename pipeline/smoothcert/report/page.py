"""From data to one HTML file that needs nothing else: no network, no code but its own, and no markup from data.

Texts from data are untrusted. They stand in one block of JSON, in which no character can end the block, and the page's
script puts them into the document as text only. The policy of the page allows its own two scripts by their digests, and
neither ``eval`` nor any request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BUNDLED = Path(__file__).parent / "bundled"
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def make_page(title: str, sentences: list[str], data: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        title: of the page.
        sentences: what a reader without scripts sees.
        data: what the script shows; plain JSON.

    Raises:
        ValueError: the data hold NaN or infinity.
    """
    scripts = [_read("plotly-basic.min.js"), _read("page.js")]
    parts = {
        "policy": _policy(scripts),
        "title": html.escape(title),
        "style": _read("page.css"),
        "sentences": "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences),
        "plotly": scripts[0],
        "script": scripts[1],
        "data": embed(data),
    }
    page = _read("page.html")
    # one pass: what is put in is not searched again
    pieces = page.split("%%")
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def embed(data: Any) -> str:
    """Data as JSON that may stand inside a script element: it has no ``<``, ``>`` and ``&``, and no line separators."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # lone surrogates are no UTF-8
    return text.translate(_ESCAPES).encode("utf-8", "replace").decode()


def _policy(scripts: list[str]) -> str:
    digests = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    text = (_BUNDLED / name).read_text(encoding="utf-8")
    # a browser hashes what stands between the tags, line ends as \n
    return text.replace("\r\n", "\n").rstrip("\n")
