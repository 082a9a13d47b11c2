"""What the certificates of one row cost: `python tests/benchmarks/rows.py`. One core; 1,000 classes, 1,000 draws.

Scores are synthetic (features scattered around a direction near one class), so that no encoder is timed: the cost of
fixing the question on the pilot draws, and of all bounds of a row, batched over pairs. `--scatter 0.3` is an encoder
whose features scatter along few directions, and so widely along the text that its bets are not at their limits;
`--second-moment` asks for the certificate from second moments too. On a machine that does other work the least of
several rounds disturbs least, and is printed beside the median.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from smoothcert.datasets import Pair
from smoothcert.encoders import KnownEncoder
from smoothcert.engine.draw_scores import DrawScores
from smoothcert.engine.layout import plan_layout
from smoothcert.engine.moments import MomentTracker
from smoothcert.engine.question import Question, Questioner
from smoothcert.engine.records import Measurement
from smoothcert.engine.rows import RowMaker
from smoothcert.engine.texts import Texts
from smoothcert.job import CertifySection


class Source:
    """Classes and draws about them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._rng = np.random.default_rng(0)
        self._options = options
        self.classes = self.units(options.classes)

    def units(self, count: int) -> np.ndarray:
        values = self._rng.standard_normal((count, self._options.dimension))
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    def draws(self, index: int, count: int) -> np.ndarray:
        """(count, d) unit features of noisy copies of one image."""
        caption = self.classes[index % len(self.classes)]
        centre = caption + 0.3 * self.units(1)[0]
        draws = centre + 0.02 * self._rng.standard_normal((count, self._options.dimension))
        if self._options.scatter:
            axes = np.concatenate([self.units(3), caption[None]])
            draws += self._options.scatter * self._rng.standard_normal((count, len(axes))) @ axes
        return draws / np.linalg.norm(draws, axis=1, keepdims=True)


def in_rounds(work: Callable[[], object], rounds: int, parts: int) -> str:
    """CPU milliseconds for each part of the work."""
    used = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        used.append(1e3 * (time.process_time() - started) / parts)
    return f"{statistics.median(used):.2f} CPU ms a pair (least {min(used):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scatter", type=float, default=0.0)
    parser.add_argument("--second-moment", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = Source(options)
    texts = Texts(tuple(map(str, range(options.classes))), source.classes, captions=True)
    certify = CertifySection(sigma=0.25, max_draws=options.draws, radii=(0.0625, 0.125, 0.25, 0.375, 0.5))
    layout = plan_layout(certify, classes=options.classes, pool=0, captions=True, retrieval_k=1)
    questioner = Questioner(layout, texts, certify)
    single = DrawScores(layout, texts, 1, torch.device("cpu"))
    moments = MomentTracker(1, options.dimension * options.second_moment, torch.device("cpu"))
    rows = RowMaker(KnownEncoder.rotating(), certify, texts, layout)
    asked: list[tuple[np.ndarray, np.ndarray]] = []
    measured = []
    judging = 0.0

    def ask(i: int) -> Question:
        pilot, caption = asked[i][0], source.classes[i % options.classes]
        return questioner.ask(pilot[:-1], pilot[-1], caption, ("x",))

    for i in range(options.pairs):
        draws = source.draws(i, certify.pilot_draws + 1 + options.draws)
        pilot, fresh = np.split(draws, [certify.pilot_draws + 1])
        asked.append((pilot.copy(), fresh))
        question = ask(i)
        scores = ((1 + fresh @ question.directions[: layout.reported].T) / 2).T.clip(0, 1)
        drawn = torch.from_numpy(fresh)[None]
        products = drawn @ torch.from_numpy(question.directions.T.copy())
        started = time.process_time()
        single.start(0, question)
        others = single.of([0], drawn, products)[0].numpy().T
        judging += time.process_time() - started
        moments.start(0, pilot[:-1])
        moments.update([0], drawn, np.array([options.draws]))
        asked[i] = asked[i][0], np.empty(0)
        pair = Pair(f"p{i}", "memory", None, ("x",), None, None)
        measured.append(
            Measurement(
                "u", pair, question, np.concatenate([scores, others]), options.draws, len(pilot) - 1, "fixed",
                (), (), moments.result(0),
            )
        )  # fmt: skip
    started = time.process_time()
    rows.rows("u", measured[:2])
    print(f"first rows, tables built once a process: {time.process_time() - started:.2f} s")
    questions = in_rounds(lambda: [ask(i) for i in range(options.pairs)], options.rounds, options.pairs)
    print(f"question: {questions}, {options.classes} classes")
    print(f"margin and vote: {1e6 * judging / options.pairs / options.draws:.1f} CPU us a draw")
    made = rows.rows("u", measured)
    row = in_rounds(lambda: rows.rows("u", measured), options.rounds, options.pairs)
    print(f"row: {row}")
    print(f"mean certified radius {np.mean([row.certified_radius or 0.0 for row in made]):.3f}")


if __name__ == "__main__":
    main()
