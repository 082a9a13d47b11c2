"""Where an encoder's files are: bundled, a local directory, any URL, or the hub; and their digest."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any

from smoothcert.encoders.cache import fetch_folder, is_url
from smoothcert.encoders.quiet import quiet
from smoothcert.errors import EncoderError, did_you_mean

BUNDLED_PREFIX = "bundled:"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
_SETTINGS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
    *_TOKENIZERS,
)

_HUB_PREFIX = "hf-hub:"
"""What open_clip writes before ids of the hub."""

_log = logging.getLogger(__name__)


def bundled_models() -> list[str]:
    """Names of the models that ship with the package, as a job writes them."""
    root = Path(str(files("smoothcert.encoders") / "bundled"))
    return sorted(f"{BUNDLED_PREFIX}{path.name}" for path in root.iterdir() if (path / _WEIGHTS).is_file())


def locate(model: str, revision: str | None, *, code: bool = False) -> Path:
    """Directory that holds a model's files; fetches them where ``model`` is a URL or a hub id.

    Args:
        model: ``bundled:<name>``, a directory, the URL of one (``s3://bucket/model``), or a hub id.
        revision: of the hub repository.
        code: also fetch the repository's Python files.

    Raises:
        EncoderError: there is no such model, or the hub cannot be reached.
        StoreError: the store of a URL failed.
    """
    if model.startswith(BUNDLED_PREFIX):
        known = bundled_models()
        if model not in known:
            raise EncoderError(
                f"encoder.model='{model}' is not bundled{did_you_mean(model, known)}",
                remedy=f"use one of the bundled models: {', '.join(known)}",
            )
        return Path(str(files("smoothcert.encoders") / "bundled" / model.removeprefix(BUNDLED_PREFIX)))
    if is_url(model):
        patterns = [*_patterns(code), "adapter_config.json"]
        return fetch_folder(
            model,
            lambda name: any(fnmatchcase(name, pattern) for pattern in patterns),
            field="encoder.model",
        )
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    model = model.removeprefix(_HUB_PREFIX)
    if path.exists():
        raise EncoderError(
            f"encoder.model='{model}' is a file",
            remedy="give the directory that holds config.json and the weights",
        )
    if not _HUB_ID.fullmatch(model):
        raise EncoderError(
            f"encoder.model='{model}' does not exist",
            remedy="give a directory or URL, a hub id such as openai/clip-vit-large-patch14, or bundled:digits-clip",
        )
    return _download(model, revision, code=code)


def _patterns(code: bool) -> list[str]:
    """Names of the files that loading reads."""
    weights = [_WEIGHTS, _INDEX, "model-*-of-*.safetensors", "open_clip*.safetensors"]
    return [*weights, "open_clip_config.json", *_SETTINGS, *(["*.py"] if code else [])]


def _download(model: str, revision: str | None, *, code: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    _log.info("looking for %s on the hub", model)
    try:
        with quiet():
            return Path(snapshot_download(model, revision=revision, allow_patterns=_patterns(code)))
    except RepositoryNotFoundError as exc:
        raise EncoderError(
            f"encoder.model='{model}' is neither a directory here nor a model you can see on the hub",
            remedy="check the spelling; for a gated or private model log in with 'hf auth login'",
        ) from exc
    except RevisionNotFoundError as exc:
        raise EncoderError(
            f"encoder.revision='{revision}' does not exist in encoder.model='{model}'",
            remedy="give a commit hash, tag or branch of that repository",
        ) from exc
    except Exception as exc:  # the hub client raises its transport's errors, which differ between versions
        raise EncoderError(
            f"encoder.model='{model}' is not a directory here, and the hub could not be reached: "
            f"{type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}",
            remedy=f"connect, or fetch it elsewhere with 'hf download {model}' and give the directory",
        ) from exc


def read_config(directory: Path, *, model: str) -> dict[str, Any]:
    """A model's config.json.

    Raises:
        EncoderError: it is missing or damaged, or has no ``model_type``.
    """
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise EncoderError(
            f"encoder.model='{model}' has no config.json",
            remedy="give the directory that save_pretrained or 'hf download' wrote",
        ) from exc
    except (OSError, ValueError) as exc:
        raise EncoderError(
            f"encoder.model='{model}': config.json cannot be read: {exc}", remedy="fetch it again"
        ) from exc
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise EncoderError(
            f"encoder.model='{model}': config.json has no model_type",
            remedy="give a directory that transformers' save_pretrained wrote",
        )
    return config


def weight_files(directory: Path, *, model: str) -> list[Path]:
    """The safetensors files that loading reads, the index of shards included.

    Raises:
        EncoderError: there are none, some are missing, or only pickled ones or an unmerged adapter are there.
    """
    if (directory / "adapter_config.json").exists():
        raise EncoderError(
            f"encoder.model='{model}' holds an adapter (adapter_config.json), not a whole model",
            remedy="merge it into its base model and save that",
        )
    found = [path for path in (directory / _WEIGHTS, directory / _INDEX) if path.is_file()]
    if not found:
        pickled = sorted(path.name for path in directory.glob("*.bin"))
        held = f"only pickled ones ({', '.join(pickled)}), which are not read" if pickled else "none"
        raise EncoderError(
            f"encoder.model='{model}' has no weights in safetensors: {held}",
            remedy="save the model with save_pretrained, or use a revision that has model.safetensors",
        )
    if found[-1].name == _INDEX:
        try:
            shards = sorted(set(json.loads(found[-1].read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError) as exc:
            raise EncoderError(
                f"encoder.model='{model}': {_INDEX} cannot be read: {exc}", remedy="fetch it again"
            ) from exc
        missing = [shard for shard in shards if not (directory / shard).is_file()]
        if missing:
            raise EncoderError(
                f"encoder.model='{model}' is missing weight files: {', '.join(missing)}",
                remedy="download them again",
            )
        found += [directory / shard for shard in shards]
    return found


def has_tokenizer(directory: Path) -> bool:
    """Whether a vocabulary is there; without one transformers makes an empty tokenizer and says nothing."""
    return any((directory / name).is_file() for name in _TOKENIZERS)


def files_digest(directory: Path, weights: list[Path], *settings: str, code: bool = False) -> str:
    """Hex sha256 over names and bytes of weights, configuration and tokenizer, and over ``settings``.

    The place of the directory does not enter: a copy has the same digest.
    """
    paths = {path.name: path for path in weights}
    paths |= {name: directory / name for name in _SETTINGS if (directory / name).is_file()}
    if code:
        paths |= {path.name: path for path in directory.glob("*.py")}
    lines = [f"setting {setting}" for setting in settings]
    for name, path in sorted(paths.items()):
        with path.open("rb") as stream:
            lines.append(f"file {name} {hashlib.file_digest(stream, 'sha256').hexdigest()}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
