"""Images that data names by web addresses: a dead link is one bad pair, not a store that fails."""

from __future__ import annotations

from smoothcert.datasets.stores import store_of
from smoothcert.errors import ReadError, SourceError
from smoothcert.redaction import without_secrets_of
from smoothcert.storage.steady import steadily

_SAID = {
    401: "the server asks who you are",
    403: "the server forbids it",
    404: "it does not exist",
    410: "it is gone",
    429: "the server is asked too often",
}


def read_link(uri: str) -> bytes:
    """What a web address holds, by one request without asking for its size first.

    Answers that say "not now" (429 and most of 5xx), lost connections and silence are tried again as ``steadily``
    does; how long one try may take, ``stores`` says.

    Args:
        uri: an ``http://`` or ``https://`` address.

    Raises:
        ReadError: the link is dead: an error status, no such host, nothing listening, no answer in time.
        SourceError: this process has no package for web addresses.
    """
    try:
        store, path = store_of(uri)
        return bytes(steadily(lambda: store.cat_file(path), path))
    except ImportError as exc:
        raise SourceError(f"cannot read '{uri}': {exc}", remedy="install the package aiohttp") from exc
    except FileNotFoundError as exc:
        raise _dead(uri, f"{_SAID[404]} (HTTP 404)") from exc
    except Exception as exc:  # aiohttp's own tree, also of connections and names
        status = getattr(exc, "status", None)
        if not isinstance(status, int) or status < 400:
            raise _dead(uri, f"{type(exc).__name__}: {exc}".rstrip(": ")) from exc
        usual = "the server refuses it" if status < 500 else "the server fails"
        raise _dead(uri, f"{_SAID.get(status, usual)} (HTTP {status})") from exc


def _dead(uri: str, reason: str) -> ReadError:
    """The error of a link, without the credentials that its query may hold."""
    return ReadError(
        without_secrets_of(f"'{uri}' cannot be read: {reason}", uri),
        remedy="correct the link or download the image; 'smoothcert retry' tries quarantined pairs again",
    )
