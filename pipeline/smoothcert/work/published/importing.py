"""From a published log to a run of the vote rule, which SQL, ``compare`` and summaries read like any other.

What is stored of a radius is the lower end of what rounds to the printed one, and the share of votes that gives it. A
log with a radius that its number of draws cannot have given is refused: then nothing in it is known to hold.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError
from scipy.special import betaincinv, ndtr

from smoothcert.certificates import vote_radius
from smoothcert.datasets import UnitSpec
from smoothcert.datasets.records import pair_id, unit_id
from smoothcert.errors import JobError
from smoothcert.job import Job
from smoothcert.job.explaining import explain
from smoothcert.storage import join
from smoothcert.store import CERTIFICATES, Commit, RunDirectory, RunIdentity, new_attempt, run_name
from smoothcert.work.published.logs import PublishedLog, PublishedPair
from smoothcert.work.published.reach import Reach, find_reach

_PAIRS_PER_UNIT = 5_000
_SHRINK = 1.0 - 1e-12
"""The share of votes is taken down by more than the error of Phi."""
PUBLISHED = "published"
"""What rows of a log say of noise, device and data type, which it does not tell."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a person says of a log, where it does not say so itself.

    Attributes:
        sigma: standard deviation of the noise.
        draws: fresh draws an image.
        alpha: failure probability of each radius.
        data: the data set: logs of the same one can be compared pair by pair.
    """

    sigma: float | None = None
    draws: int | None = None
    alpha: float | None = None
    data: str = "published"


@dataclass(frozen=True, slots=True)
class Imported:
    """A log that has become a run.

    Attributes:
        url: its directory.
        sigma, draws, alpha: as they were stated or fit.
        reach: of its largest radius; None where it has none.
        pairs, abstained: of the log.
    """

    url: str
    sigma: float
    draws: int
    alpha: float
    reach: Reach | None
    pairs: int
    abstained: int


def import_log(log: PublishedLog, stated: Stated, runs: str, code_version: str) -> Imported:
    """Make the run of a log, or find it where it was imported before.

    Raises:
        JobError: sigma, draws or alpha are not known, contradict the log, or no such draws give its radii.
        RunDirectoryError: another run is there.
        StoreError: reading or writing failed.
    """
    sigma = _settled(log, "sigma", stated.sigma, log.sigma, log.sigma_of_path)
    reach = _largest(log, sigma)
    draws, alpha = _draws_and_alpha(log, stated, reach)
    job = _job(log, stated, sigma, draws, alpha, runs)
    labels = "\n".join(f"{pair.idx} {pair.label}" for pair in sorted(log.pairs, key=lambda pair: pair.idx))
    data_digest = hashlib.sha256(f"{stated.data}\n{labels}".encode()).hexdigest()
    identity = RunIdentity(job, data_digest, log.digest, code_version)
    units = list(_units(log, stated.data))
    run = RunDirectory.create_or_open(join(runs, run_name(identity)), identity, units)
    with run.committing():
        done = run.commits.load()
        for unit in units:
            if unit.unit_id not in set(done.certification.table["unit_id"].to_pylist()):
                _commit(run, unit, log, job, stated.data)
    abstained = sum(pair.predicted is None for pair in log.pairs)
    return Imported(run.url, sigma, draws, alpha, reach, len(log.pairs), abstained)


def _settled(
    log: PublishedLog, name: str, stated: float | None, own: float | None, else_: float | None = None
) -> float:
    """What is stated and what the log says of itself, which must agree; else what its path says."""
    if stated is not None and own is not None and not math.isclose(stated, own, rel_tol=1e-9):
        raise JobError(
            f"log '{log.path}' says {name}={own:g}, --{name} says {stated:g}", remedy=f"leave --{name} out"
        )
    for known in (own, stated, else_):
        if known is not None:
            return known
    raise JobError(f"log '{log.path}' does not say {name}, nor does its path", remedy=f"give --{name}")


def _largest(log: PublishedLog, sigma: float) -> Reach | None:
    if log.kind != "radii":
        return None  # probabilities come with their number of draws
    radii = [(pair.low, pair.high) for pair in log.pairs if pair.predicted is not None]
    if not radii or max(high for _, high in radii) <= 0.0:
        return None
    low, high = max(radii)
    return find_reach(low / sigma, high / sigma)


def _draws_and_alpha(log: PublishedLog, stated: Stated, reach: Reach | None) -> tuple[int, float]:
    fits = [
        (draws, alpha)
        for draws, alpha in (reach.fits if reach else ())
        if stated.draws in (None, draws) and stated.alpha in (None, alpha)
    ]
    known = (stated.draws or log.draws, stated.alpha or log.alpha)
    if None in known:
        if not fits:
            largest = "" if reach is None else (
                f": its largest radius is {reach.low:.4g} to {reach.high:.4g} sigma, so ln(1/alpha)/N is at most "
                f"{reach.rate:.3g}, which no usual pair gives"
            )  # fmt: skip
            raise JobError(
                f"log '{log.path}' does not say how many draws at which alpha{largest}",
                remedy="give --draws and --alpha as its authors do",
            )
        return fits[0]
    draws, alpha = (
        int(_settled(log, "draws", stated.draws, log.draws)),
        _settled(log, "alpha", stated.alpha, log.alpha),
    )
    if reach is not None and not reach.allows(draws, alpha):
        raise JobError(
            f"log '{log.path}' has a radius of at least {reach.low:.4g} sigma, which {draws:,} draws at "
            f"alpha={alpha:g} cannot give (ln(1/alpha)/N is {math.log(1.0 / alpha) / draws:.3g}, at most "
            f"{reach.rate:.3g} would do)",
            remedy="check sigma, draws and alpha; if they are right, its radii are not certificates",
        )
    return draws, alpha


def _job(log: PublishedLog, stated: Stated, sigma: float, draws: int, alpha: float, runs: str) -> Job:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(log.path.split("/")[-2:])).strip("-._") or "log"
    seen = {pair.label for pair in log.pairs} | {
        pair.predicted for pair in log.pairs if pair.predicted is not None
    }
    labels = sorted(seen, key=lambda text: (len(text), text))
    try:
        return Job.model_validate(
            {
                "name": stem[:90],
                # images of classes, known by number alone
                "data": {"format": "imagefolder", "uri": log.path},
                "encoder": {"model": f"{PUBLISHED} log"},
                "certify": {"sigma": sigma, "alpha": alpha, "max_draws": draws, "percentile": None},
                # a job has two classes at least; a log may show one
                "zero_shot": {
                    "labels": labels if len(labels) > 1 else [*labels, "another class"],
                    "prompts": ["{label}"],
                },
                "output": {"runs": runs},
                "tracking": {"enabled": False},
            }
        )
    except ValidationError as exc:
        raise explain(exc, f"the log '{log.path}'") from exc


def _units(log: PublishedLog, data: str) -> Iterator[UnitSpec]:
    for number, start in enumerate(range(0, len(log.pairs), _PAIRS_PER_UNIT)):
        stop = min(start + _PAIRS_PER_UNIT, len(log.pairs))
        yield UnitSpec(unit_id(f"u{number:05d}", data, start, stop), log.path, start, stop, source_name=data)


def _commit(run: RunDirectory, unit: UnitSpec, log: PublishedLog, job: Job, data: str) -> None:
    pairs = log.pairs[unit.start : unit.stop]
    attempt = new_attempt()
    rows = list(_rows(unit, pairs, log, job, data))
    run.commits.commit(
        Commit(
            unit_id=unit.unit_id,
            attempt=attempt,
            parts=(run.write_rows(CERTIFICATES, unit.unit_id, attempt, rows),),
            ok=len(rows),
            quarantined=0,
            draws=len(rows) * job.certify.max_draws,
            seconds=sum(pair.seconds for pair in pairs),
            worker=PUBLISHED,
        )
    )


def _rows(
    unit: UnitSpec, pairs: Iterable[PublishedPair], log: PublishedLog, job: Job, data: str
) -> Iterator[Mapping[str, Any]]:
    nothing = dict.fromkeys(column.name for column in CERTIFICATES.columns if column.nullable)
    certify = job.certify
    for pair in pairs:
        share = _share(pair, log.kind, certify.sigma)
        radius = float(vote_radius(share, certify.sigma)) if share is not None else math.nan
        yield {
            **nothing,
            "unit_id": unit.unit_id,
            "pair_id": pair_id(data, pair.idx),
            "source_uri": log.path,
            "captions": (),
            "label": pair.label,
            "status": "ok",
            "sigma": certify.sigma,
            "alpha": certify.alpha,
            "input_height": 0,
            "input_width": 0,
            "draws": certify.max_draws,
            "pilot_draws": 0,
            "stop_reason": "fixed",
            "vote_label": pair.predicted,
            "vote_share": None if share is None else _implied(share, certify.max_draws, certify.alpha),
            "vote_share_lcb": share,
            "vote_radius": None if math.isnan(radius) else radius,
            "encoder_digest": log.digest,
            "seed": 0,
            "noise": PUBLISHED,
            "device": PUBLISHED,
            "dtype": PUBLISHED,
        }


def _implied(share_lcb: float, draws: int, alpha: float) -> float:
    """The share of votes that a lower bound implies: that of the fewest votes whose exact bound reaches it."""
    low, high = 0, draws
    while high - low > 1:
        votes = (low + high) // 2
        low, high = (
            (low, votes) if betaincinv(votes, draws - votes + 1.0, alpha) >= share_lcb else (votes, high)
        )
    return high / draws


def _share(pair: PublishedPair, kind: str, sigma: float) -> float | None:
    """The lower bound of the share of votes; None where the vote abstains or its radius may be 0."""
    if pair.predicted is None:
        return None
    if kind == "probabilities":
        return pair.low * _SHRINK
    if pair.low <= 0.0:
        return None
    return float(np.minimum(ndtr(pair.low / sigma), 1.0) * _SHRINK)
