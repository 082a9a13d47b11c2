"""Every certified lower bound, beside what attacks achieved of the same quantity (docs/theory.md section 5).

A certificate speaks of every perturbation within its radius, whatever searched for it and whatever it was bounded by:
what counts is the l2 norm that was measured. That norm is a float64 sum, which errs by far less than the 1e-6 by which
every upper confidence bound is widened, so that a perturbation on the edge is no false violation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from smoothcert.audit.expressions import SLACK, compute_sql, number
from smoothcert.catalogue.certificates import CATALOGUE, of_name, quantities
from smoothcert.catalogue.quantities import RANK_MARGIN, Quantity
from smoothcert.sql.literals import quote
from smoothcert.store import RunInfo

_NO_RIVALS = "coalesce(isinf(c.retrieval_radius), false)"
"""Fewer than k captions are rivals: there is no margin to measure, and no rank to lose."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A certified lower bound, and what an attack achieved of it, in SQL over attacks a and certificates c.

    Attributes:
        name: what it is called in findings.
        bound: what is certified.
        reached: upper confidence bound of what was achieved; NULL where nothing is known.
        where: true where the certificate speaks of the attack's perturbation.
        excused: where nothing needs to be known of what was achieved.
        about: what else must be the same in another run for its attacks to be held against this: ``""``, ``class``,
            ``pool``; ``row`` where it is the attack row's own copy of its own run's certificate.
        textual: whether what was achieved is compared with texts.
    """

    name: str
    bound: str
    reached: str
    where: str = "true"
    excused: str = "false"
    about: str = ""
    textual: bool = False

    @property
    def speaks(self) -> str:
        """Where it says something about the perturbation."""
        return f"({self.where}) AND ({self.bound}) IS NOT NULL"


def claims(info: RunInfo) -> Iterator[Comparison]:
    """All claims of a run's certificates."""
    certify = info.job.certify
    measured = "CASE WHEN a.perturbation_l2 BETWEEN 0 AND 1e300 THEN a.perturbation_l2 END"
    # every perturbation has a norm of its own: what is certified there is at least what is certified at the budget
    reach = f"({measured}) * (1 + {number(SLACK)})"
    for each in CATALOGUE:
        name, quantity = each.name, each.quantity
        if not quantity.attacked:
            continue
        if each.bound is not None:
            if each.anywhere:
                yield _claim(quantity, name, compute_sql(each, each.bound, "c.sigma", reach, "c."))
            column = each.bound.column
            for i, radius in enumerate(certify.radii, start=1):
                within = f"a.perturbation_l2 <= {number(radius)}"
                yield _claim(quantity, f"{column}[{i}]", f"c.{column}[{i}]", within)
        if each.radius_at is not None:
            column = each.radius_at.column
            for j, cosine in enumerate(certify.cosines, start=1):
                yield _claim(quantity, f"{column}[{j}]", number(cosine), f"{reach} <= c.{column}[{j}]")
        if each.radius is not None:
            yield _claim(quantity, name, number(quantity.floor), f"{reach} <= c.{each.radius.column}")
    for quantity in quantities():
        if quantity.shown:
            yield Comparison(quantity.shown, f"a.{quantity.shown}", _reached(quantity), about="row")
    for j, target in enumerate(certify.targets, start=1):
        quantity = of_name(target.certificate).quantity
        if not quantity.attacked:
            continue
        yield _claim(
            quantity,
            f"target[{j}]",
            number(quantity.floor if target.cosine is None else target.cosine),
            f"c.target_decision[{j}] = 'certified' AND a.perturbation_l2 <= {number(target.radius)}",
        )


def _claim(quantity: Quantity, name: str, bound: str, where: str = "true") -> Comparison:
    excused = _NO_RIVALS if quantity == RANK_MARGIN else "false"
    return Comparison(
        name, bound, _reached(quantity), where, excused, quantity.texts, textual=not quantity.cosine
    )


def _reached(quantity: Quantity) -> str:
    """Upper confidence bound of what an attack achieved."""
    upper = f"a.{quantity.attacked}_ucb"
    if quantity.label:
        # what another class has says nothing about the certified one
        return f"CASE WHEN a.{quantity.attacked_label} = c.{quantity.label} THEN {upper} END"
    return upper


@dataclass(frozen=True, slots=True)
class Others:
    """Further runs on the same pairs, whose attacks are held against a run's certificates.

    Attributes:
        run_ids: of all of them.
        classes: of those with the same classes and prompts.
        pools: of those with the same retrieval pool and rank.
    """

    run_ids: tuple[str, ...]
    classes: tuple[str, ...]
    pools: tuple[str, ...]


def claims_on_others(info: RunInfo, others: Others) -> Iterator[tuple[Comparison, str]]:
    """Claims that the attacks of other runs are held against, each with the condition which runs these are."""
    for claim in claims(info):
        runs = {"": others.run_ids, "class": others.classes, "pool": others.pools}.get(claim.about, ())
        if runs:
            yield claim, f"a.run_id IN ({quote_all(runs)})"


def quote_all(texts: Collection[str]) -> str:
    """Texts as SQL literals."""
    return ", ".join(quote(text) for text in texts)


def same_encoder(info: RunInfo, attacks: str = "attacks", others: Others | None = None) -> str:
    """``FROM ... WHERE ...``: attacks on encoders that a run certifies, its own attacks or those of other runs."""
    same = (
        f"a.run_id IN ({quote_all(others.run_ids)}) AND a.input_height = c.input_height AND "
        "a.input_width = c.input_width AND a.dtype = c.dtype"
        if others
        else "a.run_id = c.run_id"
    )
    return (
        f"FROM {attacks} a JOIN certificates c USING (pair_id) WHERE c.run_id = {quote(info.run_id)} AND {same} "
        "AND c.status = 'ok' AND a.encoder_digest = c.encoder_digest"
    )


def covered(info: RunInfo, attacks: str = "attacks", others: Others | None = None) -> str:
    """Those that certificates speak of: under their own noise; a defence is another encoder."""
    return f"{same_encoder(info, attacks, others)} AND a.status = 'ok' AND a.sigma = c.sigma"


EVER = "(SELECT * FROM attacks UNION ALL BY NAME SELECT * FROM replaced_attacks)"
"""What disproved a certificate once is not undone by attacking again."""


def tested_pairs(info: RunInfo, others: Others | None = None) -> str:
    """SQL that selects the pairs of whose certificates an attack tested one that says something there."""
    held = [(claim, "true") for claim in claims(info)] if others is None else claims_on_others(info, others)
    tested = " OR ".join(
        f"({runs} AND {claim.speaks} AND {claim.reached} IS NOT NULL)" for claim, runs in held
    )
    return f"SELECT DISTINCT pair_id {covered(info, others=others)} AND ({tested})"
