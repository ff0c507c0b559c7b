"""YAML that means what it says: no key twice, no merge keys, no numbers in another base."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class RepeatedKeyError(Exception):
    """A key that YAML would silently let win over its first occurrence."""


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with the refusals of this module."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping; raises RepeatedKeyError naming the key that is given twice."""
        seen = set()
        for name, _ in node.value:
            key = self.construct_object(name, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise RepeatedKeyError(repr(key))
                seen.add(key)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> Any:
        """YAML 1.1 reads 1:30 as 90, in base 60, and 010 as 8: no budget is meant so."""
        text = node.value.lstrip("+-")
        if ":" in text or (text.isdigit() and len(text) > 1 and text.startswith("0")):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is not a plain number", node.start_mark
            )
        as_usual: Any = yaml.SafeLoader.yaml_constructors[node.tag]
        return as_usual(self, node)


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    StrictLoader.add_constructor(_tag, StrictLoader.number)
