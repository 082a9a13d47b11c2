"""Figures over the radius of the attack: certified cosines, certified shares, certified accuracy, and attacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.certificates import CATALOGUE, of_quantity
from smoothcert.catalogue.quantities import TO_CLEAN, TO_SMOOTHED, Quantity
from smoothcert.report.figure import Chart, FigureQuery
from smoothcert.sql.literals import quote
from smoothcert.store import RunInfo

_SECTION = "Certified against the radius"
_PUBLISHED = {"fcsb": "FCSB, as published", "vote": "vote (Cohen et al.)"}
"""Certificates that readers know from papers, in their words."""


def name_of(certificate: Certificate) -> str:
    """A certificate for people: its name and its theorem."""
    theorem = certificate.source.partition(",")[0].split()[-1]
    return f"{_PUBLISHED.get(certificate.name, certificate.name.replace('_', ' '))} ({theorem})"


def curve_questions(infos: Sequence[RunInfo]) -> Iterator[FigureQuery]:
    """The curves of some runs, each over all of them."""
    yield _cosines(TO_SMOOTHED, "to the smoothed feature of the clean image")
    yield _cosines(TO_CLEAN, "to the feature of the clean image without noise")
    yield _shares()
    if any(info.job.zero_shot is not None for info in infos):
        yield _accuracies()
    yield _attacks()
    yield _attacks_by_rule()
    yield _attacked_percentiles()


def _labels(only: Sequence[Certificate]) -> str:
    cases = " ".join(f"WHEN {quote(each.name)} THEN {quote(name_of(each))}" for each in only)
    return f"CASE certificate {cases} ELSE certificate END"


def _over(x: str, values: tuple[str, str, str], title: str, panel: tuple[str, str] | None = None) -> Chart:
    """A value with both ends against the radius or the budget; ``panel`` is a column to choose by, and its title."""
    value, low, high = values
    return Chart(
        kind="curve",
        x=x,
        y=value,
        low=low,
        high=high,
        series=("curve",),
        panel=panel[0] if panel else None,
        panel_title=panel[1] if panel else "",
        x_title=f"l2 {x} of the attack, [0,1] pixels"
        if x == "radius"
        else f"{x} of the attack, [0,1] pixels",
        y_title=title,
        scale="cosine" if title == "cosine" else "share",
    )


def _cosines(quantity: Quantity, what: str) -> FigureQuery:
    """Quantiles over the ok pairs, by counting cosines that were rounded down: it fits any number of pairs."""
    certificates = [each for each in of_quantity(quantity) if each.bound is not None]
    names = ", ".join(quote(each.name) for each in certificates)
    sql = f"""WITH certified AS (
    SELECT run_id, {_labels(certificates)} AS curve, radius, coalesce(floor(cosine * 1000) / 1000, -1) AS cosine,
           count(*) AS pairs
    FROM bounds WHERE certificate IN ({names}) GROUP BY ALL
), worst AS (
    SELECT run_id, subject, budget, pair_id, min({quantity.attacked}) AS cosine FROM attacks
    WHERE status = 'ok' AND norm = 'l2' AND sigma > 0 AND {quantity.attacked} IS NOT NULL GROUP BY ALL
), attacked AS (
    SELECT run_id, 'reached by attacks on ' || subject AS curve, budget AS radius,
           floor(cosine * 1000) / 1000 AS cosine, count(*) AS pairs
    FROM worst GROUP BY ALL
), placed AS (
    SELECT *, sum(pairs) OVER (PARTITION BY run_id, curve, radius ORDER BY cosine) AS upto,
           sum(pairs) OVER (PARTITION BY run_id, curve, radius) AS of
    FROM (SELECT * FROM certified UNION ALL SELECT * FROM attacked)
)
SELECT run_id, curve, radius, nullif(min(cosine) FILTER (upto >= 0.5 * of), -1) AS median,
       nullif(min(cosine) FILTER (upto >= 0.25 * of), -1) AS quartile_low,
       nullif(min(cosine) FILTER (upto >= 0.75 * of), -1) AS quartile_high,
       any_value(of)::BIGINT AS pairs, (sum(pairs) FILTER (cosine > -1))::BIGINT AS pairs_above_nothing
FROM placed GROUP BY run_id, curve, radius ORDER BY run_id, curve, radius"""
    return FigureQuery(
        key=f"cosine-{quantity.name}",
        section=_SECTION,
        title=f"Cosine {what}",
        note="Median over the pairs, with the middle half of them shaded. Every certified line is a lower bound, "
        "rounded down, and ends where nothing is certified of the median pair; what attacks "
        "reached bounds it from above. Between the marked radii lines only lead the eye.",
        sql=sql,
        chart=_over("radius", ("median", "quartile_low", "quartile_high"), "cosine"),
    )


def _shares() -> FigureQuery:
    cosines = [each for each in CATALOGUE if each.bound is not None and each.quantity.cosine]
    return FigureQuery(
        key="certified-share",
        section=_SECTION,
        title="Share of pairs certified at a cosine",
        note="Pairs whose feature is proven to keep at least the chosen cosine under every attack up to the "
        "radius, with "
        "95% intervals. Quarantined pairs count as not certified. Between the marked radii lines only lead the eye.",
        sql=f"SELECT run_id, {_labels(cosines)} AS curve, cosine, radius, share, share_low, share_high, "
        f"certified, pairs, "
        "expected_false_certificates FROM certified_share WHERE kind = 'grid' AND cosine IS NOT NULL "
        "AND certificate IN (SELECT certificate FROM certified_share WHERE kind = 'grid' AND cosine IS NOT NULL "
        "GROUP BY 1 HAVING max(certified) > 0) ORDER BY run_id, curve, cosine, radius",
        chart=_over(
            "radius",
            ("share", "share_low", "share_high"),
            "share of pairs",
            panel=("cosine", "cosine at least"),
        ),
    )


def _accuracies() -> FigureQuery:
    classes = [each for each in CATALOGUE if each.right_figure]
    return FigureQuery(
        key="certified-accuracy",
        section=_SECTION,
        title="Certified accuracy, by rule of decision",
        note="Labelled pairs whose predicted class is right and cannot be changed by any attack up to the radius, with "
        "95% intervals. The rules are about different deployed systems: the class nearest to the mean feature, by two "
        "theorems, and the class that most noisy copies vote for.",
        sql=f"SELECT run_id, {_labels(classes)} AS curve, radius, certified_accuracy, "
        "share_low(right_and_certified, labelled, (interval = 'exact')::INTEGER) AS low, "
        "share_high(right_and_certified, labelled, (interval = 'exact')::INTEGER) AS high, "
        "right_and_certified, labelled, "
        "expected_false_certificates FROM certified_share WHERE kind = 'grid' AND labelled > 0 "
        "AND (run_id, certificate) IN (SELECT (run_id, certificate) FROM certified_share WHERE kind = 'grid' "
        "GROUP BY run_id, certificate HAVING max(certified) > 0) ORDER BY run_id, curve, radius",
        chart=_over("radius", ("certified_accuracy", "low", "high"), "share of labelled pairs"),
    )


def _attacks() -> FigureQuery:
    return FigureQuery(
        key="attacks",
        section="Under attack",
        title="Right before and under attack",
        note="Share of all pairs asked for that are right without attack and under it, with 95% intervals. "
        "An attack that "
        "fails proves nothing; a certificate does.",
        sql="SELECT run_id, attack_method || ' on ' || subject AS curve, norm || ', ' || objective AS question, "
        "budget, robust_accuracy, robust_accuracy_low, robust_accuracy_high, clean_accuracy, success_among_right, "
        "pairs_asked, quarantined, missing FROM attack_success ORDER BY run_id, question, curve, budget",
        chart=_over(
            "budget",
            ("robust_accuracy", "robust_accuracy_low", "robust_accuracy_high"),
            "share of pairs",
            panel=("question", "norm and objective"),
        ),
    )


def _attacks_by_rule() -> FigureQuery:
    accuracies = " UNION ALL ".join(
        f"SELECT run_id, 'by {rule}, ' || subject AS curve, norm, budget, {rule}_accuracy AS accuracy, "
        f"{rule}_accuracy_low AS low, {rule}_accuracy_high AS high, {rule}_right AS right_pairs, "
        f"{rule}_pairs AS labelled FROM attack_rules WHERE {rule}_pairs > 0"
        for rule in ("vote", "percentile")
    )
    return FigureQuery(
        key="attacks-by-rule",
        section="Under attack",
        title="Right under attack, by vote and by percentile",
        note="Labelled pairs with an outcome, after the worst of all attacks on each, with 95% intervals. By vote: "
        "most draws vote for the label. By percentile: and at most the share certify.percentile of them has no margin "
        "above 0.",
        sql=f"SELECT * FROM ({accuracies}) ORDER BY run_id, norm, curve, budget",
        chart=_over("budget", ("accuracy", "low", "high"), "share of labelled pairs", panel=("norm", "norm")),
    )


def _attacked_percentiles() -> FigureQuery:
    cosines = " UNION ALL ".join(
        f"SELECT run_id, 'to the {what}, ' || subject AS curve, norm, budget, attacked_{name}_percentile AS cosine, "
        f"pairs FROM attack_rules WHERE attacked_{name}_percentile IS NOT NULL"
        for name, what in (("clean", "clean feature"), ("caption", "caption"))
    )
    return FigureQuery(
        key="attacked-percentiles",
        section="Under attack",
        title="Percentile of the draws' cosine under attack",
        note="The percentile certify.percentile of one draw's cosine, after the worst of all attacks on each pair; "
        "mean over the pairs. An estimate from the attack's draws.",
        sql=f"SELECT * FROM ({cosines}) ORDER BY run_id, norm, curve, budget",
    )
