"""Whether what rows certify holds under attack: `python tests/benchmarks/hold.py [--device cuda] [--pairs 300]`.

Held-out digits certified by the engine, every column on, at a fixed number of draws and again with targets that may
stop them early; then PGD in l2 on the smoothed encoder (its own few lines here, no attack of the product), at three
radii, on an objective for each thing that is certified, with 64 noise draws a step. Every column of the catalogue, and
every target that was certified, is held against fresh draws at each perturbed input: a violation is an outcome more
than five standard errors below what is certified, which a true bound shows with probability below 3e-7. Printed for
each column: claims that were attacked, violations, and the smallest and mean distance of an outcome from its bound. A
certificate of a quantity that is not judged here ends the script. It needs neither Ray nor DuckDB.
"""

from __future__ import annotations

import argparse
import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from distribution import ZERO_SHOT, table_of

from smoothcert.catalogue.certificates import CATALOGUE, of_name
from smoothcert.datasets import Pair, load_digits_pairs
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.engine import DecodeAhead, Engine, Measurement, Texts, encode_texts
from smoothcert.engine.certificate_row import CertificateRow
from smoothcert.engine.layout import PILOT
from smoothcert.engine.rows import RowMaker
from smoothcert.job import CertifySection, EncoderSection, Target

SHARES = (0.25, 0.5, 1.0)
"""Radii in units of sigma."""
ERRORS = 5.0
_AT_ONCE = 16_384
"""Images of a batch."""
Found = dict[str, list[tuple[float, bool]]]


@dataclass
class Certified:
    """Rows of one way to certify, and the directions that pilot draws fixed, both by pair id."""

    section: CertifySection
    rows: dict[str, CertificateRow]
    pilots: dict[str, np.ndarray]


def certify(encoder: Encoder, digits: list, section: CertifySection, texts: Texts) -> Certified:
    """Each digit's row."""
    pairs = []
    for i, (image, caption, label) in enumerate(digits):
        stored = io.BytesIO()
        image.save(stored, "PNG")
        pairs.append(("u", Pair(str(i), "memory", stored.getvalue(), (caption,), label, None)))
    engine = Engine(encoder, section, texts, slots=64 if encoder.device.type == "cuda" else 8, chunk=16)
    feed = DecodeAhead(pairs, encoder, max_pixels=10**6)
    outcomes = [each for each in engine.run(feed) if isinstance(each, Measurement)]
    feed.close()
    engine.close()
    made = RowMaker(encoder, section, texts, engine.layout).rows("u", outcomes)
    pilots = {each.pair.pair_id: each.question.directions[PILOT] for each in outcomes}
    return Certified(section, {row.pair_id: row for row in made}, pilots)


def targets_like(plain: Certified) -> tuple[Target, ...]:
    """A target of every kind at every radius: a level that about half of the rows had as their bound."""
    found = []
    for certificate in (each for each in CATALOGUE if each.target):
        for i, radius in enumerate(plain.section.radii):
            level = None
            if certificate.bound is not None:
                bounds = [getattr(row, certificate.bound.column) for row in plain.rows.values()]
                low = 0.0 if certificate.quantity.cosine else -1.0
                known = [low if each is None or each[i] is None else each[i] for each in bounds]
                level = float(np.clip(np.round(np.median(known), 2), low, 0.99))
            found.append(Target(certificate=certificate.name, radius=radius, cosine=level))
    return tuple(found)


@dataclass
class Block:
    """Some pairs on the device: what is attacked, and what it is compared with; vectors are of unit length.

    Attributes:
        x: (P, 3, H, W) images.
        clean: (P, d) features of them.
        caption: (P, d).
        pilots: by way of certifying, (P, d).
        smoothed: (P, d) directions of mean features, not attacked.
        predicted: (P, C-1, d) from each rival class to the predicted one.
        voted: (P, C-1, d) the same to the one that is voted for.
        ranked: (P, N-1, d) from each other caption to the own one.
        k: the rank that is certified.
    """

    x: torch.Tensor
    clean: torch.Tensor
    caption: torch.Tensor
    pilots: dict[str, torch.Tensor]
    smoothed: torch.Tensor
    predicted: torch.Tensor
    voted: torch.Tensor
    ranked: torch.Tensor
    k: int

    def objectives(self) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
        """What attacks bring down, by name: of draws (P, n, d), (P,)."""

        def cosine(reference: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda u: torch.nn.functional.cosine_similarity(u.mean(dim=1), reference.float())

        def smallest(gaps: torch.Tensor, k: int) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda u: (gaps.float() @ u.mean(dim=1)[:, :, None])[:, :, 0].kthvalue(k, dim=1).values

        def won(gaps: torch.Tensor, k: int) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda u: torch.sigmoid(20.0 * (u @ gaps.float().mT).kthvalue(k, dim=2).values).mean(dim=1)

        return {
            "class": smallest(self.predicted, 1),
            "votes": won(self.voted, 1),
            "retrieval": smallest(self.ranked, self.k),
            "retrieval votes": won(self.ranked, self.k),
            "caption": lambda u: (u.mean(dim=1) * self.caption.float()).sum(dim=1),
            "clean embedding": cosine(self.clean),
            "smoothed embedding": cosine(self.smoothed),
        }


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """In float64."""
    vectors = vectors.double()
    return vectors / vectors.norm(dim=-1, keepdim=True)


def gaps(features: torch.Tensor, own: list[int]) -> torch.Tensor:
    """(P, C-1, d) unit vectors from each other one of (C, d) to the own one."""
    others = torch.tensor([[c for c in range(len(features)) if c != y] for y in own])
    return unit(features[torch.tensor(own)][:, None] - features[others])


def attack(
    encoder: Encoder,
    x: torch.Tensor,
    objective: Callable[[torch.Tensor], torch.Tensor],
    radius: float,
    options: argparse.Namespace,
) -> torch.Tensor:
    """Points of the ball around x (P, 3, H, W) that bring an objective down, by PGD with EOT."""
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
        (slope,) = torch.autograd.grad(objective(u).sum(), delta)
        size = slope.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
        delta = inside(delta.detach() - 2.5 * radius * (1 - step / options.steps) / 4 * slope / size)
    return x + delta.detach()


@torch.no_grad()
def draws(encoder: Encoder, x: torch.Tensor, options: argparse.Namespace, seed: int) -> torch.Tensor:
    """(P, n, d) unit features of fresh draws of inputs (P, 3, H, W)."""
    noise = torch.Generator(device=x.device).manual_seed(seed)
    each = max(1, _AT_ONCE // len(x))
    parts = []
    for start in range(0, options.judged, each):
        shape = (len(x), min(each, options.judged - start), *x.shape[1:])
        noisy = x[:, None] + options.sigma * torch.randn(shape, generator=noise, device=x.device)
        parts.append(unit(encoder.encode_images(noisy.flatten(0, 1)).unflatten(0, shape[:2])))
    return torch.cat(parts, dim=1)


Judged = tuple[np.ndarray, np.ndarray]
"""(P,) estimates, and how much the truth may be above."""


def mean_of(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over the last axis, and ``ERRORS`` standard errors."""
    return values.mean(dim=-1), ERRORS * values.std(dim=-1) / values.shape[-1] ** 0.5 + 1e-9


def cosine_of(u: torch.Tensor, reference: torch.Tensor, before: torch.Tensor | None = None) -> Judged:
    """Cosine of the mean of draws (P, n, d) to a direction (P, d), perhaps itself estimated from draws ``before``."""
    mean, n = u.mean(dim=1), u.shape[1]
    length = mean.norm(dim=1)
    value = (mean * reference).sum(dim=1) / length
    # to first order the error is that of the mean of <u, reference - cosine mean/|mean|>
    turned = reference - value[:, None] * mean / length[:, None]
    above = mean_of((u @ turned[:, :, None])[:, :, 0])[1] / length + ERRORS * (1 - length**2) / (
        n * length**2
    )
    if before is not None:
        known = before.mean(dim=1)
        across = mean / length[:, None] - value[:, None] * reference
        above += mean_of((before @ across[:, :, None])[:, :, 0])[1] / known.norm(dim=1)
    return value.cpu().numpy(), above.cpu().numpy()


def smallest_mean(u: torch.Tensor, away: torch.Tensor, k: int) -> Judged:
    """k-th smallest mean of draws (P, n, d) along some directions (P, C, d)."""
    values, errors = mean_of(away @ u.mT)
    value = values.kthvalue(k, dim=1).values
    above = (values + errors).kthvalue(k, dim=1).values - value
    return value.cpu().numpy(), above.cpu().numpy()


def percentile_of(values: torch.Tensor, share: float) -> Judged:
    """Percentile of (P, n) values, and an order statistic that the true one is not above."""
    ordered, n = values.sort(dim=1).values, values.shape[1]
    place = int(n * share)
    later = min(n - 1, int(n * share + ERRORS * (n * share * (1 - share)) ** 0.5) + 1)
    return ordered[:, place].cpu().numpy(), (ordered[:, later] - ordered[:, place]).cpu().numpy()


def outcomes(block: Block, u: torch.Tensor, before: torch.Tensor, share: float) -> dict[str, Judged]:
    """What each quantity of the catalogue is at perturbed inputs, by its name."""

    def along(directions: torch.Tensor) -> torch.Tensor:
        return (u @ directions[:, :, None])[:, :, 0]

    def of_votes(votes: torch.Tensor) -> Judged:
        value, above = mean_of(votes.double())
        return value.cpu().numpy(), above.cpu().numpy()

    margins = (u @ block.voted.mT).amin(dim=2)
    ahead = (u @ block.ranked.mT).kthvalue(block.k, dim=2).values
    caption, found = along(block.caption), {}
    found["clean"] = cosine_of(u, block.clean)
    found["smoothed"] = cosine_of(u, block.smoothed, before)
    found["caption"] = tuple(each.cpu().numpy() for each in mean_of(caption))
    found["class"] = smallest_mean(u, block.predicted, 1)
    found["retrieval"] = smallest_mean(u, block.ranked, block.k)
    found["vote"], found["retrieval vote"] = of_votes(margins > 0), of_votes(ahead > 0)
    found["percentile to clean"] = percentile_of(along(block.clean), share)
    found["percentile to caption"] = percentile_of(caption, share)
    found["percentile of class"] = percentile_of(margins, share)
    for way, pilots in block.pilots.items():
        found[f"percentile to pilot, {way}"] = percentile_of(along(pilots), share)
    return found


def claims(row: CertificateRow, i: int, section: CertifySection) -> Iterator[tuple[str, str, float]]:
    """What a row says at a radius of the job: (column, of which quantity, at least how much)."""
    radius = section.radii[i]
    for certificate in CATALOGUE:
        name = certificate.quantity.name
        for form in certificate.forms:
            value, title = getattr(row, form.column), f"{form.column} ({certificate.source.split(',')[0]})"
            if value is None:
                continue
            if form is certificate.radius:
                if value >= radius:
                    yield title, name, certificate.quantity.floor
            elif form is certificate.bound:
                if value[i] is not None:
                    yield title, name, value[i]
            else:
                reached = [
                    c for c, r in zip(section.cosines, value, strict=True) if r is not None and r >= radius
                ]
                if reached:
                    yield title, name, max(reached)
    for target, decision in zip(section.targets, row.target_decision or (), strict=True):
        if target.radius == radius and decision == "certified":
            quantity = of_name(target.certificate).quantity
            least = quantity.floor if target.cosine is None else target.cosine
            yield f"target {target.certificate}", quantity.name, least


def block_of(encoder: Encoder, digits: list, part: range, ways: dict[str, Certified], texts: Texts) -> Block:
    """Some of the digits."""
    device = encoder.device
    x = torch.stack([torch.from_numpy(encoder.prepare(digits[i][0])) for i in part]).float().to(device) / 255
    classes, pool = (
        torch.from_numpy(each).to(device) for each in (texts.class_features, texts.pool_features)
    )
    own = [texts.pool_captions.index(digits[i][1]) for i in part]
    each = [[way.rows[str(i)] for i in part] for way in ways.values()]
    labels = [[(row.predicted_label, row.vote_label) for row in rows] for rows in each]
    assert all(mine == labels[0] for mine in labels), "the same pilot draws chose other classes"
    pilots = {
        name: torch.from_numpy(np.stack([way.pilots[str(i)] for i in part])).to(device)
        for name, way in ways.items()
    }
    with torch.no_grad():
        clean = unit(encoder.encode_images(x))
    return Block(
        x,
        clean,
        unit(pool[own]),
        pilots,
        clean,
        gaps(classes, [texts.labels.index(predicted) for predicted, _ in labels[0]]),
        gaps(classes, [texts.labels.index(voted) for _, voted in labels[0]]),
        gaps(pool, own),
        texts.retrieval_k,
    )


def hold(
    encoder: Encoder,
    digits: list,
    ways: dict[str, Certified],
    texts: Texts,
    options: argparse.Namespace,
) -> dict[str, Found]:
    """Distances of all outcomes from all claims, and whether each is a violation, by way and column."""
    found: dict[str, Found] = {name: defaultdict(list) for name in ways}
    first = next(iter(ways.values())).section
    assert first.percentile is not None
    seed = 2
    for start in range(0, len(digits), options.block):
        part = range(start, min(start + options.block, len(digits)))
        block = block_of(encoder, digits, part, ways, texts)
        before = draws(encoder, block.x, options, seed)
        block.smoothed = unit(before.mean(dim=1))
        for i, radius in enumerate(first.radii):
            for objective in block.objectives().values():
                seed += 1
                moved = attack(encoder, block.x, objective, radius, options)
                longest = float((moved - block.x).double().flatten(1).norm(dim=1).max())
                assert longest <= radius * (1 + 1e-5), f"an attack went {longest} beyond {radius}"
                seen = outcomes(block, draws(encoder, moved, options, seed), before, first.percentile)
                for name, way in ways.items():
                    for k, number in enumerate(part):
                        for title, of, least in claims(way.rows[str(number)], i, way.section):
                            value, above = seen[f"{of}, {name}" if of == "percentile to pilot" else of]
                            found[name][title].append((value[k] - least, value[k] + above[k] < least))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rank", type=int, default=1, help="k of the retrieval")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--eot", type=int, default=64)
    parser.add_argument("--judged", type=int, default=10_000, help="fresh draws at each perturbed input")
    parser.add_argument("--block", type=int, default=50, help="pairs that are attacked at once")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    begun = time.monotonic()
    encoder = load_encoder(EncoderSection(model="bundled:digits-clip", device=options.device))
    digits = load_digits_pairs("test")[: options.pairs]
    pool = sorted({caption for _, caption, _ in load_digits_pairs("test")})
    texts = encode_texts(encoder, zero_shot=ZERO_SHOT, pool=pool, retrieval_k=options.rank)
    radii = tuple(share * options.sigma for share in SHARES)
    section = CertifySection(sigma=options.sigma, max_draws=options.draws, radii=radii, second_moment=True)
    plain = certify(encoder, digits, section, texts)
    early = CertifySection.model_validate(section.model_dump() | {"targets": targets_like(plain)})
    ways = {"fixed draws": plain, "targets": certify(encoder, digits, early, texts)}
    ready = time.monotonic()
    found = hold(encoder, digits, ways, texts, options)
    for name, columns in found.items():
        table = [
            [
                title,
                f"{len(each):,}",
                str(sum(bad for _, bad in each)),
                *(f"{f([gap for gap, _ in each]):.4f}" for f in (min, np.mean)),
            ]
            for title, each in columns.items()
        ]
        setting = f"sigma {options.sigma:g}, {options.draws} draws, rank {options.rank}, {name}"
        title = f"{len(digits)} pairs, {len(radii)} radii, 7 objectives of PGD ({setting}):"
        table_of(title, ["column", "claims attacked", "violations", "least distance", "mean distance"], table)
        silent = {form.column for each in CATALOGUE for form in each.forms} - {
            t.split(" ")[0] for t in columns
        }
        print(f"\nColumns without a claim: {', '.join(sorted(silent)) or 'none'}.")
    every = [bad for columns in found.values() for each in columns.values() for _, bad in each]
    spent = f"{ready - begun:.0f} s to certify, {time.monotonic() - ready:.0f} s to attack"
    print(f"\n{sum(every)} violations in {len(every):,} claims; {spent}.")


if __name__ == "__main__":
    main()
