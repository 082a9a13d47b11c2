"""SQL functions: the certificates, for radii and cosines that were not on the job's grid.

    fcsb(score, radius, sigma)                       cosine certified from a lower bound of S (T2)
    angular_bound(norm, radius, sigma)               cosine certified from a lower bound of N (T3)
    angular_radius(norm, cosine, sigma)              radius up to which that cosine is certified (T3)
    margin_radius(margin, norm, alignment, sigma)    radius of a margin (T4)
    share_low(certified, pairs, final), share_high   95% confidence interval of a population share

NULL in gives NULL out; a vacuous bound is NULL; a number outside a function's domain is an error.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Array = NDArray[np.float64]

SHARE_CONFIDENCE = 0.95
"""Coverage of the intervals of shares."""


def register_functions(connection: duckdb.DuckDBPyConnection) -> None:
    """Register all functions on a connection."""
    for name, function in _OF_THREE.items():
        _register(connection, name, _three(function), 3)
    for name, function in _OF_FOUR.items():
        _register(connection, name, _four(function), 4)


def _register(
    connection: duckdb.DuckDBPyConnection, name: str, function: Callable[..., pa.Array], arguments: int
) -> None:
    # "special": NULLs arrive here, as the default handling refuses NULL for an input that is not
    connection.create_function(
        name, function, ["DOUBLE"] * arguments, "DOUBLE", type="arrow", null_handling="special"
    )


# DuckDB counts a function's named parameters, so each number of arguments has its own wrapper


def _three(function: Callable[..., Array]) -> Callable[..., pa.Array]:
    def of_three(a: pa.ChunkedArray, b: pa.ChunkedArray, c: pa.ChunkedArray) -> pa.Array:
        return _over_columns(function, a, b, c)

    return of_three


def _four(function: Callable[..., Array]) -> Callable[..., pa.Array]:
    def of_four(a: pa.ChunkedArray, b: pa.ChunkedArray, c: pa.ChunkedArray, d: pa.ChunkedArray) -> pa.Array:
        return _over_columns(function, a, b, c, d)

    return of_four


def _over_columns(function: Callable[..., Array], *columns: pa.ChunkedArray) -> pa.Array:
    """Apply a function of float64 arrays to Arrow columns: NULL stays NULL, NaN comes out as NULL."""
    known = np.ones(len(columns[0]), dtype=bool)
    for column in columns:
        known &= ~column.is_null().to_numpy()
    result = np.full(len(known), np.nan)
    if known.any():
        # to_numpy turns NULL into NaN; those rows are left out
        result[known] = function(*(column.to_numpy()[known] for column in columns))
    return pa.array(result, type=pa.float64(), from_pandas=True)


# imported when first called: a query that uses no certificate should not wait for scipy


def _fcsb(score: Array, radius: Array, sigma: Array) -> Array:
    from smoothcert.certificates import fcsb

    return fcsb(score, radius, sigma)


def _angular_bound(norm: Array, radius: Array, sigma: Array) -> Array:
    from smoothcert.certificates import angular_bound

    return angular_bound(norm, radius, sigma)


def _angular_radius(norm: Array, cosine: Array, sigma: Array) -> Array:
    from smoothcert.certificates import angular_radius

    return angular_radius(norm, cosine, sigma)


def _margin_radius(margin: Array, norm: Array, alignment: Array, sigma: Array) -> Array:
    from smoothcert.certificates import margin_radius

    return margin_radius(margin, norm, alignment, sigma)


def _share_low(certified: Array, pairs: Array, final: Array) -> Array:
    return _share(certified, pairs, final)[:, 0]


def _share_high(certified: Array, pairs: Array, final: Array) -> Array:
    return _share(certified, pairs, final)[:, 1]


def _share(certified: Array, pairs: Array, final: Array) -> Array:
    from smoothcert.statistics import share_interval

    rows = [
        share_interval(int(k), int(n), SHARE_CONFIDENCE, anytime=not done) if n else (np.nan, np.nan)
        for k, n, done in zip(certified, pairs, final, strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


_OF_THREE: dict[str, Callable[..., Array]] = {
    "fcsb": _fcsb,
    "angular_bound": _angular_bound,
    "angular_radius": _angular_radius,
    "share_low": _share_low,
    "share_high": _share_high,
}
_OF_FOUR: dict[str, Callable[..., Array]] = {"margin_radius": _margin_radius}
