"""When two short answers say the same: the normalisation of the VQA evaluation (Antol et al. 2015, Goyal et al. 2017).

Lower case; punctuation out, except inside numbers; number words as figures; no articles; apostrophes in contractions.
As in the official evaluation code, whose order of steps matters and is kept.
"""

from __future__ import annotations

import re

_PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')
_COMMA_IN_NUMBER = re.compile(r"(\d)(,)(\d)")
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_FIGURES = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_STEMS = (
    "ain aren can couldn didn doesn don hadn hasn haven isn mightn mustn needn shan shouldn wasn weren won wouldn"
).split()
_CONTRACTIONS = {f"{stem}t": f"{stem}'t" for stem in _STEMS} | {
    "cant": "can't",
    "couldve": "could've",
    "hed": "he'd",
    "hes": "he's",
    "howd": "how'd",
    "howll": "how'll",
    "hows": "how's",
    "im": "i'm",
    "ive": "i've",
    "itd": "it'd",
    "itll": "it'll",
    "lets": "let's",
    "maam": "ma'am",
    "mightve": "might've",
    "mustve": "must've",
    "oclock": "o'clock",
    "shes": "she's",
    "shouldve": "should've",
    "somebodys": "somebody's",
    "someones": "someone's",
    "somethings": "something's",
    "thats": "that's",
    "thered": "there'd",
    "theres": "there's",
    "theyd": "they'd",
    "theyll": "they'll",
    "theyre": "they're",
    "theyve": "they've",
    "wed": "we'd",
    "weve": "we've",
    "whatll": "what'll",
    "whatre": "what're",
    "whats": "what's",
    "whatve": "what've",
    "whens": "when's",
    "whered": "where'd",
    "wheres": "where's",
    "whod": "who'd",
    "wholl": "who'll",
    "whos": "who's",
    "whove": "who've",
    "whyll": "why'll",
    "whyre": "why're",
    "whys": "why's",
    "wouldve": "would've",
    "yall": "y'all",
    "youd": "you'd",
    "youll": "you'll",
    "youre": "you're",
    "youve": "you've",
}


def normalise(answer: str) -> str:
    """An answer as the VQA evaluation compares it."""
    text = given = answer.replace("\n", " ").replace("\t", " ").strip()
    in_numbers = _COMMA_IN_NUMBER.search(given) is not None
    for mark in _PUNCTUATION:
        if f"{mark} " in given or f" {mark}" in given or in_numbers:
            text = text.replace(mark, "")
        else:
            text = text.replace(mark, " ")
    text = _PERIOD.sub("", text)
    words = (_FIGURES.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
