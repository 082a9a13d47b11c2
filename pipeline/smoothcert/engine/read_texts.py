"""What an encoder reads of a job's texts: told and refused before anything is encoded, for tokens cost next to nothing.

A text tower reads a text up to a limit and drops the rest in silence. What is then certified is about the part that was
read; and texts that differ only in the rest are one text to the encoder.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from os.path import commonprefix

from smoothcert.encoders import Encoder
from smoothcert.errors import EncoderError
from smoothcert.job import ZeroShotSection

log = logging.getLogger(__name__)

_AT_ONCE = 256


def check_prompts(encoder: Encoder, zero_shot: ZeroShotSection) -> None:
    """Log how many prompts are cut.

    Raises:
        EncoderError: two classes are the same to the encoder.
    """
    cut, count = 0, len(zero_shot.prompts)
    classes: dict[Hashable, str] = {}
    for label in zero_shot.labels:
        read = encoder.read_texts([prompt.replace("{label}", label) for prompt in zero_shot.prompts])
        cut += sum(text.cut for text in read)
        other = classes.setdefault(tuple(text.content for text in read), label)
        if other is not label:
            raise same_class(other, label)
    if cut:
        log.warning("%s", describe_cut(encoder, cut, count * len(zero_shot.labels), "prompts"))


def check_pool(encoder: Encoder, pool: Sequence[str]) -> None:
    """Log how many captions of the retrieval pool are cut, and how many are the same to the encoder.

    Raises:
        EncoderError: all of them are.
    """
    read = [text for part in _parts(pool) for text in encoder.read_texts(part)]
    contents = {text.content for text in read}
    if len(read) > 1 and len(contents) == 1:
        raise _all_the_same(encoder, f"all {len(read)} captions of the retrieval pool", pool)
    if cut := sum(text.cut for text in read):
        log.warning("%s", describe_cut(encoder, cut, len(read), "captions of the retrieval pool"))
    if len(contents) < len(read):
        log.warning(
            "%s of %s captions of the retrieval pool are the same to encoder '%s' as another: no rank among these is "
            "certified",
            f"{len(read) - len(contents):,}",
            f"{len(read):,}",
            encoder.name,
        )


def check_captions(encoder: Encoder, captions: Iterable[str], *, needed: bool) -> None:
    """Log how many of the first captions are cut, and whether all captions are the same to the encoder.

    Reads on until two captions differ, which the first few do unless something is wrong.

    Args:
        encoder: what reads them.
        captions: those of a source, in any order.
        needed: the job decides something about captions.

    Raises:
        EncoderError: all captions are the same to the encoder, there are several, and the job needs them.
    """
    contents: set[Hashable] = set()
    examples: list[str] = []
    cut = count = 0
    for part in _parts(captions):
        read = encoder.read_texts(part)
        contents.update(text.content for text in read)
        cut += sum(text.cut for text in read)
        count += len(read)
        if len(contents) > 1:
            break
        examples = list(dict.fromkeys([*examples, *part]))[:2]
    if len(contents) == 1 and len(examples) > 1:
        error = _all_the_same(encoder, f"all {count:,} captions", examples)
        if needed:
            raise error
        log.warning("%s", error.message)
    if cut:
        log.warning("%s", describe_cut(encoder, cut, count, "captions read first"))


def describe_cut(encoder: Encoder, cut: int, count: int, what: str) -> str:
    """A sentence that tells how many texts are longer than the encoder reads."""
    name, limit = f"encoder '{encoder.name}'", encoder.text_limit
    length = name if limit is None else f"the {limit} tokens that {name}"
    return f"{cut:,} of {count:,} {what} are longer than {length} reads: the rest of each is ignored"


def same_class(one: str, other: str) -> EncoderError:
    """Two classes that the encoder cannot tell apart."""
    return EncoderError(
        f"the labels {one!r} and {other!r} have the same text feature, so no prediction between them can be certified",
        remedy="remove one of them, or reword the prompts so that they differ within the encoder's text length",
    )


def _all_the_same(encoder: Encoder, what: str, texts: Sequence[str]) -> EncoderError:
    limit = encoder.text_limit
    length = "" if limit is None else f", which reads {limit} tokens of each"
    return EncoderError(
        f"{what} are the same to encoder '{encoder.name}'{length}: {_difference(texts[0], texts[1])}, for "
        "example; so what is certified about captions would say nothing",
        remedy="shorten captions, put first what tells them apart, or use an encoder that reads longer texts",
    )


def _difference(one: str, other: str) -> str:
    """Two texts, shown from a little before they differ."""
    start = max(0, len(commonprefix([one, other])) - 20)
    shown = [
        text if len(text) <= 60 else f"{'...' * (start > 0)}{text[start:][:40]}" for text in (one, other)
    ]
    return f"{shown[0]!r} and {shown[1]!r}"


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while part := list(islice(rest, _AT_ONCE)):
        yield part
