"""YAML as data: no tags that build objects, no aliases that unfold to gigabytes or into themselves, no key twice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from evalkit.errors import UserError
from evalkit.untrusted.text import shown

MOST_VALUES = 100_000
"""In one document."""


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice: YAML would keep the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            made = self.construct_object(key, deep=True)
            if not isinstance(made, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain value", key.start_mark)
            if made in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{made!r} stands twice", node.start_mark)
            seen.add(made)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, where: str, remedy: str) -> Any:
    """The one document of a YAML text, made of plain values.

    Raises:
        UserError: it is no YAML, or unfolds to too much; names the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _unfolded(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise UserError(f"{where} is nested too deeply.", remedy) from None
    except (yaml.YAMLError, ValueError, OverflowError) as e:  # a date such as 2026-99-99 is a ValueError
        raise UserError(f"{where} cannot be read: {shown(' '.join(str(e).split()))}.", remedy) from None


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, those counted again that an alias repeats.

    Raises:
        ComposerError: more than `MOST_VALUES`, or it contains itself.
    """
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # until it is counted: whoever meets it again is inside it
        children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else []
        children += node.value if isinstance(node, yaml.SequenceNode) else []
        known[id(node)] = 1 + sum(_unfolded(child, known) for child in children)
    if known[id(node)] > MOST_VALUES:
        raise yaml.composer.ComposerError(None, None, "its aliases unfold to too many values", node.start_mark)
    return known[id(node)]
