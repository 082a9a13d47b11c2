"""Pretrained diffusion models as purifiers: one step from noisy to clean (Carlini et al. 2023, arXiv 2206.10550).

A folder in the layout of ``diffusers`` (extra ``diffusion``): ``unet/`` and ``scheduler/``, or both in one folder.
Models of pixels that keep variance (DDPM, Ho et al. 2020) and take no text: such a model was trained on
x_t = sqrt(a_t) z + sqrt(1 - a_t) e, with z = 2 x - 1 in [-1,1] and e of variance 1. The image x + sigma n becomes
2 (x + sigma n) - 1 = z + 2 sigma n, which sqrt(a_t) scales to an x_t where (1 - a_t) / a_t = (2 sigma)^2.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from smoothcert.errors import EncoderError

_SCHEDULER = "scheduler_config.json"
_PREDICTIONS = ("epsilon", "sample", "v_prediction")


class DiffusionPurifier(torch.nn.Module):
    """(B, 3, H, W) in units of [0,1] pixels, noise of one level included, to the model's estimate of the clean images.

    The timestep is the one whose noise is nearest in proportion; the estimate is clipped to [0,1], where its gradient
    is zero beyond the ends.

    Args:
        unet: of ``diffusers``, called as ``unet(x_t, t).sample``.
        alphas_cumprod: (T,), what the scheduler calls so: a_t of the module's docstring.
        prediction: what the model says: ``epsilon``, ``sample`` or ``v_prediction``.
        sigma: noise level, units of [0,1] pixels.
        input_size: height and width that the model was made for; None for any.

    Attributes:
        timestep: t.
        input_size: as given.

    Raises:
        ValueError: the model knows no such noise, or says something else.
    """

    def __init__(
        self,
        unet: torch.nn.Module,
        alphas_cumprod: torch.Tensor,
        prediction: str,
        sigma: float,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if prediction not in _PREDICTIONS:
            raise ValueError(
                f"its scheduler's prediction_type is '{prediction}'; use {', '.join(_PREDICTIONS)}"
            )
        alphas = alphas_cumprod.double().cpu()
        levels = ((1 - alphas) / alphas).sqrt() / 2
        known = levels[(levels > 0) & levels.isfinite()]
        low, high = float(known.min()), float(known.max())
        if not low <= sigma <= high:
            raise ValueError(
                f"sigma={sigma:g} is not one of its noise levels: they go from {low:.3g} to {high:.3g} "
                "in units of [0,1] pixels"
            )
        self.unet = unet
        self.prediction = prediction
        self.input_size = input_size
        self.timestep = int((levels.log() - torch.tensor(sigma, dtype=torch.float64).log()).abs().argmin())
        self._signal = float(alphas[self.timestep].sqrt())
        self._noise = float((1 - alphas[self.timestep]).sqrt())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The estimate."""
        noisy = self._signal * (2 * pixels - 1)
        said = self.unet(noisy, self.timestep).sample[
            :, :3
        ]  # a model that learned variances says them behind
        if self.prediction == "epsilon":
            clean = (noisy - self._noise * said) / self._signal
        elif self.prediction == "v_prediction":
            clean = self._signal * noisy - self._noise * said
        else:
            clean = said
        pixels_again: torch.Tensor = ((clean + 1) / 2).clamp(0, 1)
        return pixels_again


def is_diffusion(where: str) -> bool:
    """Whether a place is a folder in the layout of ``diffusers``."""
    folder = Path(where).expanduser()
    return any((folder / part / _SCHEDULER).is_file() for part in ("", "scheduler"))


def read_diffusion(where: str, sigma: float) -> tuple[DiffusionPurifier, str]:
    """The purifier of a folder at a noise level, and the hex digest of its files.

    Args:
        where: the folder.
        sigma: noise level, units of [0,1] pixels.

    Raises:
        EncoderError: ``diffusers`` is not installed.
        OSError: a file cannot be read.
        ValueError: the model is of another kind, is damaged, or knows no such noise.
    """
    try:
        import diffusers
    except ImportError as exc:
        raise EncoderError(
            f"purifier='{where}' is a model of diffusers, which is not installed",
            remedy="pip install 'smoothcert[diffusion]', on every worker",
        ) from exc
    root = Path(where).expanduser()
    model, schedule = (root / part if (root / part).is_dir() else root for part in ("unet", "scheduler"))
    _refuse_other_kinds(_json(model / "config.json"))
    name = str(_json(schedule / _SCHEDULER).get("_class_name", ""))
    scheduler_class = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if scheduler_class is None:
        raise ValueError(f"its scheduler '{name}' is not in diffusers {diffusers.__version__}")
    scheduler = scheduler_class.from_pretrained(schedule, local_files_only=True)
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(alphas, torch.Tensor):
        raise ValueError(f"its scheduler '{name}' has no alphas_cumprod: the model keeps no variance")
    model_class: Any = diffusers.UNet2DModel
    unet, info = model_class.from_pretrained(
        model,
        use_safetensors=True,
        local_files_only=True,
        low_cpu_mem_usage=False,
        torch_dtype=torch.float32,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        # diffusers fills these with random numbers and goes on
        raise ValueError(
            f"the weights lack {len(info['missing_keys'])} tensors, e.g. {min(info['missing_keys'])}"
        )
    purifier = DiffusionPurifier(
        unet.eval().requires_grad_(False), alphas, scheduler.config.prediction_type, sigma, _size(unet)
    )
    files = [model / "config.json", schedule / _SCHEDULER, *sorted(model.glob("*.safetensors"))]
    return purifier, _digest(files)


def _refuse_other_kinds(config: dict[str, Any]) -> None:
    kind = config.get("_class_name")
    if kind != "UNet2DModel":
        raise ValueError(f"its model is a {kind}; use a UNet2DModel, which takes pixels and no text")
    if config.get("class_embed_type") or config.get("num_class_embeds"):
        raise ValueError("its model wants to be told a class; use one that does not")
    channels = config.get("in_channels"), config.get("out_channels")
    if channels not in ((3, 3), (3, 6)):
        raise ValueError(
            f"its model takes {channels[0]} channels and gives {channels[1]}; use one of RGB pixels"
        )


def _size(unet: Any) -> tuple[int, int] | None:
    size = unet.config.sample_size
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _json(file: Path) -> dict[str, Any]:
    data = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{file.name} is not a mapping")
    return data


def _digest(files: list[Path]) -> str:
    """Over names and contents: the place of the folder does not enter."""
    lines = []
    for path in files:
        with path.open("rb") as stream:
            lines.append(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
