"""What the certificates are worth on real scans: `python tests/benchmarks/tightness.py [--pairs 360]`.

For the bundled encoder and the held-out digits, at sigma 0.25 and 0.5 and one alpha:
mean certified cosine by T2 and T3 at the same draws, mean class radius by the classical formula and by T4, and the
draws a pair needs until a target is decided.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from smoothcert.catalogue.certificates import of_name
from smoothcert.certificates import angular_bound, fcsb, margin_radius
from smoothcert.datasets import DIGIT_NAMES, Pair, load_digits_pairs
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.engine import DecodeAhead, Engine, Measurement, encode_texts
from smoothcert.engine.layout import CLEAN, PILOT
from smoothcert.engine.thresholds import certified_threshold
from smoothcert.job import CertifySection, EncoderSection, ZeroShotSection
from smoothcert.statistics import lower_bound

ZERO_SHOT = ZeroShotSection(labels=DIGIT_NAMES, prompts=("a photo of the digit {label}",))


def pairs(count: int) -> Iterator[tuple[str, Pair]]:
    for number, (image, caption, label) in enumerate(load_digits_pairs("test")[:count]):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        yield "all", Pair(f"digit-{number}", "bundled", buffer.getvalue(), (caption,), label, None)


def measure(encoder: Encoder, certify: CertifySection, count: int) -> list[Measurement]:
    texts = encode_texts(encoder, zero_shot=ZERO_SHOT)
    engine = Engine(encoder, certify, texts)
    feed = DecodeAhead(pairs(count), encoder, max_pixels=10**8)
    outcomes = list(engine.run(feed))
    assert all(isinstance(outcome, Measurement) for outcome in outcomes)
    feed.close()
    engine.close()
    return [outcome for outcome in outcomes if isinstance(outcome, Measurement)]


def lcb(scores: np.ndarray, alpha: float) -> np.ndarray:
    return 2 * lower_bound(scores, alpha) - 1


def cosines(measured: list[Measurement], sigma: float, alpha: float) -> None:
    scores = np.array([m.scores for m in measured])
    norm = lcb(scores[:, PILOT], alpha)
    robustness = lower_bound(scores[:, CLEAN], alpha)
    print("  mean certified cosine (vacuous counted as 0; in brackets the share that is vacuous)")
    for factor in (0.5, 1.0, 1.5):
        radius = factor * sigma
        values = {
            "T2": fcsb(robustness, radius, sigma),
            "T2, S=(1+N)/2": fcsb((1 + norm) / 2, radius, sigma),
            "T3": angular_bound(np.maximum(norm, 0.0), radius, sigma),
        }
        cells = [
            f"{name} {np.nan_to_num(v).mean():.3f} ({np.isnan(v).mean():.0%})" for name, v in values.items()
        ]
        print(f"    r = {factor:g} sigma: " + ";  ".join(cells))


def class_radii(measured: list[Measurement], sigma: float, alpha: float) -> None:
    classical, combined = [], []
    for m in measured:
        rivals = m.question.classes
        assert rivals is not None
        rows = m.scores[-len(rivals.measured) :]
        margin = lcb(rows, alpha)
        classical.append(float(np.min(np.where(margin > 0, sigma * ndtri((1 + margin) / 2), 0.0))))
        half = lcb(rows, alpha / 2)
        norm = np.full(len(half), lcb(m.scores[PILOT], alpha / 2))
        radii = margin_radius(half, norm, rivals.alignment, sigma)
        if rivals.others_alignment is not None:
            others = margin_radius(None, norm[:1], np.array([rivals.others_alignment]), sigma)
            radii = np.append(radii, others)
        combined.append(float(np.min(np.nan_to_num(radii))))
    a, b = np.mean(classical), np.mean(combined)
    print(
        f"  mean class radius (uncertified counted as 0): classical {a:.4f};  T4 {b:.4f}  ({b / a:.2f} times)"
    )


def draws_needed(encoder: Encoder, sigma: float, alpha: float, count: int, fixed: list[Measurement]) -> None:
    """Adaptive betting as run; Hoeffding at the fixed number of draws that the same pair would need."""
    limit = 20_000
    cosine_radius = 0.5 * sigma
    questions: dict[str, Any] = {
        f"cosine >= 0.8 at r = {cosine_radius:g}": {
            "certificate": "angular",
            "cosine": 0.8,
            "radius": cosine_radius,
        },
        "class certified at r = 0.25": {"certificate": "class", "radius": 0.25},
    }
    for title, target in questions.items():
        certify = CertifySection(sigma=sigma, alpha=alpha, max_draws=limit, targets=(target,))
        measured = measure(encoder, certify, count)
        decisions = [m.decisions[0] for m in measured]
        certified = [m for m in measured if m.decisions[0] == "certified"]
        used = np.array([m.draws for m in measured])
        print(
            f"  {title}: adaptive betting: certified {len(certified)}, refuted {decisions.count('refuted')}, "
            f"undecided {decisions.count('budget')} of {len(measured)}; draws a pair: mean {used.mean():.0f}, median "
            f"{np.median(used):.0f}; of the certified: mean {np.mean([m.draws for m in certified] or [0]):.0f}"
        )
        by_pair = {m.pair.pair_id: m for m in fixed}
        hoeffding = []
        for m in certified:
            reference = by_pair[m.pair.pair_id]
            if target["certificate"] == "angular":
                gap = reference.scores[PILOT].mean() - certified_threshold(
                    of_name("angular"), 0.8, cosine_radius, sigma
                )
            else:  # Hoeffding on the classical margin of the nearest rival
                rivals = reference.question.classes
                assert rivals is not None
                nearest = reference.scores[-len(rivals.measured) :].mean(axis=1).min()
                gap = nearest - ndtr(0.25 / sigma)
            hoeffding.append(np.log(1 / alpha) / (2 * gap**2) if gap > 0 else np.inf)
        if hoeffding:
            possible = np.array([n for n in hoeffding if np.isfinite(n)])
            mean = f"mean {possible.mean():.0f} draws where it ever decides; " if len(possible) else ""
            never = len(hoeffding) - len(possible)
            print(
                f"    those by fixed-n Hoeffding: {mean}{never} of {len(hoeffding)} never, at any number of draws"
            )


@torch.no_grad()
def votes(encoder: Encoder, sigma: float, alpha: float, count: int, draws: int) -> None:
    """Cohen's certify: votes of the top class over fixed draws, Clopper-Pearson, radius sigma Phi^-1(p)."""
    texts = encode_texts(encoder, zero_shot=ZERO_SHOT)
    classes = torch.from_numpy(texts.class_features).float()
    generator = torch.Generator().manual_seed(0)
    certified, started = 0, time.perf_counter()
    for image, _, _ in load_digits_pairs("test")[:count]:
        x = torch.from_numpy(encoder.prepare(image)).float()[None] / 255
        hits = torch.zeros(len(classes), dtype=torch.int64)

        def vote(n: int, x: torch.Tensor = x) -> torch.Tensor:
            noise = torch.randn((n, *x.shape[1:]), generator=generator)
            top = (encoder.encode_images(x + sigma * noise) @ classes.T).argmax(dim=1)
            return torch.bincount(top, minlength=len(classes))

        chosen = int(vote(100).argmax())
        for _ in range(draws // 500):
            hits += vote(500)
        sample = np.zeros(draws)
        sample[: int(hits[chosen])] = 1.0
        p = float(lower_bound(sample, alpha, "clopper_pearson"))
        certified += p > 0.5 and sigma * ndtri(p) >= 0.25
    print(
        f"  class certified at r = 0.25 by votes ({draws:,} draws, Clopper-Pearson): {certified} of {count} pairs, "
        f"always {draws:,} draws a pair ({time.perf_counter() - started:.0f} s for {count} pairs)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--pairs", type=int, default=360)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--adaptive-pairs", type=int, default=120)
    parser.add_argument("--vote-pairs", type=int, default=4)
    parser.add_argument("--vote-draws", type=int, default=100_000)
    parser.add_argument("--alpha", type=float, default=0.001)
    options = parser.parse_args()
    encoder = load_encoder(EncoderSection(model="bundled:digits-clip"))
    for sigma in options.sigmas:
        print(
            f"sigma {sigma:g}, alpha {options.alpha:g}, {options.pairs} held-out digits, {options.draws} draws"
        )
        certify = CertifySection(sigma=sigma, alpha=options.alpha, max_draws=options.draws, rivals=9)
        fixed = measure(encoder, certify, options.pairs)
        cosines(fixed, sigma, options.alpha)
        class_radii(fixed, sigma, options.alpha)
        draws_needed(encoder, sigma, options.alpha, min(options.adaptive_pairs, options.pairs), fixed)
        votes(encoder, sigma, options.alpha, options.vote_pairs, options.vote_draws)


if __name__ == "__main__":
    main()
