"""The audit: every committed row of a run against the rules that void a certificate, and every attack against it.

Whoever reads certificates should not have to trust the code that wrote them. The audit computes bounds anew from the
rows' confidence bounds, checks that every pair is there once, and joins attacks with certificates: an upper
confidence bound of an attacked cosine below the certified lower bound is a violation. Any offending row fails the
audit; for violations it also says how likely that many are by the failure probabilities alone, which is no excuse but
tells a bug from bad luck.

What rows cannot show is kept by other means: that draws are keyed apart (tests of the noise), that the encoder is in
evaluation mode and independent of the batch (its contract, checked before a run), that noise is added on x.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

from scipy.special import bdtrc

from smoothcert.audit.answers import answer_rules, asked_answers
from smoothcert.audit.attacks import WHICH, attack_rules, missing_attacks, other_run_rules
from smoothcert.audit.claims import EVER, Others, covered, tested_pairs
from smoothcert.audit.expressions import compute_sql, number
from smoothcert.audit.outcomes import asked_sections, outcome_rules, outside_their_bounds
from smoothcert.audit.plan import misplaced_rows, unfinished_tasks
from smoothcert.audit.published import published_notes, published_rules
from smoothcert.audit.rules import Rule, certificate_rules
from smoothcert.audit.tables import table_rules
from smoothcert.audit.textual import pool_of, textual_rules
from smoothcert.catalogue.certificates import CATALOGUE, of_name, quantities
from smoothcert.job.attacks import EOT_DRAWS, EVALUATE_DRAWS
from smoothcert.runtime.plan import DATA_FILE
from smoothcert.runtime.retry import stale_pairs
from smoothcert.sql import Query, asking
from smoothcert.sql.literals import quote
from smoothcert.store import ATTACKS, CERTIFICATES, TABLES, RunDirectory, RunInfo
from smoothcert.store.tables.attacked_answers import ATTACKED_ANSWERS
from smoothcert.work.attack.asked import AskedAttack, asked_attacks

_ATTACK_TABLES = (ATTACKS.name, ATTACKED_ANSWERS.name)
LISTED = 20
"""Offending pairs listed for each rule; all are counted."""


@dataclass(frozen=True)
class Finding:
    """A rule that rows break.

    Attributes:
        rule: its name.
        theory: item of docs/theory.md.
        means: what it says.
        count: offending rows.
        listed: (pair_id, detail) of some of them.
    """

    rule: str
    theory: str
    means: str
    count: int
    listed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RunAudit:
    """The audit of one run.

    Attributes:
        run_id: the run.
        url: its directory.
        pairs: pairs of the plan.
        attacks: rows of all tables of attacks.
        audited_pairs: pairs of whose certificates an attack on the smoothed encoder, in whatever norm it was bounded,
            tested one that says something of its perturbation.
        violated_pairs: those among them with a violation.
        chance: probability of so many or more, if every claim and every upper bound failed at its alpha; None
            without any.
        findings: rules that are broken.
        notes: what is worth knowing and proves nothing.
    """

    run_id: str
    url: str
    pairs: int
    attacks: int
    audited_pairs: int
    violated_pairs: int
    chance: float | None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def sound(self) -> bool:
        """Nothing was found."""
        return not self.findings

    def to_json(self) -> str:
        """As strict JSON."""
        return json.dumps(asdict(self) | {"sound": self.sound}, indent=2, allow_nan=False) + "\n"

    def lines(self) -> list[str]:
        """For people."""
        verdict = "no findings" if self.sound else "FINDINGS"
        text = [
            f"{self.run_id}: {verdict}",
            f"  {self.pairs:,} pairs, {self.attacks:,} attack results; {self.audited_pairs:,} pairs had certificates "
            f"attacked, {self.violated_pairs:,} had one beaten",
        ]
        for finding in self.findings:
            text.append(f"  {finding.rule} ({finding.count:,}): {finding.means} [theory {finding.theory}]")
            text.extend(f"    {pair}: {detail}" for pair, detail in finding.listed)
            if finding.count > len(finding.listed):
                text.append(f"    and {finding.count - len(finding.listed):,} more")
        if self.chance is not None:
            text.append(
                f"  probability of this many by chance, at the stated failure probabilities: {self.chance:.2g}"
            )
        text.extend(f"  note: {note}" for note in self.notes)
        return text


class _Book:
    """Findings by rule, offending rows counted and some of them listed."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}
        self.violated: set[str] = set()

    def hold(self, query: Query, rules: Iterable[Rule]) -> None:
        """Hold rows against rules."""
        for rule in rules:
            if rule.screen and not query.rows(rule.screen):
                continue
            rows = query.rows(
                f"SELECT pair_id, detail FROM ({rule.rows}) ORDER BY pair_id, detail LIMIT {LISTED}"
            )
            if not rows:
                continue
            count = len(rows)
            if count == LISTED:
                count = _one(query, f"SELECT count(*) FROM ({rule.rows})")
            if rule.pairs:
                self.violated.update(
                    row["pair_id"] for row in query.rows(f"SELECT DISTINCT pair_id FROM ({rule.rows})")
                )
            self.add(
                Finding(
                    rule.name,
                    rule.theory,
                    rule.means,
                    count,
                    tuple((row["pair_id"] or "", row["detail"] or "") for row in rows),
                )
            )

    def add(self, finding: Finding) -> None:
        """One more; those of one rule count together."""
        key = (finding.rule, finding.means)
        before = self._found.get(key)
        if before is not None:
            rows = (*before.listed, *finding.listed)[:LISTED]
            finding = replace(finding, listed=rows, count=before.count + finding.count)
        self._found[key] = finding

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, in the order in which they were made."""
        return tuple(self._found.values())


def audit_run(run: RunDirectory, others: Sequence[RunDirectory] = (), query: Query | None = None) -> RunAudit:
    """Check every committed row of a run.

    Args:
        run: the run.
        others: further runs, whose attacks on the same encoder are held against this run's certificates where the
            pairs are the same.
        query: an open query with the run, where there is one.

    Raises:
        StoreError: one cannot be read.
    """
    info = run.info
    here = f"WHERE run_id = {quote(info.run_id)}"
    asked = asked_attacks(run)
    book = _Book()
    with asking([run], query) as query:
        rows = _row_counts(query, here)
        for table in TABLES.values():
            if rows[table.name]:  # of no rows nothing is wrong, and no statement has to say so
                book.hold(query, table_rules(info, table))
        book.hold(query, certificate_rules(info))
        book.hold(query, published_rules(info))
        book.hold(query, textual_rules(info, pool_of(run)))
        if any(rows[name] for name in ("answers", "attacked_answers", "replaced_attacked_answers")):
            book.hold(query, answer_rules(info, asked_answers(run)))
        pairs = _one(query, f"SELECT count(DISTINCT pair_id) FROM certificates {here}")
        attacks = sum(rows[name] for name in _ATTACK_TABLES)
        tested: set[str] = set()
        statements, alpha = 0, 0.0
        notes = []
        if asked or rows["attacks"]:
            book.hold(query, [missing_attacks(info, asked)])
        if rows["attacks"] or rows["replaced_attacks"]:
            stale = stale_pairs(run, query.committed(run.run_id), ATTACKS, CERTIFICATES)
            book.hold(query, attack_rules(info, stale))
            book.hold(query, outcome_rules(info, asked_sections(run, query), WHICH))
            tested = {row["pair_id"] for row in query.rows(tested_pairs(info))}
            statements, alpha = _statements(query, covered(info))
            outside, outside_note = outside_their_bounds(query, info, WHICH)
            book.hold(query, outside)
            notes += [*_changed_classes(query, info), *_few_draws(query, here), *outside_note]
        notes += [
            *_above_their_row(query, info),
            *_replaced(query, here, rows["replaced_attacks"]),
            *_never_made(info, asked),
            *published_notes(query, info),
        ]
        for finding in _misplaced(run, query):
            book.add(finding)
    related = _related(run, others)
    if related:
        about = _about(run, related)
        with Query([run, *related], many=True) as query:
            book.hold(query, other_run_rules(info, about))
            tested.update(row["pair_id"] for row in query.rows(tested_pairs(info, about)))
            more, other_alpha = _statements(query, covered(info, others=about))
        statements, alpha = statements + more, max(alpha, other_alpha)
        if more:
            notes.append(f"attacks of {', '.join(each.run_id for each in related)} were held against it too")
    chance = None
    if book.violated:
        # every certificate of a pair, and every upper bound of each attack
        kinds = len(CATALOGUE) + len(info.job.certify.targets)
        uppers = sum(quantity.attacked != "" for quantity in quantities())
        rate = min(1.0, kinds * info.job.certify.alpha + uppers * statements * alpha)
        beaten = len(book.violated)
        chance = float(bdtrc(beaten - 1, max(len(tested), beaten), rate))
    return RunAudit(
        info.run_id,
        run.url,
        pairs,
        attacks,
        len(tested),
        len(book.violated),
        chance,
        book.findings,
        tuple(notes),
    )


def audit_runs(run_urls: Sequence[str]) -> list[RunAudit]:
    """Audit run directories, each by its own attacks and by those of the others on the same encoder and pairs.

    Raises:
        RunDirectoryError: one is not a run directory.
        StoreError: one cannot be read.
    """
    runs = [RunDirectory.open(url) for url in run_urls]
    return [audit_run(run, runs) for run in runs]


def _row_counts(query: Query, here: str) -> dict[str, int]:
    """Rows of each table and of what was replaced in it."""
    names = [name for table in TABLES for name in (table, f"replaced_{table}")]
    counts = (f"SELECT {quote(name)} AS name, count(*) AS n FROM {name} {here}" for name in names)
    return {row["name"]: row["n"] for row in query.rows(" UNION ALL ".join(counts))}


def _related(run: RunDirectory, others: Sequence[RunDirectory]) -> list[RunDirectory]:
    """Runs on the same pairs that attacked the encoder that this one certifies."""
    info = run.info
    found: dict[str, RunDirectory] = {}
    for other in others:
        theirs = other.info
        same = (
            theirs.data_digest == info.data_digest
            and theirs.job.data.format == info.job.data.format
            and theirs.job.data.columns == info.job.data.columns
            and _images_of(other) == _images_of(run)
        )
        if same and theirs.run_id != info.run_id and theirs.run_id not in found:
            with Query([other]) as query:
                if _one(
                    query, f"SELECT count(*) FROM {EVER} WHERE encoder_digest = {quote(info.encoder_digest)}"
                ):
                    found[theirs.run_id] = other
    return list(found.values())


def _images_of(run: RunDirectory) -> str:
    """Digest of the image files that the data named when the run was planned; empty where images are inside."""
    text = run.read_document(DATA_FILE)
    return "" if text is None else str(json.loads(text).get("images", ""))


def _about(run: RunDirectory, related: Sequence[RunDirectory]) -> Others:
    """Which of the related runs asked about the same texts."""
    ours, pool = run.info.job, pool_of(run)
    return Others(
        tuple(other.run_id for other in related),
        tuple(other.run_id for other in related if other.info.job.zero_shot == ours.zero_shot),
        tuple(
            other.run_id
            for other in related
            if other.info.job.retrieval == ours.retrieval and pool is not None and pool_of(other) == pool
        ),
    )


def _statements(query: Query, attacked: str) -> tuple[int, float]:
    """The largest number of attacks that a pair's certificates were held against, and their largest alpha."""
    (row,) = query.rows(
        f"SELECT coalesce(max(n), 0) AS n, coalesce(max(alpha), 0.0) AS alpha FROM (SELECT count(*) AS n, max(a.alpha) "
        f"AS alpha {attacked} GROUP BY pair_id)"
    )
    return int(row["n"]), float(row["alpha"])


def _misplaced(run: RunDirectory, query: Query) -> list[Finding]:
    """Pairs of the plan without a row, be it of certification or of another task, and rows of other pairs."""
    found = []
    units = misplaced_rows(run, query)
    lacking, strange = [each for each in units if each.missing], [each for each in units if each.foreign]
    if lacking:
        missing = sum(each.missing for each in lacking)
        means = f"{missing:,} of {run.info.pairs:,} pairs have no row yet; run certify again to resume"
        units_listed = tuple((each.unit_id, each.detail) for each in lacking[:LISTED])
        found.append(Finding("missing-pair", "4.4", means, missing, units_listed))
    for task, missing in unfinished_tasks(run):
        means = f"{missing:,} of {run.info.pairs:,} pairs have no row of task {task} yet; run certify again to resume"
        found.append(Finding("missing-pair", "4.4", means, missing, (("", task),)))
    if strange:
        units_listed = tuple((each.unit_id, each.detail) for each in strange[:LISTED])
        count = sum(each.foreign for each in strange)
        found.append(
            Finding(
                "foreign-pair", "4.4", "rows are of pairs that the unit does not hold", count, units_listed
            )
        )
    return found


def _above_their_row(query: Query, info: RunInfo) -> list[str]:
    """Targets that a row's own bound does not reach.

    No rule follows from them: a target's test looks after every draw, the bound after every eighth, and at the level of
    its own tests; later draws may take back what was evidence when the target was decided. Percentiles are left out:
    their columns count a radius up to the next eighth of sigma.
    """
    above = []
    for j, target in enumerate(info.job.certify.targets, start=1):
        certificate = of_name(target.certificate)
        if certificate.anywhere and certificate.bound is not None and certificate.rule == "mean":
            own = compute_sql(certificate, certificate.bound, "sigma", number(target.radius))
            enough = number((target.cosine or 0.0) - 1e-4)
            above.append(f"(target_decision[{j}] = 'certified' AND NOT coalesce({own} >= {enough}, false))")
    if not above:
        return []
    here = f"FROM certificates WHERE run_id = {quote(info.run_id)} AND status = 'ok'"
    count = _one(query, f"SELECT count(*) {here} AND ({' OR '.join(above)})")
    if not count:
        return []
    return [
        f"{count:,} pairs have a certified target on a cosine above what their own bound certifies there: each is "
        "possible, as the target was tested by itself, but they should be few"
    ]


def _changed_classes(query: Query, info: RunInfo) -> list[str]:
    changed = _one(
        query,
        f"SELECT count(DISTINCT pair_id) {covered(info)} AND a.perturbation_l2 <= c.certified_radius AND "
        "a.attacked_label <> c.predicted_label",
    )
    if not changed:
        return []
    return [
        f"{changed:,} pairs changed their smoothed class within the certified radius, by the mean of the evaluation "
        "draws; where the confidence bound does not agree that proves nothing, but it deserves a look"
    ]


def _few_draws(query: Query, here: str) -> list[str]:
    few = _one(
        query,
        f"SELECT count(*) FROM attacks {here} AND sigma > 0 AND status = 'ok' AND "
        f"(evaluate_draws < {EVALUATE_DRAWS} OR eot_draws < {EOT_DRAWS})",
    )
    if not few:
        return []
    return [
        f"{few:,} outcomes under noise rest on fewer than {EOT_DRAWS} draws a step or {EVALUATE_DRAWS:,} draws of "
        "judging: the attack may look weaker than it is"
    ]


def _replaced(query: Query, here: str, replaced: int) -> list[str]:
    """A fault of a machine may be mended and its attacks made again; an encoder that breaks now and then is broken."""
    if not replaced:
        return []
    broken = _one(query, f"SELECT count(*) FROM replaced_attacks {here} AND error_class = 'NonFiniteError'")
    return [
        f"{replaced:,} outcomes were replaced by a later attack, {broken:,} of them because the encoder gave NaN or "
        "infinity: view replaced_attacks"
    ]


def _never_made(info: RunInfo, asked: Sequence[AskedAttack]) -> list[str]:
    """Attacks of the job that the directory was made for, none of whose units was ever begun."""
    begun = {
        (each.attack, each.norm, each.objective, each.reference, each.subjects, each.budgets)
        for each in asked
    }
    return [
        f"the job also names {each.attack} {each.norm} ({each.objective}) on {', '.join(each.subjects)}, which was "
        "never begun"
        for each in info.job.attacks
        if (each.attack, each.norm, each.objective, each.reference, each.subjects, each.budgets) not in begun
    ]


def _one(query: Query, sql: str) -> int:
    return next(iter(query.rows(sql)[0].values())) or 0
