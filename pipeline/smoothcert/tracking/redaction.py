"""Text without credentials: what leaves for MLflow, and every message about it, passes through here.

What is recognised are URLs: user names and passwords before the host, and query strings of key=value pairs
(presigned links, SAS tokens). A job has no other place for a credential: object stores take theirs from the
environment, and unknown keys are refused. A question mark that is part of a glob stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

_USERINFO = re.compile(r"(?<=://)[^/?#\s'\"]*@")
_QUERY = re.compile(r"(://[^\s'\"?#]*)[?#][^\s'\"=,]+=[^\s'\",\]]*")


def without_secrets(text: str) -> str:
    """The text, with user information and query strings taken out of every URL in it."""
    # what is left of one URL may read like another: until nothing changes
    while (shorter := _QUERY.sub(r"\1", _USERINFO.sub("", text))) != text:
        text = shorter
    return text


def without_secrets_of(text: str, url: str) -> str:
    """The text without any credential of this URL, wherever and in whatever form a library has put it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return without_secrets(text)
    pieces = {parts.query, parts.fragment, parts.netloc.rpartition("@")[0]}
    pieces |= set(parts.netloc.rpartition("@")[0].split(":")[1:])
    for piece in sorted(pieces | {unquote(piece) for piece in pieces}, key=len, reverse=True):
        if piece:
            text = text.replace(piece, "***")
    return without_secrets(text)


def clean(data: Any) -> Any:
    """Plain data (mappings, lists, scalars) with every string passed through ``without_secrets``."""
    if isinstance(data, str):
        return without_secrets(data)
    if isinstance(data, Mapping):
        return {key: clean(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [clean(value) for value in data]
    return data
