"""Everything about one run with a model of one more family (metaclip.py); run as a program by the test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import smoothcert.encoders
from smoothcert.encoders import registry

smoothcert.encoders.__path__.append(str(Path(__file__).parent))
registry._FAMILIES = (*registry._FAMILIES, "metaclip")

import torch  # noqa: E402
from told import collect, hand_in, smoothcert, write_job  # noqa: E402
from transformers import CLIPImageProcessorPil, MetaClip2Config, MetaClip2Model  # noqa: E402
from transformers.utils import logging  # noqa: E402

SIZE = 24
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = ("<unk>", "<pad>", "<eos>", "a", "photo", "of", "the", "digit", "zero", "five", "seven")


def build(directory: Path) -> Path:
    """A model directory as ``save_pretrained`` writes it, of random weights; its end token is 2 like the real one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    logging.disable_progress_bar()
    torch.manual_seed(0)
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 12, "eos_token_id": 2, "pad_token_id": 1}
    config = MetaClip2Config(
        text_config={**TOWER, **text},
        vision_config={**TOWER, "image_size": SIZE, "patch_size": 8},
        projection_dim=20,
    )
    MetaClip2Model(config).save_pretrained(directory)
    size = {"height": SIZE, "width": SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size).save_pretrained(directory)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", WORDS.index("<eos>"))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<eos>",
        model_max_length=12,
    ).save_pretrained(directory)
    return directory


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

    config = json.loads((model / "config.json").read_text())
    told["model_type"] = config["model_type"]
    config["text_config"]["eos_token_id"] = 1  # the padding: a lone text has none
    (model / "config.json").write_text(json.dumps(config))
    try:
        smoothcert("certify", job, code=None)
    except Exception as exc:
        told["refused"] = str(exc)
    hand_in(told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
