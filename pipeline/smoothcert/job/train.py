"""The section ``train`` of a job: what ``smoothcert train`` fits to the job's data and encoder, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from smoothcert.catalogue.attacks import Norm
from smoothcert.job.section import PositiveInt, Section

TrainMethod = Literal["psm", "purifier", "mapper", "token-mapper", "noise", "fare", "tecoa"]
TUNING: tuple[TrainMethod, ...] = ("noise", "fare", "tecoa")
"""Methods that change the encoder itself; the others leave it as it is."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _both_ends(value: object) -> object:
    """One noise level stands for a range of one."""
    return (value, value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class LossWeights(Section):
    """What each part of a loss counts; the denoising and the cosine of the mapper count 1."""

    consistency: NotNegative = 1.0
    """Purifier: 1 - cos(f(P(x + eps)), f(x)), with f the encoder."""
    reconstruction: NotNegative = 1.0
    """Purifier: mean squared error of P(x + eps) against x."""
    moments: NotNegative = 0.1
    """Mapper: squared error of mean and standard deviation of each dimension over the batch, against those of f(x)."""
    identity: NotNegative = 0.1
    """Mapper: |M(z, 0) - z|^2."""


class PurifierShape(Section):
    """The U-Net of a purifier."""

    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64, 96)
    """Of each level, multiples of 8; each level has half the resolution of the one before."""
    patch: PositiveInt = 2
    """Edge of the cells in which pixels are gathered first; 1 for none."""


class MapperShape(Section):
    """The blocks of a mapper."""

    groups: PositiveInt = 8
    """Parts of a pooled feature, which attend to each other; a divisor of its size. Not used for tokens."""
    width: PositiveInt = 64
    heads: PositiveInt = 4
    blocks: PositiveInt = 2


class AdversarySection(Section):
    """The PGD inside a training on attacked images."""

    norm: Norm = "l2"
    budget: Positive = 1.0
    """Units of [0,1] pixels of the canonical input."""
    steps: PositiveInt = 10


class TrainSection(Section):
    """What is trained, on the job's data, for its encoder."""

    method: TrainMethod = "psm"
    """psm: purifier, then mapper behind it. purifier, mapper: one of them alone; token-mapper: a mapper of patch
    tokens. noise, fare, tecoa: the encoder itself, on noisy or on attacked images, with features kept where they were
    (noise, fare) or led by the texts of zero_shot (tecoa)."""
    out: str
    """Directory (any fsspec URL) for checkpoints and what comes out: parts of a defence, or a model."""
    sigma: Annotated[tuple[Positive, Positive], BeforeValidator(_both_ends)] | None = None
    """Noise level, or smallest and largest, drawn anew for each image; by default certify.sigma."""
    steps: PositiveInt = 2000
    """Optimizer steps of each stage at most."""
    batch: PositiveInt = 64
    """Images of one forward pass."""
    accumulate: PositiveInt = 1
    """Batches whose gradients make one step."""
    workers: PositiveInt = 1
    """Processes that share each batch, with one GPU each where there are GPUs; more than one run on Ray
    (executor.address, cpus_per_worker, gpus_per_worker). Another number gives the same weights but for rounding."""
    learning_rate: Positive = 2e-3
    """The largest; after a warm-up it falls with the cosine."""
    weight_decay: NotNegative = 0.01
    augment: bool = False
    """Move, turn and scale training images a little."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the modules trained; bfloat16 is mixed precision, for GPUs."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of pairs held out, chosen by a hash of their pair_id."""
    validate_every: PositiveInt = 100
    """Steps between validations; each writes a checkpoint."""
    patience: PositiveInt = 10
    """Validations without a better loss before a stage stops early."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    weights: LossWeights = LossWeights()
    purifier: PurifierShape = PurifierShape()
    mapper: MapperShape = MapperShape()
    attacked: bool = False
    """Purifier: learn from images that ``adversary`` attacks under their noise, each step anew."""
    adversary: AdversarySection = AdversarySection()
    """For fare, tecoa, and a purifier with ``attacked``."""

    @field_validator("out")
    @classmethod
    def _not_empty(cls, out: str) -> str:
        if not out.strip():
            raise ValueError("is empty; name a directory, e.g. defences/mine")
        return out

    @model_validator(mode="after")
    def _ascending(self) -> TrainSection:
        if self.sigma is not None and self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma={list(self.sigma)} must be [smallest, largest]")
        return self

    @model_validator(mode="after")
    def _an_image_for_each_worker(self) -> TrainSection:
        if self.workers > self.batch:
            raise ValueError(
                f"workers={self.workers} share each batch, and batch={self.batch} has fewer images: lower workers"
            )
        return self

    @model_validator(mode="after")
    def _attacked_purifier(self) -> TrainSection:
        if self.attacked and "purifier" not in self.stages:
            raise ValueError(f"attacked=true is for a purifier, and method={self.method} trains none")
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        """What is fitted, one after the other."""
        return ("purifier", "mapper") if self.method == "psm" else (self.method,)

    @property
    def tunes_encoder(self) -> bool:
        """Whether the encoder itself is changed."""
        return self.method in TUNING
