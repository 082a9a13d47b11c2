"""Random-weight model directories, as save_pretrained writes them, small enough to build in every run."""

from __future__ import annotations

import io
import string
from pathlib import Path

import sentencepiece
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTokenizer,
)
from transformers.utils import logging

WORDS = ("a", "an", "photo", "of", "the", "cat", "dog", "seven", "in", "tall", "red", "house")
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


logging.disable_progress_bar()


def build_clip(directory: Path, *, size: int = 24, layers: int = 2, **processor: object) -> Path:
    torch.manual_seed(0)
    vocabulary = len(WORDS) + 3
    config = CLIPConfig(
        text_config={
            **TOWER,
            "vocab_size": vocabulary,
            "max_position_embeddings": 12,
            # 2 makes CLIP pool the largest token id, so the end token comes last in the vocabulary.
            "eos_token_id": 2,
            "bos_token_id": 1,
            "pad_token_id": 1,
        },
        vision_config={**TOWER, "num_hidden_layers": layers, "image_size": size, "patch_size": 8},
        projection_dim=20,
    )
    CLIPModel(config).save_pretrained(directory)
    settings = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    CLIPImageProcessorPil(**{**settings, **processor}).save_pretrained(directory)
    _tokenizer(("<unk>", "<pad>", *WORDS, "<eos>"), length=12).save_pretrained(directory)
    return directory


def build_siglip(directory: Path, *, size: int = 24) -> Path:
    torch.manual_seed(0)
    config = SiglipConfig(
        text_config={
            **TOWER,
            "vocab_size": len(WORDS) + 3,
            "max_position_embeddings": 16,
            "bos_token_id": 1,
            "eos_token_id": len(WORDS) + 2,
            "pad_token_id": 1,
        },
        vision_config={**TOWER, "image_size": size, "patch_size": 8},
    )
    SiglipModel(config).save_pretrained(directory)
    SiglipImageProcessorPil(size={"height": size, "width": size}).save_pretrained(directory)
    _tokenizer(("<unk>", "<pad>", *WORDS, "<eos>"), length=16).save_pretrained(directory)
    return directory


def build_sentencepiece_siglip(directory: Path, *, size: int = 24) -> Path:
    """Like ``build_siglip``, with the tokenizer that SigLIP's own checkpoints have: a sentencepiece model."""
    build_siglip(directory, size=size)
    for file in directory.glob("*token*"):
        file.unlink()
    made = io.BytesIO()
    corpus = [f"a photo of {word} {other}" for word in WORDS for other in WORDS]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=made,
        vocab_size=len(WORDS) + 3,
        model_type="word",
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (directory / "spiece.model").write_bytes(made.getvalue())
    SiglipTokenizer(str(directory / "spiece.model"), model_max_length=16).save_pretrained(directory)
    return directory


def build_siglip2(directory: Path) -> Path:
    """SigLIP 2 NaFlex: nine patches of 8x8 pixels, in any arrangement; texts of letters."""
    torch.manual_seed(0)
    specials = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    vocabulary = {token: number for number, token in enumerate((*specials, "▁", *string.ascii_lowercase))}
    tokenizer = Siglip2Tokenizer(vocabulary, [], model_max_length=24, padding_side="right")
    config = Siglip2Config(
        text_config={
            **TOWER,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 24,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "projection_size": TOWER["hidden_size"],
        },
        vision_config={**TOWER, "patch_size": 8, "num_patches": 9},
    )
    Siglip2Model(config).save_pretrained(directory)
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=9).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def build_metaclip_2(directory: Path, *, end: int = len(WORDS) + 2) -> Path:
    """MetaCLIP 2; with ``end`` 1, the padding, texts have no end."""
    torch.manual_seed(0)
    config = MetaClip2Config(
        text_config={
            **TOWER,
            "vocab_size": len(WORDS) + 3,
            "max_position_embeddings": 12,
            "eos_token_id": end,
            "pad_token_id": 1,
        },
        vision_config={**TOWER, "image_size": 24, "patch_size": 8},
        projection_dim=20,
    )
    MetaClip2Model(config).save_pretrained(directory)
    CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(
        directory
    )
    _tokenizer(("<unk>", "<pad>", *WORDS, "<eos>"), length=12).save_pretrained(directory)
    return directory


def _tokenizer(words: tuple[str, ...], *, length: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", words.index("<eos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<eos>",
        model_max_length=length,
    )
