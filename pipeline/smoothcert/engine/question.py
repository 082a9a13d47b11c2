"""From pilot draws to a fixed question: which directions are measured, and what each test must show.

Everything here is decided on the pilot draws, which are then thrown away, so the certify draws are independent
of it (docs/theory.md section 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoothcert.catalogue.certificates import of_name
from smoothcert.certificates import MarginScalar, choose_law, dual_direction, normal_scalar, speed_of_test
from smoothcert.certificates.normal_scalar import KNOTS
from smoothcert.engine.layout import CAPTION, CLEAN, PILOT, Layout, TargetTests
from smoothcert.engine.rivals import Rivals, distances, gap_scale, nearest_rivals
from smoothcert.engine.texts import Texts
from smoothcert.engine.thresholds import (
    IMPOSSIBLE,
    TRIVIAL,
    certified_threshold,
    percentile_threshold,
    score_threshold,
)
from smoothcert.errors import NonFiniteError
from smoothcert.job import CertifySection
from smoothcert.statistics import Bets, choose_bets

Array = NDArray[np.float64]

_NEAR = 256
"""Texts whose products with each pilot draw are looked at."""

_KEPT_NUMBERS = 2**22
"""So many distances between classes are kept at most: 32 MB."""

PIECES = 2 + 2 * KNOTS
"""Numbers that say how a test's scalar follows from the projection on its direction."""


@dataclass(frozen=True)
class Question:
    """What the certify draws of one pair are asked.

    Attributes:
        directions: (K, d) float64, positions as in ``Layout``.
        pilot: (reported directions, n0) scores in [0, 1] of the pilot draws.
        thresholds: (T,) values in [0, 1] that the mean of each test's scalar must exceed.
        scalars: (T, PIECES) the scalar of each test as ``MarginScalar.pieces``: of the projection on its direction.
        bets: how each test bets, by its pilot scalars; None without tests.
        caption_alignment: <v, t> of pilot direction and caption (None without caption).
        clean_alignment: <v, u(x)>.
        predicted: index of the predicted class (None without zero-shot).
        clean_class: index of the class that the bare encoder predicts.
        voted: index of the class that most pilot draws vote for.
        classes: rivals of the predicted class.
        pool: rivals of the pair's own caption in the retrieval pool.
        rank: rank of the own caption in the pool by the pilot direction, 1 is best.
        own_captions: indices of the pool's captions that are the pair's own.
    """

    directions: Array
    pilot: Array
    thresholds: Array
    scalars: Array
    clean_alignment: float
    bets: Bets | None = None
    caption_alignment: float | None = None
    predicted: int | None = None
    clean_class: int | None = None
    voted: int | None = None
    classes: Rivals | None = None
    pool: Rivals | None = None
    rank: int | None = None
    own_captions: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Pilot:
    """The pilot draws' unit features (n0, d), their mean, and its norm without their own noise."""

    features: Array
    mean: Array
    norm: float

    def scores(self, directions: Array) -> Array:
        """(K, n0) scores in [0, 1] along unit directions (K, d)."""
        return np.clip((1.0 + directions @ self.features.T) / 2.0, 0.0, 1.0)


class Questioner:
    """Builds questions for one job.

    Args:
        layout: positions.
        texts: fixed text features.
        certify: noise, levels and numbers of draws.
    """

    def __init__(self, layout: Layout, texts: Texts, certify: CertifySection) -> None:
        self._layout = layout
        self._texts = texts
        self._certify = certify
        kept = max(1, _KEPT_NUMBERS // max(1, len(texts.labels)))
        self._class_distances = lru_cache(maxsize=kept)(self._distances_of_class)
        self._fixed_thresholds: dict[int, float] = {}
        for item in layout.targets:
            target = item.target
            certificate = of_name(target.certificate)
            own = layout.test_direction[item.must[0]]
            if certificate.single_quantile is not None and certify.percentile is not None:
                self._fixed_thresholds[item.must[0]] = percentile_threshold(
                    certify.percentile, target.radius, certify.sigma
                )
            if certificate.single_mean is not None and not layout.reported <= own < layout.directions:
                self._fixed_thresholds[item.must[0]] = certified_threshold(
                    certificate, target.cosine, target.radius, certify.sigma
                )

    def ask(
        self,
        pilot_features: Array,
        clean: Array,
        caption: Array | None,
        own_captions: tuple[str, ...],
    ) -> Question:
        """The question for one pair.

        Args:
            pilot_features: (n0, d) unit features of the pilot draws, at least two.
            clean: (d,) unit feature of the clean input.
            caption: (d,) unit caption feature.
            own_captions: the pair's captions, which are no rivals of themselves.

        Raises:
            NonFiniteError: a feature is NaN, infinite or has no direction.
        """
        pilot_mean, pilot_draws = pilot_features.mean(axis=0), len(pilot_features)
        norm = float(np.linalg.norm(pilot_mean))
        if not (np.isfinite(pilot_mean).all() and np.isfinite(clean).all() and norm > 1e-9):
            raise NonFiniteError("the encoder returned a NaN, infinite or zero feature for this image")
        if caption is not None and not np.isfinite(caption).all():
            raise NonFiniteError("the encoder returned a NaN, infinite or zero feature for this caption")
        layout = self._layout
        direction = pilot_mean / norm
        # |mean|^2 overestimates N^2 by (1 - N^2)/n0
        norm_estimate = float(np.sqrt(np.clip((pilot_draws * norm**2 - 1) / (pilot_draws - 1), 0.0, 1.0)))
        directions = np.zeros((layout.directions, direction.size))
        directions[PILOT], directions[CLEAN] = direction, clean
        plain = np.zeros((len(layout.test_direction), PIECES))
        plain[:, :2] = 0.5
        found: dict[str, Any] = {}
        if layout.caption and caption is not None:
            directions[CAPTION] = caption
            found["caption_alignment"] = float(direction @ caption)
        if layout.class_rivals:
            found |= self._ask_classes(pilot_features, direction, clean, directions)
        if layout.pool_rivals and caption is not None:
            found |= self._ask_pool(pilot_features, direction, caption, own_captions, directions)
        pilot = _Pilot(pilot_features, pilot_mean, norm_estimate)
        question = Question(directions, np.empty(0), np.empty(0), plain, float(direction @ clean), **found)
        thresholds = self._thresholds(question, pilot)
        return replace(
            question,
            pilot=pilot.scores(directions[: layout.reported]),
            thresholds=thresholds,
            bets=self._bets(question, pilot),
        )

    def _ask_classes(self, pilot: Array, direction: Array, clean: Array, directions: Array) -> dict[str, Any]:
        """What is asked of classes; the rivals' directions are filled in (in place)."""
        features, first = self._texts.class_features, self._layout.first_class_rival
        along = features @ direction
        predicted = int(np.argmax(along))
        near, products = _rough_products(pilot, self._texts.rough_classes, along)
        rivals = nearest_rivals(
            features,
            features[predicted],
            direction,
            along,
            self._layout.class_rivals,
            {predicted},
            self._class_distances(predicted),
        ).with_pilot(near, products, products[:, np.searchsorted(near, predicted)])
        directions[first:][: len(rivals.measured)] = -rivals.directions
        # of a tie the class with the larger mean has it
        votes = np.bincount(near[np.argmax(products, axis=1)], minlength=len(features))
        return {
            "predicted": predicted,
            "clean_class": int(np.argmax(features @ clean)),
            "voted": int(np.lexsort((along, votes))[-1]),
            "classes": rivals,
        }

    def _ask_pool(
        self,
        pilot: Array,
        direction: Array,
        caption: Array,
        own_captions: tuple[str, ...],
        directions: Array,
    ) -> dict[str, Any]:
        """The same of the retrieval pool."""
        features, first = self._texts.pool_features, self._layout.first_pool_rival
        own = {i for i, text in enumerate(self._texts.pool_captions) if text in own_captions}
        along = features @ direction
        rivals = nearest_rivals(features, caption, direction, along, self._layout.pool_rivals, own)
        if rivals.others_alignment is not None:
            near, products = _rough_products(pilot, self._texts.rough_pool, along)
            rivals = rivals.with_pilot(near, products, pilot @ caption)
        directions[first:][: len(rivals.measured)] = -rivals.directions
        others = np.delete(along, list(own))
        rank = 1 + int(np.sum(others >= direction @ caption))
        return {"pool": rivals, "rank": rank, "own_captions": frozenset(own)}

    def _distances_of_class(self, index: int) -> Array:
        """(C,) distances of all classes from one: pairs of a class ask again."""
        features = self._texts.class_features
        return distances(features, features[index])

    def _bets(self, question: Question, pilot: _Pilot) -> Bets | None:
        """How to bet on each test, by what its scalar was in the pilot draws."""
        tests = list(self._layout.test_direction)
        if not tests:
            return None
        projections = pilot.scores(question.directions)
        scores = np.stack(
            [
                projections[each] if each < len(projections) else self._others(each, question, pilot)
                for each in tests
            ]
        )
        cuts = np.array(self._layout.test_cut)[:, None]
        seen = np.where(np.isnan(cuts), scalar_scores(scores, question.scalars), scores >= cuts)
        return choose_bets(seen, self._certify.alpha, self._certify.max_draws)

    def _others(self, position: int, question: Question, pilot: _Pilot) -> Array:
        """(n0,) scores of the pilot draws, of the kind that a test at a position behind the directions is about."""
        features, name = pilot.features, self._layout.others[position - self._layout.directions]
        if name.endswith("_rest"):
            rivals = question.classes if name == "class_rest" else question.pool
            rest = None if rivals is None else rivals.rest_pilot
            return np.ones(len(features)) if rest is None else rest
        if name == "class_vote":
            return np.asarray(
                np.argmax(features @ self._texts.class_features.T, axis=1) == question.voted, float
            )
        if name == "class_margin" and question.voted is not None:
            products = features.astype(np.float32) @ self._texts.rough_classes.T
            gaps = (products[:, [question.voted]] - products) * gap_scale(
                self._texts.class_features, question.voted
            )
            gaps[:, question.voted] = np.inf
            return np.asarray(np.clip((1.0 + gaps.min(axis=1)) / 2.0, 0.0, 1.0))
        ahead = features @ self._texts.pool_features.T >= features @ question.directions[CAPTION][:, None]
        ahead[:, list(question.own_captions)] = False
        return np.asarray(ahead.sum(axis=1) < self._texts.retrieval_k, float)

    def _thresholds(self, question: Question, pilot: _Pilot) -> Array:
        """Fill in the tests' own directions (in place) and return all thresholds."""
        thresholds = np.full(
            len(self._layout.test_direction), IMPOSSIBLE
        )  # what is not filled in fails closed
        for test, value in self._fixed_thresholds.items():
            thresholds[test] = value
        for item in self._layout.targets:
            radius = item.target.radius
            match item.target.certificate:
                case "fcsb" if item.target.cosine is not None:
                    away, level = -question.directions[CLEAN][None], -item.target.cosine
                    self._margin_tests(question, item.must, away, pilot, radius, level, thresholds)
                case "caption" if item.target.cosine is not None and question.caption_alignment is not None:
                    away, level = -question.directions[CAPTION][None], -item.target.cosine
                    self._margin_tests(question, item.must, away, pilot, radius, level, thresholds)
                case "class":
                    self._rival_tests(question, item, item.must[1:], question.classes, pilot, thresholds)
                case "retrieval":
                    self._rival_tests(question, item, item.rivals, question.pool, pilot, thresholds)
        return thresholds

    def _rival_tests(
        self,
        question: Question,
        item: TargetTests,
        tests: tuple[int, ...],
        rivals: Rivals | None,
        pilot: _Pilot,
        thresholds: Array,
    ) -> None:
        radius = item.target.radius
        if rivals is None:
            return
        if rivals.rest_pilot is None:
            thresholds[item.must[0]] = TRIVIAL  # every rival is measured
        else:
            # one scalar of the smallest margin speaks of each of them, as it never falls (docs/theory.md T8)
            scalar, proves, _ = self._scalars(2.0 * rivals.rest_pilot[None] - 1.0, radius, 0.0)
            question.scalars[item.must[0]] = scalar.pieces()[0]
            thresholds[item.must[0]] = score_threshold(2.0 * float(proves[0]) - 1.0, 1.0)
        thresholds[list(tests[len(rivals.measured) :])] = TRIVIAL  # this pair has fewer rivals than places
        tests = tests[: len(rivals.measured)]
        away = rivals.directions[: len(tests)]
        self._margin_tests(question, tests, away, pilot, radius, 0.0, thresholds)

    def _margin_tests(
        self,
        question: Question,
        tests: tuple[int, ...],
        away: Array,
        pilot: _Pilot,
        radius: float,
        level: float,
        thresholds: Array,
    ) -> None:
        """Tests, each of which implies <m(x+delta), away_i> <= level for all deltas up to the radius.

        Each tests the mean of one number a draw: <u, q> for the best mixture q of -away_i and the pilot direction (T4),
        or a scalar of <u, -away_i> (T8), whichever the pilot draws say needs fewer draws. One call for all of them:
        nearly all of its cost is per call.
        """
        certify, direction = self._certify, question.directions[PILOT]
        alignment = away @ direction
        usable = np.isfinite(alignment) & away.any(axis=1)
        # what cannot be tested is asked about harmlessly, and its answer not used
        alignment = np.where(usable, alignment, 0.0)
        gram = np.empty((len(tests), 3, 3))
        gram[:] = [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        gram[:, 0, 2] = gram[:, 2, 0] = alignment
        gram[:, 1, 2] = gram[:, 2, 1] = -alignment
        toward = np.where(usable[:, None], -away, direction)
        margins = np.clip(toward @ pilot.features.T, -1.0, 1.0)
        estimates = np.stack(
            [np.where(usable, margins.mean(axis=1), 0.0), np.full(len(tests), pilot.norm)], axis=1
        )
        weights, needed = dual_direction(gram, estimates, radius, certify.sigma, level)
        vectors = weights[:, :1] * toward + weights[:, 1:] * direction
        lengths = np.linalg.norm(vectors, axis=1)
        vectors /= np.maximum(lengths, 1e-9)[:, None]
        scalar, proves, speed = self._scalars(margins, radius, -level)
        pieces = scalar.pieces()
        bent = speed > self._speed(vectors @ pilot.features.T, needed / np.maximum(lengths, 1e-9))
        for i, test in enumerate(tests):
            place = self._layout.test_direction[test]
            if not usable[i]:
                thresholds[test] = IMPOSSIBLE
            elif bent[i]:
                question.directions[place], question.scalars[test] = toward[i], pieces[i]
                thresholds[test] = score_threshold(2.0 * float(proves[i]) - 1.0, 1.0)
            elif lengths[i] > 1e-9:
                question.directions[place] = vectors[i]
                thresholds[test] = score_threshold(float(needed[i]), float(lengths[i]))
            else:
                thresholds[test] = IMPOSSIBLE

    def _scalars(self, margins: Array, radius: float, level: float) -> tuple[MarginScalar, Array, Array]:
        """Scalars for margins like (tests, n0) of the pilot draws, mean scores that prove a level, and how soon."""
        certify = self._certify
        laws, speed = choose_law(
            margins, radius, certify.sigma, draws=certify.max_draws, alpha=certify.alpha, level=level
        )
        scalar = normal_scalar(laws)
        return scalar, scalar.threshold(scalar.constant(radius, certify.sigma), level), speed

    def _speed(self, along: Array, needed: Array) -> Array:
        """How few draws a test of the mean of <u, q> should need, from pilot draws (tests, n0) of it."""
        mean, deviation = along.mean(axis=1), along.std(axis=1)
        rarity = math.log(1.0 / self._certify.alpha) / self._certify.max_draws
        gap = math.sqrt(2.0 * rarity) * deviation + rarity * (1.0 + mean)
        return speed_of_test(mean - needed, deviation, 1.0 + mean, mean - needed - gap)


def _rough_products(
    pilot: Array, texts: NDArray[np.float32], along: Array
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The texts nearest to the mean draw by ``along``: indices (k,), growing, and products (n, k) of the draws.

    In float32, for choices alone: pilot draws (n, d), all texts (C, d).
    """
    draws = pilot.astype(np.float32)
    if len(texts) <= _NEAR:
        return np.arange(len(texts)), np.asarray(draws @ texts.T)
    near = np.sort(np.argpartition(along, -_NEAR)[-_NEAR:])
    return near, np.asarray(draws @ texts[near].T)


def scalar_scores(scores: Array, pieces: Array) -> Array:
    """What tests see of scores (tests, n) along their directions: see ``MarginScalar.pieces``."""
    margins = 2.0 * scores - 1.0
    knots, kinks = np.split(pieces[:, None, 2:], 2, axis=-1)
    falls = np.sum(kinks * np.maximum(knots - margins[..., None], 0.0), axis=-1)
    return np.asarray(np.clip(pieces[:, :1] + pieces[:, 1:2] * margins - falls, 0.0, 1.0))
