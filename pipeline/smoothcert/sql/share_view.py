"""The view ``certified_share``: per run and claim, how many pairs hold it.

A quarantined pair counts as one that does not hold. The interval is for the share in the population that the
pairs were drawn from (95%, exact binomial); while the run still goes on it is one that holds at every
moment. Each row's certificate is wrong with probability at most alpha, so at most alpha times the pairs are
certified falsely on average, and never more than are certified.

Of claims about a prediction, ``right_and_certified`` counts the pairs whose class (of the mean, or of the vote) is
also their label, and ``certified_accuracy`` is their share of the pairs whose label is a class of the job
(``labelled``; quarantined ones count, the summary leaves them out). All three are NULL for other claims.
"""

from __future__ import annotations

import pyarrow as pa

from smoothcert.sql.claims import claims
from smoothcert.sql.definitions import Definitions
from smoothcert.sql.measures import label_is_known
from smoothcert.store.run_info import RunInfo


def create_share_view(
    definitions: Definitions,
    schema: str,
    runs: list[tuple[RunInfo, str, bool]],
    *,
    counted_once: bool = False,
) -> None:
    """Create ``certified_share``.

    Args:
        definitions: of the connection, with the functions share_low and share_high.
        schema: where tables that users need not see go.
        runs: for each run what it is about, the relation of its visible rows, and whether it is finished.
        counted_once: whether it is counted here, and not anew in each statement that names it.
    """
    rows = []
    counted = []
    for info, relation, finished in runs:
        listed = claims(info)
        for position, claim in enumerate(listed, start=1):
            rows.append(
                {
                    "run_id": info.run_id,
                    "position": position,
                    "kind": claim.kind,
                    "claim": claim.claim,
                    "certificate": claim.certificate,
                    "radius": claim.radius,
                    "cosine": claim.cosine,
                    "alpha": info.job.certify.alpha,
                    "finished": finished,
                }
            )
        counts = ", ".join(_count(claim.condition) for claim in listed)
        right = ", ".join(
            _count(f"{claim.right} AND {claim.condition}") if claim.right else "NULL" for claim in listed
        )
        # all claims in one pass over the rows
        counted.append(
            f"SELECT '{info.run_id}' AS run_id, count(*) AS pairs, [{counts}] AS counts, "
            f"[{right}]::BIGINT[] AS both_hold, {_count(label_is_known(info.job))} AS labelled FROM {relation}"
        )
    connection = definitions.connection
    connection.register("_claims", pa.Table.from_pylist(rows, schema=_CLAIMS))
    connection.execute(f"CREATE OR REPLACE TABLE {schema}.claims AS SELECT * FROM _claims")
    connection.unregister("_claims")
    definitions.execute(
        f"""
        CREATE {"TABLE" if counted_once else "VIEW"} certified_share AS
        WITH counted AS ({" UNION ALL ".join(counted)})
        SELECT c.run_id, c.kind, c.claim, c.certificate, c.radius, c.cosine, n.pairs,
               n.counts[c.position] AS certified,
               certified / nullif(n.pairs, 0) AS share,
               share_low(certified, n.pairs, c.finished::INTEGER) AS share_low,
               share_high(certified, n.pairs, c.finished::INTEGER) AS share_high,
               CASE WHEN c.finished THEN 'exact' ELSE 'anytime' END AS interval,
               n.both_hold[c.position] AS right_and_certified,
               CASE WHEN right_and_certified IS NOT NULL THEN n.labelled END AS labelled,
               right_and_certified / nullif(n.labelled, 0) AS certified_accuracy,
               least(c.alpha * n.pairs, certified) AS expected_false_certificates
        FROM {schema}.claims c JOIN counted n USING (run_id)
        ORDER BY c.run_id, c.position
        """
    )


def _count(condition: str) -> str:
    return f"coalesce(count_if({condition}), 0)::BIGINT"


_CLAIMS = pa.schema(
    {
        "run_id": pa.string(),
        "position": pa.int32(),
        "kind": pa.string(),
        "claim": pa.string(),
        "certificate": pa.string(),
        "radius": pa.float64(),
        "cosine": pa.float64(),
        "alpha": pa.float64(),
        "finished": pa.bool_(),
    }
)
