"""Batched PGD against pair by pair, and against foolbox's PGD: python tests/benchmarks/attacks.py.

Bundled encoder and held-out digits, the same pairs, steps, norm and budget for all, one run. Prints seconds,
ratios and the share of pairs whose prediction fell; the fastest of several turns counts. Nothing is asserted. On a
CPU seconds are processor seconds of this process, which other work on the machine inflates least. Foolbox runs with
its own default step size and with ours.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from smoothcert.attacks import BareSubject, ClassificationMargin, Norm, SmoothedSubject, make_attack
from smoothcert.attacks.subjects import Subject
from smoothcert.datasets import load_digits_pairs
from smoothcert.datasets.digits import DIGIT_NAMES
from smoothcert.encoders import load_encoder
from smoothcert.encoders.base import Encoder
from smoothcert.job import EncoderSection


class Logits(torch.nn.Module):
    """What foolbox attacks: the same cosines and scale as our objective."""

    def __init__(self, encoder: Encoder, classes: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = classes
        self.scale = scale

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder.encode_images(pixels) @ self.classes.T * self.scale


def timed(work: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    images = work()
    if images.is_cuda:
        torch.cuda.synchronize()
    return clock() - start, images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--norm", choices=["l2", "linf"], default="l2")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument(
        "--sigma", type=float, default=0.0, help="above 0: the smoothed subject, without foolbox"
    )
    parser.add_argument("--eot-draws", type=int, default=4)
    parser.add_argument(
        "--logit-scale",
        type=float,
        default=10.0,
        help="at CLIP's 100 foolbox's cross-entropy loses its gradient",
    )
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    encoder = load_encoder(EncoderSection(model="bundled:digits-clip", device=options.device))
    digits = load_digits_pairs("test")[: options.pairs]
    pixels = torch.stack([torch.from_numpy(encoder.prepare(image)) for image, _, _ in digits])
    pixels = pixels.to(encoder.device).float() / 255
    classes = encoder.encode_texts([f"a photo of the digit {name}" for name in DIGIT_NAMES]).to(
        encoder.device
    )
    labels = torch.tensor([DIGIT_NAMES.index(label) for _, _, label in digits], device=encoder.device)
    objective = ClassificationMargin(classes, labels, logit_scale=options.logit_scale)
    names = [str(row) for row in range(len(digits))]
    norm: Norm = options.norm
    subject: Subject = BareSubject(encoder)
    if options.sigma > 0:
        subject = SmoothedSubject(encoder, options.sigma, eot_draws=options.eot_draws)

    def margins(images: torch.Tensor) -> np.ndarray:
        return objective.margin(encoder.encode_images(images)).cpu().numpy()

    def batched(early_stop: bool) -> torch.Tensor:
        attack = make_attack("pgd", steps=options.steps, early_stop=early_stop)
        return attack.run(subject, objective, pixels, names, norm=norm, budget=options.budget).images

    def one_by_one() -> torch.Tensor:
        attack = make_attack("pgd", steps=options.steps, early_stop=False)
        parts = []
        for row in range(len(digits)):
            goal = objective.select(torch.tensor([row], device=encoder.device))
            outcome = attack.run(
                subject, goal, pixels[row : row + 1], names[row : row + 1], norm=norm, budget=options.budget
            )
            parts.append(outcome.images)
        return torch.cat(parts)

    def by_foolbox(settings: dict[str, float]) -> torch.Tensor:
        import foolbox

        model = foolbox.PyTorchModel(
            Logits(encoder, classes, options.logit_scale).eval(), bounds=(0, 1), device=encoder.device
        )
        attack = foolbox.attacks.L2PGD if norm == "l2" else foolbox.attacks.LinfPGD
        torch.manual_seed(0)
        _, images, _ = attack(steps=options.steps, **settings)(model, pixels, labels, epsilons=options.budget)
        return images

    encoder.encode_images(pixels[:8])  # the first call pays for lazy initialisation
    runs: dict[str, Callable[[], torch.Tensor]] = {
        "batched, every step": lambda: batched(False),
        "batched, solved pairs leave": lambda: batched(True),
        "pair by pair, every step": one_by_one,
    }
    if options.sigma == 0:
        runs["foolbox, its own step size"] = lambda: by_foolbox({})
        runs["foolbox, our step size"] = lambda: by_foolbox({"rel_stepsize": min(10 / options.steps, 1)})
    device = (
        torch.cuda.get_device_name()
        if encoder.device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(f"{len(digits)} pairs, {options.steps} steps, {norm} {options.budget}, {subject.name}, {device}")
    seconds: dict[str, float] = {}
    fallen: dict[str, float] = {"clean": float((margins(pixels) < 0).mean())}
    means: dict[str, float] = {"clean": float(margins(pixels).mean())}
    # in turns, so that a busy moment meets all of them; the fastest of each counts, the slow one is timed once
    turns = [name for _ in range(options.repeats - 1) for name in runs if name != "pair by pair, every step"]
    for name in (*turns, *runs):
        took, images = timed(runs[name])
        seconds[name] = min(took, seconds.get(name, took))
        fallen[name], means[name] = float((margins(images) < 0).mean()), float(margins(images).mean())
    for name, share in fallen.items():
        took = f"{seconds[name]:8.2f} s" if name in seconds else " " * 10
        print(f"{name:28} {took}  fallen {share:6.1%}  mean margin {means[name]:+.4f}")
    base = seconds["batched, every step"]
    for name, took in seconds.items():
        print(f"{name:28} takes {took / base:6.2f} times as long as batched, every step")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
