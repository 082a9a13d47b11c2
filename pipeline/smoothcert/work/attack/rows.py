"""From attack outcomes to rows of the table ``attacks``, joined with the certificates of the same pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smoothcert.attacks import Interval, RuleScore, TextualScore, UpperBounded
from smoothcert.catalogue.quantities import TO_CLEAN, TO_SMOOTHED
from smoothcert.datasets import Pair
from smoothcert.encoders import Encoder
from smoothcert.engine.pair_row import PairRow, failure_fields, pair_fields
from smoothcert.errors import EncodeError, NonFiniteError, PairError
from smoothcert.job import Job
from smoothcert.job.attacks import ENSEMBLES
from smoothcert.work.attack.attacker import Attacker, JudgedAttack
from smoothcert.work.attack.certified import Claims


@dataclass(frozen=True, kw_only=True)
class AttackRow(PairRow):
    """One attack on one pair, subject and budget. Columns are documented in ``schemas/``."""

    label: str | None
    attack: str
    attack_id: str
    settings: str
    norm: str
    budget: float
    objective: str
    reference: str | None
    target: str | None
    target_digest: str | None
    surrogates: tuple[str, ...] | None
    threshold: float | None
    subject: str
    sigma: float
    steps: int = 0
    restarts: int = 0
    eot_draws: int
    queries: int = 0
    perturbation_l2: float | None = None
    perturbation_linf: float | None = None
    distance: float | None = None
    elapsed_s: float | None = None
    evaluate_draws: int
    alpha: float
    clean_cosine: float | None = None
    clean_cosine_lcb: float | None = None
    clean_cosine_ucb: float | None = None
    cosine_to_clean: float | None = None
    cosine_to_clean_lcb: float | None = None
    cosine_to_clean_ucb: float | None = None
    cosine_to_smoothed: float | None = None
    cosine_to_smoothed_lcb: float | None = None
    cosine_to_smoothed_ucb: float | None = None
    clean_label: str | None = None
    attacked_label: str | None = None
    class_margin_label: str | None = None
    class_margin: float | None = None
    class_margin_ucb: float | None = None
    caption_similarity: float | None = None
    caption_similarity_ucb: float | None = None
    retrieval_margin: float | None = None
    retrieval_margin_ucb: float | None = None
    attacked_vote: str | None = None
    vote_share_label: str | None = None
    vote_share: float | None = None
    vote_share_ucb: float | None = None
    retrieval_vote_share: float | None = None
    retrieval_vote_share_ucb: float | None = None
    clean_percentile: float | None = None
    clean_percentile_ucb: float | None = None
    caption_percentile: float | None = None
    caption_percentile_ucb: float | None = None
    class_percentile: float | None = None
    class_percentile_ucb: float | None = None
    clean_margin: float | None = None
    margin: float | None = None
    success: bool | None = None
    certified_to_clean: float | None = None
    certified_to_smoothed: float | None = None
    certified_cosine: float | None = None
    violation: bool | None = None
    input_height: int
    input_width: int
    encoder_digest: str
    seed: int
    certify_seed: int
    device: str
    dtype: str


class AttackRowMaker:
    """Turns outcomes of one attack of a job into rows.

    Args:
        job: the job.
        attacker: the attack.
        encoder: for the columns that describe it.
    """

    def __init__(self, job: Job, attacker: Attacker, encoder: Encoder) -> None:
        section = attacker.section
        self._attacker = attacker
        self._subjects = {subject.name: subject for subject in attacker.subjects}
        self._budgets = section.budgets
        self._fixed: dict[str, object] = {
            "attack": section.attack,
            "attack_id": section.attack_id,
            "settings": section.model_dump_json(exclude={"keep"}),
            "norm": section.norm,
            "objective": section.objective,
            "reference": section.resolved_reference,
            "target": section.target,
            "target_digest": section.contents.get("target_image"),
            "surrogates": tuple(f"{each.name} {each.digest[:12]}" for each in attacker.surrogates) or None,
            "threshold": section.resolved_threshold,
            "alpha": section.alpha,
            "seed": section.seed,
            "certify_seed": job.certify.seed,
            "input_height": encoder.input_size[0],
            "input_width": encoder.input_size[1],
            "device": encoder.device.type,
            "dtype": str(encoder.dtype).removeprefix("torch."),
        }
        self._evaluate_draws = section.evaluate_draws

    def row(
        self,
        unit_id: str,
        pair: Pair,
        subject: str,
        budget: float,
        outcome: JudgedAttack,
        claims: Claims | None,
    ) -> AttackRow:
        """The row of one outcome; quarantined where the encoder gave no number."""
        record, score = outcome.record, outcome.score
        if score.error:
            return self._quarantined(unit_id, pair, subject, budget, NonFiniteError(score.error))
        if record.error:
            # not the fault of the encoder that the row is about, where another one was searched
            elsewhere = self._attacker.surrogates and self._attacker.section.attack not in ENSEMBLES
            error = EncodeError(f"surrogate: {record.error}") if elsewhere else NonFiniteError(record.error)
            return self._quarantined(unit_id, pair, subject, budget, error)
        fields = self._base(unit_id, pair, subject, budget) | {
            "steps": record.steps,
            "restarts": record.restarts,
            "queries": record.queries,
            "perturbation_l2": record.perturbation_l2,
            "perturbation_linf": record.perturbation_linf,
            "distance": _number(record.distance),
            "elapsed_s": record.elapsed_s,
            **_interval("clean_cosine", score.clean_cosine),
            **_interval("cosine_to_clean", score.cosine_to_clean),
            **_interval("cosine_to_smoothed", score.cosine_to_smoothed),
            **self._textual(score.texts),
            **self._by_rules(score.rules),
            "clean_margin": _number(score.clean_margin),
            "margin": _number(score.margin),
            "success": score.success,
        }
        if claims is not None and record.norm == "l2" and claims.about(self._subjects[subject]):
            fields |= _certified(claims, budget, score.cosine_to_clean, score.cosine_to_smoothed)
        return AttackRow(**fields)  # type: ignore[arg-type]  # a dict of columns, checked by the schema

    def quarantined(self, unit_id: str, pair: Pair, error: PairError) -> list[AttackRow]:
        """The rows of a pair that cannot be attacked: one per subject and budget."""
        return [
            self._quarantined(unit_id, pair, subject, budget, error)
            for subject in self._subjects
            for budget in self._budgets
        ]

    def _quarantined(
        self, unit_id: str, pair: Pair, subject: str, budget: float, error: PairError
    ) -> AttackRow:
        fields = self._base(unit_id, pair, subject, budget) | failure_fields(pair, error)
        return AttackRow(**fields)  # type: ignore[arg-type]  # as above

    def _base(self, unit_id: str, pair: Pair, subject: str, budget: float) -> dict[str, object]:
        attacked = self._subjects[subject]
        return {
            "unit_id": unit_id,
            **pair_fields(pair),
            "label": pair.label,
            "subject": subject,
            "budget": budget,
            "sigma": attacked.sigma,
            "encoder_digest": attacked.encoder.digest,
            "eot_draws": attacked.eot_draws,
            "evaluate_draws": self._evaluate_draws if attacked.stochastic else 1,
            **self._fixed,
        }

    def _textual(self, score: TextualScore) -> dict[str, object]:
        name = self._attacker.class_name
        return {
            "clean_label": name(score.clean_label),
            "attacked_label": name(score.attacked_label),
            "class_margin_label": name(score.margin_label),
            **_upper("class_margin", score.class_margin),
            **_upper("caption_similarity", score.caption_similarity),
            **_upper("retrieval_margin", score.retrieval_margin),
        }

    def _by_rules(self, score: RuleScore) -> dict[str, object]:
        name = self._attacker.class_name
        return {
            "attacked_vote": name(score.attacked_vote),
            "vote_share_label": name(score.voted),
            **_upper("vote_share", score.vote_share),
            **_upper("retrieval_vote_share", score.retrieval_vote_share),
            **_upper("clean_percentile", score.clean_percentile),
            **_upper("caption_percentile", score.caption_percentile),
            **_upper("class_percentile", score.class_percentile),
        }


def _certified(claims: Claims, budget: float, to_clean: Interval, to_smoothed: Interval) -> dict[str, object]:
    clean = max(claims.certified(TO_CLEAN, budget).values(), default=None)
    smoothed = max(claims.certified(TO_SMOOTHED, budget).values(), default=None)
    both = [
        (bound, cosine) for bound, cosine in ((clean, to_clean), (smoothed, to_smoothed)) if bound is not None
    ]
    return {
        TO_CLEAN.shown: clean,
        TO_SMOOTHED.shown: smoothed,
        "certified_cosine": max((bound for bound, _ in both), default=None),
        "violation": any(not cosine.upper >= bound for bound, cosine in both) if both else None,
    }


def _interval(name: str, interval: Interval) -> dict[str, object]:
    return {
        name: _number(interval.value),
        f"{name}_lcb": _number(interval.lower),
        f"{name}_ucb": _number(interval.upper),
    }


def _upper(name: str, found: UpperBounded | None) -> dict[str, object]:
    if found is None:
        return {}
    return {name: _number(found.value), f"{name}_ucb": _number(found.upper)}


def _number(value: float) -> float | None:
    """Unknown is NULL in tables."""
    return float(value) if math.isfinite(value) else None
