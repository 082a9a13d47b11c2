"""Train the small CLIP that ships with the package, without noise, on the bundled digits.

    python recipes/train_digits_clip.py [--out DIRECTORY]

Takes about two minutes on two CPU cores. Seeded; with the same versions and thread count it writes the same
weights, elsewhere weights of the same quality. It refuses to write a model below 0.97 zero-shot accuracy.

Each step shows the model a batch of training scans, moved and turned a little, and one caption of each digit
in a random wording; an image must find the caption of its digit among the ten, and a caption its images.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast
from transformers.utils import logging

from smoothcert.datasets import DIGIT_NAMES, digit_caption, load_digits_pairs
from smoothcert.datasets.digits import DIGIT_PIXELS

SEED = 0
EPOCHS = 120
BATCH = 256
LEARNING_RATE = 2e-3
MEAN = STD = 0.5
TEXT_LENGTH = 32
MAX_LOGIT_SCALE = 20.0
REQUIRED_ACCURACY = 0.97
BUNDLED = Path(__file__).parents[1] / "pipeline/smoothcert/encoders/bundled/digits-clip"

WORDINGS = (
    "a photo of the digit {name}",
    "a photo of the number {name}",
    "a photo of a {name}",
    "the digit {name}",
    "the number {name}",
    "a handwritten {name}",
    "a scan of the handwritten digit {name}",
    "a picture of the numeral {name}",
    "{name}",
    "a photo of the digit {figure}",
    "the handwritten number {figure}",
    "{figure}",
)

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---

# digits-clip

A CLIP of {parameters:,} parameters for 32x32 images of handwritten digits, small enough to ship with
smoothcert and to certify on a laptop. It knows nothing but digits.

- **Use**: `encoder.model: bundled:digits-clip` in a job, or `CLIPModel.from_pretrained` on this directory;
  `AutoTokenizer` and `AutoImageProcessor` read it too.
- **Training data**: the 1,437 training pairs of `smoothcert.datasets.load_digits_pairs("train")`: real scans
  (see `datasets/bundled/digits.md`), captions in {wordings} wordings. No noise was used in training, so the
  model shows what smoothing does to an ordinary encoder.
- **Made by** `recipes/train_digits_clip.py`, seed {seed}, {epochs} epochs.
- **Measured** on the 360 held-out pairs, prompt "a photo of the digit {{label}}": zero-shot accuracy
  **{accuracy:.4f}** (the same writers as in training, so this says nothing about new ones).
  With Gaussian noise, {draws} draws an image (averages, not certificates):

| sigma | accuracy of the smoothed feature | mean norm of the smoothed feature |
|---|---|---|
{noisy}

- **License**: Apache-2.0, as the package. The scans are CC BY 4.0 (their card says whose).
"""


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=BUNDLED, help="directory to write; default the bundled one"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    logging.disable_progress_bar()

    tokenizer = build_tokenizer()
    model = build_model(tokenizer, options.seed)
    train(model, tokenizer, seed=options.seed, epochs=options.epochs)
    accuracy, _ = measure(model, tokenizer, sigma=0.0, draws=1)
    noisy = {sigma: measure(model, tokenizer, sigma=sigma, draws=32) for sigma in (0.1, 0.25, 0.5)}
    print(f"held-out zero-shot accuracy {accuracy:.4f}")
    for sigma, (smoothed, norm) in noisy.items():
        print(f"sigma {sigma}: smoothed accuracy {smoothed:.4f}, mean norm {norm:.3f}")
    if accuracy < REQUIRED_ACCURACY:
        raise SystemExit(f"accuracy {accuracy:.4f} is below {REQUIRED_ACCURACY}; nothing written")

    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    processor().save_pretrained(options.out)
    card = CARD.format(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        wordings=len(WORDINGS),
        seed=options.seed,
        epochs=options.epochs,
        accuracy=accuracy,
        draws=32,
        noisy="\n".join(f"| {sigma} | {acc:.3f} | {norm:.3f} |" for sigma, (acc, norm) in noisy.items()),
    )
    (options.out / "README.md").write_text(card, encoding="utf-8")
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"wrote {options.out} ({size / 1e6:.2f} MB)")


def captions(wording: str) -> list[str]:
    """One caption for each of the ten digits."""
    return [wording.format(name=name, figure=figure) for figure, name in enumerate(DIGIT_NAMES)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-casing byte-level BPE: any text has tokens, known words have few."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text for wording in WORDINGS for text in captions(wording)], trainer)
    tokenizer.add_special_tokens(["<pad>", "<start>", "<end>"])  # after the others: <end> has the largest id
    start, end = tokenizer.token_to_id("<start>"), tokenizer.token_to_id("<end>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", start), ("<end>", end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        model_max_length=TEXT_LENGTH,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> CLIPModel:
    """Random weights: 16 patches of 8x8 pixels, width 64."""
    torch.manual_seed(seed)
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "hidden_act": "gelu"}
    config = CLIPConfig(
        vision_config={**tower, "num_hidden_layers": 3, "image_size": DIGIT_PIXELS, "patch_size": 8},
        text_config={
            **tower,
            "num_hidden_layers": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": TEXT_LENGTH,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        projection_dim=32,
        logit_scale_init_value=math.log(10.0),
    )
    return CLIPModel(config)


def processor() -> CLIPImageProcessorPil:
    """Resize to 32x32, normalise to [-1, 1]."""
    side = {"height": DIGIT_PIXELS, "width": DIGIT_PIXELS}
    return CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False, image_mean=[MEAN] * 3, image_std=[STD] * 3
    )


def images_and_labels(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 3, 32, 32) in [0,1], class indices (n,)."""
    pairs = load_digits_pairs(split)
    pixels = np.stack([_array(image) for image, _, _ in pairs])
    labels = [DIGIT_NAMES.index(label) for _, _, label in pairs]
    return torch.from_numpy(pixels), torch.tensor(labels)


def _array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255


def moved(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image shifted by up to 2 pixels, turned by up to 12 degrees, scaled by up to 10%."""
    count = len(images)
    shift, turn, size = (torch.rand((count, k), generator=generator) * 2 - 1 for k in (2, 1, 1))
    angle, scale = turn[:, 0] * math.radians(12), 1 + 0.1 * size[:, 0]
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = torch.stack((cos, -sin, shift[:, 0] / 8, sin, cos, shift[:, 1] / 8), dim=1).view(count, 2, 3)
    grid = functional.affine_grid(rows, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def image_features(model: CLIPModel, images: torch.Tensor) -> torch.Tensor:
    """Unit features of images in [0,1]."""
    return functional.normalize(model.get_image_features(pixel_values=(images - MEAN) / STD).pooler_output)


def text_features(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Unit features of texts."""
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    output = model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return functional.normalize(output.pooler_output)


def train(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, *, seed: int, epochs: int) -> None:
    """AdamW with a cosine schedule, in place."""
    images, labels = images_and_labels("train")
    generator = torch.Generator().manual_seed(seed)
    per_epoch = math.ceil(len(images) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * per_epoch)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for chosen in order.split(BATCH):
            wordings = torch.randint(len(WORDINGS), (len(DIGIT_NAMES),), generator=generator)
            texts = [captions(WORDINGS[wording])[digit] for digit, wording in enumerate(wordings)]
            seen = image_features(model, moved(images[chosen], generator))
            logits = model.logit_scale.exp() * seen @ text_features(model, tokenizer, texts).T
            loss = contrastive(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
            total += loss.item() * len(chosen)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / len(images):.4f}")
    model.eval()


def contrastive(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Images to captions and captions to images; a caption has all images of its digit as positives."""
    to_text = functional.cross_entropy(logits, labels)
    positives = functional.one_hot(labels, logits.shape[1]).T.float()
    present = positives.sum(1) > 0
    targets = positives[present] / positives[present].sum(1, keepdim=True)
    to_image = functional.cross_entropy(logits.T[present], targets)
    floor = -(targets * targets.clamp(min=1e-12).log()).sum(1).mean()  # what a perfect answer costs
    return (to_text + to_image - floor) / 2


@torch.no_grad()
def measure(
    model: CLIPModel, tokenizer: PreTrainedTokenizerFast, *, sigma: float, draws: int
) -> tuple[float, float]:
    """Zero-shot accuracy of the mean held-out feature under noise, and the mean of its norm."""
    images, labels = images_and_labels("test")
    generator = torch.Generator().manual_seed(1)
    mean = torch.zeros((len(images), model.config.projection_dim))
    for _ in range(draws):
        noise = sigma * torch.randn(images.shape, generator=generator)
        mean += image_features(model, images + noise) / draws
    classes = text_features(model, tokenizer, [digit_caption(name) for name in DIGIT_NAMES])
    right = (mean @ classes.T).argmax(1) == labels
    return right.float().mean().item(), mean.norm(dim=1).mean().item()


if __name__ == "__main__":
    main()
