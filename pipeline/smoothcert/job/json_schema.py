"""The published JSON schemas of job and study files: fields are described by the text below them in the code."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from smoothcert.job.section import Section


def json_schema_of(root: type[Section]) -> dict[str, Any]:
    """The JSON schema of a section and of those in it, each field described by the text below it.

    Pydantic can look for these texts itself, but reads every class's source for it whenever a process starts.
    """
    schema = root.model_json_schema()
    parts = {root.__name__: schema, **schema.get("$defs", {})}
    for kind in _kinds(Section):
        properties = parts.get(kind.__name__, {}).get("properties", {})
        for name, text in _texts_below(kind):
            if name in properties:
                properties[name] = dict(sorted(({"description": text} | properties[name]).items()))
    return schema


def _kinds(kind: type[Section]) -> Iterator[type[Section]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)


def _texts_below(kind: type[Section]) -> Iterator[tuple[str, str]]:
    """Names of a section's fields and the texts below them, those of its bases last."""
    for each in kind.__mro__:
        if not issubclass(each, Section):
            return
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                assert isinstance(field.target, ast.Name) and isinstance(below.value, ast.Constant)
                yield field.target.id, inspect.cleandoc(str(below.value.value))
