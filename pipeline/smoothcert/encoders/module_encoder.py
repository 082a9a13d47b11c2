"""Any torch module as an encoder: the module, and how images become its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from smoothcert.encoders.base import Encoder
from smoothcert.encoders.factories import digest_of
from smoothcert.encoders.preparation import crop_to
from smoothcert.errors import EncoderError

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class ModuleEncoder(Encoder):
    """u(x) = normalised module((x - mean) / std).

    Images become x by Pillow's resize: ``crop`` makes the shorter edge fit and cuts the middle out, as torchvision's
    ``Resize`` and ``CenterCrop`` do; ``stretch`` ignores the aspect ratio. The mean/std normalisation is part of the
    encoder, behind the noise; nothing else may stand between x and the module.

    Args:
        module: (B, 3, H, W) in ``dtype`` to features (B, d); put on ``device`` in ``dtype``.
        input_size: (H, W) of x.
        mean: of the normalisation, one number a channel, in units of [0,1].
        std: likewise.
        resize: ``crop`` or ``stretch``.
        resample: ``bicubic`` or ``bilinear``.
        encode_text: texts to features (k, d) in the same space; None for an encoder without a text space.
        text_modules: modules that ``encode_text`` uses and ``module`` does not hold; put where ``module`` is.
        name: for people.
        device: where it computes.
        dtype: arithmetic inside.

    Raises:
        EncoderError: a setting is wrong, or the module does not take such input.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        input_size: tuple[int, int],
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        resize: Literal["crop", "stretch"] = "crop",
        resample: Literal["bicubic", "bilinear"] = "bicubic",
        encode_text: Callable[[Sequence[str]], torch.Tensor] | None = None,
        text_modules: Sequence[torch.nn.Module] = (),
        name: str = "module",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._refuse_odd(name, input_size, mean, std, resize, resample)
        for part in (module, *text_modules):
            part.to(device=device, dtype=dtype).eval()
        self._module: Callable[[torch.Tensor], torch.Tensor] = module
        self._encode_text = encode_text
        self._resize, self._resample = resize, _RESAMPLING[resample]
        self._mean = torch.tensor(list(mean), device=device, dtype=torch.float32).view(1, 3, 1, 1)
        self._std = torch.tensor(list(std), device=device, dtype=torch.float32).view(1, 3, 1, 1)
        height, width = input_size
        settings = (
            height,
            width,
            [float(m) for m in mean],
            [float(s) for s in std],
            resize,
            resample,
            str(dtype),
        )
        children = [child for part in (module, *text_modules) for child in part.modules()]
        code = () if encode_text is None else (encode_text,)
        super().__init__(
            name=name,
            digest=digest_of(repr(settings), code, children),
            feature_dim=self._measure(name, input_size, device, dtype),
            input_size=(height, width),
            device=device,
            dtype=dtype,
            modules=(module, *text_modules),
        )

    @property
    def has_texts(self) -> bool:
        """See ``Encoder.has_texts``."""
        return self._encode_text is not None

    def compile(self) -> None:
        """Compile the module; every batch size that is used later is compiled once, at its first use."""
        self._module = torch.compile(self._module, dynamic=False)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """See ``Encoder.prepare``."""
        height, width = self.input_size
        if self._resize == "stretch":
            image = image if image.mode == "RGB" else image.convert("RGB")
            image = image.resize((width, height), self._resample)
        else:
            image = crop_to(image, self.input_size, self._resample)
        return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._module(((pixels.float() - self._mean) / self._std).to(self.dtype))
        return features

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        if self._encode_text is None:
            raise EncoderError(
                f"encoder '{self.name}' has no text space",
                remedy="give ModuleEncoder encode_text, or remove zero_shot, retrieval and caption targets",
            )
        return self._encode_text(texts)

    def _measure(
        self, name: str, input_size: tuple[int, int], device: torch.device | str, dtype: torch.dtype
    ) -> int:
        """d, from one pass; without gradients and in evaluation mode."""
        with torch.no_grad():
            out = self._module(torch.zeros((2, 3, *input_size), device=device, dtype=dtype))
        if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != 2:
            made = f"{tuple(out.shape)}" if isinstance(out, torch.Tensor) else type(out).__name__
            raise EncoderError(
                f"encoder '{name}': its module makes {made} of a batch of 2 images",
                remedy="wrap it in a module that returns one tensor of features, (B, d)",
            )
        return int(out.shape[1])

    @staticmethod
    def _refuse_odd(
        name: str,
        input_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        resize: str,
        resample: str,
    ) -> None:
        wrong = {
            f"input_size={input_size}": len(input_size) != 2 or not all(edge > 0 for edge in input_size),
            f"mean={mean}": len(mean) != 3 or not np.isfinite(mean).all(),
            f"std={std}": len(std) != 3 or not all(np.isfinite(s) and s > 0 for s in std),
            f"resize={resize!r}": resize not in ("crop", "stretch"),
            f"resample={resample!r}": resample not in _RESAMPLING,
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise EncoderError(
                    f"encoder '{name}': ModuleEncoder was given {what}",
                    remedy="input_size is (height, width); mean and std are three numbers, std above 0; resize is crop "
                    "or stretch, resample bicubic or bilinear",
                )
