"""A run's audit beside its rows, with what it rests on: the same rows are not audited twice by the same code.

``smoothcert audit`` never takes a kept audit for an answer: it looks at every row again, so that whoever changes a part
file by hand is found out there.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import duckdb
import numpy
import pyarrow
import scipy

from smoothcert.audit.audit import Finding, RunAudit, audit_run
from smoothcert.sql import Query, asking
from smoothcert.store import RunDirectory
from smoothcert.store.asked import asked_tasks
from smoothcert.store.manifest import Committed
from smoothcert.version import VERSION

AUDIT_FILE = "audit.json"
_LIBRARIES = (duckdb, numpy, pyarrow, scipy)
"""What an audit counts with."""


def keep_audit(run: RunDirectory, query: Query | None = None) -> RunAudit:
    """Audit a run by its own attacks, and keep the result with what it rests on in ``audit.json``.

    Args:
        run: the run.
        query: an open query with the run, where there is one.

    Raises:
        StoreError: reading or writing failed.
    """
    with asking([run], query) as query:
        basis = rests_on(run, query.committed(run.run_id))
        result = audit_run(run, query=query)
    kept = json.loads(result.to_json()) | {"rests_on": basis}
    run.write_document(AUDIT_FILE, (json.dumps(kept, indent=2, allow_nan=False) + "\n").encode())
    return result


def kept_audit(run: RunDirectory) -> RunAudit | None:
    """The kept audit, where the run's commits, what it was asked for and the code are those that it rests on.

    Raises:
        StoreError: reading failed.
    """
    text = run.read_document(AUDIT_FILE)
    if text is None:
        return None
    try:
        kept = json.loads(text)
        if kept.pop("rests_on", None) != rests_on(run):
            return None
        kept.pop("sound")
        findings = (
            Finding(**(each | {"listed": tuple((pair, detail) for pair, detail in each["listed"])}))
            for each in kept["findings"]
        )
        return RunAudit(**(kept | {"findings": tuple(findings), "notes": tuple(kept["notes"])}))
    except (ValueError, KeyError, TypeError):  # cut short, or of another version
        return None


def rests_on(run: RunDirectory, committed: Committed | None = None) -> str:
    """Hex digest of what a run's figures rest on: its identity, commits with their parts, what it was asked for, code.

    Args:
        run: the run.
        committed: the commits that the figures were counted over; default those of now.

    Raises:
        StoreError: reading failed.
    """
    digest = hashlib.sha256(f"{run.url}\0{_code()}\0".encode())
    digest.update(run.read_document("run.json") or b"")
    commits = run.commits.load() if committed is None else committed
    rows = sorted(json.dumps(row, sort_keys=True, default=str) for row in commits.table.to_pylist())
    asked = [[task.task_id, task.name, task.section] for task in asked_tasks(run)]
    digest.update(json.dumps([rows, asked], sort_keys=True, default=str).encode())
    return digest.hexdigest()


@cache
def _code() -> str:
    libraries = " ".join(f"{each.__name__} {each.__version__}" for each in _LIBRARIES)
    return digest_of_code(Path(__file__).parents[1], f"{VERSION} {libraries}")


def digest_of_code(root: Path, versions: str) -> str:
    """Hex digest of all modules below a directory, and of versions.

    Of all of them: an audit uses most rooms, and one that is left out would be found out by a stale audit only.
    """
    digest = hashlib.sha256(versions.encode())
    for file in sorted(root.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
