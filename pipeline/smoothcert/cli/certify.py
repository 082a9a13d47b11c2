"""``smoothcert certify``: a job file in, certified rows, SQL and a tracked run out."""

from __future__ import annotations

import sys

from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides
from smoothcert.cli.running import run_job
from smoothcert.job import load_job


def certify(job_file: JobFile, set_: Overrides = None, executor: ExecutorKind = None) -> None:
    """Certify every pair of a job, then run its attacks, if any. Run the same command again to resume.

    Exit codes: 0 every pair has its row; 1 the audit of the attacks found something; 2 bad input; 3 the store failed; 5
    pairs without a row, or workers failed; 6 more quarantined pairs than output.quarantine_budget; 130, 143 stopped by
    SIGINT, SIGTERM.
    """
    job = load_job(job_file, overrides(set_, executor))
    from smoothcert.runtime.driver import Driver

    sys.exit(run_job(Driver(job)))
