"""What storage libraries raise, said in our words: one table, from foreign exception to remedy.

Nothing here imports a storage library: an exception is known by its errno, or by the name of its class, so
that the table works whether or not s3fs, gcsfs and their kind are installed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from smoothcert.errors import SmoothcertError, StoreError
from smoothcert.storage.steady import connection_failed, not_served, timed_out


@dataclass(frozen=True, slots=True)
class Translation:
    """One line of the table.

    Attributes:
        matches: whether an exception is of this kind.
        what: what happened, following "cannot write 'path': ".
        remedy: what a user can do.
    """

    matches: Callable[[BaseException], bool]
    what: str
    remedy: str


def _errno(*names: str) -> Callable[[BaseException], bool]:
    numbers = {getattr(errno, name) for name in names if hasattr(errno, name)}
    return lambda exc: isinstance(exc, OSError) and exc.errno in numbers


def _has_name(*names: str) -> Callable[[BaseException], bool]:
    return lambda exc: any(kind.__name__ in names for kind in type(exc).__mro__)


def _any(*rules: Callable[[BaseException], bool]) -> Callable[[BaseException], bool]:
    return lambda exc: any(rule(exc) for rule in rules)


TABLE: tuple[Translation, ...] = (
    Translation(
        _errno("ENOSPC", "EDQUOT"),
        "the disk or quota is full",
        "free some space or use a larger disk, then run the same command again: what was kept before is still there",
    ),
    Translation(
        _errno("EROFS"),
        "the file system is read-only",
        "choose a writable directory in output.runs, or train.out",
    ),
    Translation(
        _has_name(
            "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"
        ),
        "no credentials for the object store were found",
        "set them in the environment, a profile or an instance role; never in the job file",
    ),
    Translation(
        _any(_has_name("PermissionError", "Forbidden"), _errno("EACCES", "EPERM")),
        "access was denied",
        "check the permissions of the path, or the policy of the bucket and the credentials in use",
    ),
    Translation(
        _any(_has_name("FileNotFoundError", "NoSuchBucket"), _errno("ENOENT")),
        "it does not exist",
        "check the path; a bucket must exist before a run writes to it",
    ),
    Translation(
        _any(_has_name("IsADirectoryError", "NotADirectoryError"), _errno("EISDIR", "ENOTDIR")),
        "there is a file where a directory is needed, or the reverse",
        "choose another directory, or move the conflicting file",
    ),
    Translation(_errno("ENAMETOOLONG"), "the name is too long", "use a shorter path"),
    Translation(
        timed_out,
        "the store did not answer in time",
        "check the network and the store, then run the same command again: committed units are kept",
    ),
    Translation(
        connection_failed,
        "the connection to the store failed",
        "check the network and the endpoint, then run the same command again: committed units are kept",
    ),
    Translation(
        not_served,
        "the store failed to serve the request",
        "check the store's health, then run the same command again: committed units are kept",
    ),
    Translation(
        _has_name("ImportError"),
        "the library for this kind of URL is not installed",
        "install it: pip install s3fs for s3://, gcsfs for gs://, adlfs for abfs://",
    ),
    Translation(
        _has_name("BotoCoreError", "ClientError", "HttpError", "AzureError"),
        "the object store refused the request",
        "check the bucket, the region and the endpoint",
    ),
    Translation(
        _any(_has_name("ArrowInvalid", "ArrowException")),
        "it is not a readable Parquet file",
        "the file was changed or cut after it was written; restore it, or start a new run directory",
    ),
    Translation(
        _any(_has_name("OSError")),
        "the file system reported an error",
        "check the file system, then run the same command again: committed units are kept",
    ),
)


def translation_for(exc: BaseException) -> Translation | None:
    """The line of the table for an exception, or ``None``: then it is a bug and must surface as it is."""
    return next((rule for rule in TABLE if rule.matches(exc)), None)


def translate(exc: BaseException, doing: str, path: str) -> BaseException:
    """The exception to raise in place of ``exc``.

    Args:
        exc: what was caught.
        doing: a verb, e.g. ``write``.
        path: the full path or URL.

    Returns:
        A ``StoreError`` naming path, cause and remedy; ``exc`` itself if it is ours or unknown.
    """
    if isinstance(exc, SmoothcertError):
        return exc
    rule = translation_for(exc)
    if rule is None:
        return exc
    detail = " ".join(str(exc).split())
    return StoreError(
        f"cannot {doing} '{path}': {rule.what}" + (f" ({detail})" if detail else ""), remedy=rule.remedy
    )
