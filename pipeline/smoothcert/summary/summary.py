"""The figures of a run, counted by DuckDB over its committed rows, each with what it is a share of.

Quarantined pairs are counted, and left out of every other figure: nothing is claimed about them. Among ok
pairs nothing is left out of a share: a pair whose bound is vacuous (NULL) is a pair that is not certified.
Only means of bounds leave vacuous pairs out, since a bound that says nothing is not a small number; their
share stands beside.

Intervals are about the population that the pairs were drawn from, at 95%, one figure at a time: for shares
the exact binomial one, or while the run goes on one that holds at every moment of it; for means
Maurer-Pontil, and none while the run goes on. They say nothing about the failure probability alpha of the
rows themselves: of one statement about each row, at most alpha x rows are false on average, and never more than claim
something, so ``expected_false_certificates`` is the smaller of both. (Not alpha x those that claim something: where
nothing can be certified, all that claim something are false.)

``certified_share`` in SQL counts quarantined pairs as not certified; here shares are out of the ok pairs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from smoothcert.catalogue.certificates import of_quantity
from smoothcert.catalogue.quantities import CLASS_MARGIN, RANK_MARGIN, Quantity
from smoothcert.job import Job, Target
from smoothcert.sql import Query, asking
from smoothcert.sql.literals import quote
from smoothcert.sql.measures import metrics_of
from smoothcert.store import CERTIFICATES, TABLES, RunDirectory, RunInfo
from smoothcert.summary.answer_means import answer_means
from smoothcert.summary.answers import answer_counts, answer_scores
from smoothcert.summary.attack_rules import RulesUnderAttack, rules_under_attack
from smoothcert.summary.attacked import UnderAttack, under_attack
from smoothcert.summary.scan import scan
from smoothcert.summary.shares import Mean, Share, make_mean, make_share

SUMMARY_VERSION = 2
"""2: ``radii`` have figures by certificate and ``metrics`` all others; 1 had a field for each."""
_SHOWN = "angular"
"""The certificate whose cosines the table shows."""
_TARGET_COLUMNS = {"class": "class certified", "retrieval": "caption in top k"}
"""The column of the table that a target stands in, by its certificate."""


@dataclass(frozen=True, slots=True)
class AtCosine:
    """Ok pairs whose features are certified to stay at least this close."""

    cosine: float
    share: Share


@dataclass(frozen=True, slots=True)
class CertifiedCosine:
    """What one certificate says of a cosine under every attack of at most some radius.

    Attributes:
        mean: mean certified cosine over the pairs where it says something.
        vacuous: pairs where it says nothing.
        at_least: ok pairs certified at each cosine of the job.
    """

    mean: Mean
    vacuous: Share
    at_least: tuple[AtCosine, ...]


@dataclass(frozen=True, slots=True)
class AtRadius:
    """What holds under every attack of at most this l2 radius ([0,1] pixels).

    Attributes:
        radius: the radius.
        cosines: by certificate, in the catalogue's order.
        unchanged: by name, pairs of which something cannot change: ``certified_prediction`` is out of the ok pairs,
            right or wrong, ``certified_accuracy`` out of those with a known label, which it must be;
            ``certified_retrieval`` of those whose own caption stays among the first k; ``certified_vote``,
            ``certified_vote_accuracy`` and ``certified_retrieval_vote`` the same by vote. Only what the job asks for.
    """

    radius: float
    cosines: Mapping[str, CertifiedCosine]
    unchanged: Mapping[str, Share]


@dataclass(frozen=True, slots=True)
class TargetOutcome:
    """How a target of the job was decided over the ok pairs.

    ``refuted`` and ``budget`` claim nothing; of the certified pairs, at most ``expected_false_certificates``
    are false on average: alpha x ok pairs, or all of them where these are fewer.
    """

    name: str
    certified: Share
    refuted: Share
    budget: Share
    expected_false_certificates: float
    certificate: str = ""
    radius: float = 0.0
    cosine: float | None = None

    @property
    def column(self) -> str:
        """The column of the summary's table that is about the same."""
        if self.certificate == _SHOWN:
            return f"cosine >= {self.cosine:g}"
        return _TARGET_COLUMNS.get(self.certificate, "")


@dataclass(frozen=True, slots=True)
class TableCount:
    """Rows of one table besides the certificates, and how many of them claim nothing."""

    rows: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one run.

    Attributes:
        run_id: the run.
        job: name of the job.
        sigma: noise of the job.
        alpha: failure probability of each certificate.
        finished: whether every pair of the plan has its row.
        pairs: committed pairs, ok and quarantined.
        ok: pairs with certificates.
        quarantined: pairs without, out of all.
        quarantine: number of quarantined pairs by error class, most frequent first.
        draws: draws of the ok pairs, pilots included, as in progress lines, units and commits.
        pilot_draws: those among them that fixed directions. (A row's column ``draws`` has the others.)
        draws_per_pair: ``draws`` per ok pair.
        metrics: what ``catalogue/metrics.py`` lists, by name; only what the job asks for.
        radii: one entry per radius of the job.
        targets: one entry per target of the job.
        expected_false_certificates: at most so many rows of any one statement are false on average: alpha x ok pairs,
            or all that claim anything where these are fewer.
        unknown_labels: ok pairs whose label is no class of the job; they are in no accuracy.
        tables: rows of each other table that has any, by its name.
        attacks: what each attack achieved, and the worst case over all, by subject and budget.
        attack_rules: what the worst of them left of the decisions by vote and by percentile.
        answers: shares of questions and means of certified scores (``summary/answers.py``), and means of their metrics
            (``summary/answer_means.py``), by name; without intervals.
        notes: what to know of the encoder, e.g. a noise level that its purifier was not trained for.
    """

    run_id: str
    job: str
    sigma: float
    alpha: float
    finished: bool
    pairs: int
    ok: int
    quarantined: Share
    quarantine: tuple[tuple[str, int], ...]
    draws: int
    pilot_draws: int
    draws_per_pair: float | None
    metrics: Mapping[str, Share | Mean]
    radii: tuple[AtRadius, ...]
    targets: tuple[TargetOutcome, ...]
    expected_false_certificates: float
    unknown_labels: int = 0
    tables: Mapping[str, TableCount] = field(default_factory=dict)
    attacks: tuple[UnderAttack, ...] = ()
    attack_rules: tuple[RulesUnderAttack, ...] = ()
    answers: Mapping[str, Share | Mean] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The text of ``summary.json``: strict JSON, no NaN; None where there is no figure."""
        data = {"version": SUMMARY_VERSION, **dataclasses.asdict(self)}
        data["quarantine"] = dict(self.quarantine)
        return json.dumps(data, indent=2, allow_nan=False) + "\n"

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Header and rows of the table of certified shares, one row per radius, for any printer of tables."""
        columns: list[tuple[str, list[str]]] = [("radius", [f"{at.radius:g}" for at in self.radii])]
        labelled = self.metrics.get("class_accuracy")
        if isinstance(labelled, Share):
            # with labels, whether the class is right is what people ask; a target's row needs the column all the same
            if not labelled.of or any(target.column == "class certified" for target in self.targets):
                columns.append(("class certified", self._unchanged("certified_prediction")))
            if labelled.of:
                columns.append(("certified accuracy", self._unchanged("certified_accuracy")))
            columns += self._other_ways(
                CLASS_MARGIN, "accuracy" if labelled.of else "class", right=labelled.of > 0
            )
            if labelled.of:
                columns.append(("accuracy by vote", self._unchanged("certified_vote_accuracy")))
        closest = [at.cosines[_SHOWN] for at in self.radii]
        for j, cosine in enumerate(each.cosine for found in closest[:1] for each in found.at_least):
            shares = [_percent(found.at_least[j].share) for found in closest]
            columns.append((f"cosine >= {cosine:g}", shares))
        columns.append(("mean cosine", [_mean(found.mean, found.vacuous) for found in closest]))
        if "retrieval_accuracy" in self.metrics:
            columns.append(("caption in top k", self._unchanged("certified_retrieval")))
            columns += self._other_ways(RANK_MARGIN, "top k")
        names = tuple(name for name, _ in columns)
        rows = [tuple(row) for row in zip(*(cells for _, cells in columns), strict=True)]
        return names, (*rows, *self._target_rows(names))

    def _target_rows(self, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """A row for each target that a column is about: what its own test certified."""
        for target in self.targets:
            if target.column in names:
                cells = {"radius": f"{target.radius:g} target", target.column: _percent(target.certified)}
                yield tuple(cells.get(name, "") for name in names)

    def _other_ways(
        self, quantity: Quantity, what: str, *, right: bool = False
    ) -> Iterator[tuple[str, list[str]]]:
        """Columns of all but the first certificate of a decision, named by how they come to it."""
        for each in of_quantity(quantity)[1:]:
            figure = each.right_figure if right else each.figure
            yield f"{what} by {each.name.rpartition('_')[2]}", self._unchanged(figure)

    def _unchanged(self, name: str) -> list[str]:
        return [_percent(at.unchanged.get(name)) for at in self.radii]


def summarise(run_url: str) -> Summary:
    """The figures of a run directory, as of now.

    Raises:
        RunDirectoryError: it is not a run directory.
        StoreError: it cannot be read.
    """
    return summarise_run(RunDirectory.open(run_url))


def summarise_run(run: RunDirectory, query: Query | None = None) -> Summary:
    """The figures of a run, as of now or of an open query with it.

    Raises:
        StoreError: it cannot be read.
    """
    with asking([run], query) as query:
        return dataclasses.replace(aggregate(query, run.info), notes=run.notes())


def keep_summary(run: RunDirectory, query: Query | None = None) -> Summary:
    """Write the figures of a run, as of now or of an open query with it, into its directory, and return them.

    Raises:
        StoreError: reading or writing failed.
    """
    summary = summarise_run(run, query)
    run.write_document("summary.json", summary.to_json().encode())
    return summary


def aggregate(query: Query, info: RunInfo) -> Summary:
    """The figures of one run, in one scan of the view ``certificates``.

    Args:
        query: an open query; other runs may be in it.
        info: the run: its radii, cosines and targets are the lists that its rows follow.
    """
    run_id, job, certify = info.run_id, info.job, info.job.certify
    scanned = scan(query, run_id, job)
    figures = _Figures(job, scanned, anytime=scanned["pairs"] != info.pairs)
    ok, pairs = scanned["ok"], scanned["pairs"]
    by_class = query.rows(
        f"SELECT error_class, count(*) AS pairs FROM quarantine WHERE run_id = {quote(run_id)} "
        "GROUP BY error_class ORDER BY pairs DESC, error_class"
    )
    return Summary(
        run_id=run_id,
        job=job.name,
        sigma=certify.sigma,
        alpha=certify.alpha,
        finished=pairs == info.pairs,
        pairs=pairs,
        ok=ok,
        quarantined=make_share(pairs - ok, pairs, anytime=pairs != info.pairs),
        quarantine=tuple((row["error_class"], row["pairs"]) for row in by_class),
        draws=scanned["draws"],
        pilot_draws=scanned["pilot_draws"],
        draws_per_pair=scanned["draws"] / ok if ok else None,
        metrics=figures.metrics(),
        radii=tuple(figures.at_radius(i, radius) for i, radius in enumerate(certify.radii)),
        targets=tuple(figures.target(i, target) for i, target in enumerate(certify.targets)),
        expected_false_certificates=min(certify.alpha * ok, scanned["claiming"]),
        unknown_labels=scanned["unknown_labels"],
        tables=_table_counts(query, run_id),
        attacks=under_attack(query, run_id),
        attack_rules=rules_under_attack(query, run_id),
        answers={
            **{
                name: Share(count, of, count / of if of else None, None, None)
                for name, (count, of) in answer_counts(query, run_id, certify.radii).items()
            },
            **{
                name: Mean(count, mean, None, None)
                for name, (count, mean) in answer_scores(query, run_id, certify.radii).items()
            },
            **answer_means(query, run_id),
        },
    )


class _Figures:
    """Figures of one run, from what its scan counted.

    Args:
        job: of the run.
        scanned: of ``scan``.
        anytime: the run goes on: intervals must hold at every moment of it.
    """

    def __init__(self, job: Job, scanned: Mapping[str, Any], *, anytime: bool) -> None:
        self._job = job
        self._scanned = scanned
        self._anytime = anytime
        self._ok: int = scanned["ok"]

    def metrics(self) -> dict[str, Share | Mean]:
        """What the catalogue lists besides certificates."""
        return {
            name: self._share(name, self._scanned[metric.of]) if metric.kind == "share" else self._mean(name)
            for name, metric in metrics_of(self._job).items()
        }

    def at_radius(self, i: int, radius: float) -> AtRadius:
        """Of the job's radius number ``i``."""
        cosines = {
            each.name: self._certified_cosine(each.name, i)
            for each in self._job.certificates
            if each.bound is not None and each.quantity.cosine
        }
        return AtRadius(radius, cosines, dict(self._unchanged(i)))

    def target(self, i: int, target: Target) -> TargetOutcome:
        """Of the job's target number ``i``."""
        return TargetOutcome(
            target.name,
            certified=self._share(f"target_{i}_certified"),
            refuted=self._share(f"target_{i}_refuted"),
            budget=self._share(f"target_{i}_budget"),
            expected_false_certificates=min(
                self._job.certify.alpha * self._ok, self._scanned[f"target_{i}_certified"]
            ),
            certificate=target.certificate,
            radius=target.radius,
            cosine=target.cosine,
        )

    def _certified_cosine(self, name: str, i: int) -> CertifiedCosine:
        at_least = tuple(
            AtCosine(cosine, self._share(f"{name}_{i}_at_{j}"))
            for j, cosine in enumerate(self._job.certify.cosines)
        )
        vacuous = make_share(self._ok - self._scanned[f"{name}_{i}_n"], self._ok, anytime=self._anytime)
        return CertifiedCosine(self._mean(f"{name}_{i}"), vacuous, at_least)

    def _unchanged(self, i: int) -> Iterator[tuple[str, Share]]:
        for each in self._job.certificates:
            if each.figure:
                yield each.figure, self._share(f"{each.figure}_{i}")
                if each.right_figure:
                    yield (
                        each.right_figure,
                        self._share(f"{each.right_figure}_{i}", self._scanned["labelled"]),
                    )

    def _share(self, name: str, of: int | None = None) -> Share:
        return make_share(self._scanned[name], self._ok if of is None else of, anytime=self._anytime)

    def _mean(self, name: str) -> Mean:
        moments = (self._scanned[f"{name}_{part}"] for part in ("n", "mean", "var"))
        return make_mean(*moments, anytime=self._anytime)


def _table_counts(query: Query, run_id: str) -> dict[str, TableCount]:
    found = {}
    for table in TABLES.values():
        if table is CERTIFICATES:
            continue
        (row,) = query.rows(
            f"SELECT count(*) AS rows, count_if(status = 'quarantined')::BIGINT AS quarantined FROM {table.name} "
            f"WHERE run_id = {quote(run_id)}"
        )
        if row["rows"]:
            found[table.name] = TableCount(row["rows"], row["quarantined"])
    return found


def _percent(share: Share | None) -> str:
    if share is None or share.share is None:
        return "-"
    return f"{share.share:.1%}"


def _mean(mean: Mean, vacuous: Share) -> str:
    if mean.mean is None:
        return "-"
    if vacuous.count:
        return f"{mean.mean:.3f} ({_percent(vacuous)} vacuous)"
    return f"{mean.mean:.3f}"
