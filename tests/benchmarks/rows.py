"""What the certificates of one row cost: `python tests/benchmarks/rows.py`. One core; 1,000 classes, 1,000 draws.

Scores are synthetic (features scattered around a direction near one class), so that no encoder is timed: the cost of
fixing the question on the pilot draws, and of all bounds of a row, batched over pairs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from smoothcert.datasets import Pair
from smoothcert.encoders import KnownEncoder
from smoothcert.engine.draw_scores import DrawScores
from smoothcert.engine.layout import plan_layout
from smoothcert.engine.question import Questioner
from smoothcert.engine.records import Measurement
from smoothcert.engine.rows import RowMaker
from smoothcert.engine.texts import Texts
from smoothcert.job import CertifySection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--dimension", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    def units(count: int) -> np.ndarray:
        values = rng.standard_normal((count, options.dimension))
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    classes = units(options.classes)
    texts = Texts(tuple(map(str, range(options.classes))), classes, captions=True)
    certify = CertifySection(sigma=0.25, max_draws=options.draws, radii=(0.0625, 0.125, 0.25, 0.375, 0.5))
    layout = plan_layout(certify, classes=options.classes, pool=0, captions=True, retrieval_k=1)
    questioner = Questioner(layout, texts, certify)
    encoder = KnownEncoder.rotating()
    single = DrawScores(layout, texts, 1, torch.device("cpu"))
    rows = RowMaker(encoder, certify, texts, layout)
    measured = []
    asking = judging = 0.0
    for i in range(options.pairs):
        caption = classes[i % options.classes]
        centre = caption + 0.3 * units(1)[0]
        draws = centre + 0.02 * rng.standard_normal((options.draws + 64, options.dimension))
        draws /= np.linalg.norm(draws, axis=1, keepdims=True)
        started = time.process_time()
        question = questioner.ask(draws[:63], draws[63], caption, ("x",))
        asking += time.process_time() - started
        scores = ((1 + draws[64:] @ question.directions[: layout.reported].T) / 2).T.clip(0, 1)
        drawn = torch.from_numpy(draws[64:])[None]
        products = drawn @ torch.from_numpy(question.directions.T.copy())
        started = time.process_time()
        single.start(0, question)
        others = single.of([0], drawn, products)[0].numpy().T
        judging += time.process_time() - started
        scores = np.concatenate([scores, others])
        pair = Pair(f"p{i}", "memory", None, ("x",), None, None)
        measured.append(Measurement("u", pair, question, scores, options.draws, 63, "fixed", (), ()))
    started = time.process_time()
    rows.rows("u", measured[:2])
    print(f"first rows, tables built once a process: {time.process_time() - started:.2f} s")
    started, wall = time.process_time(), time.perf_counter()
    made = rows.rows("u", measured)
    cpu, wall = time.process_time() - started, time.perf_counter() - wall
    print(f"question: {1e3 * asking / options.pairs:.2f} CPU ms a pair ({options.classes} classes)")
    print(f"margin and vote: {1e6 * judging / options.pairs / options.draws:.1f} CPU us a draw")
    print(f"row: {1e3 * cpu / options.pairs:.2f} CPU ms a pair, {1e3 * wall / options.pairs:.2f} ms wall")
    print(f"mean certified radius {np.mean([row.certified_radius or 0.0 for row in made]):.3f}")


if __name__ == "__main__":
    main()
