"""Random multimodal models, one a family, as save_pretrained writes them: small enough to build in every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging

logging.disable_progress_bar()

IMAGE, END = 9, 1
"""Token ids of the image and of the end of an answer."""
_WORDS = 64
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": _WORDS,
    "max_position_embeddings": 512,
    "bos_token_id": 2,
    "eos_token_id": END,
    "pad_token_id": 0,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "initializer_range": 0.2,
}
_QWEN_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "out_hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "patch_size": 4,
    "initializer_range": 0.2,
}
_SQUARE = {"height": 16, "width": 16}
_LLAMA = {"model_type": "llama", **_TEXT}
_CLIP = {"model_type": "clip_vision_model", **_VISION}
_SIGLIP = {"model_type": "siglip_vision_model", **_VISION}
_PINPOINTS = [[16, 32], [32, 16], [16, 16], [32, 32]]
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}

Family = tuple[Any, Any]
"""Configuration, and image processor."""


def _clip_processor() -> Any:
    return transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=_SQUARE)


def _siglip_processor() -> Any:
    return transformers.SiglipImageProcessorPil(size=_SQUARE)


def _llava_clip() -> Family:
    config = transformers.LlavaConfig(
        vision_config=_CLIP, text_config=_LLAMA, image_token_index=IMAGE, image_seq_length=16
    )
    return config, _clip_processor()


def _llava_siglip() -> Family:
    config = transformers.LlavaConfig(
        vision_config=_SIGLIP,
        text_config=_LLAMA,
        image_token_index=IMAGE,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    return config, _siglip_processor()


def _llava_next() -> Family:
    config = transformers.LlavaNextConfig(
        vision_config=_CLIP,
        text_config=_LLAMA,
        image_token_index=IMAGE,
        image_grid_pinpoints=_PINPOINTS,
        image_seq_length=16,
    )
    processor = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size=_SQUARE, image_grid_pinpoints=_PINPOINTS
    )
    return config, processor


def _llava_onevision() -> Family:
    config = transformers.LlavaOnevisionConfig(
        vision_config=_SIGLIP,
        text_config=_LLAMA,
        image_token_index=IMAGE,
        video_token_index=8,
        image_grid_pinpoints=_PINPOINTS,
    )
    return config, transformers.LlavaOnevisionImageProcessorPil(size=_SQUARE, image_grid_pinpoints=_PINPOINTS)


def _blip() -> Family:
    text = {**_TEXT, "encoder_hidden_size": 16, "projection_dim": 16, "sep_token_id": END}
    config = transformers.BlipConfig(text_config=text, vision_config={**_VISION, "projection_dim": 16})
    return config, transformers.BlipImageProcessorPil(size=_SQUARE)


def _with_queries(configuration: Any) -> Family:
    queries = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": _WORDS,
        "encoder_hidden_size": 16,
        "initializer_range": 0.2,
    }
    config = configuration(
        vision_config=_VISION,
        qformer_config=queries,
        text_config=_LLAMA,
        num_query_tokens=4,
        image_token_index=IMAGE,
    )
    return config, transformers.BlipImageProcessorPil(size=_SQUARE)


def _idefics2() -> Family:
    perceiver = {
        "hidden_size": 16,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 8,
        "num_key_value_heads": 1,
    }
    text = {"model_type": "mistral", **_TEXT}
    config = transformers.Idefics2Config(
        vision_config=_VISION, perceiver_config=perceiver, text_config=text, image_token_id=IMAGE
    )
    return config, transformers.Idefics2ImageProcessorPil(size={"shortest_edge": 8, "longest_edge": 16})


def _tiled(configuration: Any, processor: Any) -> Family:
    config = configuration(vision_config=_VISION, text_config=_LLAMA, image_token_id=IMAGE, scale_factor=2)
    return config, processor(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})


def _qwen_processor() -> Any:
    return transformers.Qwen2VLImageProcessorPil(
        patch_size=4, size={"shortest_edge": 64, "longest_edge": 16 * 24}
    )


def _qwen_tokens() -> dict[str, int]:
    return {
        "image_token_id": IMAGE,
        "video_token_id": 8,
        "vision_start_token_id": 7,
        "vision_end_token_id": 6,
    }


def _qwen2_vl() -> Family:
    vision = {
        "depth": 2,
        "embed_dim": 16,
        "hidden_size": 16,
        "num_heads": 2,
        "patch_size": 4,
        "mlp_ratio": 2,
        "initializer_range": 0.2,
    }
    config = transformers.Qwen2VLConfig(
        vision_config=vision, text_config={**_TEXT, "rope_parameters": _ROPE}, **_qwen_tokens()
    )
    return config, _qwen_processor()


def _qwen2_5_vl() -> Family:
    vision = {**_QWEN_VISION, "window_size": 16, "fullatt_block_indexes": [1]}
    config = transformers.Qwen2_5_VLConfig(
        vision_config=vision, text_config={**_TEXT, "rope_parameters": _ROPE}, **_qwen_tokens()
    )
    return config, _qwen_processor()


def _qwen3_vl() -> Family:
    vision = {**_QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    text = {**_TEXT, "head_dim": 8, "rope_parameters": _ROPE}
    config = transformers.Qwen3VLConfig(vision_config=vision, text_config=text, **_qwen_tokens())
    return config, _qwen_processor()


def _paligemma() -> Family:
    text = {"model_type": "gemma", **_TEXT, "head_dim": 8}
    config = transformers.PaliGemmaConfig(
        vision_config=_SIGLIP, text_config=text, image_token_index=IMAGE, projection_dim=16, hidden_size=16
    )
    return config, _siglip_processor()


def _gemma3() -> Family:
    text = {"model_type": "gemma3_text", **_TEXT, "head_dim": 8}
    config = transformers.Gemma3Config(
        vision_config=_SIGLIP,
        text_config=text,
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        boi_token_index=7,
        eoi_token_index=6,
    )
    return config, transformers.Gemma3ImageProcessorPil(size=_SQUARE)


def _internvl() -> Family:
    vision = {**_VISION, "image_size": [16, 16], "patch_size": [4, 4]}
    text = {"model_type": "qwen2", **_TEXT}
    config = transformers.InternVLConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, image_seq_length=4
    )
    return config, transformers.GotOcr2ImageProcessorPil(size=_SQUARE)


FAMILIES: dict[str, Callable[[], Family]] = {
    "llava": _llava_clip,
    "llava-siglip": _llava_siglip,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "blip": _blip,
    "blip-2": lambda: _with_queries(transformers.Blip2Config),
    "instructblip": lambda: _with_queries(transformers.InstructBlipConfig),
    "idefics2": _idefics2,
    "idefics3": lambda: _tiled(transformers.Idefics3Config, transformers.Idefics3ImageProcessorPil),
    "smolvlm": lambda: _tiled(transformers.SmolVLMConfig, transformers.SmolVLMImageProcessorPil),
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "internvl": _internvl,
}
"""By name; every ``model_type`` is among them."""


def build_tower(family: str, directory: Path) -> Path:
    """A model of a family with random weights, and its image processor."""
    config, processor = FAMILIES[family]()
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # some families begin with zeros, which see nothing
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
