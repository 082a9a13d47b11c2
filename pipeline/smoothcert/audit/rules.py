"""What certificates of an honest run never show, one SQL statement a rule (docs/theory.md section 4).

Each statement selects offending rows as (pair_id, detail). Bounds are computed anew from the row's confidence bounds,
so that a bound which was raised, by a bug or by hand, is found even where no attack comes near it. Certificates
about texts are in textual.py, what attacks show in attacks.py, what no row of any table shows in tables.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smoothcert.audit.expressions import SLACK, compute_sql, number
from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.certificates import CATALOGUE, evidence
from smoothcert.catalogue.evidence import ESCAPE, SCORE, part_of
from smoothcert.sql.literals import quote
from smoothcert.store import RunInfo
from smoothcert.work.published.importing import PUBLISHED

SEARCH = 1e-5
"""Relative precision of a search for a radius."""
LAST_DIGIT = 1e-7
"""Difference that counts as rounding up: below any digit that is shown, above what versions of a solver differ by."""
LARGEST_LOG_E = 700.0
"""Log e-value that stands for certainty; none is larger."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must not be.

    Attributes:
        name: short and stable.
        theory: item of docs/theory.md that it guards.
        means: what an offending row says.
        sql: selects the offending rows of one run, or says which they are.
        pairs: whether the rule is about certificates that attacks have beaten: these are counted against alpha.
    """

    name: str
    theory: str
    means: str
    sql: str | Failing
    pairs: bool = False

    @property
    def rows(self) -> str:
        """SQL that selects the offending rows."""
        return self.sql if isinstance(self.sql, str) else self.sql.rows

    @property
    def screen(self) -> str:
        """SQL that gives a row where there is an offending one, and is cheaper; empty where there is no such SQL."""
        return "" if isinstance(self.sql, str) else self.sql.screen


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of a row's own numbers; many of them share a scan (``Failing``).

    ``condition`` and ``detail`` are SQL in which ``{stored}`` and ``{computed}`` stand for the two values, so that
    each is computed once.

    Attributes:
        stored: what the row says.
        condition: true where it may not.
        detail: what to tell of it.
        computed: what it is compared with.
    """

    stored: str
    condition: str
    detail: str
    computed: str = "NULL"

    def of_columns(self, number: int) -> tuple[str, str]:
        """Condition and detail over columns ``stored_<number>`` and ``computed_<number>``."""
        names = {"{stored}": f"stored_{number}", "{computed}": f"computed_{number}"}
        condition, detail = self.condition, self.detail
        for name, column in names.items():
            condition, detail = condition.replace(name, column), detail.replace(name, column)
        return condition, detail


@dataclass(frozen=True, slots=True)
class Failing:
    """The rows that fail checks.

    Attributes:
        checks: at least one.
        source: ``FROM ...``; it has pair_id.
        keep: further columns that conditions and details speak of, as a select list.
    """

    checks: Sequence[Check]
    source: str
    keep: str = ""

    @property
    def rows(self) -> str:
        """SQL that selects an offending row once for each check that it fails, with what to tell of it."""
        details = []
        for i, check in enumerate(self.checks):
            condition, detail = check.of_columns(i)
            # a detail that cannot be told hides no row
            details.append(f"CASE WHEN {condition} THEN coalesce({detail}, 'see the row') END AS detail_{i}")
        all_details = ", ".join(f"detail_{i}" for i in range(len(self.checks)))
        return (
            f"SELECT pair_id, detail FROM (SELECT pair_id, unnest([{all_details}]) AS detail FROM (SELECT pair_id, "
            f"{', '.join(details)} FROM ({self._values})) WHERE coalesce({all_details}) IS NOT NULL) "
            "WHERE detail IS NOT NULL"
        )

    @property
    def screen(self) -> str:
        """SQL that gives a row where ``rows`` gives one: the same conditions, and nothing to tell.

        Most of what DuckDB spends on few rows grows with the text, and most of the text is what is told.
        """
        conditions = " OR ".join(f"({check.of_columns(i)[0]})" for i, check in enumerate(self.checks))
        return f"SELECT 1 AS found FROM ({self._values}) WHERE {conditions} LIMIT 1"

    @property
    def _values(self) -> str:
        values = [
            f"{check.stored} AS stored_{i}, {check.computed} AS computed_{i}"
            for i, check in enumerate(self.checks)
        ]
        kept = f", {self.keep}" if self.keep else ""
        return f"SELECT pair_id{kept}, {', '.join(values)} {self.source}"


CLAIMING = (
    *(each.column for each in evidence() if not each.exact),
    *(form.column for certificate in CATALOGUE for form in certificate.forms),
    *("class_margin_lcb", "target_decision"),
)
"""Columns that claim something: NULL wherever a pair is quarantined."""

_COSINES = tuple(each for each in CATALOGUE if each.quantity.cosine)
"""Certificates that bound a cosine, by something that a row has of its own; the others are in textual.py."""


def certificate_rules(info: RunInfo) -> Iterator[Rule]:
    """What certificates alone show, for one run."""
    certify = info.job.certify
    here = f"FROM certificates WHERE run_id = {quote(info.run_id)}"
    ok = f"{here} AND status = 'ok'"
    yield Rule(
        "quarantined-claims",
        "4.1",
        "a quarantined pair carries a bound",
        f"SELECT pair_id, error_class AS detail {here} AND status <> 'ok' AND "
        f"coalesce({', '.join(f'{name}::VARCHAR' for name in CLAIMING)}) IS NOT NULL",
    )
    yield Rule(
        "other-question",
        "1",
        "sigma, alpha, seed, encoder or input size differ from the run's",
        f"SELECT pair_id, 'sigma ' || sigma || ', alpha ' || alpha || ', seed ' || seed || ', ' || input_height || "
        f"'x' || input_width AS detail {here} AND (sigma <> {number(certify.sigma)} OR "
        f"alpha <> {number(certify.alpha)} OR seed <> {certify.seed} OR encoder_digest <> "
        f"{quote(info.encoder_digest)} OR (input_height, input_width) <> "
        f"(SELECT (mode(input_height), mode(input_width)) {here}))",
    )
    yield Rule(
        "mixed-noise",
        "4.9",
        "certificates of one run come from more than one noise generator",
        f"SELECT pair_id, 'from ' || noise AS detail {ok} AND noise <> (SELECT mode(noise) {ok})",
    )
    yield Rule(
        "above-estimate",
        "4.2",
        "a lower confidence bound is above its own estimate, or the estimate is missing",
        "SELECT pair_id, concat_ws(', ', 'N ' || smooth_norm, 'bound ' || smooth_norm_lcb, 'S ' || robustness_score, "
        f"'bound ' || robustness_score_lcb) AS detail {ok} AND ("
        + " OR ".join(
            f"({name}_lcb IS NOT NULL AND NOT coalesce({name}_lcb <= {name} AND {name} <= 1 + {number(SLACK)}, false))"
            for name in (
                *(each.estimate for each in evidence() if each.estimate and each.kind != "upper"),
                "class_margin",
            )
        )
        + "".join(
            f" OR ({each.column} IS NOT NULL AND NOT coalesce({each.column} >= {each.estimate}, false))"
            for each in evidence()
            if each.estimate and each.kind == "upper"
        )
        + "".join(f" OR {each}" for each in _above_means(info))
        + "".join(
            f" OR {each} > 2 * {SCORE.estimate} - 1 + {number(SLACK)}" for each in _by_scores(certify.sigma)
        )
        + ")",
    )
    yield Rule(
        "impossible-value",
        "2",
        "a score, norm or certified cosine is outside its range",
        "SELECT pair_id, concat_ws(', ', 'N ' || smooth_norm_lcb, 'S ' || robustness_score_lcb, 'votes ' || "
        f"vote_share_lcb, draws || ' draws', 'pilot ' || pilot_draws) AS detail {ok} AND ("
        f"{' OR '.join(_impossible(info))})",
    )
    yield Rule(
        "beyond-draws",
        "3",
        "a confidence bound is higher than this number of draws can prove, even if every draw were perfect",
        Failing(_beyond_draws(info), ok, keep="draws"),
    )
    yield from _rounded_up(info, ok)
    if not certify.targets:
        yield _recounted_votes(ok)
    needed = f"-ln({number(certify.alpha)})"
    for position, target in enumerate(certify.targets, start=1):
        yield Rule(
            "target-without-evidence",
            "3",
            "a target is marked as certified without enough evidence for its level",
            f"SELECT pair_id, concat_ws(' ', {quote(target.name)}, 'at log e-value', log_e_value[{position}]) AS "
            f"detail {ok} AND target_decision[{position}] = 'certified' AND NOT "
            f"coalesce(log_e_value[{position}] >= {needed} - {number(SLACK)}, false)",
        )


def _recounted_votes(ok: str) -> Rule:
    """Bounds of votes against those of as many votes; only of a number of draws that was fixed beforehand."""
    checks = []
    for each in evidence():
        if each.votes:
            share = f"CASE WHEN draws >= 1 AND {each.estimate} BETWEEN 0 AND 1 THEN {each.estimate} END"
            level = f"alpha * {number(float(each.level))}"
            checks.append(
                Check(
                    each.column,
                    f"{{stored}} > coalesce({{computed}}, -1) + {number(SLACK)}",
                    f"'{each.column} is ' || {{stored}} || ', at most ' || coalesce({{computed}}::VARCHAR, 'nothing') "
                    "|| ' follows from the votes'",
                    f"vote_share_bound({share}, draws, {level})",
                )
            )
    return Rule(
        "rounded-up",
        "4.2",
        "a stored bound or radius is larger than its confidence bound allows",
        Failing(checks, ok),
    )


def _rounded_up(info: RunInfo, ok: str) -> Iterator[Rule]:
    """Bounds and radii against the same ones computed from the row's confidence bounds."""
    certify = info.job.certify
    sigma = number(certify.sigma)
    pairs = [
        (f"{each.bound.column}[{i}]", compute_sql(each, each.bound, sigma, number(radius), position=i))
        for i, radius in enumerate(certify.radii, start=1)
        for each in _COSINES
        if each.bound is not None
    ]
    checks = [
        Check(
            stored,
            f"{{stored}} > coalesce({{computed}}, -2) + {number(LAST_DIGIT)} * greatest(1, abs({{stored}}))",
            f"'{stored} is ' || {{stored}} || ', at most ' || coalesce({{computed}}::VARCHAR, 'nothing') || ' follows'",
            follows,
        )
        for stored, follows in pairs
    ]
    for j, cosine in enumerate(certify.cosines, start=1):
        for certificate in _COSINES:
            if certificate.radius_at is None or certificate.bound is None:
                continue
            name = certificate.radius_at.column
            # A radius is found by search: what must hold is that the same search ends there, or the bound just inside
            # it. The search comes first: it takes all rows at once, while a bound at a radius of its own for each of
            # few rows takes a frontier each. None of these is ever infinite, not even of a feature that noise does not
            # move: an infinite one follows from nothing.
            inside = (
                f"CASE WHEN {name}[{j}] BETWEEN 0 AND 1e300 THEN {name}[{j}] * (1 - {number(SEARCH)}) END"
            )
            bound = compute_sql(certificate, certificate.bound, sigma, inside)
            again = compute_sql(certificate, certificate.radius_at, sigma, number(cosine))
            checks.append(
                Check(
                    f"{name}[{j}]",
                    "{stored} IS NOT NULL AND NOT coalesce({computed}, false)",
                    f"'{name}[{j}] is ' || {{stored}} || ', where cosine {cosine:g} does not follow'",
                    f"CASE WHEN {inside} <= {again} THEN true "
                    f"ELSE {bound} >= {number(cosine)} - {number(LAST_DIGIT)} END",
                )
            )
    yield Rule(
        "rounded-up",
        "4.2",
        "a stored bound or radius is larger than its confidence bound allows",
        Failing(checks, ok),
    )
    for name in (each.bound.column for each in CATALOGUE if each.bound is not None and _falls(each)):
        rising = [f"{name}[{i + 1}] > {name}[{i}] + {number(SLACK)}" for i in range(1, len(certify.radii))]
        rising += [
            f"({name}[{i + 1}] IS NOT NULL AND {name}[{i}] IS NULL)" for i in range(1, len(certify.radii))
        ]
        if rising:
            yield Rule(
                "rises-with-radius",
                "2",
                "a bound is larger at a larger radius",
                f"SELECT pair_id, '{name} ' || {name}::VARCHAR AS detail {ok} AND ({' OR '.join(rising)})",
            )


def _falls(certificate: Certificate) -> bool:
    """Whether its bounds never rise with the radius: computed so, or kept so."""
    return certificate.quantity.cosine or any(each.per_radius for each in certificate.basis)


def _above_means(info: RunInfo) -> Iterator[str]:
    """Conditions that means of scalars are below their lower bounds, or their bounds above the mean margin."""
    laws = {each.column: each for each in evidence() if each.kind == "law"}
    for each in evidence():
        if each.kind == "scalar":
            law = laws[each.column.removesuffix("_lcb")]
            for i in range(len(info.job.certify.radii)):
                mean = f"{law.column}[{law.size * (i + 1)}]"
                yield f"({each.column}[{i + 1}] IS NOT NULL AND NOT coalesce({each.column}[{i + 1}] <= {mean}, false))"
    # whatever the law of the margins, that of the very draws among them, a scalar proves no more than their mean
    yield f"list_max(class_distribution) > class_margin + {number(SLACK)}"
    yield f"list_max(clean_distribution) > 2 * {SCORE.estimate} - 1 + {number(SLACK)}"
    yield f"list_max(caption_distribution) > caption_similarity + {number(SLACK)}"


def _by_scores(sigma: float) -> list[str]:
    """Bounds at radius 0 that follow from the very draws whose mean is estimated: they bound that mean."""
    return [
        compute_sql(each, each.bound, number(sigma), "0")
        for each in _COSINES
        if each.bound is not None
        and each.rule == "mean"
        and {(part.kind, part.direction) for part in each.basis} == {("statistic", SCORE.direction)}
    ]


def _impossible(info: RunInfo) -> Iterator[str]:
    """Conditions that no number of a row may fulfil."""
    certify = info.job.certify
    for each in evidence():
        name = each.column
        if each.kind == "mean":
            yield f"NOT {name} BETWEEN {each.low:g} AND 1"
        elif each.listed and each.kind != "known":
            length = max(1, each.size) * (len(certify.radii) if each.per_radius else 1)
            yield f"list_min({name}) < {each.low:g} OR list_max({name}) > {each.high:g} OR len({name}) <> {length}"
            if each.kind == "quantiles":  # those of smaller shares, which are smaller
                yield f"{name} <> list_reverse_sort({name})"
        elif each.kind in ("statistic", "upper"):
            yield f"NOT {name} BETWEEN {each.low:g} AND {each.high:g}"
    yield f"draws < 1 OR (pilot_draws < 1 AND noise <> {quote(PUBLISHED)}) OR draws > {certify.max_draws}"
    yield f"list_max(log_e_value) > {number(LARGEST_LOG_E)} OR len(target_decision) <> {len(certify.targets)}"
    # Lists have one element for each radius or cosine: what stands beyond them would be nobody's claim.
    for certificate in CATALOGUE:
        for form, points in (
            (certificate.bound, certify.radii),
            (certificate.radius_at, certify.cosines),
        ):
            if form is not None:
                yield f"len({form.column}) <> {len(points)}"
        if certificate.radius is not None:
            yield f"{certificate.radius.column} < 0"
        if certificate.bound is not None and certificate.quantity.cosine:
            for i in range(1, len(certify.radii) + 1):
                yield f"NOT {certificate.bound.column}[{i}] BETWEEN 0 AND 1"


def _beyond_draws(info: RunInfo) -> list[Check]:
    """Lower confidence bounds against those of n perfect draws.

    P(all n draws are 1) = p^n > alpha for a mean p above alpha^(1/n), so a bound above that would be false too often.
    None of our methods goes there, whatever the draws: betting multiplies its capital by at most 0.01 + 0.99/m a draw.
    """
    alpha, retrieval = info.job.certify.alpha, info.job.retrieval
    ranks = 1 if retrieval is None else retrieval.k
    scores = {"class_margin_lcb": ("(1 + class_margin_lcb) / 2", alpha / 2)}
    for each in evidence():
        if each == ESCAPE:
            scores[each.column] = (f"1 - {each.column}", part_of(alpha, each.level))
        # a quantile may be as large as every draw
        elif not each.exact and each.kind not in ("upper", "quantiles"):
            largest = f"list_max({each.column})" if each.listed else each.column
            level = part_of(alpha, each.level / ranks if each.ranked else each.level)
            scores[each.column] = (f"(1 + {largest}) / 2" if each.projection else largest, level)
    return [
        Check(
            score,
            f"{{stored}} > {{computed}} + {number(SLACK)}",
            f"'{name}: a mean of ' || {{stored}} || '; ' || draws || ' draws show at most ' || {{computed}}",
            f"pow({number(level)}, 1.0 / greatest(draws, 1))",
        )
        for name, (score, level) in scores.items()
    ]
