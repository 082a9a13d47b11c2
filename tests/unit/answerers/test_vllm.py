"""The vLLM answerer against a stand-in that takes what vLLM documents, and answers with transformers' own model."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from smoothcert.answerers.loading import load_answerer
from smoothcert.errors import JobError
from smoothcert.job import EncoderSection
from smoothcert.job.answer import AnswerSection

alike = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_pretrained.py")))
LONGEST = 6


class SamplingParams:
    def __init__(self, temperature: float, max_tokens: int, seed: int | None = None) -> None:
        self.temperature, self.max_tokens, self.seed = temperature, max_tokens, seed


class StandIn:
    """vllm.LLM as documented: one image token a prompt, embeddings (1, T, hidden), a list of outputs in order."""

    seen: list[dict[str, Any]] = []

    def __init__(self, model: str, **settings: Any) -> None:
        assert settings["enable_mm_embeds"] and settings["limit_mm_per_prompt"] == {"image": 1}
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(model).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)

    def generate(
        self, prompts: list[dict[str, Any]], sampling_params: list[SamplingParams], use_tqdm: bool
    ) -> list[Any]:
        return [self._one(prompt, each) for prompt, each in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: dict[str, Any], sampling: SamplingParams) -> Any:
        StandIn.seen.append({"prompt": prompt, "sampling": sampling})
        image = self.model.config.image_token_id
        ids, embeds = prompt["prompt_token_ids"], prompt["multi_modal_data"]["image"]
        assert ids.count(image) == 1 and embeds.shape[0] == 1
        place = ids.index(image)
        wide = torch.tensor([[*ids[:place], *[image] * embeds.shape[1], *ids[place + 1 :]]])
        inputs = self.model.get_input_embeddings()(wide)
        inputs = inputs.masked_scatter((wide == image).unsqueeze(-1), embeds)
        with torch.no_grad():
            out = self.model.generate(
                inputs_embeds=inputs,
                attention_mask=torch.ones_like(wide),
                max_new_tokens=sampling.max_tokens,
                do_sample=False,
            )[0].tolist()
        end = self.tokenizer.eos_token_id
        ended = end in out
        kept = out[: out.index(end)] if ended else out
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        said = SimpleNamespace(
            text=text, token_ids=[*kept, end] if ended else kept, finish_reason="stop" if ended else "length"
        )
        return SimpleNamespace(outputs=[said])


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = alike.tiny_towers.build_tower("llava", tmp_path_factory.mktemp("vllm") / "llava")
    alike.write_tokenizer(path)
    return path


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__version__ = StandIn, SamplingParams, "0.0.test"
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(StandIn, "seen", [])


def load(path: Path, **settings: Any) -> Any:
    section = AnswerSection(
        model=str(path),
        questions="-",
        template=alike.TEMPLATE,
        **{"backend": "vllm", "max_new_tokens": LONGEST, **settings},
    )
    return load_answerer(section, EncoderSection(model="-", device="cpu"))


def test_it_answers_as_transformers_does(llava: Path, vllm: None) -> None:
    ours, theirs = load(llava), load(llava, backend="transformers")
    x = alike.pictures(theirs, len(alike.QUESTIONS))
    seeds = [0] * len(alike.QUESTIONS)
    assert ours.answer(x, alike.QUESTIONS, seeds) == theirs.answer(x, alike.QUESTIONS, seeds)
    mean = theirs.image_tokens(x).mean(0, keepdim=True)
    assert ours.answer_tokens(mean, ["what"], [0]) == theirs.answer_tokens(mean, ["what"], [0])
    assert ours.digest != theirs.digest and ours.template_digest == theirs.template_digest
    assert not any("LlamaModel" in type(module).__name__ for module in ours.tower.modules)


def test_sampled_answers_carry_their_seeds(llava: Path, vllm: None) -> None:
    ours = load(llava, temperature=0.5)
    ours.answer(alike.pictures(ours, 2), ["what", "how"], [3, 2**40 + 1])
    assert [(each["sampling"].temperature, each["sampling"].seed) for each in StandIn.seen] == [
        (0.5, 3),
        (0.5, (2**40 + 1) % 2**31),
    ]


def test_qwens_tokens_go_with_their_grid(
    tmp_path_factory: pytest.TempPathFactory, vllm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = alike.tiny_towers.build_tower("qwen2_vl", tmp_path_factory.mktemp("grid") / "qwen2_vl")
    alike.write_tokenizer(path)
    seen: list[dict[str, torch.Tensor]] = []

    def look(self: StandIn, prompt: dict[str, Any], sampling: SamplingParams) -> Any:
        seen.append(prompt["multi_modal_data"]["image"])
        return SimpleNamespace(
            outputs=[SimpleNamespace(text=" w20 ", token_ids=[20], finish_reason="length")]
        )

    monkeypatch.setattr(StandIn, "_one", look)
    ours = load(path)
    x = alike.pictures(ours, 2)
    answers = ours.answer(x, ["what", "how"], [0, 0])
    assert [(each.text, each.tokens, each.complete) for each in answers] == [("w20", 1, False)] * 2
    merged = ours.tower.model.config.vision_config.spatial_merge_size**2
    for each, tokens in zip(seen, ours.image_tokens(x), strict=True):
        assert each["image_grid_thw"].shape == (1, 3)
        assert int(each["image_grid_thw"].prod()) // merged == len(each["image_embeds"])
        assert torch.equal(each["image_embeds"], tokens)


def test_a_family_that_it_is_not_documented_for_is_refused(
    tmp_path_factory: pytest.TempPathFactory, vllm: None
) -> None:
    path = alike.tiny_towers.build_tower("idefics2", tmp_path_factory.mktemp("other") / "idefics2")
    alike.write_tokenizer(path)
    with pytest.raises(
        JobError, match=r"(?s)image tokens of llava, .* not of idefics2.*backend: transformers"
    ):
        load(path)


def test_where_it_is_not_installed_that_is_said(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(JobError, match=r"(?s)needs the package vllm.*pip install 'smoothcert\[vllm\]'"):
        load(llava)


def test_what_it_cannot_do_is_refused() -> None:
    attack = {"attack": "pgd", "norm": "l2", "budgets": [0.5]}
    with pytest.raises(ValueError, match=r"attacks\.0: .*backend: transformers"):
        AnswerSection(model="-", questions="-", backend="vllm", attacks=[attack])
    with pytest.raises(ValueError, match="backend is for models that are loaded here"):
        AnswerSection(model="-", questions="-", backend="vllm", endpoint="http://x", subjects=["bare"])
    one = AnswerSection(model="-", questions="-")
    assert one.answer_id != one.model_copy(update={"backend": "vllm"}).answer_id
