"""What Keras calls a class of layers in its files: snake case, as its folders."""

from __future__ import annotations

import re

# A class that is not known, and is no EinsumDense.
OTHER = "layer"
# Classes that configurations call by the name they are exported by, and folders by their own.
_EXPORTED = {"GroupQueryAttention": "GroupedQueryAttention"}
_PRODUCTS = ("dense", "einsum_dense")
# Classes whose tensors other classes keep by the same names.
_LOOKALIKES = re.compile(
    r"((depthwise_|separable_)?conv[12]d|conv3d|conv[123]d_transpose"
    r"|(batch|layer|group|rms)_normalization)"
)


def snake_case(class_name: str) -> str:
    """As Keras's `to_snake_case`, of the class that has a name in a configuration."""
    name = re.sub(r"\W+", "", _EXPORTED.get(class_name, class_name))
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def class_of(name: str) -> str:
    """The class that a folder in a list, or a layer without a name of its own, is called by.

    `conv2d_1` is a `conv2d`.
    """
    return re.sub(r"_\d+$", "", name)


def product_by_name(name: str) -> str:
    """The class of a layer that multiplies with a kernel, if it has the name that Keras gives one.

    "" for a name of its own: then a Dense and an EinsumDense keep the same tensors.
    """
    kind = class_of(name.rpartition("/")[2])
    return kind if kind in _PRODUCTS else ""


def lookalike_by_name(name: str) -> str:
    """The class of a convolution or a norm, if it has the name that Keras gives one; or ""."""
    kind = class_of(name.rpartition("/")[2])
    return kind if _LOOKALIKES.fullmatch(kind) else ""
