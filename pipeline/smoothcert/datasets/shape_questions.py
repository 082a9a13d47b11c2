"""Questions about the generated shapes, with their answers: read off the caption, which says all that is to be seen."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smoothcert.datasets.synthetic import COLOURS, PLACES, RELATIONS, SHAPES, SIZES
from smoothcert.errors import StoreError

if TYPE_CHECKING:
    from smoothcert.datasets.shards import WrittenDataset

DESCRIBE = "describe the image."
KINDS = ("count", "colour", "shape", "size", "presence", "place", "relation", "caption")
NUMBERS = ("zero", "one", "two")

_OBJECT = rf"a ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_CAPTION = re.compile(
    rf"{_OBJECT} (?:(?P<place>{'|'.join(PLACES)})|(?P<relation>{'|'.join(RELATIONS)}) {_OBJECT})"
)
_OPPOSITES = {"right of": "left of", "below": "above"}
_ALIKE = 0.5
"""Share of the yes-or-no questions whose answer is yes."""


@dataclass(frozen=True, slots=True)
class ShapeQuestion:
    """One question about one scene.

    Attributes:
        kind: one of ``KINDS``.
        question: the text.
        answer: what is right.
        other: what is as right: the caption of two objects from the other one's side; None for none.
    """

    kind: str
    question: str
    answer: str
    other: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What a caption says: (size, colour, shape) of one object or two, and where they are.

    Attributes:
        objects: one or two.
        place: of a single object, e.g. ``in the centre``; None for two.
        relation: of the first object to the second, e.g. ``left of``; None for one.
    """

    objects: tuple[tuple[str, str, str], ...]
    place: str | None
    relation: str | None


def read_scene(caption: str) -> Scene:
    """The scene of a caption of ``draw_scenes``.

    Raises:
        ValueError: it is no such caption.
    """
    found = _CAPTION.fullmatch(caption)
    if found is None:
        raise ValueError(f"{caption!r} is not a caption of the generated shapes")
    size, colour, shape, place, relation, *other = found.groups()
    objects = ((size, colour, shape),) + (((other[0], other[1], other[2]),) if relation else ())
    return Scene(objects, place, relation)


def in_reading_order(scene: Scene) -> Scene:
    """The same scene, its left or upper object first: which one a caption names first nobody can see."""
    if scene.relation not in _OPPOSITES:
        return scene
    return Scene(scene.objects[::-1], None, _OPPOSITES[scene.relation])


def _captions(scene: Scene) -> tuple[str, ...]:
    """The caption in reading order, and of two objects the other one."""
    first, *others = (f"a {' '.join(each)}" for each in in_reading_order(scene).objects)
    if not others:
        return (f"{first} {scene.place}",)
    relation = in_reading_order(scene).relation
    back = next(name for name, opposite in _OPPOSITES.items() if opposite == relation)
    return f"{first} {relation} {others[0]}", f"{others[0]} {back} {first}"


def ask_about(caption: str, rng: np.random.Generator) -> list[ShapeQuestion]:
    """One question of each kind that the scene answers without doubt.

    Args:
        caption: as ``draw_scenes`` makes it.
        rng: chooses among the questions of a kind.

    Raises:
        ValueError: it is no such caption.
    """
    scene = read_scene(caption)
    objects = scene.objects
    asked = [
        _count(objects, rng),
        _size(objects, rng),
        _presence(objects, rng),
        ShapeQuestion("caption", DESCRIBE, *_captions(scene)),
    ]
    _, colours, shapes = zip(*objects, strict=True)
    if len(set(shapes)) == len(objects):
        _, colour, shape = objects[int(rng.integers(len(objects)))]
        asked.append(ShapeQuestion("colour", f"what colour is the {shape}?", colour))
    if len(set(colours)) == len(objects):
        _, colour, shape = objects[int(rng.integers(len(objects)))]
        asked.append(ShapeQuestion("shape", f"what shape is {colour}?", shape))
    if scene.place is not None:
        asked.append(ShapeQuestion("place", f"where is the {shapes[0]}?", scene.place))
    elif scene.relation is not None and len(set(shapes)) == len(objects):
        asked.append(_relation(shapes, scene.relation, rng))
    return asked


def write_shape_questions(uri: str, written: WrittenDataset, *, seed: int = 0) -> int:
    """Write questions about generated pairs, one JSON object a line, as a job's section ``answer`` reads them.

    Args:
        uri: of the file: a path or fsspec URL.
        written: what ``write_synthetic`` wrote.
        seed: 0 or more; with the pair's place it chooses among the questions of a kind.

    Returns:
        How many questions there are.

    Raises:
        SourceError: reading the pairs failed.
        StoreError: writing failed.
    """
    import fsspec

    from smoothcert.datasets.opening import open_source
    from smoothcert.job import DataSection

    source = open_source(DataSection(format=written.format, uri=written.directory))
    lines = []
    for place, (pair, captions) in enumerate(source.captions()):
        for number, each in enumerate(ask_about(captions[0], np.random.default_rng((seed, place)))):
            line = {"pair": pair, "id": f"{place}-{number}", "kind": each.kind}
            answers = [each.answer] if each.other is None else [each.answer, each.other]
            lines.append(json.dumps(line | {"question": each.question, "answers": answers}))
    try:
        with fsspec.open(uri, "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
    except (OSError, ValueError, ImportError) as exc:
        raise StoreError(
            f"cannot write '{uri}': {exc}", remedy="name a file in a folder that exists"
        ) from exc
    return len(lines)


def _count(objects: Sequence[tuple[str, str, str]], rng: np.random.Generator) -> ShapeQuestion:
    if rng.random() < _ALIKE:
        return ShapeQuestion("count", "how many shapes are there?", NUMBERS[len(objects)])
    there = [shape for _, _, shape in objects]
    shape = str(rng.choice(there if rng.random() < _ALIKE else SHAPES))
    return ShapeQuestion("count", f"how many {_plural(shape)} are there?", NUMBERS[there.count(shape)])


def _size(objects: Sequence[tuple[str, str, str]], rng: np.random.Generator) -> ShapeQuestion:
    first = objects[0]
    alike = all(each[1:] == first[1:] for each in objects)
    size, colour, shape = first if alike else objects[int(rng.integers(len(objects)))]
    if alike and len(objects) > 1:  # two objects of one name: ask whether they are alike in size too
        answer = "yes" if objects[0][0] == objects[1][0] else "no"
        return ShapeQuestion("size", f"are the {colour} {_plural(shape)} equally large?", answer)
    return ShapeQuestion("size", f"is the {colour} {shape} small or large?", size)


def _presence(objects: Sequence[tuple[str, str, str]], rng: np.random.Generator) -> ShapeQuestion:
    there = [(colour, shape) for _, colour, shape in objects]
    if rng.random() < _ALIKE:
        colour, shape = there[int(rng.integers(len(there)))]
    else:
        colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
    return ShapeQuestion(
        "presence", f"is there a {colour} {shape}?", "yes" if (colour, shape) in there else "no"
    )


def _relation(shapes: Sequence[str], relation: str, rng: np.random.Generator) -> ShapeQuestion:
    asked = relation if rng.random() < _ALIKE else str(rng.choice(list(RELATIONS)))
    return ShapeQuestion(
        "relation", f"is the {shapes[0]} {asked} the {shapes[1]}?", "yes" if asked == relation else "no"
    )


def _plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"
