"""How attention keeps its heads: layouts between Keras' three kernels and torch's one.

Keras' MultiHeadAttention (keras/src/layers/attention/multi_head_attention.py) projects by
EinsumDense: query, key and value have kernels [in, heads, size] and biases [heads, size], the
output has a kernel [heads, size, out]. Models in the manner of BERT have a Dense each instead,
[in, heads * size]. nn.MultiheadAttention (torch/nn/modules/activation.py) has in_proj_weight,
[3 * embed_dim, embed_dim], query, key and value one below the other, and splits embed_dim into
heads side by side, as Keras does; both divide by the root of a head's size.
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.layouts.layout import Form, Layout, Tensors, cat

_PROJECTIONS = 3  # query, key and value


# -- projections as nn.Linear, which does not know of heads ----------------------------------------


def _outputs_joined(kernel: torch.Tensor) -> torch.Tensor:
    """[in, heads, size], or [in, out] already, to [out, in]."""
    return kernel.flatten(1).t()


def _heads_in_torch(kernel: torch.Tensor) -> Tensors:
    return (_outputs_joined(kernel),)


def _one_head_in_tf(weight: torch.Tensor) -> Tensors:
    return (weight.t().unsqueeze(1),)


def _heads_out_torch(kernel: torch.Tensor) -> Tensors:
    if kernel.shape[1] == 1:  # then it is both, and equally; one of the two should take it
        raise RuntimeError("heads_in takes it")
    return (kernel.flatten(0, 1).t(),)


def _one_head_out_tf(weight: torch.Tensor) -> Tensors:
    return (weight.t().unsqueeze(0),)


def _heads_bias_torch(bias: torch.Tensor) -> Tensors:
    return (bias.flatten(),)


def _one_head_bias_tf(bias: torch.Tensor) -> Tensors:
    return (bias.unsqueeze(0),)


# nn.Linear does not tell how many heads there are, so their inverses write one.
HEADS_IN = Layout("heads_in", _heads_in_torch, _one_head_in_tf, ranks=(3,))
HEADS_OUT = Layout("heads_out", _heads_out_torch, _one_head_out_tf, ranks=(3,))
HEADS_BIAS = Layout("heads_bias", _heads_bias_torch, _one_head_bias_tf, ranks=(2,))


# -- query, key and value of nn.MultiheadAttention -------------------------------------------------


@functools.lru_cache(maxsize=256)
def attention_kernels(heads: int, size: int, count: int = _PROJECTIONS) -> Layout:
    """The kernels of `count` projections in one weight; for `heads` heads of `size`."""

    def to_torch(*kernels: torch.Tensor) -> Tensors:
        for kernel in kernels:
            if kernel.dim() == 3:
                _check_heads(heads, size, *kernel.shape[1:])
        return (_below_each_other([_outputs_joined(kernel) for kernel in kernels]),)

    def to_tf(weight: torch.Tensor) -> Tensors:
        parts = weight.chunk(count)
        return tuple(torch.unflatten(part.t(), 1, (heads, size)) for part in parts)

    name = "attention_kernels" if count > 1 else "attention_kernel"
    return Layout(name, to_torch, to_tf, num_tf=count)


@functools.lru_cache(maxsize=256)
def attention_biases(heads: int, size: int) -> Layout:
    """The biases of the three projections in one; for `heads` heads of `size`."""

    def to_torch(*biases: torch.Tensor) -> Tensors:
        for bias in biases:
            if bias.dim() == 2:
                _check_heads(heads, size, *bias.shape)
        return (cat([bias.flatten() for bias in biases]),)

    def to_tf(bias: torch.Tensor) -> Tensors:
        return tuple(torch.unflatten(part, 0, (heads, size)) for part in bias.chunk(_PROJECTIONS))

    return Layout("attention_biases", to_torch, to_tf, num_tf=_PROJECTIONS)


def _joined(*parts: torch.Tensor) -> Tensors:
    if len({part.shape for part in parts}) > 1:
        raise RuntimeError("projections of other sizes than each other")
    return (cat(parts),)


def _parted(joined: torch.Tensor) -> Tensors:
    return joined.chunk(_PROJECTIONS)


# Each is laid out as torch does, a layer of its own: q_proj, k_proj and v_proj beside out_proj.
JOINED_PROJECTIONS = Layout("joined_projections", _joined, _parted, num_tf=_PROJECTIONS)


def _joined_without_key(query: torch.Tensor, value: torch.Tensor) -> Tensors:
    return _joined(query, torch.zeros_like(query), value)


def _without_key(joined: torch.Tensor) -> Tensors:
    return _parted(joined)[::2]


# A bias of the keys adds the same to all that a softmax is taken of, so that some leave it out.
JOINED_WITHOUT_KEY = Layout("joined_without_key", _joined_without_key, _without_key, num_tf=2)
_APART_IN_TORCH = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))
_WEIGHTS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


_AS_ONE = "query, key and value of an attention, by their names"


def projections_of(module: nn.MultiheadAttention) -> tuple[str, ...]:
    """What it projects by: three weights, where keys or values are of another width; else one."""
    is_one = getattr(module, "in_proj_weight", None) is not None
    weights = ("in_proj_weight",) if is_one else _WEIGHTS
    return (*weights, "in_proj_bias")


@functools.lru_cache(maxsize=8)
def projection_forms(leaf: str) -> tuple[Form, ...]:
    """The ways in which layers of torch's of their own have nn.MultiheadAttention's projections."""
    if leaf in _WEIGHTS:
        at = _WEIGHTS.index(leaf)
        weights = (f"{of_one[at]}.weight" for of_one in _APART_IN_TORCH)
        return (Form((tuple(weights),), evidence=_AS_ONE),)
    name = leaf.removeprefix("in_proj_")
    layers = zip(*_APART_IN_TORCH, strict=True)
    names = tuple(tuple(f"{layer}.{name}" for layer in of_one) for of_one in layers)
    whole = Form(names, JOINED_PROJECTIONS, evidence=_AS_ONE)
    return (whole, Form(names[::2], JOINED_WITHOUT_KEY, evidence=_AS_ONE))[: 1 + (name == "bias")]


def _below_each_other(weights: list[torch.Tensor]) -> torch.Tensor:
    return weights[0] if len(weights) == 1 else cat(weights)


def _check_heads(heads: int, size: int, found_heads: int, found_size: int) -> None:
    """A kernel for other heads may fit in shape, and would mix up what belongs together."""
    if (found_heads, found_size) == (heads, size):
        return
    found, embed_dim = found_heads * found_size, heads * size
    if found != embed_dim:
        raise UnsupportedError(
            f"{found_heads} heads of size {found_size} make {found}, but nn.MultiheadAttention "
            f"splits its embed_dim, {embed_dim}, into heads"
        )
    raise UnsupportedError(
        f"it has {found_heads} heads of size {found_size}, the module {heads} of size {size}"
    )
