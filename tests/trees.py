"""State as trees of mappings, as Megatron and Flax keep it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def nested(flat: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Mappings in mappings, by the parts of names."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, leaf = name.split(separator)
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree
