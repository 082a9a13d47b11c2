"""Attacks on certified answers: python tests/benchmarks/attack_answers.py [--pairs 100] [--device cuda].

The bundled LLaVA is asked about generated shapes, its answers are certified by vote, and PGD through the language
model searches every question at three radii, with the whole radius as its budget. For each radius it prints how many
questions are certified there, how many of their answers the search changed, the least that an upper confidence bound
leaves to the certified answer, and how many outcomes contradict a certificate; it leaves with 1 if any does. Needs
neither Ray nor DuckDB nor MLflow. A few minutes on a GPU for 100 pairs; on a CPU try --pairs 4 --steps 5.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smoothcert.datasets import decode_image, open_source, write_synthetic
from smoothcert.datasets.shape_questions import write_shape_questions
from smoothcert.job import Job
from smoothcert.work.answer.asking import AskedPair, Asker
from smoothcert.work.answer.attacked_rows import AttackedAnswerRow, Certified
from smoothcert.work.answer.attacking import AnswerAttacker
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.attack.metered import Meter
from smoothcert.work.inputs import Inputs, load_checked

GROUP = 20
"""Pairs that are searched together."""


class KnownAttacker(AnswerAttacker):
    """Holds outcomes against certificates that were made here, in place of those of a run."""

    known: Mapping[str, Certified] = {}

    def _certified(self, asked: Sequence[AskedPair]) -> Mapping[str, Certified]:
        return self.known


def make_job(here: Path, options: argparse.Namespace) -> Job:
    written = write_synthetic(here / "shapes", "parquet", pairs=options.pairs, size=32, seed=options.seed)
    write_shape_questions(str(here / "questions.jsonl"), written)
    attack = {"attack": "pgd", "norm": "l2", "budgets": options.radii, "subjects": ["vote"]}
    attack |= {"steps": options.steps, "restarts": options.restarts, "eot_draws": options.eot_draws}
    encoder = {"model": "bundled:shapes-llava", "device": options.device, "slots": 8}
    return Job.model_validate(
        {
            "name": "attack-answers",
            "data": {"format": "parquet", "uri": str(here / "shapes")},
            "encoder": encoder | {"chunk": 16 if options.device == "cpu" else 256},
            "certify": {"sigma": options.sigma, "alpha": 0.001, "radii": options.radii},
            "answer": {
                "model": "bundled:shapes-llava",
                "questions": str(here / "questions.jsonl"),
                "subjects": ["vote"],
                "max_new_tokens": 14,
                "batch": 128 if options.device == "cpu" else 2048,
                "vote": {"pilot_draws": 16, "max_draws": options.draws},
                "attacks": [attack | {"evaluate_draws": options.judged, "alpha": 0.001}],
            },
        }
    )


def read_pairs(job: Job, named: AnswerInputs) -> list[AskedPair]:
    asked = []
    for unit in open_source(job.data).units(1 << 20):
        for pair in open_source(job.data).read(unit):
            image: Image.Image = decode_image(pair.image or b"", max_pixels=job.data.max_pixels)
            pixels = np.ascontiguousarray(named.answerer.prepare(image))
            asked.append(AskedPair(pair, pixels, named.questions.of(pair.pair_id)))
    return asked


def certify(job: Job, named: AnswerInputs, asked: Sequence[AskedPair], meter: Meter) -> dict[str, Certified]:
    assert job.answer is not None
    votes = Asker(job, job.answer, named.answerer, meter).votes(asked)
    return {
        f"{each.pair.pair_id}\x1f{question.question_id}": Certified(result.answer, result.radius)
        for each, mine in zip(asked, votes, strict=True)
        for question, (result, _) in zip(each.questions, mine, strict=True)
        if result.answer is not None and result.radius is not None
    }


def tell(rows: Sequence[AttackedAnswerRow], known: Mapping[str, Certified], radii: Sequence[float]) -> int:
    print(
        f"{'radius':>8}  {'questions':>9}  {'certified':>9}  {'changed':>7}  {'least share':>11}  {'contradict':>10}"
    )
    contradicting = 0
    for radius in radii:
        here = [row for row in rows if row.budget == radius]
        held = [row for row in here if row.violation is not None]
        changed = sum(bool(row.changed) for row in held)
        least = min((row.certified_share_ucb or 0.0 for row in held), default=math.nan)
        wrong = sum(bool(row.violation) for row in held)
        contradicting += wrong
        print(f"{radius:8g}  {len(here):9,}  {len(held):9,}  {changed:7,}  {least:11.3f}  {wrong:10,}")
    beyond = [row for row in rows if row.violation is None]
    print(
        f"beyond what is certified: {sum(bool(row.changed) for row in beyond):,} of {len(beyond):,} answers changed"
    )
    print(f"{len(known):,} questions have a certified answer")
    return contradicting


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--radii", type=float, nargs="+", default=[0.0625, 0.125, 0.25])
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--draws", type=int, default=200, help="behind each certified answer")
    parser.add_argument("--judged", type=int, default=400, help="fresh draws that judge each outcome")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--eot-draws", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=21)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(Path(folder), options)
        inputs = Inputs(job, load_checked(job))
        named = inputs.share(AnswerInputs)
        meter = Meter(named.answerer.device)
        asked = read_pairs(job, named)
        started = time.perf_counter()
        known = certify(job, named, asked, meter)
        print(
            f"{len(asked):,} pairs on {named.answerer.device}, certified in {time.perf_counter() - started:,.0f} s"
        )
        assert job.answer is not None
        section: Any = job.answer.attacks[0]
        attacker = KnownAttacker(inputs, section, meter, None)
        attacker.known = known
        rows: list[AttackedAnswerRow] = []
        for start in range(0, len(asked), GROUP):
            rows += [row for each in attacker.rows(asked[start : start + GROUP]) for row in each]
        print(f"attacked in {time.perf_counter() - started:,.0f} s, {meter.images:,} images and answers")
        return int(tell(rows, known, options.radii) > 0)


if __name__ == "__main__":
    sys.exit(main())
