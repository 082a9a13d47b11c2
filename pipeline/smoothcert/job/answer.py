"""The section ``answer`` of a job: which questions a multimodal model is asked about the images, and how."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from smoothcert.catalogue.question_formats import QUESTION_FORMATS
from smoothcert.job.answer_attack import AnswerAttackSection, SubjectName
from smoothcert.job.attacks import known_name
from smoothcert.job.encoder import DefenceSection, EncoderSection
from smoothcert.job.judge import JudgeSection
from smoothcert.job.questions import QuestionColumns
from smoothcert.job.section import PositiveInt, Probability, Radius, Section

QuestionFormat = Literal[
    "jsonl", "vqa", "coco_captions", "coco_instances", "karpathy", "scienceqa", "imagefolder", "parquet"
]
ScoreName = Literal["exact_match", "contained_match", "vqa_accuracy", "rouge_l", "keyword_share"]


_LATER = ("clip_score", "defence", "judge", "split", "ask")


class VoteSection(Section):
    """Certified answers: each noisy image is answered, and the answer that wins is certified."""

    pilot_draws: PositiveInt = 16
    """Draws that choose the answer to certify and are then discarded."""
    max_draws: PositiveInt = 100
    """Fresh draws a question: exactly this many without a radius, at most this many with it."""
    radius: Radius | None = None
    """l2 radius to decide about: drawing stops as soon as it is certified or given up. Without it, every question gets
    max_draws, whose exact bound is tighter."""
    classes: Literal["text", "right"] = "text"
    """text: answers that say the same after normalisation are one class. right: whether an answer holds a reference
    answer; a certified 'right' is a certified property, not a certified wording."""
    score: ScoreName | None = None
    """A metric of the answer to certify too, from the same draws: its mean over noisy images, at every radius of
    certify.radii."""


class PriceSection(Section):
    """What an endpoint asks, in any currency; for ``smoothcert plan`` alone."""

    prompt_per_1k: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Price of 1,000 tokens of prompts and images."""
    answer_per_1k: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Price of 1,000 tokens of answers."""
    image_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens that the endpoint counts for one image of the size of x."""


class AnswerSection(Section):
    """Questions about the pairs' images, answered by a multimodal model."""

    model: str
    """Directory, hub id or bundled:shapes-llava: a multimodal model of a family that docs/answers.md lists. With
    endpoint: the name that the endpoint knows."""
    revision: str | None = None
    """Hub revision to pin."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """As encoder.size: height and width of x for models that take images of any size."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic inside the model."""
    backend: Literal["transformers", "vllm"] = "transformers"
    """What generates. vllm: its offline engine, given image tokens of this package's tower (extra vllm, GPU; docs say
    which families)."""
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible service, e.g. https://api.openai.com/v1; its key is read from key_variable."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "SMOOTHCERT_API_KEY"
    """Environment variable that holds the endpoint's key; the key itself is never written anywhere."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """How long one request to the endpoint may take."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """Further attempts at a request that the endpoint turned away (429, 5xx) or that broke off, with growing pauses."""
    parallel: Annotated[int, Field(ge=1, le=256)] = 4
    """Requests to the endpoint that are under way at once, on each worker."""
    price: PriceSection | None = None
    """What the endpoint asks, for the estimate of smoothcert plan."""
    questions: str
    """File of questions: a path or fsspec URL."""
    format: Annotated[QuestionFormat, known_name("format", QuestionFormat)] = "jsonl"
    """jsonl: one object a line with pair, question and perhaps id, answers, choices, kind. vqa: a questions JSON as of
    VQA v2, TextVQA or VizWiz. coco_captions, coco_instances, karpathy: JSON of COCO, each image asked for a caption or
    its objects. scienceqa: problems.json. imagefolder: folders of images, whose names are the answers. parquet: columns
    of Parquet files."""
    annotations: str | None = None
    """vqa: the JSON of the answers, where it is a file of its own."""
    split: str | None = None
    """karpathy, scienceqa: only questions of this split."""
    ask: str | None = None
    """What is asked where a file has no questions: captions, objects, folders, tables without such a column."""
    columns: QuestionColumns = QuestionColumns()
    """parquet: which column is what."""
    template: str | None = None
    """Prompt with {question} and the model's image token, e.g. 'USER: <image> {question} ASSISTANT:'. By default the
    model's own chat template."""
    subjects: tuple[SubjectName, ...] = ("bare", "smoothed", "vote")
    """bare: the image as it is. smoothed: mean image tokens over smooth_draws noisy images. defended: the
    same of purified noisy images (defence). vote: certified."""
    defence: DefenceSection | None = None
    """For the subject 'defended': a purifier between noise and tower, perhaps a mapper of image tokens behind it
    (train.method: token-mapper)."""
    smooth_draws: PositiveInt = 16
    """Draws behind smoothed image tokens."""
    vote: VoteSection = VoteSection()
    """How certified answers are drawn."""
    max_new_tokens: PositiveInt = 32
    """Longest answer; one that is cut there is marked."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """0: greedy. Above: answers are sampled, each with a seed of its own."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Root of the seeds of sampled answers; noise is of certify.seed."""
    batch: PositiveInt = 32
    """Prompts answered together on the device."""
    alpha: Probability | None = None
    """Failure probability of each certified answer; default certify.alpha."""
    clip_score: EncoderSection | None = None
    """An encoder with texts: how well each answer fits the image (metric clip_score)."""
    judge: JudgeSection | None = None
    """How alike in meaning each answer is to its references (metrics judged_similarity and judged_match)."""
    attacks: tuple[AnswerAttackSection, ...] = ()
    """Attacks on the answers, after the questions."""
    contents: dict[str, str] = {}
    """SHA-256 of what this section names: model and questions. Filled in where it is left out."""

    @field_validator("subjects")
    @classmethod
    def _some_subjects(cls, subjects: tuple[SubjectName, ...]) -> tuple[SubjectName, ...]:
        if not subjects or len(set(subjects)) < len(subjects):
            raise ValueError(f"{list(subjects)} must name at least one subject, each once")
        return subjects

    @model_validator(mode="after")
    def _attacks_fit(self) -> AnswerSection:
        for number, attack in enumerate(self.attacks):
            if self.backend == "vllm":
                raise ValueError(f"attacks.{number}: vLLM shows no gradients; set backend: transformers")
            if self.endpoint is not None and (
                attack.objective not in ("divergence", "matching") or "smoothed" in attack.subjects
            ):
                raise ValueError(
                    f"attacks.{number}: an endpoint shows neither gradients nor image tokens: use objective divergence "
                    "or matching (transfer), and subjects bare and vote"
                )
            if self.temperature > 0:
                raise ValueError(f"attacks.{number}: attacks on answers need greedy ones; set temperature: 0")
        doubled = [attack.attack_id for attack in self.attacks]
        if len(set(doubled)) < len(doubled):
            raise ValueError("attacks: the same attack with the same settings is listed twice; keep one")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> AnswerSection:
        if self.template is not None and "{question}" not in self.template:
            raise ValueError("template has no {question}; write e.g. 'USER: <image> {question} ASSISTANT:'")
        for name in ("annotations", "split", "ask", "columns"):
            having = [format for format, entry in QUESTION_FORMATS.items() if name in entry.takes]
            given = getattr(self, name) not in (None, QuestionColumns())
            if given and self.format not in having:
                raise ValueError(
                    f"{name} is for format {' or '.join(having)}, not {self.format}; remove it, or correct format"
                )
        if self.price is not None and self.endpoint is None:
            raise ValueError(
                "price is for an endpoint; a model of your own has executor.price_per_worker_hour"
            )
        if self.endpoint is not None and self.backend != "transformers":
            raise ValueError(
                "backend is for models that are loaded here, not for an endpoint; remove one of them"
            )
        asked = {*self.subjects, *(subject for attack in self.attacks for subject in attack.subjects)}
        if "defended" in asked and self.defence is None:
            raise ValueError(
                "subject 'defended' needs a defence; write e.g. defence: {purifier: demo/shapes-purifier}"
            )
        if self.defence is not None and "defended" not in asked:
            raise ValueError(
                "defence is used by the subject 'defended' alone; add it to subjects, or remove defence"
            )
        if self.defence is not None and self.backend != "transformers":
            raise ValueError(f"a defence needs backend: transformers, not {self.backend}; remove one of them")
        if self.endpoint is not None:
            if self.defence is not None:
                raise ValueError(
                    "an endpoint takes images, not image tokens: remove defence and subject 'defended'"
                )
            if not self.endpoint.startswith(("http://", "https://")):
                raise ValueError(f"endpoint='{self.endpoint}' is not an http(s) URL")
            if "smoothed" in self.subjects:
                raise ValueError(
                    "an endpoint takes images, not image tokens: remove 'smoothed' from subjects, e.g. subjects: "
                    "[bare, vote]"
                )
        return self

    @property
    def answer_id(self) -> str:
        """Names the task: a digest of all that determines its rows."""
        what: dict[str, Any] = self.model_dump(
            mode="json",
            exclude={
                **dict.fromkeys(
                    ("attacks", "batch", "timeout_s", "retries", "parallel", "key_variable", "price"), True
                ),
                "judge": {"timeout_s", "retries", "parallel", "key_variable"},
            },
        )
        for name in _LATER:
            if what[name] is None or name in self.contents:
                del what[name]  # as before there was such a thing; contents name what it holds
        if self.backend == "transformers":
            del what["backend"]
        if self.columns == QuestionColumns():
            del what["columns"]
        if self.vote.score is None:
            del what["vote"]["score"]  # as before there was such a thing
        if "model" in self.contents and self.endpoint is None:
            del what["model"]
        if "questions" in self.contents:
            del what["questions"], what["annotations"]
        text = json.dumps(what, sort_keys=True, separators=(",", ":"))
        return f"answer{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def attack_task_id(self, attack: AnswerAttackSection) -> str:
        """Names the task of an attack on these questions."""
        text = f"{self.answer_id} {attack.attack_id}"
        return f"said{hashlib.sha256(text.encode()).hexdigest()[:12]}"
