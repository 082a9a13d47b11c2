"""Worth and cost of the statistics: gaps, bounds of many means, running tests. `python tests/benchmarks/betting.py`.

Bounds: the betting bound of 1,000 pairs x 1,000 draws, for kinds of scores that are easy and hard on the root search,
beside the closed forms. Sequential tests: one update of thousands of slots, per draw and test. Every figure is the best
of some rounds, since other work only ever adds time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

from smoothcert.statistics import Method, SequentialTest, choose_bets, ebh, lower_bound, share_interval

PAIRS, DRAWS, TARGET_S = 1000, 1000, 0.5


def best_s(work: Callable[[], object], rounds: int) -> float:
    """Shortest of some rounds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def bounds(rounds: int, seed: int) -> None:
    """Time of lower_bound."""
    rng = np.random.default_rng(seed)
    shape = (PAIRS, DRAWS)
    kinds = {
        "beta, mean 0.988, sd 0.01": rng.beta(116, 1.41, shape),
        "beta, means 0.5 to 1": np.clip(rng.beta(9, 1, shape) * rng.uniform(0.5, 1, (PAIRS, 1)), 0, 1),
        "coins, 0.97": (rng.random(shape) < 0.97).astype(float),
        "all ones": np.ones(shape),
    }
    print(f"lower_bound, {PAIRS} pairs x {DRAWS} draws, alpha 0.001 (target for betting: {TARGET_S} s)")
    for name, draws in kinds.items():
        seconds = best_s(lambda draws=draws: lower_bound(draws, 0.001), rounds)
        print(f"  betting, {name:26} {seconds:7.3f} s   {seconds / TARGET_S:5.2f} x target")
    coins = kinds["coins, 0.97"]
    methods: tuple[Method, ...] = ("empirical_bernstein", "hoeffding", "clopper_pearson")
    for method in methods:
        print(f"  {method:35} {best_s(lambda m=method: lower_bound(coins, 0.001, m), rounds):7.3f} s")


def updates(rounds: int, seed: int) -> None:
    """Time of SequentialTest.update."""
    rng = np.random.default_rng(seed)
    print("SequentialTest.update: slots x draws x tests")
    for slots, chunk, tests in ((8, 32, 10), (256, 32, 10), (4096, 32, 3), (4096, 32, 10)):
        scores = rng.random((slots, chunk, tests))
        test = SequentialTest(np.full((slots, tests), 0.5), 0.001)

        def once(test=test, scores=scores, slots=slots, chunk=chunk) -> None:
            test.update(scores, slots=range(slots), counts=[chunk] * slots)

        once()
        seconds = best_s(once, rounds)
        each = seconds / (slots * chunk * tests)
        print(
            f"  {slots:5} x {chunk} x {tests:2}  {1e3 * seconds:8.2f} ms   {1e9 * each:7.1f} ns a "
            f"draw and test   {1e6 * seconds / (slots * chunk):7.2f} us a draw"
        )


def selections(rounds: int, seed: int) -> None:
    """Time of ebh and share_interval."""
    logs = np.random.default_rng(seed).normal(3, 5, 1_000_000)
    print(f"ebh, 1,000,000 pairs: {best_s(lambda: ebh(logs, 0.05), rounds):.3f} s")
    for anytime in (False, True):
        seconds = best_s(lambda anytime=anytime: share_interval(830, 1000, anytime=anytime), rounds)
        print(f"share_interval, anytime={anytime}: {1e6 * seconds:.0f} us")


def gaps(repetitions: int, seed: int) -> None:
    """How far bounds lie below the mean, with stakes from the draws alone and from a pilot."""
    kinds = {
        "Bernoulli 0.5": (0.5, lambda rng, shape: (rng.random(shape) < 0.5).astype(float)),
        "Bernoulli 0.9": (0.9, lambda rng, shape: (rng.random(shape) < 0.9).astype(float)),
        "Bernoulli 0.99": (0.99, lambda rng, shape: (rng.random(shape) < 0.99).astype(float)),
        "Beta, mean 0.75, sd 0.05": (0.75, lambda rng, shape: rng.beta(55.5, 18.5, shape)),
        "Beta, mean 0.988, sd 0.01": (0.988, lambda rng, shape: rng.beta(116, 1.41, shape)),
    }
    print(f"mean gap, {DRAWS} draws, alpha 0.001, 63 pilot draws, {repetitions} repetitions")
    print("| scores | draws alone | pilot, at any time | pilot, fixed number |\n|---|---|---|---|")
    for name, (mean, draw) in kinds.items():
        rng = np.random.default_rng(seed)
        pilot, draws = draw(rng, (repetitions, 63)), draw(rng, (repetitions, DRAWS))
        found = [lower_bound(draws, 0.001)]
        for fixed in (False, True):
            bets = choose_bets(pilot, 0.001, DRAWS, fixed=fixed)
            found.append(lower_bound(draws, 0.001, bets=bets))
        print(f"| {name} | {' | '.join(f'{(mean - each).mean():.4f}' for each in found)} |")


def votes(repetitions: int, seed: int) -> None:
    """The same of votes, bounded by betting where targets may stop the draws; and exactly, at a fixed number."""
    print(f"mean gap of votes, {repetitions} repetitions")
    print(
        "| alpha | draws | pilots | share | draws alone | pilot | exact, fixed n |\n|---|---|---|---|---|---|---|"
    )
    for alpha in (0.001, 0.001 / 8):
        for n, pilots in ((300, 31), (1000, 63)):
            for share in (0.5, 0.7, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0):
                rng = np.random.default_rng(seed)
                pilot, draws = (
                    (rng.random((repetitions, size)) < share).astype(float) for size in (pilots, n)
                )
                found = (
                    lower_bound(draws, alpha),
                    lower_bound(draws, alpha, bets=choose_bets(pilot, alpha, n)),
                    lower_bound(draws, alpha, "clopper_pearson"),
                )
                gap = " | ".join(f"{(draws.mean(axis=1) - each).mean():.4f}" for each in found)
                print(f"| {alpha:g} | {n} | {pilots} | {share:g} | {gap} |")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{os.cpu_count()} cores{load}, numpy {np.__version__}")
    gaps(400, arguments.seed)
    votes(150, arguments.seed)
    bounds(arguments.rounds, arguments.seed)
    updates(arguments.rounds, arguments.seed)
    selections(arguments.rounds, arguments.seed)


if __name__ == "__main__":
    main()
