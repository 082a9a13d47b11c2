"""The smoothed encoder as a torch module: for code that has neither jobs nor Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from smoothcert.datasets import Pair
from smoothcert.defences import DefendedEncoder, load_defended, save_part
from smoothcert.defences.noise_level import AtSigma
from smoothcert.encoders import Encoder, PretrainedEncoder
from smoothcert.encoders.base import unit_rows
from smoothcert.engine.certificate_row import CertificateRow
from smoothcert.engine.decoding import DecodedPair
from smoothcert.engine.engine import Engine
from smoothcert.engine.rows import RowMaker
from smoothcert.engine.smoothed_tower import Smoothing, content_name, patch_model
from smoothcert.engine.texts import Texts
from smoothcert.errors import EncoderError, JobError
from smoothcert.job import CertifySection, EncoderSection

_SETTINGS = "smoothed.json"
_ENCODER = "encoder"


class SmoothedEncoder(torch.nn.Module):
    """m(x) = E u(x + eps), estimated from draws: features, certificates, and a defended model.

    Args:
        encoder: u; what ``smoothcert.defences.defend`` makes includes purifier and mapper.
        certify: fields of a job's section ``certify``, e.g. ``sigma=0.5, max_draws=1000, radii=[0.25]``.

    Attributes:
        encoder: as given.
        settings: the section.
        draws: behind one feature of ``forward``; ``max_draws`` to begin with.

    Raises:
        JobError: a setting is wrong.
    """

    def __init__(self, encoder: Encoder, **certify: Any) -> None:
        super().__init__()
        try:
            self.settings = CertifySection(**certify)
        except ValidationError as exc:
            first = exc.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise JobError(
                f"SmoothedEncoder: {field}: {first['msg']} (given {first['input']!r})",
                remedy="it takes the fields of a job's section 'certify'",
            ) from exc
        self.encoder = encoder
        self.draws = self.settings.max_draws

    def prepare(self, images: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """Canonical inputs of images: uint8 (B, 3, H, W), for ``forward`` and ``certify``."""
        return np.stack([self.encoder.prepare(image) for image in images])

    def forward(self, pixels: torch.Tensor | NDArray[np.uint8]) -> torch.Tensor:
        """The smoothed unit feature of each image: an estimate; ``certify`` says what is certain.

        The noise is a function of the seed and the image, so that the answer does not change from call to call. It is
        differentiable where gradients are on, with memory for all draws; call it under ``torch.no_grad()`` otherwise.

        Args:
            pixels: (B, 3, H, W), as ``prepare`` makes them, or floats in units of [0,1].

        Returns:
            float32 (B, d), unit norm; NaN where the mean has no direction.
        """
        images = self._floats(pixels)
        return unit_rows(torch.stack([self._mean_of(image) for image in images]))

    def certify(
        self, pixels: NDArray[np.uint8] | torch.Tensor, ids: Sequence[str] | None = None
    ) -> list[CertificateRow]:
        """Bounds of each image: the row that a job without texts has for the same draws.

        Args:
            pixels: uint8 (B, 3, H, W), as ``prepare`` makes them; floats only if they are such numbers over 255,
                since the sum with the noise is exact for these alone (docs/theory.md section 4.8).
            ids: keys of the noise, as ``pair_id`` in a job; by default a hash of each image.

        Raises:
            ValueError: pixels are not of 8 bits, or the ids do not fit.
            EncoderError: the encoder fails on every image.
        """
        grid = self._eight_bits(pixels)
        names = [content_name(image) for image in grid] if ids is None else list(ids)
        if len(names) != len(grid) or len(set(names)) != len(names):
            raise ValueError(f"{len(names)} ids, {len(set(names))} of them different, for {len(grid)} images")
        engine = Engine(self.encoder, self.settings, Texts(), slots=min(8, max(len(grid), 1)))
        try:
            found = {outcome.pair.pair_id: outcome for outcome in engine.run(_Ready(names, grid))}
        finally:
            engine.close()
        maker = RowMaker(self.encoder, self.settings, Texts(), engine.layout)
        return maker.rows("", [found[name] for name in names])

    def patch(self, model: Any) -> Any:
        """Put the defence into a model of transformers: its vision tower then answers with means over draws.

        CLIP and SigLIP models answer with the smoothed features of this encoder. Models that read tokens (LLaVA and its
        like) keep their own tower, behind this encoder's noise and purifier, and read means of its hidden states.

        Args:
            model: changed in place. Its pixels are those that its own image processor normalised, which must be as this
                encoder's does.

        Returns:
            The model.

        Raises:
            EncoderError: it has no vision tower that is known.
        """
        return patch_model(model, self._smoothing)

    def save_pretrained(self, directory: str | PathLike[str]) -> None:
        """Write encoder, purifier, mapper and settings into a directory.

        Raises:
            EncoderError: the encoder is no model of transformers, or a part is none that ``smoothcert train`` makes.
        """
        place = Path(fspath(directory))
        base = self.encoder.base if isinstance(self.encoder, DefendedEncoder) else self.encoder
        if not isinstance(base, PretrainedEncoder):
            raise EncoderError(
                f"encoder '{base.name}' is {type(base).__name__}, which cannot be saved",
                remedy="save the weights yourself, and make the encoder anew where it is used",
            )
        parts = self._conditioned_parts()
        base.save(place / _ENCODER)
        for name, part in parts.items():
            save_part(place / f"{name}.safetensors", part.module, part.trained)
        settings = {
            "certify": self.settings.model_dump(mode="json"),
            "draws": self.draws,
            "feature": base.feature,
            "dtype": str(base.dtype).removeprefix("torch."),
            "parts": sorted(parts),
        }
        (place / _SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, directory: str | PathLike[str], *, device: str = "auto") -> SmoothedEncoder:
        """Read what ``save_pretrained`` wrote.

        Args:
            directory: a local directory.
            device: as ``encoder.device`` of a job.

        Raises:
            EncoderError: something is missing or damaged.
        """
        place = Path(fspath(directory))
        try:
            kept = json.loads((place / _SETTINGS).read_text(encoding="utf-8"))
            feature: Literal["projection", "pooled", "tokens"] = kept["feature"]
            parts = {name: str(place / f"{name}.safetensors") for name in kept["parts"]}
            section = EncoderSection(
                model=str(place / _ENCODER),
                feature=feature,
                dtype=kept["dtype"],
                device=device,
                purifier=parts.get("purifier"),
                mapper=parts.get("mapper"),
            )
            certify, draws = kept["certify"], int(kept["draws"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise EncoderError(
                f"'{place}' holds no smoothed encoder: {_SETTINGS}: {type(exc).__name__}: {exc}",
                remedy="give a directory that SmoothedEncoder.save_pretrained wrote",
            ) from exc
        made = cls(load_defended(section, float(certify["sigma"])), **certify)
        made.draws = draws
        return made

    def _conditioned_parts(self) -> dict[str, AtSigma]:
        if not isinstance(self.encoder, DefendedEncoder):
            return {}
        held = {
            "purifier": self.encoder.purifier,
            "mapper": self.encoder.mapper or self.encoder.token_mapper,
        }
        parts: dict[str, AtSigma] = {}
        for name, part in held.items():
            if isinstance(part, AtSigma):
                parts[name] = part
            elif part is not None:
                raise EncoderError(
                    f"defence '{self.encoder.name}': its {name} is {type(part).__name__}, which cannot be saved",
                    remedy="keep its own file or code, and make the defence anew where it is used",
                )
        return parts

    @property
    def _smoothing(self) -> Smoothing:
        settings = self.settings
        return Smoothing(self.encoder, self.forward, settings.sigma, self.draws, settings.seed)

    def _mean_of(self, image: torch.Tensor) -> torch.Tensor:
        """Mean (d,) of the unit features of the draws of one image."""
        total: torch.Tensor | None = None
        for noise in self._smoothing.noise_of(image):
            part = self.encoder.encode_images(image + noise).sum(dim=0)
            total = part if total is None else total + part
        assert total is not None
        return total / self.draws

    def _floats(self, pixels: torch.Tensor | NDArray[np.uint8]) -> torch.Tensor:
        images = torch.as_tensor(pixels).to(self.encoder.device)
        return images if images.is_floating_point() else images.float() / 255

    def _eight_bits(self, pixels: torch.Tensor | NDArray[np.uint8]) -> NDArray[np.uint8]:
        given = torch.as_tensor(pixels).detach().cpu()
        if given.ndim != 4 or tuple(given.shape[1:]) != (3, *self.encoder.input_size):
            raise ValueError(
                f"pixels have shape {tuple(given.shape)}; expected (B, 3, "
                f"{self.encoder.input_size[0]}, {self.encoder.input_size[1]})"
            )
        if given.dtype == torch.uint8:
            return given.numpy()
        grid = (given.double() * 255).round()
        if not bool(((grid >= 0) & (grid <= 255) & ((given.double() * 255 - grid).abs() < 1e-3)).all()):
            raise ValueError("pixels are not of 8 bits: give uint8, as prepare() makes them")
        return grid.to(torch.uint8).numpy()


class _Ready:
    """Images that need no decoding, as the engine takes them."""

    def __init__(self, names: Sequence[str], grid: NDArray[np.uint8]) -> None:
        self._waiting = list(zip(names, grid, strict=True))[::-1]

    @property
    def exhausted(self) -> bool:
        """Whether all were taken."""
        return not self._waiting

    def take(self, *, block: bool) -> DecodedPair | None:
        """See ``DecodeAhead.take``."""
        if not self._waiting:
            return None
        name, pixels = self._waiting.pop()
        return DecodedPair("", Pair(name, "", None, (), None, None), np.ascontiguousarray(pixels), None)
