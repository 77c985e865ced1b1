"""Whose names and layouts the tensors of a neutral format follow: read from its content.

A `.safetensors`, a `.npz` and a dict hold arrays of any framework. Which one wrote them is said by
safetensors' metadata, by the `:0` that TensorFlow puts behind names, by Flax's collections in front
of them, or by what the tensors are called in their layers: torch has `weight` where Keras has
`kernel`, `gamma` and `embeddings`. What has torch's names too is torch's (BERT's norms in old torch
files have `gamma` and `beta`). A `kernel` is Flax's, too: below `params` alone the names that both
give to layers by themselves tell it, `Conv_0` and `conv2d`, or nothing does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import Any

from torch_warmstart.formats.base import Family
from torch_warmstart.formats.class_names import lookalike_by_name

_KERNEL = "kernel"
_OF_KERAS = frozenset(
    {
        *("gamma", "beta", "embeddings", "moving_mean", "moving_variance"),
        *("recurrent_kernel", "depthwise_kernel", "pointwise_kernel", "embedding_weights"),
    }
)
_OF_TENSORFLOW = _OF_KERAS | {_KERNEL}
AVERAGE = "ExponentialMovingAverage"  # behind a variable's name, of an average of it
_OF_AVERAGES = re.compile(
    r"(?i)(^|_)(ema|swa|average|averages|averaged|shadow)(_|$)|moving_?average"
)
_ENDS_OF_TENSORFLOW = (":0", f"/{AVERAGE}")  # of any name
_OF_TORCH = frozenset(
    {
        *("weight", "running_mean", "running_var", "num_batches_tracked"),
        *("in_proj_weight", "weight_ih_l0", "weight_g", "weight_v", "weight_orig"),
    }
)
# Flax's: the collections that all names begin with, and what layers in them have.
COLLECTIONS = ("params", "batch_stats")
_OF_FLAX = frozenset({_KERNEL, "bias", "scale", "embedding", "negative_slope", "mean", "var"})
# What it calls the first layer of a class that has no name (flax/linen/module.py counts from 0).
_FIRST_OF_FLAX = re.compile(
    r"(Dense(General)?|Einsum|Conv(Local|Transpose)?|Embed|PReLU"
    r"|(Batch|Layer|RMS|Group|Instance|Weight|Spectral)Norm"
    r"|MultiHead(DotProduct)?Attention|SelfAttention|(Optimized)?LSTMCell|GRUCell|SimpleCell)_0"
)
# How safetensors' metadata say a family: the key, and the word for each, none for
# "tensorflow_or_flax". MLX has torch's names, and other kernels of convolutions; Paddle too, and
# other weights of linear layers.
FAMILY_KEY = "format"
FAMILY_WORDS: dict[Family, str] = {
    "tensorflow": "tf",
    "flax": "flax",
    "torch": "pt",
    "mlx": "mlx",
    "paddle": "pd",
}
_SAID: dict[object, Family] = {word: family for family, word in FAMILY_WORDS.items()}


def is_of_averages(word: str) -> bool:
    """Whether a part of a name says that what is called so are averages of weights."""
    return _OF_AVERAGES.search(word) is not None


def family_of(keys: Iterable[str], said: Any = None, within: str = "") -> Family:
    """The family of tensors by their keys.

    Args:
        keys: All of them.
        said: What safetensors' metadata has under `FAMILY_KEY`.
        within: The path of the entry of a container that they are in.
    """
    if isinstance(said, str) and said in _SAID:
        return _SAID[said]
    leaves, begins, scopes = set(), {within.partition("/")[0]}, set()
    for key in keys:
        if key.endswith(_ENDS_OF_TENSORFLOW):
            return "tensorflow"
        begin, _, leaf = key.replace(".", "/").rpartition("/")
        leaves.add(leaf)
        begins.add(begin.partition("/")[0])  # of a count beside the collections ""
        scopes.add(begin)
    if leaves & _OF_TORCH:
        return "torch"
    if (within in COLLECTIONS or begins - {""} <= {*COLLECTIONS}) and leaves & _OF_FLAX:
        return "flax"
    return _by_layers(leaves, scopes) if leaves & (_OF_TENSORFLOW | _OF_FLAX) else "torch"


def _by_layers(leaves: Set[str], scopes: Set[str]) -> Family:
    """The family of layers by their tensors' names, none of which only torch has, and their own."""
    layers = {part for scope in scopes for part in scope.split("/")}
    is_flax = bool(leaves & _OF_FLAX) and any(map(_FIRST_OF_FLAX.fullmatch, layers))
    is_named = _KERNEL in leaves and any(map(lookalike_by_name, layers))
    is_keras = bool(leaves & _OF_KERAS) or is_named
    if is_flax != is_keras:
        return "flax" if is_flax else "tensorflow"
    return "tensorflow_or_flax" if is_flax or _KERNEL in leaves else "torch"
