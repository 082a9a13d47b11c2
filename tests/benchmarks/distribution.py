"""T7, T8 and the vote on real scans, at equal draws: `python tests/benchmarks/distribution.py [--pairs 360]`.

For the bundled encoder and held-out digits, noise drawn once and used by all: the share of digits that are right and
certified, by Cohen's vote (computed here from scipy alone), ours, T4 and T8; the paper's bound by T2 and T8; the
certified cosine between smoothed features by T2, T3 and T7; and the draws until "class at r = 0.25" is decided, beside
the floor ln(1/alpha) / KL that no test on the same scalars can beat on average.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from scipy.stats import beta, norm

from smoothcert.certificates import (
    MarginScalar,
    angular_bound,
    choose_scalar,
    dual_direction,
    fcsb,
    margin_radius,
    second_moment_bound,
    vote_radius,
)
from smoothcert.datasets import DIGIT_NAMES, load_digits_pairs
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.engine import encode_texts
from smoothcert.job import EncoderSection, ZeroShotSection
from smoothcert.statistics import (
    CERTIFIED,
    SequentialTest,
    choose_bets,
    eigenvalue_upper_bound,
    fix_ball,
    largest_eigenvalue,
    lower_bound,
    nested_radius,
)

ZERO_SHOT = ZeroShotSection(labels=DIGIT_NAMES, prompts=("a photo of the digit {label}",))
RADII = np.array([0.0625, 0.125, 0.25, 0.375, 0.5])
SHIFTS = (0.5, 1.0, 1.5, 2.0)
PILOT = 63
Table = dict[tuple[object, ...], list[float]]


@torch.no_grad()
def features(
    encoder: Encoder, image: object, sigma: float, draws: int, seed: torch.Generator
) -> tuple[np.ndarray, ...]:
    """Features of noisy draws (draws, d), and of the clean image (d,), as unit vectors."""
    x = torch.from_numpy(encoder.prepare(image)).float()[None].to(encoder.device) / 255  # type: ignore[arg-type]
    parts = [min(2048, draws - start) for start in range(0, draws, 2048)]
    noise = (torch.randn((part, *x.shape[1:]), generator=seed, device=encoder.device) for part in parts)
    noisy = torch.cat([encoder.encode_images(x + sigma * each).double() for each in noise])
    clean = encoder.encode_images(x).double()
    return tuple((u / u.norm(dim=1, keepdim=True)).cpu().numpy() for u in (noisy, clean))


def lcb(scores: np.ndarray, pilot: np.ndarray, alpha: float) -> np.ndarray:
    """Of projections (..., n), with bets that those of the pilot draws (..., n0) choose, as in rows."""
    scores, pilot = (np.clip((1 + np.atleast_2d(each)) / 2, 0, 1) for each in (scores, pilot))
    bets = choose_bets(pilot, alpha, scores.shape[1], fixed=True)
    return np.asarray(2 * lower_bound(scores, alpha, bets=bets) - 1)


def proves(h: MarginScalar, shift: float, pilot: np.ndarray, fresh: np.ndarray, alpha: float) -> np.ndarray:
    """Whether each row's margin is certified positive at the shift."""
    bets = choose_bets(h.scores(pilot, 0 * pilot), alpha, fresh.shape[1], fixed=True)
    bound = lower_bound(h.scores(fresh, 0 * fresh), alpha, bets=bets)
    return np.asarray(bound >= h.threshold(h.constant(shift, 1.0)))


def classes(
    table: Table, u: np.ndarray, texts: np.ndarray, label: int, sigma: float, n: int, alpha: float
) -> None:
    pilot, fresh = u[:PILOT], u[PILOT : PILOT + n]
    mean = pilot.mean(axis=0)
    y = int(np.argmax(texts @ mean))
    v = mean / np.linalg.norm(mean)
    away = texts[y] - np.delete(texts, y, axis=0)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    before, margins = np.clip(away @ pilot.T, -1, 1), np.clip(away @ fresh.T, -1, 1)
    half = np.full(len(away), lcb(fresh @ v, pilot @ v, alpha / 2))
    t4 = float(
        np.min(np.nan_to_num(margin_radius(lcb(margins, before, alpha / 2), half, -(away @ v), sigma)))
    )
    votes = np.argmax(fresh @ texts.T, axis=1) == y
    hits = int(votes.sum())
    p = float(beta.ppf(alpha, hits, n - hits + 1)) if hits else 0.0
    cohen = sigma * float(norm.ppf(p)) if p > 0.5 else 0.0
    own = float(np.nan_to_num(vote_radius(lower_bound(votes.astype(float), alpha, "clopper_pearson"), sigma)))
    held = []
    for shift in RADII / sigma:
        h = choose_scalar(before, shift, 1.0, draws=n, alpha=alpha, level=0.0)
        held.append(bool(proves(h, shift, before, margins, alpha).all()))
    t8 = float(np.nan_to_num(nested_radius(held, RADII)))
    for name, radius in (("Cohen's vote", cohen), ("our vote", own), ("T4", t4), ("T8", t8)):
        table["class", sigma, n, name].append([(r <= radius) * (y == label) for r in RADII])
        table["radius", sigma, n, name].append(radius)


def cosines(table: Table, u: np.ndarray, clean: np.ndarray, sigma: float, n: int, alpha: float) -> None:
    pilot, fresh = u[:PILOT], u[PILOT : PILOT + n]
    before, after = np.clip(pilot @ clean.T, -1, 1).T, np.clip(fresh @ clean.T, -1, 1).T
    centre, squared = fix_ball(pilot)
    v = centre / np.linalg.norm(centre)
    whole, third = (max(float(lcb(fresh @ v, pilot @ v, a)[0]), 0.0) for a in (alpha, alpha / 3))
    away = fresh - centre
    inside = np.sum(away**2, axis=1) <= squared
    escape = 1 - float(lower_bound(inside.astype(float), alpha / 3, "clopper_pearson"))
    sample = largest_eigenvalue((away * inside[:, None]).T @ away / n)
    eigenvalue = eigenvalue_upper_bound(sample, n, alpha / 3, squared)
    for shift in SHIFTS:
        h = choose_scalar(before, shift, 1.0, draws=n, alpha=alpha)
        bets = choose_bets(h.scores(before, 0 * before), alpha, n, fixed=True)
        bound = h.bound(h.constant(shift, 1.0), lower_bound(h.scores(after, 0 * after), alpha, bets=bets))
        t7 = second_moment_bound(third, eigenvalue, shift, 1.0, escape=escape)
        robustness = (1 + float(lcb(after, before, alpha)[0])) / 2
        for name, value in (
            ("to the clean feature, T2", fcsb(robustness, shift, 1.0)),
            ("to the clean feature, T8", max(float(bound[0]), 0.0)),
            ("between smoothed ones, T3", angular_bound(whole, shift, 1.0)),
            ("between smoothed ones, T7", t7),
        ):
            table["cosine", sigma, n, name, shift].append(float(np.nan_to_num(value)))


def two_directions(away: np.ndarray, mean: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """For each rival the unit mixture of its margin's direction and the pilot's that T4 asks about, and the score."""
    length = float(np.linalg.norm(mean))
    v = mean / length
    along = away @ v
    gram = np.empty((len(away), 3, 3))
    gram[:] = [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    gram[:, 0, 2] = gram[:, 2, 0] = -along
    gram[:, 1, 2] = gram[:, 2, 1] = along
    norm = np.sqrt(max((PILOT * length**2 - 1) / (PILOT - 1), 0.0))
    estimates = np.stack([away @ mean, np.full(len(away), norm)], axis=1)
    weights, needed = dual_direction(gram, estimates, shift, 1.0)
    vectors = weights[:, :1] * away + weights[:, 1:] * v
    lengths = np.linalg.norm(vectors, axis=1)
    return vectors / lengths[:, None], (1 + needed / lengths) / 2


def decisions(table: Table, u: np.ndarray, texts: np.ndarray, sigma: float, alpha: float) -> None:
    """Draws until "class at r = 0.25" is certified, and the floor ln(1/alpha)/growth of the best constant bet."""
    pilot, fresh = u[:PILOT], u[PILOT:]
    y = int(np.argmax(texts @ pilot.mean(axis=0)))
    away = texts[y] - np.delete(texts, y, axis=0)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    before, margins = np.clip(away @ pilot.T, -1, 1), np.clip(away @ fresh.T, -1, 1)
    shift, limit = 0.25 / sigma, fresh.shape[0]
    h = choose_scalar(before, shift, 1.0, draws=limit, alpha=alpha, level=0.0)
    constant = h.constant(shift, 1.0)
    votes = [((w @ texts.T).argmax(axis=1) == y).astype(float)[None] for w in (pilot, fresh)]
    mixed, mixed_needed = two_directions(away, pilot.mean(axis=0), shift)
    cases = {
        "mean (T4's direction)": ((1 + mixed @ pilot.T) / 2, (1 + mixed @ fresh.T) / 2, mixed_needed),
        "mean (T1)": ((1 + before) / 2, (1 + margins) / 2, np.full(len(away), norm.cdf(shift))),
        "T8": (h.scores(before, 0 * before), h.scores(margins, 0 * margins), h.threshold(constant)),
        "vote": (*votes, np.array([norm.cdf(shift)])),
    }
    for name, (first, scores, needed) in cases.items():
        needed = np.clip(needed, 1e-9, 1.0)
        test = SequentialTest(needed[None], alpha)
        test.reset([0], needed[None], choose_bets(first, alpha, limit))
        used = limit
        for n in range(0, limit, 10):
            test.update(scores.T[None, n : n + 10], slots=[0], counts=[len(scores.T[n : n + 10])])
            if (test.decisions == CERTIFIED).all():
                used = min(n + 10, limit)
                break
        done = bool((test.decisions == CERTIFIED).all())
        excess = (scores - needed[:, None]) / needed[:, None]
        growth = max(float(np.log1p(c * excess).mean(axis=1).min()) for c in np.linspace(0.01, 0.99, 50))
        table["draws", sigma, name].append(
            [used, done, np.log(1 / alpha) / max(growth, 1e-9) if done else np.nan]
        )


def table_of(title: str, header: list[str], rows: list[list[str]]) -> None:
    """A table that can be pasted into docs."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def show(table: Table, sigma: float, options: argparse.Namespace) -> None:
    setting = f"sigma {sigma:g}, alpha {options.alpha:g}, {options.pairs} digits"
    rules = ("Cohen's vote", "our vote", "T4", "T8")
    rows = []
    for n in options.draws:
        for name in rules:
            shares = np.mean(table["class", sigma, n, name], axis=0)
            radius = np.mean(table["radius", sigma, n, name])
            rows.append([f"{n:,}", name, *(f"{share:.1%}" for share in shares), f"{radius:.3f}"])
    header = ["draws", "rule", *(f"r = {r:g}" for r in RADII), "mean radius"]
    table_of(f"Right and certified ({setting}):", header, rows)
    names = list(dict.fromkeys(key[3] for key in table if key[0] == "cosine"))
    rows = [
        [f"{n:,}", str(name), *(f"{np.mean(table['cosine', sigma, n, name, shift]):.3f}" for shift in SHIFTS)]
        for n in options.draws
        for name in names
    ]
    header = ["draws", "cosine", *(f"r = {shift:g} sigma" for shift in SHIFTS)]
    table_of(f"Mean certified cosine, 0 where vacuous ({setting}):", header, rows)
    rows = []
    for key, values in table.items():
        if key[0] == "draws":
            found = np.array(values)
            used, floor = found[found[:, 1] > 0][:, [0, 2]].T
            numbers = (
                found[:, 0].mean(),
                used.mean() if len(used) else np.nan,
                floor.mean() if len(floor) else np.nan,
            )
            rows.append(
                [
                    str(key[2]),
                    f"{len(used) / len(found):.1%}",
                    *("-" if np.isnan(number) else f"{number:,.0f}" for number in numbers),
                ]
            )
    header = ["test", "certified", "draws, all digits", "draws where certified", "floor there"]
    most = max(options.draws)
    table_of(f'"Class at r = 0.25" by at most {most:,} draws, pilots not counted ({setting}):', header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--draws", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--pairs", type=int, default=360)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    encoder = load_encoder(EncoderSection(model="bundled:digits-clip", device=options.device))
    texts = encode_texts(encoder, zero_shot=ZERO_SHOT).class_features
    seed = torch.Generator(device=encoder.device).manual_seed(0)
    digits = load_digits_pairs("test")[: options.pairs]
    workers = get_context("spawn")
    with ProcessPoolExecutor(options.processes, workers, torch.set_num_threads, (1,)) as pool:
        for sigma in options.sigmas:
            parts, table = [], defaultdict(list)
            for image, _, label in digits:
                drawn = features(encoder, image, sigma, PILOT + max(options.draws), seed)
                parts.append(pool.submit(measure, *drawn, texts, DIGIT_NAMES.index(label), sigma, options))
            for part in parts:
                for key, values in part.result().items():
                    table[key] += values
            show(table, sigma, options)


def measure(
    u: np.ndarray, clean: np.ndarray, texts: np.ndarray, label: int, sigma: float, options: argparse.Namespace
) -> Table:
    """What one digit's draws certify."""
    table: Table = defaultdict(list)
    for n in options.draws:
        classes(table, u, texts, label, sigma, n, options.alpha)
        cosines(table, u, clean, sigma, n, options.alpha)
    decisions(table, u, texts, sigma, options.alpha)
    return table


if __name__ == "__main__":
    main()
