"""What TensorFlow calls the tensors of each torch.nn layer, and how it lays them out.

One row a layer type and leaf. The leaf names are those of Keras 2 and 3, tf.compat.v1.layers, the
canned estimators' feature columns and tf.contrib. A user's own module has no row: its tensors are
copied as they are, as TensorFlow does. A torch.nn layer whose layout differs in TensorFlow and is
not known here is refused, because a square kernel would pass every check of shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from torch_warmstart.errors import SettingsError, did_you_mean
from torch_warmstart.layouts import IDENTITY, TRANSPOSE, Form, Layout
from torch_warmstart.tf_attention import attention_forms
from torch_warmstart.tf_recurrent import recurrent_forms


@dataclass(frozen=True, slots=True)
class _LeafRule:
    """How one tensor of a layer is stored in TensorFlow, where one tensor becomes one tensor."""

    modules: tuple[type[nn.Module], ...]
    leaf: str
    tf_names: tuple[str, ...]
    layout: Layout = IDENTITY
    refusal: str | None = None


_LINEAR = (nn.Linear,)
_EMBEDDING = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of every rank
    nn.LayerNorm,
    nn.GroupNorm,
)
_RUNNING = (nn.modules.batchnorm._NormBase,)
_CONV = (nn.modules.conv._ConvNd,)
_BILINEAR = (nn.Bilinear,)

_BIAS_NAMES = ("bias", "biases", "bias_weights")
_CONV_REFUSAL = "torch keeps convolution kernels as [out, in, ...], TensorFlow as [..., in, out]"
_BILINEAR_REFUSAL = "TensorFlow has no layer like it"

_RULES: tuple[_LeafRule, ...] = (
    _LeafRule(_LINEAR, "weight", ("kernel", "weights"), TRANSPOSE),
    _LeafRule(_LINEAR, "bias", _BIAS_NAMES),
    _LeafRule(_EMBEDDING, "weight", ("embeddings", "embedding_weights", "weights")),
    _LeafRule(_NORMS, "weight", ("gamma",)),
    _LeafRule(_NORMS, "bias", ("beta",)),
    _LeafRule(_RUNNING, "running_mean", ("moving_mean",)),
    _LeafRule(_RUNNING, "running_var", ("moving_variance",)),
    _LeafRule(_CONV, "bias", _BIAS_NAMES),
    _LeafRule(_CONV, "weight", ("kernel", "weights"), refusal=_CONV_REFUSAL),
    _LeafRule(_BILINEAR, "weight", (), refusal=_BILINEAR_REFUSAL),
)

# What a user may name in var_name_to_layout.
LAYOUTS = {layout.name: layout for layout in (IDENTITY, TRANSPOSE)}


def tf_forms(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The ways in which TensorFlow may keep a tensor of a layer; its own name is among them."""
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return recurrent_forms(module, leaf)
    if isinstance(module, nn.MultiheadAttention):
        return attention_forms(module, leaf)
    for rule in _RULES:
        if isinstance(module, rule.modules) and rule.leaf in (leaf, "*"):
            names = tuple(dict.fromkeys((leaf, *rule.tf_names)))
            refusal = f"{_type_name(module)}.{leaf}: {rule.refusal}" if rule.refusal else None
            return (Form((names,), rule.layout, refusal=refusal),)
    return (Form(((leaf,),)),)


def find_form(layout: str, module: nn.Module, leaf: str) -> Form:
    """A layout that the user named, for one tensor of a layer.

    Raises SettingsError if there is none of that name for it.
    """
    for form in tf_forms(module, leaf):
        if form.layout.name == layout and form.refusal is None:
            return form
    if layout not in LAYOUTS:
        raise SettingsError(
            f"no layout is called {layout!r}; there are {', '.join(LAYOUTS)}."
            f"{did_you_mean(layout, LAYOUTS)}"
        )
    return Form(((leaf,),), LAYOUTS[layout])


def is_uncounted_in_tf(module: nn.Module, leaf: str) -> bool:
    """True for `num_batches_tracked`, which TensorFlow has no counterpart for."""
    return leaf == "num_batches_tracked" and isinstance(module, _RUNNING)


def _type_name(module: nn.Module) -> str:
    return f"nn.{type(module).__name__}" if _is_torch_layer(module) else type(module).__name__


def _is_torch_layer(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def tf_leaf_names(module: nn.Module, leaf: str) -> tuple[str, ...]:
    """What TensorFlow may call this tensor of a layer; its own name is not repeated."""
    names = [name for form in tf_forms(module, leaf) for name in form.names[0]]
    return tuple(name for name in dict.fromkeys(names) if name != leaf and "*" not in name)
