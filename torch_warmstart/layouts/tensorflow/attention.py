"""Where TensorFlow keeps query, key, value and output of multi-head attention.

Names are those of Keras' MultiHeadAttention, as variables (`query/kernel`) and as attributes
(`_query_dense/kernel`; `query_dense` in files of Keras 3), of BERT (`self/query/kernel`, with
the output in a layer beside it), and of Flax (`out/kernel`).
"""

from __future__ import annotations

from torch import nn

from torch_warmstart.layouts.attention import (
    HEADS_BIAS,
    HEADS_IN,
    HEADS_OUT,
    attention_biases,
    attention_kernels,
)
from torch_warmstart.layouts.layout import IDENTITY, Form, Layout
from torch_warmstart.layouts.leaf import in_parent
from torch_warmstart.layouts.named import TRANSPOSE

Names = tuple[str, ...]

_OWN_NAME_REFUSAL = "torch packs query, key and value into one tensor, TensorFlow keeps three"
_NO_SUCH_BIAS_REFUSAL = "TensorFlow's attention has no bias among its keys and values"
_GATE_REFUSAL = "its attention has a gate (use_gate=True), which nn.MultiheadAttention has not"

_PROJECTIONS = ("query", "key", "value")
_ONE_PROJECTION = {"q_proj_weight": "query", "k_proj_weight": "key", "v_proj_weight": "value"}

# What nn.MultiheadAttention has as its output projection, and nothing else in torch has.
OUTPUT_PROJECTION = nn.modules.linear.NonDynamicallyQuantizableLinear
_OUTPUTS = ("attention_output", "_output_dense", "output_dense", "output/dense", "out")


def attention_forms(module: nn.MultiheadAttention, leaf: str) -> tuple[Form, ...]:
    """The ways in which TensorFlow may keep a tensor of an attention layer."""
    heads, size = module.num_heads, module.head_dim
    called = f"nn.{type(module).__name__}.{leaf}"
    own_name = Form(((leaf,),), refusal=f"{called}: {_OWN_NAME_REFUSAL}")
    if leaf in ("bias_k", "bias_v"):
        return (Form(((leaf,),), refusal=f"{called}: {_NO_SUCH_BIAS_REFUSAL}"),)
    if leaf == "in_proj_weight":
        names = tuple(_names(projection, "kernel") for projection in _PROJECTIONS)
        form = Form(names, attention_kernels(heads, size))
    elif leaf == "in_proj_bias":
        names = tuple(_names(projection, "bias") for projection in _PROJECTIONS)
        form = Form(names, attention_biases(heads, size))
    elif leaf in _ONE_PROJECTION:
        names = (_names(_ONE_PROJECTION[leaf], "kernel"),)
        form = Form(names, attention_kernels(heads, size, 1))
    else:  # a subclass's own
        return (own_name,)
    gated = Form((*names, _names("gate", "kernel")), refusal=_GATE_REFUSAL)
    return (form, gated, own_name)


def attention_linear_forms(module: nn.Linear, leaf: str) -> tuple[Form, ...]:
    """What nn.Linear may be besides a Dense: a projection of attention, whose heads are an axis."""
    if leaf not in ("weight", "bias"):
        return ()
    name, dense = "kernel", TRANSPOSE
    split: tuple[Layout, ...] = (HEADS_IN, HEADS_OUT)
    if leaf == "bias":
        name, dense, split = "bias", IDENTITY, (HEADS_BIAS,)
    if not isinstance(module, OUTPUT_PROJECTION):
        return tuple(Form(((name,),), layout) for layout in split)
    outputs = tuple(in_parent("out_proj", f"{output}/{name}") for output in _OUTPUTS)
    return (Form((outputs,), dense), *(Form(((name, *outputs),), layout) for layout in split))


def _names(projection: str, name: str) -> Names:
    layers = (projection, f"_{projection}_dense", f"{projection}_dense", f"self/{projection}")
    return tuple(f"{layer}/{name}" for layer in layers)
