"""The sections ``encoder`` and ``defences`` of a job: what makes features, and what defends it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from smoothcert.job.section import PositiveInt, Section

DEFENCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CODE = re.compile(r"([A-Za-z_]\w*(\.[A-Za-z_]\w*)*|.+\.py):[A-Za-z_]\w*")


def names_code(value: str) -> bool:
    """Whether a value has the form ``module:callable`` or ``path/to/file.py:callable``."""
    return _CODE.fullmatch(value) is not None and not value.startswith("bundled:")


def _file_or_code(value: str) -> str:
    if not value.endswith(".safetensors") and not names_code(value):
        raise ValueError(f"'{value}' is neither a .safetensors file nor of the form module:callable")
    return value


Part = Annotated[str, AfterValidator(_file_or_code)]


class DefenceSection(Section):
    """What stands before and behind the base encoder, noise coming first: purifier, encoder, mapper."""

    purifier: Part | None = None
    """Maps images to images: a .safetensors file written by smoothcert.defences, or module:callable (runs it)."""
    mapper: Part | None = None
    """Maps features to features of the same size; given like purifier."""

    @model_validator(mode="after")
    def _has_a_part(self) -> DefenceSection:
        if self.purifier is None and self.mapper is None:
            raise ValueError("names neither purifier nor mapper; add one of them")
        return self


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
    """Before the model, behind the noise, part of what is certified: a .safetensors file that smoothcert.defences
    wrote, or module:callable, whose code then runs."""
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
