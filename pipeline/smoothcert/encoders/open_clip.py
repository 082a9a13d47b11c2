"""CLIP in open_clip's layout (a safetensors file and ``open_clip_config.json``), as FARE and TeCoA publish it.

open_clip itself is not needed, nor torchvision, on which it rests: a plain CLIP is the same network under other names,
and is written once in transformers' layout, to be loaded like any other model. What is no plain CLIP (timm or
Hugging Face towers, other pooling, ...) is refused. The text tower of open_clip reads its feature at the largest token
id, as transformers does where ``eos_token_id`` is 2. Images are resized by transformers, which may round the longer
edge otherwise than torchvision does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from smoothcert.encoders.cache import cache_folder
from smoothcert.errors import EncoderError

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "model.safetensors")

_MODEL_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
_VISION = {
    "image_size": 224,
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
}
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
_MEANINGLESS = {"hf_tokenizer_name", "tokenizer_kwargs"}
"""Keys that say nothing about the network."""
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLE = {"bilinear": 2, "bicubic": 3}

_LAYER = (
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("attn.out_proj.", "self_attn.out_proj."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
)
_PLAIN = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TURNED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
"""Matrices that are multiplied from the other side."""
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")


def in_transformers_layout(directory: Path, *, model: str) -> Path:
    """The directory itself, or where its open_clip checkpoint is kept in transformers' layout; made on first use.

    Args:
        directory: of a model.
        model: what the user called it.

    Raises:
        EncoderError: the checkpoint is no plain CLIP, or is incomplete or damaged.
    """
    if (directory / "config.json").is_file() or not (directory / CONFIG).is_file():
        return directory
    settings = _settings(directory, model)
    weights = next((directory / name for name in WEIGHTS if (directory / name).is_file()), None)
    if weights is None:
        raise EncoderError(
            f"encoder.model='{model}' has {CONFIG}, but no weights in safetensors ({' or '.join(WEIGHTS)})",
            remedy="save the state dict with safetensors.torch.save_file under that name; pickled files are not read",
        )
    place = cache_folder() / "open_clip" / _digest(directory, weights)
    if not place.is_dir():
        _convert(directory, settings, weights, place, model)
    return place


def _convert(directory: Path, settings: dict[str, Any], weights: Path, place: Path, model: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    config, processor = _config(settings["model_cfg"], model), _processor(settings, model)
    try:
        tensors = rename(load_file(weights), model=model)
    except SafetensorError as exc:
        raise EncoderError(
            f"encoder.model='{model}': {weights.name} cannot be read: {exc}", remedy="fetch it again"
        ) from exc
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as made:
        folder = Path(made) / "model"
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2), encoding="utf-8")
        for file in directory.iterdir():
            if file.name.startswith(("tokenizer", "vocab", "merges", "special_tokens", "added_tokens")):
                shutil.copy(file, folder / file.name)
        try:
            os.rename(folder, place)
        except OSError:
            if not place.is_dir():  # else another process was first
                raise


def rename(tensors: dict[str, torch.Tensor], *, model: str) -> dict[str, torch.Tensor]:
    """An open_clip state dict under the names of transformers' ``CLIPModel``.

    Raises:
        EncoderError: a tensor belongs to no plain CLIP.
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if name in _PLAIN:
            found[_PLAIN[name]] = tensor
        elif name in _TURNED:
            found[_TURNED[name]] = tensor.T.contiguous()
        elif block is not None and (inner := _in_block(block[3], tensor)):
            tower = "vision_model" if block[1] else "text_model"
            found |= {f"{tower}.encoder.layers.{block[2]}.{key}": part for key, part in inner.items()}
        elif name != "attn_mask":
            raise EncoderError(
                f"encoder.model='{model}': the weights hold '{name}', which a plain CLIP has not",
                remedy=_BY_CODE,
            )
    return found


def _in_block(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    for prefix in ("attn.in_proj_weight", "attn.in_proj_bias"):
        if name == prefix:
            kind = prefix.rpartition("_")[2]
            parts = zip("qkv", tensor.chunk(3), strict=True)
            return {f"self_attn.{letter}_proj.{kind}": part.contiguous() for letter, part in parts}
    for theirs, ours in _LAYER:
        if name.startswith(theirs):
            return {ours + name.removeprefix(theirs): tensor}
    return {}


_BY_CODE = "load it by code of your own: encoder.model: module:callable, which returns a ModuleEncoder"


def _settings(directory: Path, model: str) -> dict[str, Any]:
    try:
        settings = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        towers = [settings["model_cfg"][name] for name in ("vision_cfg", "text_cfg")]
        if not all(isinstance(tower, dict) for tower in towers):
            raise ValueError("vision_cfg and text_cfg must be mappings")
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise EncoderError(
            f"encoder.model='{model}': {CONFIG} cannot be read: {exc!r}", remedy="fetch it again"
        ) from exc
    return dict(settings)


def _config(cfg: dict[str, Any], model: str) -> dict[str, Any]:
    """``config.json`` of the same network."""
    vision, text = (
        _tower(cfg[name], known, f"{CONFIG}: model_cfg.{name}", model)
        for name, known in (("vision_cfg", _VISION), ("text_cfg", _TEXT))
    )
    _refuse(set(cfg) - _MODEL_KEYS, f"{CONFIG}: model_cfg", model)
    activation = "quick_gelu" if cfg.get("quick_gelu") else "gelu"
    if not isinstance(vision["layers"], int) or vision["width"] % vision["head_width"]:
        _refuse({"layers"}, f"{CONFIG}: model_cfg.vision_cfg", model)
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": cfg["embed_dim"],
        "vision_config": {
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision["mlp_ratio"]),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision["head_width"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": activation,
            "projection_dim": cfg["embed_dim"],
        },
        "text_config": {
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text["mlp_ratio"]),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "hidden_act": activation,
            "projection_dim": cfg["embed_dim"],
            "eos_token_id": 2,
        },
    }


def _tower(given: dict[str, Any], known: dict[str, Any], where: str, model: str) -> dict[str, Any]:
    _refuse(
        {key for key, value in given.items() if key not in known and value and key not in _MEANINGLESS},
        where,
        model,
    )
    return known | {key: value for key, value in given.items() if key in known}


def _refuse(keys: set[str], where: str, model: str) -> None:
    if keys:
        raise EncoderError(
            f"encoder.model='{model}': {where} has {', '.join(sorted(keys))}, so this is not a plain CLIP",
            remedy=_BY_CODE,
        )


def _processor(settings: dict[str, Any], model: str) -> dict[str, Any]:
    """``preprocessor_config.json`` for the same preparation."""
    given = settings.get("preprocess_cfg") or {}
    size = settings["model_cfg"]["vision_cfg"].get("image_size", _VISION["image_size"])
    mode, resample = given.get("resize_mode", "shortest"), given.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or resample not in _RESAMPLE or not isinstance(size, int):
        raise EncoderError(
            f"encoder.model='{model}': {CONFIG}: images are resized by resize_mode={mode!r}, "
            f"interpolation={resample!r}, image_size={size!r}, which is not known here",
            remedy=_BY_CODE,
        )
    cropped = mode == "shortest"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size} if cropped else {"height": size, "width": size},
        "resample": _RESAMPLE[resample],
        "do_center_crop": cropped,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(given.get("mean") or _MEAN),
        "image_std": list(given.get("std") or _STD),
    }


def _digest(directory: Path, weights: Path) -> str:
    """Of the checkpoint and of this file: another way to convert is another place."""
    total = hashlib.sha256()
    tokenizer = [file for file in directory.iterdir() if file.suffix in (".json", ".txt")]
    for file in sorted([weights, Path(__file__), *tokenizer], key=lambda each: each.name):
        with file.open("rb") as stream:
            total.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:32]
