"""Images that data names by web addresses: a dead link is one bad pair, not a store that fails."""

from __future__ import annotations

from smoothcert.datasets.stores import store_of
from smoothcert.errors import ReadError, SourceError
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
        return bytes(steadily(lambda: store.cat_file(path)))
    except ImportError as exc:
        raise SourceError(f"cannot read '{uri}': {exc}", remedy="install the package aiohttp") from exc
    except FileNotFoundError as exc:
        raise ReadError(
            f"'{uri}' cannot be read: {_SAID[404]} (HTTP 404)", remedy="correct the link"
        ) from exc
    except Exception as exc:  # aiohttp's own tree, also of connections and names
        status = getattr(exc, "status", None)
        if isinstance(status, int) and status >= 400:
            reason = f"{_SAID.get(status, 'the server refuses it')} (HTTP {status})"
        else:
            reason = f"{type(exc).__name__}: {exc}".rstrip(": ")
        raise ReadError(
            f"'{uri}' cannot be read: {reason}",
            remedy="correct the link or download the image; 'smoothcert retry' tries quarantined pairs again",
        ) from exc
