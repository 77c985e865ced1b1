"""What TensorFlow calls the tensors of each torch.nn layer, and how it lays them out.

One row a layer type and leaf. The leaf names are those of Keras 2 and 3, tf.compat.v1.layers, the
canned estimators' feature columns and tf.contrib. A user's own module has no row: its tensors are
copied as they are, as TensorFlow does. A torch.nn layer whose layout differs in TensorFlow and is
not known here is refused, because a square kernel would pass every check of shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.layouts import IDENTITY, TRANSPOSE, Layout


@dataclass(frozen=True, slots=True)
class LeafRule:
    """How one tensor of a layer is stored in TensorFlow."""

    modules: tuple[type[nn.Module], ...]
    leaf: str
    tf_names: tuple[str, ...]
    layout: Layout = IDENTITY
    refusal: str | None = None  # why there is no layout for it


_LINEAR = (nn.Linear,)
_EMBEDDING = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of every rank
    nn.LayerNorm,
    nn.GroupNorm,
)
_RUNNING = (nn.modules.batchnorm._NormBase,)
_CONV = (nn.modules.conv._ConvNd,)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_ATTENTION = (nn.MultiheadAttention,)
_BILINEAR = (nn.Bilinear,)

_BIAS_NAMES = ("bias", "biases", "bias_weights")
_CONV_REFUSAL = "torch keeps convolution kernels as [out, in, ...], TensorFlow as [..., in, out]"
_GATES_REFUSAL = "torch and TensorFlow order the gates of recurrent cells differently"
_ATTENTION_REFUSAL = "torch packs query, key and value into one tensor, TensorFlow keeps three"
_BILINEAR_REFUSAL = "TensorFlow has no layer like it"

RULES: tuple[LeafRule, ...] = (
    LeafRule(_LINEAR, "weight", ("kernel", "weights"), TRANSPOSE),
    LeafRule(_LINEAR, "bias", _BIAS_NAMES),
    LeafRule(_EMBEDDING, "weight", ("embeddings", "embedding_weights", "weights")),
    LeafRule(_NORMS, "weight", ("gamma",)),
    LeafRule(_NORMS, "bias", ("beta",)),
    LeafRule(_RUNNING, "running_mean", ("moving_mean",)),
    LeafRule(_RUNNING, "running_var", ("moving_variance",)),
    LeafRule(_CONV, "bias", _BIAS_NAMES),
    LeafRule(_CONV, "weight", ("kernel", "weights"), refusal=_CONV_REFUSAL),
    LeafRule(_RECURRENT, "*", (), refusal=_GATES_REFUSAL),
    LeafRule(_ATTENTION, "*", (), refusal=_ATTENTION_REFUSAL),
    LeafRule(_BILINEAR, "weight", (), refusal=_BILINEAR_REFUSAL),
)


def tf_leaf_names(module: nn.Module, leaf: str) -> tuple[str, ...]:
    """What TensorFlow may call this tensor of a layer; its own name is not repeated."""
    rule = _find_rule(module, leaf)
    return tuple(name for name in rule.tf_names if name != leaf) if rule else ()


def tf_layout(module: nn.Module, leaf: str) -> Layout:
    """The layout change from TensorFlow; raises UnsupportedError where there is none yet."""
    rule = _find_rule(module, leaf)
    if rule is None:
        return IDENTITY
    if rule.refusal:
        raise UnsupportedError(f"{_type_name(module)}.{leaf}: {rule.refusal}")
    return rule.layout


def is_uncounted_in_tf(module: nn.Module, leaf: str) -> bool:
    """True for `num_batches_tracked`, which TensorFlow has no counterpart for."""
    return leaf == "num_batches_tracked" and isinstance(module, _RUNNING)


def _find_rule(module: nn.Module, leaf: str) -> LeafRule | None:
    return next((r for r in RULES if isinstance(module, r.modules) and r.leaf in (leaf, "*")), None)


def _type_name(module: nn.Module) -> str:
    return f"nn.{type(module).__name__}" if _is_torch_layer(module) else type(module).__name__


def _is_torch_layer(module: nn.Module) -> bool:
    return isinstance(module, torch.nn.Module) and type(module).__module__.startswith("torch.nn.")
