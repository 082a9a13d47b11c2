"""SQL functions: the certificates, for radii and cosines that were not on the job's grid.

Those of the catalogue take what a certificate follows from, in its order: a lower bound of S, say, then a radius or a
cosine, then sigma (docs/certificates.md lists them). Beside them

    share_low(certified, pairs, final), share_high   95% confidence interval of a population share; another level by
                                                     confidence := 0.99
    vote_share_bound(share, draws, alpha)            what vote_share_lcb is at a fixed number of draws
    score_mean_bound(scores, alpha)                  what score_lcb of answers is, from a list of scores in order
    quantile_rank(draws, share, alpha, anytime)      which of so many draws, the smallest first, bounds a quantile from
                                                     below; 0 for none
    share_interval, mean_interval, median_interval, quantile_interval: see intervals.py

NULL in gives NULL out; a vacuous bound is NULL; a number outside a function's domain is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smoothcert.catalogue.certificate import Certificate, Form
from smoothcert.catalogue.certificates import sql_functions
from smoothcert.catalogue.evidence import Evidence
from smoothcert.sql.definitions import Definitions
from smoothcert.sql.intervals import define_intervals

Array = NDArray[np.float64]

SHARE_CONFIDENCE = 0.95
"""Coverage of the intervals of shares."""
_SHARE = ("certified", "pairs", "final")


def define_functions(definitions: Definitions) -> None:
    """Define all functions."""
    define = partial(_define, definitions)
    for name, (certificate, form) in sql_functions().items():
        arguments = certificate.arguments(form)
        lists = {each.name for each in certificate.basis if each.size}
        types = ["DOUBLE[]" if each in lists else "DOUBLE" for each in arguments]
        define(name, _of_columns(certificate, form), arguments, types)
    for name, function in (("share_low", _share_low), ("share_high", _share_high)):
        define(f"{name}_at", function, (*_SHARE, "confidence"), ["DOUBLE"] * 4)
        definitions.add_sql(
            name,
            f"CREATE MACRO {name}({', '.join(_SHARE)}, confidence := {SHARE_CONFIDENCE}) AS "
            f"{name}_at({', '.join(_SHARE)}, confidence)",
        )
    define("vote_share_bound", _vote_share_bound, ("share", "draws", "alpha"), ["DOUBLE"] * 3)
    define("score_mean_bound", _score_mean_bound, ("scores", "alpha"), ["DOUBLE[]", "DOUBLE"])
    ranked = ("draws", "share", "alpha", "anytime")
    define("quantile_rank", _quantile_rank, ranked, ["DOUBLE"] * 4)
    define_intervals(definitions)


def _of_columns(certificate: Certificate, form: Form) -> Callable[..., Array]:
    basis = certificate.basis

    def function(*columns: NDArray[Any]) -> Array:
        stacked = [_stack(each, column) for each, column in zip(basis, columns, strict=False)]
        return form.function(*stacked, *columns[len(basis) :])

    return function


def _stack(evidence: Evidence, column: NDArray[Any]) -> Array:
    """Lists come as arrays of objects, each a float64 array."""
    if not evidence.size:
        return column
    wrong = {len(each) for each in column} - {evidence.size}
    if wrong:
        raise ValueError(
            f"{evidence.name} has {min(wrong)} numbers; it needs {evidence.size}, as {evidence.column} has"
        )
    return np.stack(list(column))


def _define(
    definitions: Definitions,
    name: str,
    function: Callable[..., Array],
    arguments: Sequence[str],
    types: list[str],
) -> None:
    def over_columns(*columns: pa.ChunkedArray) -> pa.Array:
        return _over_columns(function, *columns)

    # DuckDB counts a function's named parameters
    over_columns.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what inspect.signature reads
        [inspect.Parameter(each, inspect.Parameter.POSITIONAL_ONLY) for each in arguments]
    )
    # "special": NULLs arrive here, as the default handling refuses NULL for an input that is not
    definitions.add(
        name,
        lambda: definitions.connection.create_function(
            name, over_columns, types, "DOUBLE", type="arrow", null_handling="special"
        ),
    )


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


def _vote_share_bound(share: Array, draws: Array, alpha: Array) -> Array:
    from smoothcert.statistics import vote_share_bound

    return vote_share_bound(np.round(share * draws), draws, alpha)


def _score_mean_bound(scores: NDArray[Any], alpha: Array) -> Array:
    from smoothcert.statistics import lower_bound

    return np.array(
        [
            float(lower_bound(row, level, "betting")) if len(row) else 0.0
            for row, level in zip(scores, alpha.tolist(), strict=True)
        ]
    )


def _quantile_rank(draws: Array, share: Array, alpha: Array, anytime: Array) -> Array:
    from smoothcert.statistics import quantile_rank

    found = np.zeros(len(draws))
    for level, always in set(zip(alpha.tolist(), anytime.tolist(), strict=True)):
        rows = (alpha == level) & (anytime == always)
        found[rows] = quantile_rank(draws[rows], share[rows], level, anytime=bool(always))
    return found


def _share_low(certified: Array, pairs: Array, final: Array, confidence: Array) -> Array:
    return _share(certified, pairs, final, confidence)[:, 0]


def _share_high(certified: Array, pairs: Array, final: Array, confidence: Array) -> Array:
    return _share(certified, pairs, final, confidence)[:, 1]


def _share(certified: Array, pairs: Array, final: Array, confidence: Array) -> Array:
    from smoothcert.statistics import share_interval

    rows = [
        share_interval(int(k), int(n), float(level), anytime=not done) if n else (np.nan, np.nan)
        for k, n, done, level in zip(certified, pairs, final, confidence, strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)
