"""One night: which pairs, the job that certifies them, and what its rows say beside the reference."""

from __future__ import annotations

import hashlib
import re

from smoothcert.catalogue.certificates import of_name
from smoothcert.errors import JobError, QueryError, did_you_mean
from smoothcert.job import Job
from smoothcert.job.data import SampleSection
from smoothcert.monitor.history import Night, Watched
from smoothcert.sql import Query, asking
from smoothcert.sql.claims import Claim, claims
from smoothcert.sql.literals import quote
from smoothcert.store import RunDirectory, RunInfo

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")


def check_night(name: str, done: list[str]) -> None:
    """Check that a night can be next.

    Raises:
        JobError: its name is none for a file, or it is before the last night.
    """
    if not _NAME.fullmatch(name):
        raise JobError(
            f"--night '{name}' is not a valid name for a night",
            remedy="use letters, digits, '.', '_' and '-', as in 2026-11-30",
        )
    if done and name < done[-1] and name not in done:
        raise JobError(
            f"--night '{name}' comes before the last one, '{done[-1]}'",
            remedy="give names that sort in the order of the nights, as dates do",
        )


def job_of(job: Job, watched: Watched, night: str) -> Job:
    """The job of a night: its pairs alone, drawn from the monitor's seed and the night's name, nothing but certified.

    Without retrieval, whose candidates would be captions of the night's pairs, and others every night.

    Raises:
        JobError: the job is about some of its pairs already.
    """
    if job.data.sample is not None or job.data.part is not None:
        raise JobError(
            "data.sample or data.part is set, but a monitor draws the pairs of each night itself",
            remedy="remove it; --pairs says how many",
        )
    digest = hashlib.sha256(f"{watched.seed} {night}".encode()).digest()
    sample = SampleSection(pairs=watched.pairs, seed=int.from_bytes(digest[:6], "big"))
    return job.model_copy(
        update={
            "name": f"{job.name[:80]}-{night}"[:100],
            "data": job.data.model_copy(update={"sample": sample}),
            "retrieval": None,
            "certify": job.certify.model_copy(
                update={
                    "targets": tuple(each for each in job.certify.targets if not _retrieves(each.certificate))
                }
            ),
            "attacks": (),
            "answer": None,
            "output": job.output.model_copy(update={"run": None}),
        }
    )


def _retrieves(certificate: str) -> bool:
    return of_name(certificate).quantity.section == "retrieval"


def find_claim(info: RunInfo, name: str | None, place: str) -> Claim:
    """A claim of a run by its name; without one its first target.

    Raises:
        QueryError: it makes no such claim, or one that means another thing every night.
    """
    made = claims(info)
    if name is None and info.job.certify.targets:
        name = made[0].claim
    found = next((each for each in made if each.claim == name), None)
    if found is not None and _retrieves(found.certificate):
        others = [each.claim for each in made if not _retrieves(each.certificate)]
        raise QueryError(
            f"'{found.claim}' is about retrieval among captions of the data, and a night has other captions than the "
            f"{place}",
            remedy=f"give --claim, one of: {'; '.join(others[:40])}",
        )
    if found is None:
        names = [each.claim for each in made]
        wrong = "has no targets" if name is None else f"makes no claim '{name}'{did_you_mean(name, names)}"
        raise QueryError(f"the {place} {wrong}", remedy=f"give --claim, one of: {'; '.join(names[:40])}")
    return found


def same_claims(watched: Watched, ours: RunInfo, theirs: RunInfo) -> tuple[Claim, Claim]:
    """What is claimed of a night's pairs, and of the reference's.

    Raises:
        JobError: one is a target, the other is read off the grid, or both are, after drawing that other targets ended:
            they certify different numbers of the same pairs.
        QueryError: a run makes no such claim.
    """
    found = find_claim(ours, watched.claim, "job"), find_claim(theirs, watched.claim, "reference")
    if found[0].kind != found[1].kind:
        raise JobError(
            f"'{watched.claim}' is a {found[0].kind} of the job, but a {found[1].kind} of the reference: they are "
            "tested differently, and certify different numbers of the same pairs",
            remedy="give the job the targets of the reference, or watch another claim in another --directory",
        )
    targets = [[each.name for each in info.job.certify.targets] for info in (ours, theirs)]
    if found[0].kind == "grid" and targets[0] != targets[1]:
        raise JobError(
            f"'{watched.claim}' is read off the grid, and drawing ends at other targets in the night ({targets[0]}) "
            f"than in the reference ({targets[1]}): their bounds rest on different numbers of draws",
            remedy="watch a target, or give job and reference the same targets, none about retrieval",
        )
    return found


def count_certified(run: RunDirectory, claim: Claim, query: Query | None = None) -> tuple[int, int]:
    """How many pairs of a run are certified, and how many it has.

    Args:
        run: the run.
        claim: what is certified.
        query: an open query with the run, where there is one.

    Raises:
        QueryError: it has not all of its rows.
        StoreError: reading failed.
    """
    with asking([run], query, many=False) as query:
        (row,) = query.rows(
            f"SELECT count_if(coalesce({claim.condition}, false)) AS certified, count(*) AS pairs FROM certificates "
            f"WHERE run_id = {quote(run.run_id)}"
        )
    if row["pairs"] < run.info.pairs or not row["pairs"]:
        raise QueryError(
            f"run '{run.run_id}' has {row['pairs']:,} of {run.info.pairs:,} rows", remedy="finish it first"
        )
    return int(row["certified"]), int(row["pairs"])


def measure(watched: Watched, night: str, run: RunDirectory, reference: RunDirectory) -> Night:
    """What a finished run of a night says; a quarantined pair is not certified.

    Raises:
        JobError: what is claimed is a target of one run alone.
        QueryError: the run is not finished, or the reference lacks some of its pairs.
        StoreError: reading failed.
    """
    ours, theirs = same_claims(watched, run.info, reference.info)
    info = run.info
    if not watched.paired:
        certified, pairs = count_certified(run, ours)
        return Night(night, run.run_id, run.url, info.encoder_digest, info.data_digest, pairs, certified)
    both = [run, reference] if run.run_id != reference.run_id else [run]
    a, b = (
        f"(SELECT pair_id, coalesce({claim.condition}, false) AS held FROM certificates WHERE run_id = "
        f"{quote(each.run_id)})"
        for claim, each in ((ours, run), (theirs, reference))
    )
    with Query(both) as query:
        certified, pairs = count_certified(run, ours, query)
        (row,) = query.rows(
            "SELECT count(*) AS pairs, count_if(b.held) AS certified, count_if(a.held AND NOT b.held) AS gained, "
            f"count_if(b.held AND NOT a.held) AS lost FROM {a} a JOIN {b} b USING (pair_id)"
        )
    if row["pairs"] < pairs:
        raise QueryError(
            f"the reference '{reference.run_id}' lacks {pairs - row['pairs']:,} of the night's {pairs:,} pairs",
            remedy="give --new-data (and another --directory), which compares shares and not pairs",
        )
    return Night(
        night, run.run_id, run.url, info.encoder_digest, info.data_digest, pairs, certified, row["certified"],
        row["gained"], row["lost"],
    )  # fmt: skip
