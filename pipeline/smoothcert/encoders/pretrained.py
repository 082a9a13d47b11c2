"""What image-text models of transformers share; a family adds only what differs (clip.py, siglip.py, tower.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from smoothcert.encoders.base import Encoder, ReadText
from smoothcert.encoders.layout import GridPreparation
from smoothcert.encoders.preparation import Preparation
from smoothcert.errors import EncoderError

_TEXTS_PER_BATCH = 128


class PretrainedEncoder(Encoder):
    """A transformers model with ``get_image_features``, ``vision_model`` and ``get_text_features``.

    Args:
        name: what the user called it.
        digest: see ``Encoder``.
        model: the loaded model, already on its device and in its dtype.
        preparation: its image processor.
        tokenizer: its tokenizer; None only with ``feature='pooled'``.
        feature: ``projection`` is the joint image-text space, ``pooled`` the vision tower's pooled output
            before it (for families without projections both are the same numbers), ``tokens`` all of the tower's
            tokens, one after another.
    """

    model_class: ClassVar[str] = "AutoModel"
    """Of transformers: what loads the weights."""
    has_text_space: ClassVar[bool] = True
    """Whether ``projection`` is shared with texts, so that a tokenizer is needed."""

    text_padding: ClassVar[Literal["longest", "max_length"]] = "longest"
    class_tokens: ClassVar[int] = 0
    """Tokens of the vision tower that stand for no patch; they come first."""

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        model: Any,
        preparation: Preparation | GridPreparation,
        tokenizer: Any,
        feature: Literal["projection", "pooled", "tokens"],
    ) -> None:
        model.eval().requires_grad_(False)
        self._model = model
        self._preparation = preparation
        self._tokenizer = tokenizer
        self._feature = feature
        device, dtype = model.device, model.dtype
        affine = {"device": device, "dtype": torch.float32}
        self._scale = torch.tensor(preparation.scale, **affine).view(1, 3, 1, 1)
        self._shift = torch.tensor(preparation.shift, **affine).view(1, 3, 1, 1)
        self._tower = self._image_tower
        with torch.no_grad():
            probe = torch.ones((1, 3, *preparation.input_size), device=device, dtype=dtype)
            feature_dim = int(self._tower(probe).shape[-1])
        super().__init__(
            name=name,
            digest=digest,
            feature_dim=feature_dim,
            input_size=preparation.input_size,
            device=device,
            dtype=dtype,
            modules=(model,),
        )

    @classmethod
    def make_preparation(
        cls, processor: Any, config: Mapping[str, Any], size: tuple[int, int] | None, *, model: str
    ) -> Preparation | GridPreparation:
        """From images to x, by the model's image processor.

        Args:
            processor: of transformers.
            config: config.json.
            size: ``encoder.size``.
            model: the encoder's name, for messages.

        Raises:
            EncoderError: the processor cannot be split where the noise goes in, or the size is not for this family.
        """
        made = Preparation(processor, model=model)
        if size is not None and tuple(size) != made.input_size:
            raise EncoderError(
                f"encoder.size={list(size)}: the image processor of encoder.model='{model}' makes images of "
                f"{list(made.input_size)} whatever they are",
                remedy="remove encoder.size",
            )
        return made

    @classmethod
    def without_language(cls, model: Any) -> Any:
        """The model without what features do not need, so that it takes no memory on the device."""
        return model

    def compile(self) -> None:
        """Compile the image tower; every batch size that is used later is compiled once, at its first use."""
        self._tower = torch.compile(self._image_tower, dynamic=False)

    @property
    def feature(self) -> Literal["projection", "pooled", "tokens"]:
        """As given."""
        return self._feature

    @property
    def image_tower(self) -> torch.nn.Module:
        """What makes image features, for whoever tunes it: vision model and projection. Certify a fresh copy after.

        Raises:
            EncoderError: the model has another build than CLIP and SigLIP.
        """
        vision = getattr(self._model, "vision_model", None)
        if vision is None or self._feature == "tokens":
            raise EncoderError(
                f"encoder '{self.name}' cannot be tuned: it is {type(self._model).__name__} with encoder.feature="
                f"'{self._feature}'",
                remedy="tune a CLIP or SigLIP model",
            )
        projection = getattr(self._model, "visual_projection", None)
        parts = [vision]
        if projection is not None and self._feature == "projection":
            parts.append(projection)
        return torch.nn.ModuleList(parts)

    @property
    def logit_scale(self) -> float:
        """What cosines of images and texts are multiplied by to make logits."""
        return float(self._model.logit_scale.exp())

    def save(self, directory: str | PathLike[str]) -> None:
        """Write the model as ``encoder.model`` reads it: weights, configuration, image processor, tokenizer.

        Raises:
            EncoderError: it has no fixed grid of its own.
        """
        if not isinstance(self._preparation, Preparation):
            raise EncoderError(
                f"encoder '{self.name}' cannot be saved: its grid is set by encoder.size",
                remedy="name the original model where it is used",
            )
        self._model.save_pretrained(directory)
        self._preparation.save(directory)
        if self._tokenizer is not None:
            self._tokenizer.save_pretrained(directory)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the image processor makes of x: (B, 3, H, W), before any layout."""
        return self._normalised(pixels)

    def denormalised(self, normalised: torch.Tensor) -> torch.Tensor:
        """X behind what the image processor made, up to rounding."""
        return (normalised - self._shift) / self._scale

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """See ``Encoder.prepare``."""
        return self._preparation.prepare(image)

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._tower(self._normalised(pixels))

    def _patch_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._tokens(self._normalised(pixels))[:, self.class_tokens :]

    def _tokens(self, normalised: torch.Tensor) -> torch.Tensor:
        """The tower's tokens (B, T, d'), class tokens first."""
        tokens: torch.Tensor = self._seen_by_the_tower(normalised).last_hidden_state
        return tokens

    def _seen_by_the_tower(self, normalised: torch.Tensor) -> Any:
        """The vision tower's output."""
        return self._model.vision_model(**self._preparation.lay_out(normalised))

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self._shift, pixels.float(), self._scale).to(self.dtype)

    def _image_tower(self, normalised: torch.Tensor) -> torch.Tensor:
        if self._feature == "tokens":
            return self._tokens(normalised).flatten(1)
        if self._feature == "pooled":
            output = self._seen_by_the_tower(normalised)
        else:
            output = self._model.get_image_features(**self._preparation.lay_out(normalised))
        features: torch.Tensor = output.pooler_output
        return features

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        if not self.has_texts:
            raise EncoderError(
                f"encoder '{self.name}' with encoder.feature='{self._feature}' has no text space",
                remedy="use encoder.feature: projection"
                if self.has_text_space
                else "remove zero_shot, retrieval and caption targets, or certify a CLIP or SigLIP model",
            )
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_BATCH):
            tokens = self._tokenize(texts[start : start + _TEXTS_PER_BATCH])
            on_device = {key: value.to(self.device) for key, value in tokens.items()}
            parts.append(self._model.get_text_features(**on_device).pooler_output)
        return torch.cat(parts)

    @property
    def has_texts(self) -> bool:
        """See ``Encoder.has_texts``."""
        return self.has_text_space and self._feature == "projection"

    @property
    def text_limit(self) -> int | None:
        """See ``Encoder.text_limit``."""
        return int(self._model.config.text_config.max_position_embeddings) if self.has_texts else None

    def read_texts(self, texts: Sequence[str]) -> list[ReadText]:
        """See ``Encoder.read_texts``; the content is the text's tokens, cut where the tower stops."""
        if not texts:
            return []
        seen = self._token_ids(texts, truncation=True, max_length=self.text_limit)
        whole = self._token_ids(texts, truncation=False)
        return [ReadText(tuple(ids), len(ids) < len(all_of)) for ids, all_of in zip(seen, whole, strict=True)]

    def _token_ids(self, texts: Sequence[str], **settings: Any) -> list[list[int]]:
        # not verbose: transformers would say itself, once a process, that a text is too long
        tokens = self._tokenizer([self._spell(text) for text in texts], verbose=False, **settings)
        ids: list[list[int]] = tokens["input_ids"]
        return ids

    def _spell(self, text: str) -> str:
        """A text as the tower was trained to see it."""
        return text

    def _tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` (k, length), cut at the text tower's length."""
        tokens = self._tokenizer(
            [self._spell(text) for text in texts],
            padding=self.text_padding,
            truncation=True,
            max_length=self.text_limit,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        known = self._model.config.text_config.vocab_size
        if int(ids.max()) >= known:
            raise EncoderError(
                f"encoder '{self.name}': its tokenizer makes token {int(ids.max())}, but the text tower "
                f"knows only {known}",
                remedy="put the tokenizer that belongs to the weights in the model's directory",
            )
        return {"input_ids": ids, "attention_mask": mask}
