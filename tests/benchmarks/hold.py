"""Whether what rows certify holds under attack: `python tests/benchmarks/hold.py [--device cuda] [--pairs 300]`.

Held-out digits certified by the engine, every column on; then PGD in l2 on the smoothed encoder (its own few lines
here, no attack of the product), at three radii and on three objectives, with 64 noise draws a step. Every column is
held against fresh draws at each perturbed input: a violation is an outcome more than five standard errors below what
is certified, which a true bound shows with probability below 3e-7. Printed for each column: claims that were attacked,
violations, and the smallest and mean distance of an outcome from its bound. It needs neither Ray nor DuckDB.
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict

import numpy as np
import torch
from distribution import ZERO_SHOT, table_of

from smoothcert.datasets import Pair, load_digits_pairs
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.engine import DecodeAhead, Engine, Measurement, encode_texts
from smoothcert.engine.certificate_row import CertificateRow
from smoothcert.engine.rows import RowMaker
from smoothcert.job import CertifySection, EncoderSection

SHARES = (0.25, 0.5, 1.0)
"""Radii in units of sigma."""
ERRORS = 5.0


def rows_of(encoder: Encoder, digits: list, certify: CertifySection) -> dict[str, CertificateRow]:
    """Each digit's row by pair id."""
    texts = encode_texts(encoder, zero_shot=ZERO_SHOT)
    pairs = []
    for i, (image, caption, label) in enumerate(digits):
        stored = io.BytesIO()
        image.save(stored, "PNG")
        pairs.append(("u", Pair(str(i), "memory", stored.getvalue(), (caption,), label, None)))
    engine = Engine(encoder, certify, texts, slots=64 if encoder.device.type == "cuda" else 8, chunk=16)
    feed = DecodeAhead(pairs, encoder, max_pixels=10**6)
    outcomes = [each for each in engine.run(feed) if isinstance(each, Measurement)]
    feed.close()
    engine.close()
    made = RowMaker(encoder, certify, texts, engine.layout).rows("u", outcomes)
    return {row.pair_id: row for row in made}


def attack(
    encoder: Encoder, x: torch.Tensor, away: torch.Tensor, radius: float, options: argparse.Namespace
) -> torch.Tensor:
    """Points of the ball around x (P, 3, H, W) that bring <m, away> (P, d) up, by PGD with EOT."""
    noise = torch.Generator(device=x.device).manual_seed(1)
    shape = (len(x), options.eot, *x.shape[1:])

    def inside(delta: torch.Tensor) -> torch.Tensor:
        length = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
        return delta * (radius / length).clamp_max(1.0)[:, None, None, None]

    delta = inside(torch.randn(x.shape, generator=noise, device=x.device))
    for step in range(options.steps):
        delta.requires_grad_(True)
        noisy = (x + delta)[:, None] + options.sigma * torch.randn(shape, generator=noise, device=x.device)
        u = encoder.encode_images(noisy.flatten(0, 1)).unflatten(0, shape[:2])
        (slope,) = torch.autograd.grad((u.mean(dim=1) * away).sum(), delta)
        size = slope.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
        delta = inside(delta.detach() + 2.5 * radius * (1 - step / options.steps) / 4 * slope / size)
    return delta.detach()


@torch.no_grad()
def draws(encoder: Encoder, x: torch.Tensor, options: argparse.Namespace, seed: int) -> np.ndarray:
    """(n, d) unit features of fresh draws of one input (3, H, W)."""
    noise = torch.Generator(device=x.device).manual_seed(seed)
    parts = [
        encoder.encode_images(
            x + options.sigma * torch.randn((1000, *x.shape), generator=noise, device=x.device)
        )
        for _ in range(options.judged // 1000)
    ]
    u = torch.cat(parts).double()
    return (u / u.norm(dim=1, keepdim=True)).cpu().numpy()


def mean_of(values: np.ndarray) -> tuple[float, float]:
    """Mean, and ``ERRORS`` standard errors."""
    return float(values.mean()), ERRORS * float(values.std()) / len(values) ** 0.5 + 1e-9


def outcomes(
    u: np.ndarray, before: np.ndarray, clean: np.ndarray, away: np.ndarray, votes: np.ndarray
) -> dict:
    """What each kind of claim is about at the perturbed input: (estimate, how much it may be above)."""
    mean = u.mean(axis=0)
    length = float(np.linalg.norm(mean))
    worst = away[int(np.argmin(away @ mean))]
    smooth = before.mean(axis=0)
    smooth /= np.linalg.norm(smooth)
    margins = np.sort((u @ away.T).min(axis=1))
    half = len(margins) / 2
    median = margins[min(len(margins) - 1, int(half + ERRORS * half**0.5 / 2**0.5) + 1)]

    def cosine(reference: np.ndarray) -> tuple[float, float]:
        value, error = mean_of(u @ reference)
        return value / length, 2.0 * error / length

    return {
        "margin": mean_of(u @ worst),
        "to clean": cosine(clean),
        "to smoothed": cosine(smooth),
        "votes": mean_of(votes.astype(float)),
        "median": (float(margins[int(half)]), float(median - margins[int(half)])),
    }


def claims(row: CertificateRow, i: int, radius: float) -> dict[str, tuple[str, float]]:
    """What a row says at a radius, by column: of what, and at least how much."""

    def reached(value: float | None) -> float | None:
        return 0.0 if value is not None and value >= radius else None

    found = {
        "certified_radius (T4)": ("margin", reached(row.certified_radius)),
        "class_distribution (T8)": ("margin", row.class_distribution[i]),
        "fcsb (T2)": ("to clean", row.fcsb[i]),
        "clean_distribution (T8)": ("to clean", row.clean_distribution[i]),
        "large_radius (T6)": ("to clean", row.large_radius[i]),
        "angular (T3)": ("to smoothed", row.angular[i]),
        "second_moment (T7)": ("to smoothed", row.second_moment[i]),
        "vote_radius (T9)": ("votes", None if reached(row.vote_radius) is None else 0.5),
        "class_percentile (T9)": ("median", row.class_percentile[i]),
    }
    return {name: (of, value) for name, (of, value) in found.items() if value is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--eot", type=int, default=64)
    parser.add_argument("--judged", type=int, default=10_000, help="fresh draws at each perturbed input")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    encoder = load_encoder(EncoderSection(model="bundled:digits-clip", device=options.device))
    labels, features = ZERO_SHOT.labels, encode_texts(encoder, zero_shot=ZERO_SHOT).class_features
    radii = tuple(share * options.sigma for share in SHARES)
    certify = CertifySection(sigma=options.sigma, max_draws=options.draws, radii=radii, second_moment=True)
    digits = load_digits_pairs("test")[: options.pairs]
    rows = rows_of(encoder, digits, certify)
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for start in range(0, len(digits), 16):
        part = range(start, min(start + 16, len(digits)))
        x = torch.stack([torch.from_numpy(encoder.prepare(digits[i][0])) for i in part]).float()
        x = x.to(encoder.device) / 255
        with torch.no_grad():
            clean = encoder.encode_images(x).double().cpu().numpy()
        clean /= np.linalg.norm(clean, axis=1, keepdims=True)
        before = [draws(encoder, each, options, 2) for each in x]
        own = np.array([labels.index(rows[str(i)].predicted_label) for i in part])
        voted = [labels.index(rows[str(i)].vote_label) for i in part]
        away = [features[y] - np.delete(features, y, axis=0) for y in own]
        away = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in away]
        nearest = np.stack([a[np.argmin(a @ b.mean(axis=0))] for a, b in zip(away, before, strict=True)])
        smooth = np.stack([b.mean(axis=0) for b in before])
        for i, radius in enumerate(radii):
            for goal in (nearest, clean, smooth):
                toward = torch.from_numpy(-goal).float().to(encoder.device)
                moved = x + attack(encoder, x, toward, radius, options)
                for k, number in enumerate(part):
                    u = draws(encoder, moved[k], options, 3)
                    votes = (u @ features.T).argmax(axis=1) == voted[k]
                    seen = outcomes(u, before[k], clean[k], away[k], votes)
                    for name, (of, least) in claims(rows[str(number)], i, radius).items():
                        value, above = seen[of]
                        found[name].append((value - least, value + above < least))
    table = [
        [
            name,
            f"{len(each):,}",
            str(sum(bad for _, bad in each)),
            *(f"{f([gap for gap, _ in each]):.4f}" for f in (min, np.mean)),
        ]
        for name, each in found.items()
    ]
    setting = f"sigma {options.sigma:g}, {options.draws} draws"
    title = f"{len(digits)} pairs, {len(radii)} radii, 3 objectives of PGD ({setting}):"
    table_of(title, ["column", "claims attacked", "violations", "least distance", "mean distance"], table)


if __name__ == "__main__":
    main()
