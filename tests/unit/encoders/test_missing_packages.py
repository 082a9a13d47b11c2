"""A package that is not installed is named, with how to install it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from transformers.utils.import_utils import BACKENDS_MAPPING

from smoothcert.encoders.explaining import missing_package


def import_error(statement: str) -> BaseException:
    with pytest.raises(ImportError) as caught:
        exec(statement)
    return caught.value


def wrap(cause: BaseException) -> BaseException:
    try:
        raise ValueError("the tokenizer cannot be made") from cause
    except ValueError as exc:
        return exc


@pytest.mark.parametrize(
    ("error", "package"),
    [
        (import_error("import no_such_package.inner"), "no_such_package"),
        (wrap(import_error("import no_such_package")), "no_such_package"),
        (
            ImportError("\nX requires the SentencePiece library but it was not found in your environment."),
            "sentencepiece",
        ),
        (ImportError("These packages were not found: einops. Run `pip install einops`"), "einops"),
        (ImportError("X requires the protobuf library but it was not found"), "protobuf"),
        (ModuleNotFoundError("No module named 'google.protobuf'", name="google.protobuf"), "protobuf"),
        (ModuleNotFoundError("No module named 'PIL'", name="PIL"), "pillow"),
        (ModuleNotFoundError("No module named 'open_clip'", name="open_clip"), "'smoothcert[open_clip]'"),
        (ImportError("libfoo.so: cannot open shared object file"), None),
        (ValueError("pip install anything"), None),
        (None, None),
    ],
)
def test_the_package_is_found_in_the_error(error, package):
    assert missing_package(error) == package


def test_the_words_of_the_installed_transformers_are_understood():
    for name in ("sentencepiece", "protobuf", "timm", "tokenizers"):
        _, message = BACKENDS_MAPPING[name]
        wanted = "'smoothcert[timm]'" if name == "timm" else name
        assert missing_package(ImportError(message.format("X"))) == wanted


def test_a_siglip_tokenizer_without_sentencepiece_says_what_to_install(sentencepiece_siglip):
    # in a process of its own: transformers remembers which packages it found
    program = (
        "import sys; sys.modules['sentencepiece'] = None\n"
        "from smoothcert.encoders import load_encoder\n"
        "from smoothcert.job import EncoderSection\n"
        "load_encoder(EncoderSection(model=sys.argv[1], device='cpu'))\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", program, str(sentencepiece_siglip)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 1
    assert "its tokenizer cannot be loaded" in made.stderr and "pip install sentencepiece" in made.stderr
