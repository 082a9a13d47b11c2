"""Answers a second of the task, against a bare loop of ``generate``: python tests/benchmarks/answers.py.

The same model, images, questions and batch. The bare loop calls the model's own ``generate`` of transformers on pixels,
batch after batch, in the order in which the questions stand in their file; the task decodes, makes image tokens once an
image, asks, reads, judges and makes rows. First for bare answers, then for votes, whose noisy images the bare loop is
given ready made. Rounds take turns, and the fastest of each counts; on a CPU seconds are processor seconds of this
process, which other work inflates least. Target: 0.95 of the bare loop.

--memory N asks the task N questions, and prints the resident memory of the process on the way: it should stay flat.
Needs neither Ray nor DuckDB nor MLflow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from smoothcert.answerers.pretrained import PretrainedAnswerer
from smoothcert.datasets import Pair, decode_image, open_source, write_synthetic
from smoothcert.datasets.shape_questions import write_shape_questions
from smoothcert.job import Job
from smoothcert.work.answer.answering import BATCHES, Answering
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.answer.worker import AnswerWorker
from smoothcert.work.attack.metered import Meter
from smoothcert.work.inputs import Inputs, load_checked
from smoothcert.work.task import Assignment

SIGMA, PILOT, DRAWS = 0.25, 16, 48


class Bench:
    """A model, pairs and questions, to be asked by the task or by a bare loop."""

    def __init__(self, here: Path, pairs: int, batch: int, device: str) -> None:
        written = write_synthetic(here / "shapes", "parquet", pairs=pairs, size=32, seed=5)
        self.questions = write_shape_questions(str(here / "questions.jsonl"), written)
        self._here, self._batch, self._device = here, batch, device
        self.inputs = {subject: self._load(subject) for subject in ("bare", "vote")}
        self.named = self.inputs["bare"].share(AnswerInputs)
        self.units = list(open_source(self.inputs["bare"].job.data).units(1 << 20))

    def _load(self, subject: str) -> Inputs:
        job = Job.model_validate(
            {
                "name": "answers",
                "data": {"format": "parquet", "uri": str(self._here / "shapes")},
                "encoder": {"model": "bundled:shapes-llava", "device": self._device, "threads": 1},
                "certify": {"sigma": SIGMA},
                "answer": {
                    "model": "bundled:shapes-llava",
                    "questions": str(self._here / "questions.jsonl"),
                    "subjects": [subject],
                    "max_new_tokens": 14,
                    "batch": self._batch,
                    "vote": {"pilot_draws": PILOT, "max_draws": DRAWS},
                },
            }
        )
        return Inputs(job, load_checked(job))

    def pairs(self) -> Iterator[Pair]:
        for unit in self.units:
            yield from open_source(self.inputs["bare"].job.data).read(unit)

    def task(self, subject: str, pairs: Iterator[Pair]) -> Iterator[int]:
        """Questions of each pair, as the worker is done with it."""
        inputs = self.inputs[subject]
        job, named = inputs.job, inputs.share(AnswerInputs)
        assert job.answer is not None
        meter = Meter(named.answerer.device)
        worker = AnswerWorker(
            inputs, named, job.answer, Answering(job, named, job.answer, meter), meter, batches=BATCHES
        )
        for outcome in worker.run(iter([Assignment("", self.units[0], pairs)])):
            assert not outcome.failed
            yield len(outcome.rows)
        worker.close()

    def bare_loop(self, draws: int) -> Callable[[], int]:
        """Answers of the model's own ``generate``, each image so many times with noise of its own; 0: clean, once."""
        answerer = self.named.answerer
        assert isinstance(answerer, PretrainedAnswerer)
        model, generator = answerer.tower.model, torch.Generator().manual_seed(0)
        pixels, texts = [], []
        for pair in self.pairs():
            image = decode_image(pair.image or b"", max_pixels=1 << 20)
            x = torch.from_numpy(np.ascontiguousarray(answerer.prepare(image))).float() / 255
            for question in self.named.questions.of(pair.pair_id):
                for _ in range(max(draws, 1)):
                    noise = SIGMA * torch.randn(x.shape, generator=generator) if draws else 0.0
                    pixels.append((x + noise) * 2 - 1)
                    texts.append(question.question)
        ready = torch.stack(pixels).to(answerer.device)

        def run() -> int:
            for start in range(0, len(texts), self._batch):
                part = slice(start, start + self._batch)
                ids, mask = answerer._prompts.encode(texts[part], answerer.device)
                with torch.inference_mode():
                    made = model.generate(
                        input_ids=ids,
                        attention_mask=mask,
                        pixel_values=ready[part],
                        max_new_tokens=14,
                        do_sample=False,
                    )
                answerer._tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
            return len(texts)

        return run


def timed(work: Callable[[], int]) -> float:
    """Answers a second."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    count = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count / (clock() - start)


def compare(bench: Bench, subjects: Sequence[str], rounds: int) -> None:
    for subject in subjects:
        draws = PILOT + DRAWS if subject == "vote" else 0
        loop = bench.bare_loop(draws)

        def task(subject: str = subject, draws: int = draws) -> int:
            return sum(bench.task(subject, bench.pairs())) * max(draws, 1)

        best = {"loop": 0.0, "task": 0.0}
        for _ in range(rounds):
            for name, work in (("loop", loop), ("task", task)):
                best[name] = max(best[name], timed(work))
        share = best["task"] / best["loop"]
        print(
            f"{subject:5}  loop {best['loop']:9,.1f}  task {best['task']:9,.1f} answers/s  {share:.3f}",
            flush=True,
        )


def resident() -> float:
    """MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def watch_memory(bench: Bench, questions: int) -> None:
    def again() -> Iterator[Pair]:
        while True:
            yield from bench.pairs()

    done, shown = 0, 0
    for count in bench.task("bare", again()):
        done += count
        if done >= shown:
            print(f"{done:7,} questions  {resident():8,.0f} MiB", flush=True)
            shown += max(questions // 10, 1)
        if done >= questions:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subjects", nargs="+", choices=("bare", "vote"), default=["bare", "vote"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", type=int, default=0, metavar="QUESTIONS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.pairs, options.batch, options.device)
        print(
            f"{options.pairs:,} pairs, {bench.questions:,} questions, batch {options.batch}, {options.device}"
        )
        if options.memory:
            watch_memory(bench, options.memory)
        else:
            compare(bench, options.subjects, options.rounds)


if __name__ == "__main__":
    main()
