"""How file systems of object stores are opened: fresh listings, and answers within a limit."""

from __future__ import annotations

from typing import Any

from fsspec.config import conf

_S3 = ("s3", "s3a")
_FRESH: dict[str, dict[str, Any]] = {
    # listings must be fresh: other machines commit all the time
    "s3": {"use_listings_cache": False, "default_cache_type": "none"},
    "s3a": {"use_listings_cache": False, "default_cache_type": "none"},
    "gs": {"use_listings_cache": False},
    "gcs": {"use_listings_cache": False},
    "abfs": {"use_listings_cache": False},
    "abfss": {"use_listings_cache": False},
    "az": {"use_listings_cache": False},
}


def patience(protocol: str) -> dict[str, Any]:
    """Options that bound how long a store is waited for; what fsspec's own configuration says comes first."""
    if protocol not in _S3 or "config_kwargs" in conf.get(protocol, {}):
        return {}
    # s3fs asks five times, botocore five times for each of them, and ``steadily`` again: that would take minutes
    return {"config_kwargs": {"retries": {"total_max_attempts": 2}}}


def of_results(protocol: str) -> dict[str, Any]:
    """Options for a store that holds runs."""
    return {**_FRESH.get(protocol, {}), **patience(protocol)}
