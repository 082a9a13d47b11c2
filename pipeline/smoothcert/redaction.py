"""Text without credentials: what reaches a run directory or MLflow, and messages about it, passes through here.

What is recognised are URLs: user names and passwords before the host, and query strings of key=value pairs
(presigned links, SAS tokens). A job has no other place for a credential: object stores take theirs from the
environment, unknown keys are refused, and so is such a URL where data or encoders are named. A question mark that is
part of a glob stays, and so does the container before the host of an Azure URL.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from smoothcert.errors import JobError

_USERINFO = re.compile(r"([A-Za-z0-9+.-]*)://([^/?#\s'\"]*)@")
# a secret with slashes in it; what follows the colon is neither a port, nor an ARN, nor the next of chained URLs
_SLASHED = re.compile(r"(?<=://)(?!arn:)[^/?#\s'\"@:\[\]]+:(?!:|\d{1,5}/)[^?#\s'\"@]*@")
_CONTAINERS = frozenset({"abfs", "abfss", "wasb", "wasbs"})
"""Schemes that name a container before the host: container@account.host."""
_QUERY = re.compile(r"(://[^\s'\"?#]*)[?#][^\s'\"=,]+=[^\s'\",\]]*")


def without_secrets(text: str) -> str:
    """The text, with user information and query strings taken out of every URL in it."""
    # what is left of one URL may read like another: until nothing changes
    while (shorter := _QUERY.sub(r"\1", _SLASHED.sub("", _USERINFO.sub(_without_userinfo, text)))) != text:
        text = shorter
    return text


def _without_userinfo(found: re.Match[str]) -> str:
    scheme, userinfo = found.groups()
    if scheme.lower() in _CONTAINERS and not set(userinfo) & {":", "@"}:
        return found.group()
    return f"{scheme}://"


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


def redact(data: Any) -> Any:
    """Plain data (mappings, lists, scalars) with every string passed through ``without_secrets``."""
    if isinstance(data, str):
        return without_secrets(data)
    if isinstance(data, Mapping):
        return {key: redact(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [redact(value) for value in data]
    return data


def refuse_secrets(job: Mapping[str, Any], origin: str, *, unless_at: Collection[str]) -> None:
    """Refuse a job with credentials in a URL, in words that show none.

    Args:
        job: the job as plain data.
        origin: its file.
        unless_at: fields that may have them.

    Raises:
        JobError: a URL holds a user name, a password, a token or a query string.
    """
    fields = [
        f"{place}: '{rest}' has a user name, password, token or query string before or after it"
        for place, rest in _places_of_secrets(job)
        if place not in unless_at
    ]
    if fields:
        raise JobError(
            f"{origin} holds credentials:\n  " + "\n  ".join(fields),
            remedy="remove them: run directories are shared and contain the job. Stores take credentials from their "
            "usual chain (environment, profile, instance role)",
        )


def _places_of_secrets(data: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Where ``clean`` would change plain data, e.g. ``data.uri.0``, with what it would leave there."""
    if isinstance(data, str):
        rest = without_secrets(data)
        if rest != data:
            yield place, rest
    elif isinstance(data, (Mapping, list, tuple)):
        items = data.items() if isinstance(data, Mapping) else enumerate(data)
        for key, value in items:
            yield from _places_of_secrets(value, f"{place}.{key}" if place else str(key))
