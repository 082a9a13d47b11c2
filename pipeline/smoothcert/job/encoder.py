"""The sections ``encoder`` and ``defences`` of a job: what makes features, and what defends it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from smoothcert.job.section import PositiveInt, Section

DEFENCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CODE = re.compile(r"([A-Za-z_]\w*(\.[A-Za-z_]\w*)*|.+\.py):[A-Za-z_]\w*")


BUNDLED = "bundled:"
"""Begins the names of models and defences that ship with the package."""
_NO_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npz", ".py", ".yaml", ".json")


def names_code(value: str) -> bool:
    """Whether a value has the form ``module:callable`` or ``path/to/file.py:callable``."""
    return _CODE.fullmatch(value) is not None and not value.startswith(BUNDLED)


def _weights_or_code(value: str) -> str:
    if not value.strip() or value.endswith(_NO_WEIGHTS):
        raise ValueError(
            f"'{value}' is neither a .safetensors file nor of the form module:callable, nor a directory that holds one"
        )
    return value


Part = Annotated[str, AfterValidator(_weights_or_code)]


class DefenceSection(Section):
    """What stands before and behind the base encoder, noise coming first: purifier, encoder, mapper."""

    purifier: Part | None = None
    """Maps images to images: a directory or .safetensors file written by smoothcert train, bundled:digits-psm, or
    module:callable, whose code then runs."""
    mapper: Part | None = None
    """Maps features to features of the same size; given like purifier."""

    @model_validator(mode="after")
    def _has_a_part(self) -> DefenceSection:
        if self.purifier is None and self.mapper is None:
            raise ValueError("names neither purifier nor mapper; add one of them")
        return self

    @property
    def label(self) -> str:
        """A short name for people: ``digits-psm``, ``mapper digits-psm``, or ``purifier blur, mapper turn``."""
        names = {"purifier": self.purifier, "mapper": self.mapper}
        short = {field: _short(value) for field, value in names.items() if value is not None}
        if self.purifier == self.mapper:
            return short["purifier"]
        return ", ".join(f"{field} {name}" for field, name in short.items())


class EncoderSection(Section):
    """Which encoder is certified, and how it runs."""

    model: str
    """Directory, relative to the job file; its URL (s3://bucket/model), fetched once a machine; hub id;
    bundled:digits-clip; or module:callable (a module beside the job file, or an installed one), whose code then runs
    and returns a smoothcert.encoders.Encoder."""
    revision: str | None = None
    """Hub revision (commit hash) to pin; ignored for directories."""
    feature: Literal["projection", "pooled", "tokens"] = "projection"
    """projection: the joint image-text space; of a multimodal model the mean of the image tokens that enter its
    language model. pooled: the vision tower before projection. tokens: all tokens, one after another: of a
    multimodal model those that enter its language model. Texts only with projection where the space is joint."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width of x for models that take images of any size (Qwen-VL, LLaVA-Next, Idefics, InternVL, SigLIP 2
    NaFlex): one grid for all images, before tiling. By default one that suits the family."""
    purifier: Part | None = None
    """Before the model, behind the noise, part of what is certified: a directory or .safetensors file written by
    smoothcert train, bundled:digits-psm, or module:callable, whose code then runs."""
    mapper: Part | None = None
    """Behind the model, before normalisation, part of what is certified: as purifier."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic inside the model, a property of what is certified. Normalisation is always float32."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    slots: PositiveInt = 8
    """Pairs on the device at once; a device batch has slots x chunk images."""
    chunk: PositiveInt = 16
    """Draws that one pair contributes to a device batch."""
    compile: bool = False
    """torch.compile the image tower (static shapes)."""
    threads: PositiveInt | None = None
    """CPU threads of the encoder; by default torch decides."""
    trust_remote_code: bool = False
    """Run code from the model repository. Turn on only for a repository that you trust."""

    @property
    def made_by_code(self) -> bool:
        """Whether ``model`` names a callable that makes the encoder."""
        return names_code(self.model)

    @property
    def defence(self) -> DefenceSection | None:
        """Purifier and mapper, where the job names one of them."""
        if self.purifier is None and self.mapper is None:
            return None
        return DefenceSection(purifier=self.purifier, mapper=self.mapper)


def _short(value: str) -> str:
    """The last part of a path or of a module's name."""
    return value.rstrip("/").rpartition("/")[2].removeprefix(BUNDLED).removesuffix(".safetensors")
