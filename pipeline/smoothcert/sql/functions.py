"""SQL functions: the certificates, for radii and cosines that were not on the job's grid.

    fcsb(score, radius, sigma)                       cosine certified from a lower bound of S (T2)
    angular_bound(norm, radius, sigma)               cosine certified from a lower bound of N (T3)
    angular_radius(norm, cosine, sigma)              radius up to which that cosine is certified (T3)
    margin_radius(margin, norm, alignment, sigma)    radius of a margin (T4)
    similarity_bound(similarity, norm, alignment, radius, sigma)
                                                     similarity to a text that is certified (T4)
    large_radius_bound(exceedance, radius, sigma)    cosine certified from the row's exceedance_lcb (T6)
    share_low(certified, pairs, final), share_high   95% confidence interval of a population share
    share_interval, mean_interval, median_interval, quantile_interval: see intervals.py

NULL in gives NULL out; a vacuous bound is NULL; a number outside a function's domain is an error.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smoothcert.sql.intervals import register_intervals

Array = NDArray[np.float64]

SHARE_CONFIDENCE = 0.95
"""Coverage of the intervals of shares."""


def register_functions(connection: duckdb.DuckDBPyConnection) -> None:
    """Register all functions on a connection."""
    for name, function in _OF_THREE.items():
        _register(connection, name, _three(function), ["DOUBLE"] * 3)
    for name, function in _OF_FOUR.items():
        _register(connection, name, _four(function), ["DOUBLE"] * 4)
    for name, function in _OF_FIVE.items():
        _register(connection, name, _five(function), ["DOUBLE"] * 5)
    _register(connection, "large_radius_bound", _three(_large_radius_bound), ["DOUBLE[]", "DOUBLE", "DOUBLE"])
    register_intervals(connection)


def _register(
    connection: duckdb.DuckDBPyConnection, name: str, function: Callable[..., pa.Array], arguments: list[str]
) -> None:
    # "special": NULLs arrive here, as the default handling refuses NULL for an input that is not
    connection.create_function(name, function, arguments, "DOUBLE", type="arrow", null_handling="special")


# DuckDB counts a function's named parameters, so each number of arguments has its own wrapper


def _three(function: Callable[..., Array]) -> Callable[..., pa.Array]:
    def of_three(a: pa.ChunkedArray, b: pa.ChunkedArray, c: pa.ChunkedArray) -> pa.Array:
        return _over_columns(function, a, b, c)

    return of_three


def _four(function: Callable[..., Array]) -> Callable[..., pa.Array]:
    def of_four(a: pa.ChunkedArray, b: pa.ChunkedArray, c: pa.ChunkedArray, d: pa.ChunkedArray) -> pa.Array:
        return _over_columns(function, a, b, c, d)

    return of_four


def _five(function: Callable[..., Array]) -> Callable[..., pa.Array]:
    def of_five(
        a: pa.ChunkedArray, b: pa.ChunkedArray, c: pa.ChunkedArray, d: pa.ChunkedArray, e: pa.ChunkedArray
    ) -> pa.Array:
        return _over_columns(function, a, b, c, d, e)

    return of_five


def _over_columns(function: Callable[..., Array], *columns: pa.ChunkedArray) -> pa.Array:
    """Apply a function of float64 arrays to Arrow columns: NULL stays NULL, NaN comes out as NULL.

    A column of lists is given as an array of objects, each a float64 array; a list with a NULL in it counts as NULL.
    """
    known = np.ones(len(columns[0]), dtype=bool)
    for column in columns:
        known &= ~column.is_null().to_numpy()
        if pa.types.is_list(column.type):
            lists = column.combine_chunks()
            known[pc.list_parent_indices(lists).filter(pc.list_flatten(lists).is_null()).to_numpy()] = False
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


def _similarity_bound(similarity: Array, norm: Array, alignment: Array, radius: Array, sigma: Array) -> Array:
    from smoothcert.certificates import similarity_bound

    return similarity_bound(similarity, norm, alignment, radius, sigma)


def _large_radius_bound(exceedance: NDArray[np.object_], radius: Array, sigma: Array) -> Array:
    from smoothcert.certificates import LARGE_RADIUS_THRESHOLDS, large_radius_bound

    wanted = len(LARGE_RADIUS_THRESHOLDS)
    wrong = {len(each) for each in exceedance} - {wanted}
    if wrong:
        raise ValueError(f"exceedance has {min(wrong)} numbers; it needs {wanted}, as exceedance_lcb has")
    return large_radius_bound(np.stack(list(exceedance)), LARGE_RADIUS_THRESHOLDS, radius, sigma)


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
_OF_FIVE: dict[str, Callable[..., Array]] = {"similarity_bound": _similarity_bound}
