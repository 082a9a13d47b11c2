"""How many pilot draws a budget bears: `python tests/benchmarks/pilots.py [--pairs 120] [--device cuda]`.

The bundled encoder on held-out digits: of a fixed number of draws the first ones are pilots, the others bound what a
row reports of the class by T8 and T4, and of the smoothed feature's length. Noise is drawn once and used by all.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from distribution import RADII, ZERO_SHOT, features, lcb, table_of

from smoothcert.certificates import margin_radius
from smoothcert.datasets import load_digits_pairs
from smoothcert.encoders import load_encoder
from smoothcert.engine import encode_texts
from smoothcert.engine.distribution import Draws, ScalarMeter
from smoothcert.job import CertifySection, EncoderSection

PILOTS = (8, 15, 31, 47, 63, 95, 127)


def measure(drawn: list[np.ndarray], texts: np.ndarray, sigma: float, pilots: int, alpha: float) -> list[str]:
    """One row of the table."""
    rivals, reach, norms = [], [], []
    for u in drawn:
        pilot, fresh = u[:pilots], u[pilots:]
        mean = pilot.mean(axis=0)
        y, v = int(np.argmax(texts @ mean)), mean / np.linalg.norm(mean)
        away = texts[y] - np.delete(texts, y, axis=0)
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        away = away[np.argsort(away @ mean)]
        before, after = np.clip(away @ pilot.T, -1, 1), np.clip(away @ fresh.T, -1, 1)
        rivals.append(Draws((1 + before) / 2, (1 + after) / 2, np.full(len(away), len(fresh))))
        half = np.full(len(away), lcb(fresh @ v, pilot @ v, alpha / 2))
        margins = lcb(after, before, alpha / 2)
        reach.append(np.min(np.nan_to_num(margin_radius(margins, half, -(away @ v), sigma))))
        norms.append(float(lcb(fresh @ v, pilot @ v, alpha)[0]))
    section = CertifySection(sigma=sigma, max_draws=len(fresh), radii=tuple(RADII), alpha=alpha)
    bounds = np.nan_to_num(ScalarMeter(section, alpha).against(rivals, 1).bound)
    shares = [f"{share:.1%}" for share in (bounds > 0).mean(axis=0)]
    return [str(pilots), *shares, f"{bounds.mean():.4f}", f"{np.mean(reach):.4f}", f"{np.mean(norms):.4f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--budgets", type=int, nargs="+", default=[150, 364, 1063])
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    encoder = load_encoder(EncoderSection(model="bundled:digits-clip", device=options.device))
    texts = encode_texts(encoder, zero_shot=ZERO_SHOT).class_features
    digits = load_digits_pairs("test")
    chosen = digits[:: max(1, len(digits) // options.pairs)][: options.pairs]
    for sigma in options.sigmas:
        seed = torch.Generator(device=encoder.device).manual_seed(0)
        drawn = [features(encoder, each[0], sigma, max(options.budgets), seed)[0] for each in chosen]
        for budget in options.budgets:
            rows = [
                measure([u[:budget] for u in drawn], texts, sigma, pilots, options.alpha)
                for pilots in PILOTS
                if pilots <= budget / 2
            ]
            header = [
                "pilots",
                *(f"T8, r = {r:g}" for r in RADII),
                "mean T8 bound",
                "mean T4 radius",
                "mean N",
            ]
            table_of(f"{budget:,} draws in all (sigma {sigma:g}, {len(drawn)} digits):", header, rows)


if __name__ == "__main__":
    main()
