"""The state of a fit in one safetensors file, replaced as a whole: a kill leaves the old one or the new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from smoothcert.errors import JobError, TrainingError
from smoothcert.storage import Storage

_STATE = "state"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class FitState:
    """Where a fit is.

    Attributes:
        recipe: hex digest of everything that determines it; another recipe cannot go on from here.
        step: optimizer steps taken.
        best_step: step of the smallest validation loss.
        best_loss: that loss; infinite before the first validation.
        waited: validations since.
        done: nothing is left to do.
    """

    recipe: str
    step: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    waited: int = 0
    done: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is kept of a fit.

    Attributes:
        progress: see there.
        module: weights at ``progress.step``.
        best: weights at ``progress.best_step``.
        optimizer: moments of AdamW, ``<number of the parameter>.<name>``.
    """

    progress: FitState
    module: Tensors
    best: Tensors
    optimizer: Tensors


def file_name(stage: str) -> str:
    """Name of a stage's checkpoint."""
    return f"checkpoint-{stage}.safetensors"


def save_checkpoint(place: Storage, stage: str, checkpoint: Checkpoint) -> None:
    """Write it over the one before.

    Raises:
        StoreError: it cannot be written; the one before is intact.
    """
    groups = {"module": checkpoint.module, "best": checkpoint.best, "optimizer": checkpoint.optimizer}
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, held in groups.items()
        for name, tensor in held.items()
    }
    state = {_STATE: json.dumps(asdict(checkpoint.progress))}
    place.replace(file_name(stage), safetensors.torch.save(tensors, state))


def load_checkpoint(place: Storage, stage: str, recipe: str) -> Checkpoint | None:
    """The checkpoint of a stage, or None where there is none.

    Raises:
        JobError: it is of another recipe.
        TrainingError: it is damaged.
        StoreError: it cannot be read.
    """
    data = place.read_if_present(file_name(stage))
    if data is None:
        return None
    where = place.full_url(file_name(stage))
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        progress = FitState(**json.loads(header["__metadata__"][_STATE]))
    except (SafetensorError, KeyError, TypeError, ValueError) as exc:
        raise TrainingError(
            f"checkpoint '{where}' is damaged or cut short ({len(data):,} bytes): {exc}",
            remedy="restore it, or delete it to train this stage anew",
        ) from exc
    if progress.recipe != recipe:
        raise JobError(
            f"train.out='{place.url}' holds a training with other settings, data or encoder (its {stage} is at "
            f"step {progress.step:,})",
            remedy="choose another train.out, or delete that directory",
        )
    groups: dict[str, Tensors] = {"module": {}, "best": {}, "optimizer": {}}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        groups[group][name] = tensor
    return Checkpoint(progress, **groups)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The state of AdamW as named tensors."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, held in state.items() for name, value in held.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Undo ``optimizer_tensors``."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
