"""YAML whose mappings have each key once: the loader of the library keeps the last of several, and says nothing."""

from __future__ import annotations

from typing import Any

import yaml


class RepeatedKeyError(yaml.YAMLError):
    """A key stands twice in one mapping."""


class OneOfEachKey(yaml.SafeLoader):
    """Safe loading that raises ``RepeatedKeyError``. What a merge (``<<``) brings may be overridden, as ever."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As the library does, before merges are resolved; then every key is looked at as it is written."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            what, line = (key.tag, key.value), key.start_mark.line + 1
            if what in lines:
                where = f"in lines {lines[what]} and {line}" if lines[what] != line else f"in line {line}"
                raise RepeatedKeyError(f"'{key.value}' stands twice in one mapping, {where}")
            lines[what] = line
        return node
