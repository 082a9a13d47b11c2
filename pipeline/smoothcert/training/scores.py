"""How smooth features are under noise, estimated on a few held-out images: to follow training, never a certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from smoothcert.engine.noise import Stream, generator, noise_key
from smoothcert.training.examples import UNKNOWN, Examples
from smoothcert.training.team import ALONE, Team, share_of

Features = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(images (B, 3, H, W), sigma (B,)) -> unit features (B, d)."""
_IMAGES = 128
"""In one forward pass."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over images, at one noise level.

    Attributes:
        robustness_score: (1 + <m(x), u(x)>) / 2 with u the encoder as it stands, parts of a defence included.
        smooth_norm: |m(x)|, without the bias of few draws.
        clean_cosine: <u(x), f(x)>, with f the encoder as it was.
        accuracy: share of images with a known class whose smoothed feature is nearest to it; None without classes.
    """

    robustness_score: float
    smooth_norm: float
    clean_cosine: float
    accuracy: float | None


@torch.no_grad()
def measure_scores(
    features: Features,
    undefended: Features,
    examples: Examples,
    sigma: float,
    *,
    draws: int = 16,
    classes: torch.Tensor | None = None,
    team: Team = ALONE,
) -> Scores:
    """Scores at a noise level; the noise is the same at every call.

    Args:
        features: u.
        undefended: f.
        examples: held-out images.
        sigma: units of [0,1] pixels.
        draws: at least 2.
        classes: unit text features (C, d), or None.
        team: whose members take a share of the images each; all of them call this, and get the same.
    """
    device = examples.pixels.device
    sums = torch.zeros(5, dtype=torch.float64)
    for start in range(0, len(examples), _IMAGES):
        whole = min(_IMAGES, len(examples) - start)
        own = share_of(team, whole)
        if own.start == own.stop:
            continue
        rows = slice(start + own.start, start + own.stop)
        images = examples.images(rows)
        level = torch.full((len(images),), sigma, device=device)
        source = generator(noise_key(0, f"scores {start}", Stream.TRAIN, 0), device)
        total: torch.Tensor | None = None
        for _ in range(draws):
            noise = torch.randn((whole, *images.shape[1:]), generator=source, device=device)[own]
            drawn = features(images + sigma * noise, level).double()
            total = drawn if total is None else total + drawn
        assert total is not None
        mean = total / draws
        clean = features(images, level).double()
        squared = ((draws * mean.square().sum(dim=1) - 1) / (draws - 1)).clamp(0, 1)
        found = [
            ((1 + (mean * clean).sum(dim=1)) / 2).sum(),
            squared.sqrt().sum(),
            (clean * undefended(images, level).double()).sum(),
        ]
        if classes is not None:
            wanted = examples.classes[rows]
            right = (mean @ classes.to(mean).T).argmax(dim=1) == wanted
            found += [(right & (wanted != UNKNOWN)).sum(), (wanted != UNKNOWN).sum()]
        sums[: len(found)] += torch.stack([value.double().cpu() for value in found])
    sums = team.total(sums)
    score, norm, cosine = (float(value) / len(examples) for value in sums[:3])
    return Scores(score, norm, cosine, float(sums[3] / sums[4]) if sums[4] else None)
