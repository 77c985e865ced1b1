"""What Keras calls a class of layers in its files: snake case, as its folders."""

from __future__ import annotations

import re

# Classes that configurations call by the name they are exported by, and folders by their own.
_EXPORTED = {"GroupQueryAttention": "GroupedQueryAttention"}


def snake_case(class_name: str) -> str:
    """As Keras's `to_snake_case`, of the class that has a name in a configuration."""
    name = re.sub(r"\W+", "", _EXPORTED.get(class_name, class_name))
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
