"""From a job's encoder section to an encoder that is ready and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from smoothcert.encoders.base import Encoder
from smoothcert.encoders.contract import TOLERANCE, check_encoder
from smoothcert.encoders.explaining import explain
from smoothcert.encoders.from_code import make_encoder
from smoothcert.encoders.locate import files_digest, has_tokenizer, locate, read_config, weight_files
from smoothcert.encoders.module_encoder import ModuleEncoder
from smoothcert.encoders.open_clip import in_transformers_layout
from smoothcert.encoders.preparation import Preparation
from smoothcert.encoders.pretrained import PretrainedEncoder
from smoothcert.encoders.quiet import quiet
from smoothcert.encoders.registry import encoder_class
from smoothcert.encoders.tower import TowerEncoder
from smoothcert.errors import EncoderError
from smoothcert.job.encoder import EncoderSection

_COMPARED = 8
"""Images whose features are compared before and after compiling."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_encoder(section: EncoderSection) -> Encoder:
    """Load, check and return the encoder that a job names.

    ``section.threads`` sets torch's threads for the whole process. Weights are read from safetensors only,
    and a repository's own code runs only with ``section.trust_remote_code``.

    Raises:
        EncoderError: it does not exist, is incomplete or damaged, is of an unknown family, does not fit its
            image processor, the device is not there, or the encoder breaks its contract. The message names
            field, value and remedy.
    """
    device = resolve_device(section.device)
    if section.threads is not None:
        torch.set_num_threads(section.threads)
    if section.made_by_code:
        encoder = make_encoder(section, device, _DTYPES[section.dtype])
        check_encoder(encoder)
        if section.compile:
            with quiet():
                _compile(encoder, section)
        return encoder
    return _load_pretrained(section, device)


def load_tower(section: EncoderSection, *, keep_language: bool = True) -> tuple[TowerEncoder, Path]:
    """A multimodal model as an encoder of its image tokens, its language model kept where asked; and its directory.

    Raises:
        EncoderError: as ``load_encoder``; or it is no multimodal model.
    """
    device = resolve_device(section.device)
    if section.threads is not None:
        torch.set_num_threads(section.threads)
    if section.made_by_code:
        raise EncoderError(
            f"encoder.model='{section.model}' names code, which makes encoders only",
            remedy="name a directory, a hub id or bundled:shapes-llava",
        )
    encoder = _load_pretrained(section, device, keep_language=keep_language)
    if not isinstance(encoder, TowerEncoder):
        raise EncoderError(
            f"encoder.model='{section.model}' has no language model that could answer",
            remedy="use a multimodal model, such as LLaVA, Qwen2-VL or bundled:shapes-llava",
        )
    return encoder, locate(section.model, section.revision, code=section.trust_remote_code)


def _load_pretrained(
    section: EncoderSection, device: torch.device, *, keep_language: bool = False
) -> Encoder:
    code = section.trust_remote_code
    directory = in_transformers_layout(
        locate(section.model, section.revision, code=code), model=section.model
    )
    config = read_config(directory, model=section.model)
    family = encoder_class(config["model_type"], model=section.model)
    weights = weight_files(directory, model=section.model)
    with quiet():
        with explain("configuration", section, "config.json"):
            _read_configuration(directory, section)
        with explain("image processor", section, "preprocessor_config.json"):
            processor = _image_processor(directory, section)
            preparation = family.make_preparation(processor, config, section.size, model=section.model)
        needs_texts = family.has_text_space and section.feature == "projection"
        tokenizer = load_tokenizer(directory, section) if needs_texts else None
        with explain("model", section, "config.json and model.safetensors"):
            model = _model(directory, section, family.model_class)
            model = (model if keep_language else family.without_language(model)).to(device)
            if isinstance(preparation, Preparation):
                _refuse_other_grid(model, preparation, section)
            encoder = family(
                name=section.model if section.revision is None else f"{section.model}@{section.revision}",
                digest=files_digest(directory, weights, *_settings(section), code=code),
                model=model,
                preparation=preparation,
                tokenizer=tokenizer,
                feature=section.feature,
            )
        check_encoder(encoder)
        if section.compile:
            _compile(encoder, section)
    return encoder


def _settings(section: EncoderSection) -> tuple[str, ...]:
    """What determines features besides the files."""
    size = () if section.size is None else (f"size {section.size[0]} {section.size[1]}",)
    return (section.feature, section.dtype, *size)


def resolve_device(name: str) -> torch.device:
    """The device that ``encoder.device`` names; ``auto`` is a CUDA device where there is one.

    Raises:
        EncoderError: no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, index = name.partition(":")
    if (kind != "cuda" or (colon and not index.isdecimal())) and name != "cpu":
        raise EncoderError(f"encoder.device='{name}' is not a device", remedy="use auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise EncoderError(
            f"encoder.device='{name}': torch sees {torch.cuda.device_count()} CUDA devices here",
            remedy="use auto or cpu, or install a CUDA build of torch and check nvidia-smi",
        )
    return torch.device(name)


def _read_configuration(directory: Path, section: EncoderSection) -> None:
    """Try config.json on its own: every part reads it, and none could say that it is not at fault."""
    from transformers import AutoConfig

    AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=section.trust_remote_code)


def _image_processor(directory: Path, section: EncoderSection) -> Any:
    from transformers import AutoImageProcessor

    # Always PIL: torchvision resizes differently, and x would depend on what is installed.
    return AutoImageProcessor.from_pretrained(
        directory, backend="pil", local_files_only=True, trust_remote_code=section.trust_remote_code
    )


def load_tokenizer(directory: Path, section: EncoderSection) -> Any:
    """The tokenizer of a model.

    Raises:
        EncoderError: there is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    if not has_tokenizer(directory):
        needed = "encoder.feature='projection' needs" if section.feature == "projection" else "prompts need"
        raise EncoderError(
            f"encoder.model='{section.model}' has no tokenizer, which {needed}",
            remedy="add tokenizer.json and tokenizer_config.json, or use encoder.feature: pooled",
        )
    with explain("tokenizer", section, "tokenizer.json and tokenizer_config.json"):
        return AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=section.trust_remote_code
        )


def _model(directory: Path, section: EncoderSection, model_class: str) -> Any:
    import transformers

    model, info = getattr(transformers, model_class).from_pretrained(
        directory,
        dtype=_DTYPES[section.dtype],
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=section.trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, by name
    )
    if info["mismatched_keys"]:
        name, held, wanted = min(info["mismatched_keys"])
        raise EncoderError(
            f"encoder.model='{section.model}': the weights hold {name} as {tuple(held)}, but config.json asks for "
            f"{tuple(wanted)}",
            remedy="take the config.json that belongs to the weights",
        )
    if info["missing_keys"]:
        # transformers fills these with random numbers and goes on.
        missing = sorted(info["missing_keys"])
        raise EncoderError(
            f"encoder.model='{section.model}': the weights lack {len(missing)} of the model's "
            f"tensors, e.g. {missing[0]}",
            remedy="download the weights again, or check that config.json belongs to them",
        )
    return model


def _refuse_other_grid(model: Any, preparation: Preparation, section: EncoderSection) -> None:
    size = model.config.vision_config.image_size
    expected = (size, size) if isinstance(size, int) else tuple(size)
    if expected != preparation.input_size:
        raise EncoderError(
            f"encoder.model='{section.model}': its image processor makes {preparation.input_size} images, "
            f"but the vision tower reads {expected}",
            remedy="correct size and crop_size in preprocessor_config.json",
        )


def _compile(encoder: Encoder, section: EncoderSection) -> None:
    """Compile for the job's device batch, and compare: a kernel that is wrong would certify another encoder."""
    if not isinstance(encoder, (PretrainedEncoder, ModuleEncoder)):
        raise EncoderError(
            f"encoder.compile=true, but {type(encoder).__name__} cannot be compiled from here",
            remedy="set encoder.compile: false, and compile where the encoder is made",
        )
    shape = (section.slots * section.chunk, 3, *encoder.input_size)
    batch = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(encoder.device)
    with torch.inference_mode():
        expected = encoder.encode_images(batch[:_COMPARED])
        encoder.compile()
        try:
            found = encoder.encode_images(batch)[:_COMPARED]
        except Exception as exc:
            raise EncoderError(
                f"encoder.compile=true: torch.compile failed: {type(exc).__name__}: {str(exc).splitlines()[0]}",
                remedy="set encoder.compile: false, or install the C++ compiler that torch.compile needs",
            ) from exc
    off = float((found - expected).norm(dim=1).max())
    if not off <= TOLERANCE[encoder.dtype]:
        raise EncoderError(
            f"encoder.compile=true: the compiled tower makes other features (off by {off:.2g}) than the tower itself",
            remedy="set encoder.compile: false, or empty torch's cache of kernels (TORCHINDUCTOR_CACHE_DIR), which may "
            "hold those of another processor",
        )
