"""Everything about one run with a model of one more family (chinese_clip.py); run as a program by the test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import smoothcert.encoders
from smoothcert.encoders import registry

smoothcert.encoders.__path__.append(str(Path(__file__).parent))
registry._FAMILIES = (*registry._FAMILIES, "chinese_clip")

import torch  # noqa: E402
from told import collect, hand_in, smoothcert, write_job  # noqa: E402
from transformers import ChineseCLIPConfig, ChineseCLIPModel, CLIPImageProcessorPil  # noqa: E402
from transformers.utils import logging  # noqa: E402

SIZE = 24
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "the", "digit", "zero", "five", "seven")


def build(directory: Path) -> Path:
    """A model directory as ``save_pretrained`` writes it, of random weights."""
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = ChineseCLIPConfig(
        text_config={**TOWER, "vocab_size": len(WORDS), "max_position_embeddings": 12, "pad_token_id": 0},
        vision_config={**TOWER, "image_size": SIZE, "patch_size": 8},
        projection_dim=20,
    )
    ChineseCLIPModel(config).save_pretrained(directory)
    size = {"height": SIZE, "width": SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size).save_pretrained(directory)
    save_tokenizer(directory, "[CLS] $A [SEP]")
    return directory


def save_tokenizer(directory: Path, form: str) -> None:
    """A tokenizer of whole words that puts special tokens around a text as ``form`` says."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]") if word in form]
    tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=special)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=12,
    ).save_pretrained(directory)


def main(here: Path) -> None:
    """The run, and what each room says of the model."""
    model = build(here / "model")
    encoder = {"model": str(model), "slots": 4, "chunk": 16, "threads": 1}
    classes = {"labels": ["zero", "five"], "prompts": ["a photo of the digit {label}"]}
    attack = {"attack": "pgd", "norm": "l2", "budgets": 0.05, "steps": 1, "subjects": "bare"}
    job = write_job(here, encoder=encoder, zero_shot=classes, attacks=[attack])
    smoothcert("attack", job)
    told = collect(here)
    run_json = json.loads((here / "mine" / "run.json").read_text())
    told["model"], told["digest"] = str(model), run_json["encoder_digest"]

    told["model_type"] = json.loads((model / "config.json").read_text())["model_type"]
    save_tokenizer(model, "$A [SEP]")
    told["refused"] = smoothcert("certify", job, code=2)
    hand_in(told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
