"""One question about one image, and how an answer to a multiple choice is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_BEFORE = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Za-z])[).:])(?=\s|$)")
_SAID = re.compile(r"(?:answer|option|choice)(?:\s+is)?\s*:?\s*\(?([A-Z])\)?(?=\W|$)", re.IGNORECASE)
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class ImageQuestion:
    """One question about one image.

    Attributes:
        question_id: unique in its file.
        question: the text, options of a multiple choice included.
        answers: what people answered, of a multiple choice the text of the right option; empty where nobody did.
        kind: of question, as the file has it; None where it has none.
        choices: the options of a multiple choice; empty for other questions.
    """

    question_id: str
    question: str
    answers: tuple[str, ...]
    kind: str | None = None
    choices: tuple[str, ...] = ()

    def meant(self, answer: str) -> str:
        """The text of the option that an answer names, or the answer itself."""
        place = named_option(answer, self.choices)
        return answer if place is None else self.choices[place]


def named_option(answer: str, choices: Sequence[str]) -> int | None:
    """The option that an answer names: by its letter, by its text, or as the only one whose text it holds.

    ``B``, ``(b)``, ``B. a mouse``, ``The answer is B.`` and ``a mouse`` name the second of two; ``A mouse`` names no
    first.
    """
    if not choices:
        return None
    said = _plain(answer)
    for place, choice in enumerate(choices):
        if said and said == _plain(choice):
            return place
    for pattern in (_ALONE.fullmatch, _BEFORE.match, _SAID.search):
        found = pattern(answer)
        if found is not None:
            letter = next(each for each in found.groups() if each is not None)
            place = ord(letter.upper()) - ord("A")
            if place < len(choices):
                return place
    held = [
        place
        for place, choice in enumerate(choices)
        if _plain(choice) and f" {_plain(choice)} " in f" {said} "
    ]
    return held[0] if len(held) == 1 else None


def as_multiple_choice(question: str, choices: Sequence[str], context: str = "") -> str:
    """The text that puts a question with its options, as LLaVA's evaluation of ScienceQA does."""
    options = " ".join(f"({chr(ord('A') + place)}) {choice}" for place, choice in enumerate(choices))
    before = f"Context: {context.strip()}\n" if context.strip() else ""
    return f"{before}{question.strip()}\nOptions: {options}\nAnswer with the letter of the right option."


def _plain(text: str) -> str:
    return " ".join(_WORDS.findall(text.casefold()))
