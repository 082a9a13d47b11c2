"""A training job from its file to what it leaves: parts of a defence or a model, their card, and their scores."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from smoothcert.datasets import Source, open_source
from smoothcert.defences import DefendedEncoder, ResidualMapper, TrainedFor, UNetPurifier, defend
from smoothcert.defences.noise_level import AtSigma
from smoothcert.defences.saved import part_bytes
from smoothcert.encoders import Encoder, check_encoder, load_encoder
from smoothcert.engine import encode_texts
from smoothcert.errors import JobError
from smoothcert.job import Job
from smoothcert.job.encoder import EncoderSection
from smoothcert.storage import Storage
from smoothcert.training.card import Table, write_card
from smoothcert.training.checkpoint import load_checkpoint
from smoothcert.training.examples import Corpus, Examples, load_examples
from smoothcert.training.loop import Data, Fit
from smoothcert.training.scores import Features, Scores, measure_scores
from smoothcert.training.stages import MapperStage, PurifierStage, Stage, purify_with
from smoothcert.training.team import ALONE, Team
from smoothcert.training.tuning import FareStage, NoiseStage, TecoaStage, TuningStage
from smoothcert.training.watching import Watcher

_SCORES_FILE = "scores.json"
"""Written last."""
_SCORED = 32
"""Held-out images that scores during training look at."""
_SCORED_DRAWS = 8
_SCORED_AT_END, _DRAWS_AT_END = 256, 32


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left.

    Attributes:
        url: the directory.
        finished: False where it was stopped; the same job resumes it.
        scores: by noise level, before and after; empty where it was stopped.
    """

    url: str
    finished: bool
    scores: Mapping[float, tuple[Scores, Scores]]


class Training:
    """A training that is ready to run: everything that can fail before work has not.

    Args:
        job: with a section ``train``.
        here: how the encoder is loaded in this process; by default as the job says.
        corpus: the images, where they are loaded already, on the device of the encoder.
        team: who takes part; all members make the same training and run it.

    Attributes:
        place: where results go.
        sigma: smallest and largest noise level.
        first: the first stage.
        encoder: frozen.
        data_digest: of the data.
        recipe: hex digest of everything that determines the weights, but for the device and the number of workers.
        corpus: images to fit and to validate on.

    Raises:
        JobError: the job has no section ``train``, or the encoder lacks what it needs, or there are fewer images than
            workers.
        SourceError: the data cannot be read, or are too few.
        EncoderError: the encoder, or a part that the job names, cannot be loaded.
    """

    def __init__(
        self,
        job: Job,
        here: EncoderSection | None = None,
        corpus: Corpus | None = None,
        team: Team = ALONE,
    ) -> None:
        if job.train is None:
            raise JobError(
                "the job has no 'train' section", remedy="add e.g. train: {method: psm, out: defences/mine}"
            )
        self.job, self.section, self._team = job, job.train, team
        self._here = here or job.encoder
        self.place = Storage(self.section.out)
        self.sigma = self.section.sigma or (job.certify.sigma, job.certify.sigma)
        self.encoder = load_encoder(self._here)
        check_encoder(self.encoder)
        self._given: DefendedEncoder | None = None
        if job.encoder.defence is not None:
            self._given = defend(self.encoder, job.encoder.defence, job.encoder.defence.label, self.sigma[1])
        self._classes = self._encode_classes()
        source: Source | None = None
        if corpus is None:
            source = open_source(job.data)
            self.data_digest = source.digest()
        else:
            self.data_digest = corpus.digest
        self.recipe = _recipe(job, self.sigma, self.encoder, self._given, self.data_digest)
        self._new_mapper: ResidualMapper | None = None
        self.first = self._first_stage()
        if (
            self.section.method == "psm"
        ):  # made now, so that wrong settings are known before the purifier is trained
            self._new_mapper = self._make_mapper(tokens=False)
        if source is not None:
            corpus = Corpus(*load_examples(job, self.encoder, source), self.data_digest)
        assert corpus is not None
        self.corpus = corpus
        if self.section.workers > (images := len(corpus.training)):
            raise JobError(
                f"train.workers={self.section.workers} share each batch, and there are {images} images to train on",
                remedy=f"lower train.workers to {images} or less",
            )

    @property
    def training(self) -> Examples:
        """Images to fit."""
        return self.corpus.training

    @property
    def held_out(self) -> Examples:
        """Images to validate on."""
        return self.corpus.held_out

    @property
    def finished(self) -> bool:
        """Whether the directory holds the end of this very training, and what came out of it.

        Raises:
            JobError: it holds another one.
            TrainingError: a checkpoint is damaged.
        """
        kept = load_checkpoint(self.place, self.section.stages[-1], self.recipe)
        if kept is None or not kept.progress.done:
            return False
        return all(self.place.exists(name) for name in (*self._results, _SCORES_FILE))

    @property
    def _results(self) -> tuple[str, ...]:
        """Files that whoever uses it reads."""
        if self.section.tunes_encoder:
            return ("model/config.json",)
        if self.section.method == "psm":
            return ("purifier.safetensors", "mapper.safetensors")
        return ("purifier.safetensors" if self.section.method == "purifier" else "mapper.safetensors",)

    @property
    def levels(self) -> tuple[float, ...]:
        """Noise levels that scores are taken at: both ends, and the middle."""
        low, high = self.sigma
        return tuple(dict.fromkeys((low, (low + high) / 2, high)))

    def run(self, watcher: Watcher) -> Trained:
        """Fit every stage, and write what comes out.

        Raises:
            TrainingError: a loss is not finite, or a checkpoint is damaged.
            StoreError: something cannot be written.
            PeerFailedError: the first member of the team failed to write it.
        """
        self._team.do_once(self.place.make_directory)
        stage = self.first
        if not self._fit(stage, watcher):
            return Trained(self.place.url, False, {})
        if isinstance(stage, PurifierStage) and self.section.method == "psm":
            purifier = stage.module
            self._team.do_once(lambda: self._write_part("purifier", purifier))
            stage = self._mapper_stage(purifier)
            if not self._fit(stage, watcher):
                return Trained(self.place.url, False, {})
        return self._finish(stage)

    def _first_stage(self) -> Stage:
        section = self.section
        if section.tunes_encoder:
            return self._tuning_stage()
        if section.stages[0] == "purifier":
            shape = section.purifier
            with _first_weights("purifier", section.seed):
                module = UNetPurifier(self.encoder.input_size, shape.channels, shape.patch)
            adversary = section.adversary if section.attacked else None
            return PurifierStage(self.encoder, module.to(self.encoder.device), section.weights, adversary)
        purifier = None if self._given is None else self._given.purifier
        return self._mapper_stage(purifier.module if isinstance(purifier, AtSigma) else purifier)

    def _mapper_stage(self, purifier: torch.nn.Module | None) -> MapperStage:
        module = self._new_mapper or self._make_mapper(tokens=self.section.method == "token-mapper")
        if purifier is not None:
            purifier.eval().requires_grad_(False)
        return MapperStage(self.encoder, purify_with(purifier), module, self.section.weights)

    def _make_mapper(self, *, tokens: bool) -> ResidualMapper:
        width, shape = self.encoder.feature_dim, self.section.mapper
        if tokens:
            with torch.no_grad():
                probe = torch.zeros((1, 3, *self.encoder.input_size), device=self.encoder.device)
                width = int(self.encoder.encode_patches(probe).shape[-1])
        with _first_weights("mapper", self.section.seed):
            module = ResidualMapper(width, shape.groups, shape.width, shape.heads, shape.blocks, tokens)
        return module.to(self.encoder.device)

    def _tuning_stage(self) -> TuningStage:
        tuned = load_encoder(self._here)
        match self.section.method:
            case "noise":
                return NoiseStage(tuned, self.encoder)
            case "fare":
                return FareStage(tuned, self.encoder, self.section.adversary)
            case _:
                assert self._classes is not None
                return TecoaStage(tuned, self.encoder, self.section.adversary, self._classes)

    def _encode_classes(self) -> torch.Tensor | None:
        if self.job.zero_shot is None or not self.encoder.has_texts:
            return None
        texts = encode_texts(self.encoder, zero_shot=self.job.zero_shot, captions=False)
        return torch.from_numpy(texts.class_features)

    def _fit(self, stage: Stage, watcher: Watcher) -> bool:
        data = Data(self.training, self.held_out, self.sigma, self.recipe)
        figures = partial(self._figures, stage)
        return Fit(stage, data, self.section, self.place, figures, self._team).run(watcher)

    def _figures(self, stage: Stage) -> dict[str, float]:
        """Robustness score and smooth norm at each level, on a few held-out images."""
        found = {}
        some = self.held_out.head(_SCORED)
        for sigma in self.levels:
            scores = measure_scores(
                stage.features, self._undefended(stage), some, sigma, draws=_SCORED_DRAWS, team=self._team
            )
            found[f"robustness_score_s{sigma:g}"] = scores.robustness_score
            found[f"smooth_norm_s{sigma:g}"] = scores.smooth_norm
        return found

    def _undefended(self, stage: Stage) -> Features:
        tokens = isinstance(stage, MapperStage) and stage.module.tokens

        def encode(pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            if tokens:
                mean = self.encoder.encode_patches(pixels).mean(dim=1)
                return torch.nn.functional.normalize(mean, dim=-1)
            return self.encoder.encode_images(pixels)

        return encode

    def _finish(self, stage: Stage) -> Trained:
        some = self.held_out.head(_SCORED_AT_END)
        before = self._undefended(stage)
        tokens = isinstance(stage, MapperStage) and stage.module.tokens
        measure = partial(
            measure_scores,
            examples=some,
            draws=_DRAWS_AT_END,
            classes=None if tokens else self._classes,
            team=self._team,
        )
        table = {
            sigma: (measure(before, before, sigma=sigma), measure(stage.features, before, sigma=sigma))
            for sigma in self.levels
        }
        self._team.do_once(lambda: self._write_end(stage, table))
        return Trained(self.place.url, True, table)

    def _write_end(self, stage: Stage, table: Table) -> None:
        """What the training is for, its card, and last the scores."""
        if isinstance(stage, TuningStage):
            self._write_model(stage)
        else:
            self._write_part("purifier" if isinstance(stage, PurifierStage) else "mapper", stage.module)
        scored = min(len(self.held_out), _SCORED_AT_END)
        facts = {
            "trained for sigma": " to ".join(f"{level:g}" for level in dict.fromkeys(self.sigma)),
            "encoder": f"{self.job.encoder.model} (digest {self.encoder.digest[:16]})",
            "training pairs": f"{len(self.training):,} (data digest {self.data_digest[:16]})",
            "held-out pairs": f"{len(self.held_out):,}, {scored:,} of them scored with {_DRAWS_AT_END} draws",
        }
        self.place.replace("README.md", write_card(self.job.name, self.section, facts, table).encode())
        kept = {f"{sigma:g}": [asdict(each) for each in both] for sigma, both in table.items()}
        self.place.replace(_SCORES_FILE, json.dumps(kept, indent=1).encode())

    def _write_part(self, part: str, module: torch.nn.Module) -> None:
        low, high = self.sigma
        trained = TrainedFor(
            sigma=(low, high),
            encoder_digest=self.encoder.digest,
            data_digest=self.data_digest,
            recipe=self.recipe,
        )
        self.place.replace(f"{part}.safetensors", part_bytes(module, trained))

    def _write_model(self, stage: TuningStage) -> None:
        with tempfile.TemporaryDirectory(prefix="smoothcert-") as folder:
            stage.tuned.save(folder)
            for file in sorted(Path(folder).iterdir()):
                self.place.replace(f"model/{file.name}", file.read_bytes())


@contextmanager
def _first_weights(part: str, seed: int) -> Iterator[None]:
    """Makes a module here: its weights depend on the seed alone, and wrong settings are errors of the job."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        except ValueError as exc:
            raise JobError(f"train.{part}: {exc}", remedy=f"correct train.{part}") from exc


def _recipe(
    job: Job,
    sigma: tuple[float, float],
    encoder: Encoder,
    defended: Encoder | None,
    data_digest: str,
) -> str:
    """Hex digest of everything that determines the weights, but the versions of the code and of torch.

    Where the work is done (device, number of workers) changes the order of sums alone, and is no part of it.
    """
    assert job.train is not None
    # what was not there before leaves the digests of older trainings alone
    unused = set() if job.train.attacked else {"attacked"}
    what = {
        "train": job.train.model_dump(mode="json", exclude={"out", "workers"} | unused),
        "sigma": sigma,
        "encoder": encoder.digest,
        "purifier": None if defended is None else defended.digest,
        "data": data_digest,
        "labels": None if job.zero_shot is None else job.zero_shot.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
