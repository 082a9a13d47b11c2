"""The loop: AdamW with warm-up and cosine, validation, early stopping, and a resume that changes nothing.

Why no trainer of a library: those of transformers, accelerate and Lightning keep optimizer and random states as
pickles, and their resume replays a data loader. Here each step is a function of seed, stage and step, so that a
checkpoint is one safetensors file, and a resumed fit is the same as one that was never stopped (on one device, with one
thread count). Several processes share the work of a step and give the same weights, up to the order of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from smoothcert.errors import StoreError, TrainingError
from smoothcert.job import TrainSection
from smoothcert.storage import Storage
from smoothcert.training.batches import Batch, training_batch, validation_batch
from smoothcert.training.checkpoint import (
    Checkpoint,
    FitState,
    Tensors,
    file_name,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from smoothcert.training.examples import Examples
from smoothcert.training.stages import Stage
from smoothcert.training.team import ALONE, Team
from smoothcert.training.watching import Watcher

_WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""
_LARGEST_GRADIENT = 1.0
"""Norm to which gradients are cut."""
_VALIDATED = 512
"""Held-out images that the validation loss looks at, at most."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a fit sees.

    Attributes:
        training: images to fit.
        held_out: images to validate on.
        sigma: smallest and largest noise level.
        recipe: hex digest of everything that determines the fit.
    """

    training: Examples
    held_out: Examples
    sigma: tuple[float, float]
    recipe: str


class Fit:
    """One stage being fitted.

    Args:
        stage: what is fitted.
        data: see there.
        section: the settings.
        place: where its checkpoint is kept.
        figures: further held-out figures of a validation.
        team: who else fits the same stage; all members run this loop, and end with the same weights.
    """

    def __init__(
        self,
        stage: Stage,
        data: Data,
        section: TrainSection,
        place: Storage,
        figures: Callable[[], Mapping[str, float]],
        team: Team = ALONE,
    ) -> None:
        self._stage, self._data, self._section, self._place = stage, data, section, place
        self._figures, self._team = figures, team
        self._parameters = [p for p in stage.module.parameters() if p.requires_grad_(True).requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=section.learning_rate, weight_decay=section.weight_decay, fused=True
        )
        self._device = data.training.pixels.device.type
        self._best = _weights(stage.module)
        self.progress = FitState(data.recipe)
        self._kept_step: int | None = None
        kept = load_checkpoint(place, stage.name, data.recipe)
        if kept is not None:
            self.progress, self._best, self._kept_step = kept.progress, kept.best, kept.progress.step
            stage.module.load_state_dict(kept.module)
            restore_optimizer(self._optimizer, kept.optimizer)

    def run(self, watcher: Watcher) -> bool:
        """Fit to the end, or until the first member's watcher stops it; True at the end, with the best weights.

        Raises:
            TrainingError: a loss or gradient is not finite; the last checkpoint is kept.
            StoreError: a checkpoint cannot be written; the one before is kept.
            PeerFailedError: the first member could not write it.
        """
        section, name = self._section, self._stage.name
        watcher.begin(name, self.progress.step, section.steps)
        while not self.progress.done:
            losses = self._step(self.progress.step)
            step = self.progress.step + 1
            self.progress = replace(self.progress, step=step)
            watcher.step(name, step, losses)
            stopped = self._team.agree(watcher.stopped)
            if step % section.validate_every == 0 or step >= section.steps:
                self._validate(watcher)
                self._save()
            elif stopped:
                self._save()
            if stopped and not self.progress.done:
                return False
        self._stage.module.load_state_dict(self._best)
        self._stage.module.requires_grad_(False)
        watcher.end(name, self.progress.step, self.progress.best_step)
        return True

    def _step(self, step: int) -> dict[str, float]:
        for group in self._optimizer.param_groups:
            group["lr"] = self._section.learning_rate * rate(step, self._section.steps)
        self._optimizer.zero_grad(set_to_none=True)
        accumulate = self._section.accumulate
        total: dict[str, torch.Tensor] = {}
        for part in range(accumulate):
            batch = training_batch(
                self._data.training,
                self._section,
                self._data.sigma,
                self._stage.name,
                step * accumulate + part,
                self._team,
            )
            parts = self._losses(batch)
            loss = torch.stack(list(parts.values())).sum() / accumulate
            torch.autograd.backward(loss)
            for name, value in parts.items():
                total[name] = total.get(name, 0) + value.detach() / accumulate
        self._team.add_up([p.grad for p in self._parameters if p.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, _LARGEST_GRADIENT)
        found = {name: float(value) for name, value in total.items()}
        self._refuse_not_finite(found | {"gradient": float(norm)}, step)
        self._optimizer.step()
        return found | {"loss": sum(found.values())}

    def _losses(self, batch: Batch) -> Mapping[str, torch.Tensor]:
        mixed = self._section.precision == "bfloat16"
        with torch.autocast(self._device, dtype=torch.bfloat16, enabled=mixed):
            return self._stage.losses(batch)

    def _validate(self, watcher: Watcher) -> None:
        held_out, section = self._data.held_out, self._section
        total: dict[str, float] = {}
        count = min(len(held_out), _VALIDATED)
        for start in range(0, count, section.batch):
            rows = slice(start, min(start + section.batch, count))
            # what is too little to share, each member does as a whole
            team = self._team if rows.stop - start >= self._team.size else ALONE
            batch = validation_batch(held_out, rows, self._data.sigma, self._stage.name, section.seed, team)
            with torch.no_grad():
                parts = self._losses(batch)
            for name, value in parts.items():
                total[name] = total.get(name, 0.0) + float(value) * batch.share.whole / count
        loss = sum(total.values())
        self._refuse_not_finite(total, self.progress.step)
        better = self._team.agree(loss < self.progress.best_loss)
        if better:
            self._best = _weights(self._stage.module)
            self.progress = replace(self.progress, best_step=self.progress.step, best_loss=loss, waited=0)
        else:
            self.progress = replace(self.progress, waited=self.progress.waited + 1)
        over = self.progress.step >= section.steps or self.progress.waited >= section.patience
        self.progress = replace(self.progress, done=over)
        figures = {f"held_out_{name}": value for name, value in (total | {"loss": loss}).items()}
        watcher.validated(self._stage.name, self.progress.step, figures | dict(self._figures()))

    def _save(self) -> None:
        def write() -> None:
            moments = optimizer_tensors(self._optimizer)
            kept = Checkpoint(self.progress, _weights(self._stage.module), self._best, moments)
            try:
                save_checkpoint(self._place, self._stage.name, kept)
            except StoreError as exc:
                raise type(exc)(f"{exc.message}; {self._tell_checkpoint()}", remedy=exc.remedy) from exc

        self._team.do_once(write)
        self._kept_step = self.progress.step

    def _tell_checkpoint(self) -> str:
        """What there is to go on from."""
        if self._kept_step is None:
            return "there is no checkpoint yet"
        return f"'{self._place.full_url(file_name(self._stage.name))}' holds step {self._kept_step:,}"

    def _refuse_not_finite(self, values: Mapping[str, float], step: int) -> None:
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if not broken:
            return
        verb = "is" if len(broken) == 1 else "are"
        raise TrainingError(
            f"training of the {self._stage.name} stopped: {', '.join(broken)} {verb} {values[broken[0]]} at step "
            f"{step:,}; {self._tell_checkpoint()}",
            remedy=f"lower train.learning_rate={self._section.learning_rate:g}"
            + (", and train into another train.out" if self._kept_step is not None else ""),
        )


def rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a linear warm-up, then half a cosine."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _weights(module: torch.nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
