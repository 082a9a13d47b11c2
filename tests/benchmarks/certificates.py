"""Cost and tightness of the certificates. `python tests/benchmarks/certificates.py`.

Cost: T3 at a million smooth norms, a frontier, the atlas, and every certificate of a row, batched. CPU time
of one process, the best of some rounds, since other work only ever adds time. Tightness: T3 against its
extremal encoder (exact values by quadrature), over the range that the documentation promises 2e-4 for; T4
radii against T1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.special import ndtri

from smoothcert.certificates import (
    angular_bound,
    angular_radius,
    clean_reference_bound,
    dual_bound,
    dual_direction,
    fcsb,
    large_radius_bound,
    margin_radius,
)
from smoothcert.certificates.atlas import atlas
from smoothcert.certificates.frontier import frontier, range_of_a

ROWS = 2000


def best_s(work: Callable[[], object], rounds: int) -> float:
    """Least CPU seconds of some rounds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def builds(rounds: int, million: np.ndarray) -> None:
    """Tables, and T3 in bulk."""
    print("built once a process")
    for rho in (0.25, 1.0, 3.5):
        seconds = best_s(lambda rho=rho: (frontier.cache_clear(), frontier(rho)), rounds)
        print(f"  frontier at rho {rho:<5} {seconds:7.3f} s   {seconds / 0.5:5.2f} x target")
    print(f"  atlas of radii         {best_s(lambda: (atlas.cache_clear(), atlas()), 1):7.3f} s")
    seconds = best_s(lambda: angular_bound(million, 0.5, 1.0), rounds)
    print(f"angular_bound, one million norms at one radius {seconds:.3f} s   {seconds / 0.5:5.2f} x target")


def rows(rounds: int, generator: np.random.Generator) -> None:
    """Each certificate, per row."""
    length, angle = generator.uniform(0.3, 0.99, ROWS), generator.uniform(0.1, 1.4, ROWS)
    pilot = angle + generator.normal(0, 0.15, ROWS)
    margin, norm, alignment = length * np.sin(angle), length * np.cos(angle - pilot), -np.sin(pilot)
    one = np.ones(ROWS)
    gram = np.array(
        [[one, -one, alignment], [-one, one, -alignment], [alignment, -alignment, one]]
    ).transpose(2, 0, 1)
    known = np.stack([margin, norm], axis=1)
    clipped = np.clip(norm, 0, 1)
    shifts = generator.uniform(0.1, 1.0, ROWS)
    steps, levels = np.sort(generator.random((ROWS, 8)), axis=1)[:, ::-1], np.linspace(0.0, 0.875, 8)
    work: dict[str, Callable[[], object]] = {
        "fcsb": lambda: fcsb((1 + norm) / 2, 0.5, 1.0),
        "angular_bound, one radius": lambda: angular_bound(clipped, 0.5, 1.0),
        "angular_bound, a radius a row": lambda: angular_bound(clipped, shifts, 1.0),
        "angular_radius": lambda: angular_radius(clipped, 0.8, 1.0),
        "margin_radius": lambda: margin_radius(margin, norm, alignment, 1.0),
        "margin_radius, direction alone": lambda: margin_radius(None, norm, alignment, 1.0),
        "dual_bound, k = 2": lambda: dual_bound(gram, known, 0.5, 1.0),
        "dual_direction, k = 2": lambda: dual_direction(gram, known, 0.5, 1.0),
        "clean_reference_bound": lambda: clean_reference_bound(norm, clipped, 0.5, 1.0),
        "large_radius_bound, 8 levels": lambda: large_radius_bound(steps, levels, 0.5, 1.0),
    }
    print(f"per row, batched over {ROWS}")
    for name, call in work.items():
        print(f"  {name:32} {1e6 * best_s(call, rounds) / ROWS:8.1f} us")
    radius, classical = margin_radius(margin, norm, alignment, 1.0), ndtri((1 + margin) / 2)
    print(
        f"mean radius in sigma: T4 {radius.mean():.3f}, T1 {classical.mean():.3f}, "
        f"ratio {radius.mean() / classical.mean():.2f}"
    )


def exact_points(rho: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, cos psi) of extremal encoders: E[L u]_2 = 0 by bisection, expectations by Gauss-Legendre panels."""
    node, mass = np.polynomial.legendre.leggauss(8)
    fine = 1e-4 * np.sinh(np.linspace(-12.6, 12.6, 3001))
    edges = fine[(fine > -9 - rho) & (fine < 9)]
    half = np.diff(edges)[:, None] / 2
    y = (edges[:-1, None] + half * (1 + node)).ravel()
    shifted = (half * mass).ravel() * np.exp(-(y**2) / 2) / np.sqrt(2 * np.pi)
    ratio = np.exp(rho * y + rho**2 / 2)
    low, high = range_of_a(rho)
    norms, cosines = [], []
    for a in np.geomspace(30 * low, high, count):
        bottom, top = -1.5 * np.exp(rho**2), -0.5 * np.exp(rho**2 / 2)
        for _ in range(70):
            b = (bottom + top) / 2
            u2 = (ratio + b) / np.sqrt(a**2 + (ratio + b) ** 2)
            bottom, top = (b, top) if shifted @ u2 < 0 else (bottom, b)
        t = (shifted / ratio) @ (a / np.sqrt(a**2 + (ratio + b) ** 2))
        s = -(shifted / ratio) @ u2
        norms.append(np.hypot(t, s))
        cosines.append(t / np.hypot(t, s))
    return np.array(norms), np.array(cosines)


def tightness(count: int) -> None:
    """Exact minus certified cosine, for N in [0.05, 0.9999]."""
    print("T3: exact cosine minus certified one (promised: at most 2e-4, never below -1e-12)")
    for rho in (0.01, 0.1, 0.5, 1.0, 2.0, 2.5, 3.0, 3.5):
        norm, cosine = exact_points(rho, count)
        inside = (norm >= 0.05) & (norm <= 0.9999)
        norm, cosine = norm[inside], cosine[inside]
        gap = cosine - np.nan_to_num(angular_bound(norm, rho, 1.0))
        # more than a handful of shifts at once takes the row-wise path
        many = np.concatenate([norm, np.full(30, 0.5)])
        at = np.concatenate([np.full(norm.size, rho), np.linspace(0.1, 0.2, 30)])
        rowwise = cosine - np.nan_to_num(angular_bound(many, at, 1.0))[: norm.size]
        print(
            f"  rho {rho:<5} {norm.size:4} points   largest {gap.max():.1e}   smallest {gap.min():8.1e}   "
            f"row by row: largest {rowwise.max():.1e}   smallest {rowwise.min():8.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=60)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    builds(options.rounds, generator.uniform(0.05, 0.9999, 1_000_000))
    rows(options.rounds, generator)
    tightness(options.points)


if __name__ == "__main__":
    main()
