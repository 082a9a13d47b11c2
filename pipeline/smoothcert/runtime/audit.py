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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from scipy.stats import binom

from smoothcert.job_attacks import EOT_DRAWS, EVALUATE_DRAWS
from smoothcert.runtime.attack_asked import AskedAttack, asked_attacks
from smoothcert.runtime.audit_attacks import attack_rules, tested_pairs
from smoothcert.runtime.audit_rules import certificate_rules
from smoothcert.runtime.audit_textual import textual_rules
from smoothcert.runtime.summary_scan import quoted
from smoothcert.store import Query, RunDirectory, RunInfo

LISTED = 20
"""Offending pairs listed for each rule; all are counted."""


@dataclass(frozen=True)
class Finding:
    """A rule that rows break.

    Attributes:
        rule: its name.
        theory: item of theory.md.
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
        attacks: attack rows.
        audited_pairs: pairs of whose certificates an l2 attack on the smoothed encoder tested one that says something
            at its budget.
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
        verdict = "nothing to object" if self.sound else "NOT SOUND"
        text = [
            f"{self.run_id}: {verdict}",
            f"  {self.pairs:,} pairs, {self.attacks:,} attack outcomes; certificates of {self.audited_pairs:,} pairs "
            f"were attacked, {self.violated_pairs:,} beaten",
        ]
        for finding in self.findings:
            text.append(f"  {finding.rule} ({finding.count:,}): {finding.means} [theory {finding.theory}]")
            text.extend(f"    {pair}: {detail}" for pair, detail in finding.listed)
            if finding.count > len(finding.listed):
                text.append(f"    and {finding.count - len(finding.listed):,} more")
        if self.chance is not None:
            text.append(
                f"  so many beaten pairs by the failure probabilities alone: probability {self.chance:.2g}"
            )
        text.extend(f"  note: {note}" for note in self.notes)
        return text


def audit_run(run: RunDirectory) -> RunAudit:
    """Check every committed row of a run.

    Raises:
        StoreError: it cannot be read.
    """
    info = run.info
    here = f"WHERE run_id = {quoted(info.run_id)}"
    asked = asked_attacks(run)
    with Query([run]) as query:
        found: dict[tuple[str, str], Finding] = {}
        violated: set[str] = set()
        for rule in (*certificate_rules(info), *textual_rules(info), *attack_rules(info, asked)):
            rows = query.sql(
                f"SELECT pair_id, detail FROM ({rule.sql}) ORDER BY pair_id, detail LIMIT {LISTED}"
            ).to_pylist()
            if not rows:
                continue
            count = len(rows)
            if count == LISTED:
                count = _one(query, f"SELECT count(*) FROM ({rule.sql})")
            if rule.pairs:
                violated.update(
                    query.sql(f"SELECT DISTINCT pair_id FROM ({rule.sql})")["pair_id"].to_pylist()
                )
            listed = tuple((row["pair_id"] or "", row["detail"] or "") for row in rows)
            before = found.get((rule.name, rule.means))
            if before is not None:
                listed, count = (*before.listed, *listed)[:LISTED], count + before.count
            found[rule.name, rule.means] = Finding(rule.name, rule.theory, rule.means, count, listed)
        pairs = _one(query, f"SELECT count(DISTINCT pair_id) FROM certificates {here}")
        attacks = _one(query, f"SELECT count(*) FROM attacks {here}")
        same = f"sigma > 0 AND encoder_digest = {quoted(info.encoder_digest)}"
        covered = f"{here} AND norm = 'l2' AND {same} AND status = 'ok'"
        audited = _one(query, f"SELECT count(*) FROM ({tested_pairs(info)})")
        statements = _one(
            query,
            f"SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM attacks {covered} GROUP BY pair_id)",
        )
        alpha = float(_one(query, f"SELECT coalesce(max(alpha), 0) FROM attacks {covered}"))
        notes = (
            *_changed_classes(query, info),
            *_few_draws(query, here),
            *_replaced(query, here),
            *_never_made(info, asked),
        )
    findings = list(found.values())
    if pairs != info.pairs:
        unit_ids = [unit.unit_id for unit in run.pending()]
        listed = tuple((unit_id, "unit without a commit") for unit_id in unit_ids[:LISTED])
        means = f"{info.pairs - pairs:,} of {info.pairs:,} pairs have no row; certify again to resume"
        findings.append(Finding("missing-pair", "4.4", means, info.pairs - pairs, listed))
    chance = None
    if violated:
        # seven certificates a pair, and five upper bounds of each attack
        rate = min(1.0, 7 * info.job.certify.alpha + 5 * statements * alpha)
        chance = float(binom.sf(len(violated) - 1, max(audited, len(violated)), rate))
    return RunAudit(
        info.run_id, run.url, info.pairs, attacks, audited, len(violated), chance, tuple(findings), notes
    )


def audit_runs(run_urls: Sequence[str]) -> list[RunAudit]:
    """Audit run directories one by one.

    Raises:
        RunDirectoryError: one is not a run directory.
        StoreError: one cannot be read.
    """
    return [audit_run(RunDirectory.open(url)) for url in run_urls]


def _changed_classes(query: Query, info: RunInfo) -> list[str]:
    changed = _one(
        query,
        "SELECT count(DISTINCT pair_id) FROM attacks a JOIN certificates c "
        f"USING (run_id, pair_id, encoder_digest, sigma) WHERE run_id = {quoted(info.run_id)} AND a.norm = 'l2' "
        "AND a.perturbation_l2 <= c.certified_radius AND "
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


def _replaced(query: Query, here: str) -> list[str]:
    """A fault of a machine may be mended and its attacks made again; an encoder that breaks now and then is broken."""
    replaced = _one(query, f"SELECT count(*) FROM replaced_attacks {here}")
    broken = _one(query, f"SELECT count(*) FROM replaced_attacks {here} AND error_class = 'NonFiniteError'")
    if not replaced:
        return []
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
    return next(iter(query.sql(sql).to_pylist()[0].values())) or 0
