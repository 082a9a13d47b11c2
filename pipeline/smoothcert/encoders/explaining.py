"""What the model libraries raise while they load a model, as errors that name the part, the file and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from smoothcert.errors import EncoderError, SmoothcertError
from smoothcert.job.encoder import EncoderSection

_PACKAGE = (
    re.compile(r"pip3? install (?:-U |--upgrade )?([A-Za-z][\w.-]*)"),
    re.compile(r"No module named '([\w.]+)'"),
    re.compile(r"requires (?:the )?([A-Za-z][\w.-]*) library", re.IGNORECASE),
)
"""How Python and transformers name what is not installed; the first that fits counts."""
_DISTRIBUTIONS = {
    "google": "protobuf",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "sklearn": "scikit-learn",
    "open_clip": "'smoothcert[open_clip]'",
    "timm": "'smoothcert[timm]'",
}
"""What to install, where its name differs from the name to import, or an extra has it with what it needs."""

_LONGEST = 300


@contextmanager
def explain(part: str, section: EncoderSection, where: str) -> Iterator[None]:
    """Turn what is raised inside into an ``EncoderError`` about a part of ``encoder.model``.

    Args:
        part: what is being loaded, e.g. ``"tokenizer"``.
        section: which encoder.
        where: the files of the model that decide about this part.

    Raises:
        EncoderError: something was raised. Errors of smoothcert and a device's lack of memory pass unchanged.
    """
    try:
        yield
    except (SmoothcertError, torch.OutOfMemoryError):
        raise
    except Exception as exc:  # transformers, tokenizers and a model's own code raise whatever they like
        lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
        said = " ".join(lines[:2]) or "no message"
        raise EncoderError(
            f"encoder.model='{section.model}': its {part} cannot be loaded: {type(exc).__name__}: "
            f"{said[:_LONGEST]}",
            remedy=_remedy(exc, where),
        ) from exc


def _remedy(exc: Exception, where: str) -> str:
    package = missing_package(exc)
    if package is not None:
        return f"install what it needs: pip install {package}; on a cluster, on every node"
    return f"check {where} in the model's directory; models with their own code need encoder.trust_remote_code: true"


def missing_package(exc: BaseException | None) -> str | None:
    """The package that an import failed for, as pip knows it; None where the error is about something else.

    Looked for along the chain of causes: libraries wrap an ``ImportError`` in errors of their own.
    """
    while exc is not None:
        if isinstance(exc, ImportError):
            text = str(exc)
            names: list[str | None] = [
                exc.name,
                *(found[1] for pattern in _PACKAGE if (found := pattern.search(text))),
            ]
            name = next(filter(None, names), None)
            if name is not None:
                top = name.split(".")[0]
                return _DISTRIBUTIONS.get(top, top.lower())
        exc = exc.__cause__ or exc.__context__
    return None
