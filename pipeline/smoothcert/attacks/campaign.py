"""One attack on one batch in progress: every query of the subject goes through here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from smoothcert.attacks.noise import NoiseKey
from smoothcert.attacks.norms import Ball, Norm, column, difference, measured_norm
from smoothcert.attacks.objectives.base import Objective
from smoothcert.attacks.records import AttackOutcome, AttackRecord
from smoothcert.attacks.subjects import Subject


@dataclass(frozen=True, slots=True)
class Answer:
    """The subject's answer to one query of k pairs.

    Attributes:
        features: (k, d).
        loss: (k,), of the objective asked with.
        margin: (k,), of the campaign's objective.
        gradient: (k, 3, H, W), of ``loss``; zeros where it was not asked for.
    """

    features: torch.Tensor
    loss: torch.Tensor
    margin: torch.Tensor
    gradient: torch.Tensor


class Campaign:
    """Counts queries, keeps each pair's best point, and says which pairs are still open.

    ``rows`` are int64 numbers of pairs in the batch. A pair is open until it is solved (its objective reached
    within the budget, while ``early_stop``) or failed (features without a direction). Everything a pair sees
    depends on its own key and its own history only, so that the batch does not matter.

    Where the subject is random, the lowest margin of a search is the luckiest, not the best: at the end of a
    start the luckiest and the last point meet the best one so far on the same draws (``settle``). And a
    point that looks successful must be so again on fresh draws of the ``attack`` stream before its pair is
    closed. Reported success is judged later on the ``evaluate`` stream.
    """

    def __init__(
        self,
        attack: str,
        subject: Subject,
        objective: Objective,
        images: torch.Tensor,
        pair_ids: Sequence[str],
        *,
        norm: Norm,
        budget: torch.Tensor,
        seed: int,
        early_stop: bool,
    ) -> None:
        self.attack = attack
        self.subject = subject
        self.objective = objective
        self.images = images
        self.pair_ids = tuple(pair_ids)
        self.norm: Norm = norm
        self.ball = Ball(images, budget, norm)
        self.seed = seed
        self.early_stop = early_stop
        self._keys = [NoiseKey(seed, pair_id, "attack", (attack,)) for pair_id in self.pair_ids]
        pairs, device = len(images), images.device
        self.best_images = images
        self._borrowed = True
        self.best_margin = torch.full((pairs,), torch.inf, device=device)
        self._lucky_images = images
        self._lucky_margin = self.best_margin
        if subject.stochastic:
            self._lucky_images, self._lucky_margin = images.clone(), self.best_margin.clone()
        self.distance = torch.full((pairs,), torch.nan, dtype=torch.float64, device=device)
        self._solved = torch.zeros(pairs, dtype=torch.bool, device=device)
        self._failed = torch.zeros(pairs, dtype=torch.bool, device=device)
        self._steps = [0] * pairs
        self._draws = [0] * pairs
        self._restarts = [0] * pairs
        self._elapsed = torch.zeros(pairs, dtype=torch.float64)
        self._clock = time.perf_counter()
        self._all_rows = torch.arange(pairs, device=device)
        self.clean = self.ask(self._all_rows, images, gradient=False)

    def open_rows(self) -> torch.Tensor:
        """The pairs that are neither solved nor failed."""
        return (~(self._solved | self._failed)).nonzero()[:, 0]

    def is_open(self, rows: torch.Tensor) -> torch.Tensor:
        """Which of ``rows`` are open: (k,) bool."""
        return ~(self._solved[rows] | self._failed[rows])

    def fail(self, rows: torch.Tensor) -> None:
        """Close some pairs because the subject's own encoder gave NaN or infinity for them."""
        self._failed[rows] = True

    def keys(self, rows: torch.Tensor, *index: int | str) -> list[NoiseKey]:
        """Keys of the ``attack`` stream of some pairs, for whatever an attack draws itself."""
        return [self._keys[row].at(*index) for row in rows.tolist()]

    def count_queries(self, rows: torch.Tensor, times: int) -> None:
        """Note that each of these pairs was put through an encoder so many times besides ``ask``.

        The subject hears of it: a search may stay away from it for long, and is to be seen alive, and to end when it
        is told to.
        """
        for row in rows.tolist():
            self._draws[row] += times
        self.subject.note_images(len(rows) * times)

    def count_restart(self, rows: torch.Tensor) -> None:
        """Note that these pairs start once more."""
        for row in rows.tolist():
            self._restarts[row] += 1

    def starts(self, rows: torch.Tensor, restart: int | str, *, random: bool) -> torch.Tensor:
        """Starting points: the clean images, or points drawn from the balls."""
        self.count_restart(rows)
        if not random:
            return self.images[rows].clone()
        return self.ball.select(rows).random_points(self.keys(rows, "start", restart))

    def ask(
        self,
        rows: torch.Tensor,
        points: torch.Tensor,
        objective: Objective | None = None,
        *,
        gradient: bool = True,
        same_noise: bool = False,
        inside: bool = True,
    ) -> Answer:
        """Query the subject, and keep points that are the best so far.

        Args:
            rows: the pairs, (k,).
            points: their images, (k, 3, H, W); they may be kept as they are, so they must not be changed later.
            objective: whose loss to compute (for the whole batch); default the campaign's.
            gradient: whether its gradient is wanted.
            same_noise: use the same draws in every query, so that answers can be compared with each other.
            inside: whether all points are within the budget. Where not, each is measured: those within are
                kept, and the nearest success of each pair, at whatever distance, is noted. All are within
                the box.
        """
        asked = self.objective if objective is None else objective
        keys: list[NoiseKey] = []
        if self.subject.stochastic:
            steps = ((row, 0 if same_noise else self._steps[row]) for row in rows.tolist())
            keys = [self._keys[row].at("query", step) for row, step in steps]
        if gradient:
            loss = torch.empty(len(rows), device=points.device)

            def noted(feature: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
                value = asked.select(rows[some]).loss(feature)
                loss[some] = value.detach().to(loss.dtype)
                return value

            features, slope = self.subject.gradient(points, noted, keys)
        else:
            features, slope = self.subject.features(points, keys), torch.zeros_like(points)
            with torch.no_grad():
                loss = asked.select(rows).loss(features)
        with torch.no_grad():
            margin = self.objective.select(rows).margin(features)
        self._failed[rows] |= ~torch.isfinite(features).all(dim=1)
        self._count(rows)
        if inside:
            self._offer(rows, points, margin)
        else:
            reached = self._note_distance(rows, points, margin)
            self._offer(rows[reached], points[reached], margin[reached])
        self._share_time(rows)
        return Answer(features, loss, margin, slope)

    def settle(self, rows: torch.Tensor, points: torch.Tensor) -> None:
        """End a start of some pairs at ``points``, inside budget and box; keep each pair's best point."""
        if not self.subject.stochastic:
            return
        still = self.is_open(rows)
        rows, points = rows[still], points[still]
        if not len(rows):
            return
        keys = self.keys(rows, "settle")
        goal = self.objective.select(rows)
        best_points = self.best_images[rows]
        best_margin = torch.full_like(self.best_margin[rows], torch.inf)
        for candidates in (self.best_images[rows], self._lucky_images[rows], points):
            margin = goal.margin(self.subject.features(candidates, keys))
            better = margin < best_margin
            best_points = torch.where(per_pair(better, points).bool(), candidates, best_points)
            best_margin = torch.where(better, margin, best_margin)
            self._count_draws(rows)
        self._keep(rows, best_points, best_margin)
        self._lucky_margin[rows] = torch.inf
        self._share_time(rows)

    def outcome(self) -> AttackOutcome:
        """What was reached."""
        if self.subject.stochastic:
            left = (torch.isfinite(self._lucky_margin) & self.is_open(self._all_rows)).nonzero()[:, 0]
            self.settle(left, self._lucky_images[left])
        self.best_images, delta = self.ball.fit(self.best_images)
        l2, linf = measured_norm(delta, "l2").tolist(), measured_norm(delta, "linf").tolist()
        margin = torch.where(self._failed, torch.nan, self.best_margin).tolist()
        distance, failed, budget = self.distance.tolist(), self._failed.tolist(), self.ball.budget.tolist()
        records = tuple(
            AttackRecord(
                pair_id=pair_id,
                attack=self.attack,
                objective=self.objective.name,
                subject=self.subject.name,
                norm=self.norm,
                budget=budget[row],
                seed=self.seed,
                steps=self._steps[row],
                restarts=self._restarts[row],
                eot_draws=self.subject.eot_draws,
                queries=self._draws[row],
                perturbation_l2=l2[row],
                perturbation_linf=linf[row],
                margin=margin[row],
                success=margin[row] < 0,
                distance=distance[row],
                elapsed_s=float(self._elapsed[row]),
                error="the encoder returned NaN or infinity under attack" if failed[row] else "",
            )
            for row, pair_id in enumerate(self.pair_ids)
        )
        return AttackOutcome(self.best_images, records)

    def _offer(self, rows: torch.Tensor, points: torch.Tensor, margin: torch.Tensor) -> None:
        if self.subject.stochastic:
            better = margin < self._lucky_margin[rows]
            self._lucky_images[rows[better]] = points[better].detach()
            self._lucky_margin[rows[better]] = margin[better]
        else:
            better = margin < self.best_margin[rows]
            if len(rows) < len(self.best_margin):
                self._keep(rows[better], points[better], margin[better])
            elif bool(better.all()):
                # as they are: a copy of every step's images costs as much as a tenth of a small encoder
                self.best_images, self._borrowed = points.detach(), True
                self.best_margin.copy_(margin)
            elif bool(better.any()):
                kept = torch.where(column(better, points), points.detach(), self.best_images)
                self.best_images, self._borrowed = kept, False
                self.best_margin.copy_(torch.where(better, margin, self.best_margin))
        if not self.early_stop:
            return
        won = (margin < 0).nonzero()[:, 0]
        if len(won) and self.subject.stochastic:
            keys = [self._keys[row].at("confirm", self._steps[row]) for row in rows[won].tolist()]
            again = self.objective.select(rows[won]).margin(self.subject.features(points[won], keys))
            self._count_draws(rows[won])
            self._keep(rows[won[again < 0]], points[won[again < 0]], again[again < 0])
            won = won[again < 0]
        self._solved[rows[won]] = True

    def _note_distance(self, rows: torch.Tensor, points: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
        """Note how near each pair's nearest success is; returns which points are within budget: (k,) bool."""
        norms = measured_norm(difference(points, self.images[rows]), self.norm)
        self.distance[rows] = torch.fmin(self.distance[rows], torch.where(margin < 0, norms, torch.nan))
        return norms <= self.ball.budget[rows] * (1 - 1e-12)

    def _keep(self, rows: torch.Tensor, points: torch.Tensor, margin: torch.Tensor) -> None:
        if self._borrowed:
            self.best_images, self._borrowed = self.best_images.clone(), False
        self.best_images[rows] = points.detach()
        self.best_margin[rows] = margin

    def _count(self, rows: torch.Tensor) -> None:
        for row in rows.tolist():
            self._steps[row] += 1
        self._count_draws(rows)

    def _count_draws(self, rows: torch.Tensor) -> None:
        for row in rows.tolist():
            self._draws[row] += self.subject.eot_draws

    def _share_time(self, rows: torch.Tensor) -> None:
        now = time.perf_counter()
        if len(rows):
            self._elapsed[rows.cpu()] += (now - self._clock) / len(rows)
        self._clock = now


def keep(still: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Each of ``values`` for the rows that are still there; nothing is copied while all are."""
    return values if bool(still.all()) else tuple(value[still] for value in values)


def per_pair(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(k,) values shaped to scale a batch of images, in the images' type."""
    return column(values, like).to(like.dtype)
