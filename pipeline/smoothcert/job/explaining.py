"""What is wrong with a job, field by field, in words that help."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from smoothcert.errors import JobError, did_you_mean
from smoothcert.job.job import Job
from smoothcert.job.section import Section
from smoothcert.redaction import without_secrets


def explain(error: ValidationError, origin: str, model: type[Section] = Job) -> JobError:
    """Pydantic's complaints about a job, or a section of one, as one of ours: each field with its value and remedy."""
    lines = []
    choices: dict[str, list[str]] = {}
    items = error.errors()
    for item in items:
        if item["type"] == "too_short" and any(
            len(other["loc"]) > len(item["loc"]) and other["loc"][: len(item["loc"])] == item["loc"]
            for other in items
        ):
            continue  # entries that are wrong themselves do not count for pydantic, so this says nothing more
        where = ".".join(str(part) for part in _place(item["loc"], model)) or (
            "job" if model is Job else "section"
        )
        message = _in_words_of_yaml(item["msg"].removeprefix("Value error, "))
        if item["type"] == "extra_forbidden":
            known = _known_fields(item["loc"][:-1], model)
            key = str(item["loc"][-1])
            place = next(iter(_places(key, model)), "") if key not in known else ""
            hint = f" (did you mean '{place}'?)" if place else did_you_mean(key, known)
            lines.append(f"{where}: unknown key{hint}; known: {', '.join(known)}")
        elif item["type"] == "missing":
            lines.append(f"{where}: missing; add it")
        elif item["type"] == "too_short":
            lines.append(f"{where}: a list of at least {item['ctx']['min_length']} is needed; add to it")
        elif isinstance(item["input"], (dict, list)) or item["type"] == "value_error":
            choices.setdefault(where, []).append(message)
        else:
            choices.setdefault(f"{where}={item['input']!r}", []).append(message)
    for where, (message, *others) in choices.items():
        # a field of several types has a complaint for each
        more = [other.removeprefix("Input should be ") for other in dict.fromkeys(others) if other != message]
        lines.append(" or ".join([f"{where}: {message}", *more]))
    return JobError(
        without_secrets(
            f"{origin} is not a valid {'job' if model is Job else 'section'}:\n  " + "\n  ".join(lines)
        ),
        remedy="fix these fields; nothing was started",
    )


def _in_words_of_yaml(message: str) -> str:
    message = message.replace("a valid string", "text in quotes")
    message = re.sub(r"dictionary or instance of \w+", "mapping", message).replace(
        "valid tuple", "valid list"
    )
    return message


def _place(location: Sequence[str | int], root: type[Section]) -> Iterator[str | int]:
    """A location without the names that pydantic gives to the types of a field that may have several."""
    model: Any = root
    several = False
    for part in location:
        if not (several and isinstance(part, str)):
            yield part
        several = False
        if isinstance(part, str):
            field = model.model_fields.get(part) if model is not None else None
            model = _section_in(field.annotation) if field is not None else None
            annotation = field.annotation if field is not None else None
            union = get_origin(annotation) in (Union, UnionType)
            several = model is None and union and len(set(get_args(annotation)) - {type(None)}) > 1


def _places(key: str, model: type[Section], above: str = "") -> Iterator[str]:
    """Where in a job a key of this name is, by dotted name; those that are less deep come first."""
    if key in model.model_fields:
        yield f"{above}{key}"
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _places(key, inner, f"{above}{name}.")


def _known_fields(location: Sequence[str | int], root: type[Section]) -> list[str]:
    model: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        found = _section_in(annotation)
        if found is None:
            return []
        model = found
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None
