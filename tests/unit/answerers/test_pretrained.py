"""Answers of every family: image tokens in place of pixels give what transformers' own generate gives of pixels."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from smoothcert.answerers.loading import load_answerer
from smoothcert.answerers.pretrained import PretrainedAnswerer
from smoothcert.attacks.objectives.answer import AnswerObjective
from smoothcert.errors import EncoderError, JobError
from smoothcert.job import EncoderSection
from smoothcert.job.answer import AnswerSection

_spec = importlib.util.spec_from_file_location(
    "tiny_towers", Path(__file__).parents[1] / "encoders/tiny_towers.py"
)
tiny_towers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_towers)

FAMILIES = sorted(tiny_towers.FAMILIES)
TEMPLATE = "user <image> {question} answer"
QUESTIONS = ["what colour", "how many there are", "what"]
LONGEST = 6


def write_tokenizer(directory: Path) -> None:
    words = ["<pad>", "</s>", "<s>", "<unk>", "user", "answer", "<end>", "<start>", "<video>", "<image>"]
    words += ["what", "colour", "how", "many", "there", "are", "?"]
    words += [f"w{number}" for number in range(len(words), 64)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    ).save_pretrained(directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("answerers")

    @cache
    def build(family: str) -> Path:
        path = tiny_towers.build_tower(family, root / family)
        write_tokenizer(path)
        return path

    return build


def load(path: Path, **settings: Any) -> PretrainedAnswerer:
    section = AnswerSection(
        **{"model": str(path), "questions": "-", "template": TEMPLATE, "max_new_tokens": LONGEST, **settings}
    )
    made = load_answerer(section, EncoderSection(model="-", device="cpu"))
    assert isinstance(made, PretrainedAnswerer)
    return made


def pictures(answerer: PretrainedAnswerer, count: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *answerer.input_size, 3), dtype=np.uint8)
    return (
        torch.stack([torch.from_numpy(answerer.prepare(Image.fromarray(each))) for each in images])
        .float()
        .div(255)
    )


def plainly(
    path: Path, family: str, answerer: PretrainedAnswerer, x: torch.Tensor, question: str
) -> list[int]:
    """Token ids that transformers' own generate makes of pixels."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tower = answerer.tower
    seen = tower._preparation.lay_out(tower._normalised(x))
    count = tower.image_tokens(x).shape[1]
    text = TEMPLATE.replace("{question}", question)
    text = text if family == "blip" else text.replace("<image>", " ".join(["<image>"] * count))
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **seen}
    if family.startswith("qwen"):
        given["mm_token_type_ids"] = (ids == tiny_towers.IMAGE).long()
    if family == "gemma3":
        given["token_type_ids"] = (ids == tiny_towers.IMAGE).long()
    if family == "paligemma":
        given["token_type_ids"] = torch.zeros_like(ids)
    if family == "instructblip":
        nothing = torch.zeros((1, 0), dtype=torch.long)
        given |= {"qformer_input_ids": nothing, "qformer_attention_mask": nothing}
    with torch.no_grad():
        if family == "blip":  # its own generate drops the last token, the end that a tokenizer of its adds
            given["input_ids"] = torch.cat((ids, torch.full_like(ids[:, :1], tiny_towers.END)), dim=1)
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        made = model.generate(**given, max_new_tokens=LONGEST, do_sample=False)[0].tolist()
    return made[ids.shape[1] :]


@pytest.mark.parametrize("family", FAMILIES)
def test_image_tokens_answer_as_pixels_do(family: str, directory) -> None:
    path = directory(family)
    answerer = load(path)
    x = pictures(answerer, len(QUESTIONS))
    answers = answerer.answer(x, QUESTIONS, [0] * len(QUESTIONS))
    tokens = answerer.image_tokens(x)
    assert answers == answerer.answer_tokens(tokens, QUESTIONS, [0] * len(QUESTIONS))
    ends = answerer._ends()
    for place, question in enumerate(QUESTIONS[:2]):
        ids = plainly(path, family, answerer, x[place : place + 1], question)
        expected = answerer._read(ids, ends)
        assert answers[place] == expected
    if family != "paligemma":  # whose random head says the same whatever it sees
        assert len({answer.text for answer in answers}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_said_scores_highest_word_by_word(family: str, directory) -> None:
    """Held to its own greedy answer, a model finds each of its words best, and any other answer beaten somewhere."""
    answerer = load(directory(family))
    with torch.no_grad():
        tokens = answerer.image_tokens(pictures(answerer, len(QUESTIONS)))
        said = answerer.say(tokens, QUESTIONS)
        assert [answerer.read(ids) for ids in said] == answerer.answer_tokens(
            tokens, QUESTIONS, [0] * len(QUESTIONS)
        )
        # a random model may say the image token, which stands for an image where it is forced
        kept = [place for place, ids in enumerate(said) if tiny_towers.IMAGE not in ids]
        assert kept or family == "gemma3"
        tokens, said, asked = tokens[kept], [said[place] for place in kept], [QUESTIONS[i] for i in kept]
        others = [[*ids[:-1], 20 + (ids[-1] == 20)] for ids in said]
        for texts, sign in ((said, 1), (others, -1)) if kept else ():
            forced = answerer.force(asked, texts)
            for reach in (False, True):
                objective = AnswerObjective(
                    forced.ids, forced.answer, answerer.scores, tuple(tokens.shape[1:]), reach
                )
                margin = objective.margin(tokens.flatten(1))
                assert (margin * sign * (-1 if reach else 1) > -1e-4).all(), (reach, margin)


def test_sampled_answers_are_those_of_their_seeds(directory) -> None:
    answerer = load(directory("llava"), temperature=5.0)
    x = pictures(answerer, 1).expand(6, -1, -1, -1)
    seeds = [1, 2, 3, 4, 5, 6]
    together = answerer.answer(x, QUESTIONS[:1] * 6, seeds)
    alone = [answerer.answer(x[:1], QUESTIONS[:1], [seed])[0] for seed in reversed(seeds)]
    assert together == alone[::-1]
    assert len({answer.text for answer in together}) > 1


def test_an_answer_without_an_end_is_cut_and_marked(directory) -> None:
    answerer = load(directory("llava"), max_new_tokens=2)
    assert answerer._read([20, 21], {1}).complete is False
    ended = answerer._read([20, 1, 0], {1})
    assert (ended.text, ended.tokens, ended.complete) == ("w20", 1, True)


def test_templates_that_do_not_fit_are_refused(directory) -> None:
    for template, message in (
        ("user {question} answer", r"(?s)0 slots for the image.*written <image>"),
        ("<image> <image> {question}", "2 slots"),
    ):
        with pytest.raises(JobError, match=message):
            load(directory("llava"), template=template)
    with pytest.raises(JobError, match=r"(?s)no chat template.*set answer\.template"):
        load(directory("llava"), template=None)
    with pytest.raises(ValueError, match="no {question}"):
        AnswerSection(model="-", questions="-", template="<image>")


def test_a_question_with_the_image_token_is_refused(directory) -> None:
    answerer = load(directory("llava"))
    with pytest.raises(JobError, match="holds the image token"):
        answerer.answer(pictures(answerer, 1), ["what <image>"], [0])


def test_the_chat_template_of_the_model_is_the_default(directory, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(directory("llava"), tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").write_text(
        "{% for m in messages %}user {% for part in m.content %}"
        "{{ '<image> ' if part.type == 'image' else part.text }}{% endfor %}{% endfor %} answer"
    )
    answerer = load(tmp_path / "model", template=None)
    assert (
        answerer.template == "user <image> {question} answer"
        and answerer.prompt("why") == "user <image> why answer"
    )
    assert answerer.template_digest == load(directory("llava")).template_digest
    assert answerer.digest != load(directory("llava")).digest  # its files are others


def test_a_model_without_an_end_token_is_refused(directory, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(directory("llava"), tmp_path / "endless")
    for name in ("config.json", "generation_config.json"):
        text = json.loads((tmp_path / "endless" / name).read_text())
        for part in (text, text.get("text_config", {})):
            part.pop("eos_token_id", None)
            if part is not text:
                part["eos_token_id"] = None
        (tmp_path / "endless" / name).write_text(json.dumps(text))
    with pytest.raises(
        JobError, match=r"(?s)names no end token.*eos_token_id in the model's generation_config"
    ):
        load(tmp_path / "endless")


def test_a_model_of_an_unknown_family_is_refused_with_the_nearest(directory, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(directory("llava"), tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text()) | {"model_type": "lava"}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=r"(?s)answer\.model=.*'lava'.*did you mean 'llava'"):
        load(tmp_path / "model")


def test_what_answers_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"(?s)answer\.model='bundled:digits-clip' has no language model"):
        load(Path("bundled:digits-clip"))


def test_settings_that_change_answers_change_the_digest_and_the_identity(directory) -> None:
    path = directory("llava")
    assert load(path).digest != load(path, max_new_tokens=3).digest
    one = AnswerSection(model="-", questions="-", contents={"model": "a", "questions": "b"})
    elsewhere = one.model_copy(update={"model": "/other", "questions": "/other.jsonl", "batch": 3})
    assert one.answer_id == elsewhere.answer_id
    assert one.answer_id != one.model_copy(update={"smooth_draws": 3}).answer_id
    assert json.loads(one.model_dump_json())["contents"] == {"model": "a", "questions": "b"}
