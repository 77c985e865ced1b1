"""What TensorFlow calls the tensors of each torch.nn layer, and how it lays them out.

One row a layer type and leaf. The leaf names are those of Keras 2 and 3, tf.compat.v1.layers, the
canned estimators' feature columns and tf.contrib. A user's own module has no row: its tensors are
copied as they are, as TensorFlow does; of a square kernel that is said. A torch.nn layer whose
layout differs in TensorFlow and is not known here is refused, because a square kernel would pass
every check of shapes.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace

from torch import nn

from torch_warmstart.layouts.layout import IDENTITY, Form, Layout, Shape
from torch_warmstart.layouts.leaf import in_parent
from torch_warmstart.layouts.named import (
    CONV,
    CONV_TRANSPOSE,
    CONV_TRANSPOSE_FLAX,
    POINTWISE,
    PRELU,
    PRELU_OF_ONE,
    TRANSPOSE,
    concatenated,
    depthwise,
    named_layout,
    squeeze,
    stacked_row,
)
from torch_warmstart.layouts.outputs import is_untransposed_linear
from torch_warmstart.layouts.parametrized import forms_of_original, original_of, vector_of
from torch_warmstart.layouts.torch_classes import is_torchs_own, torch_layer_of
from torch_warmstart.values import frozen


@frozen
class _LeafRule:
    """How one tensor of a layer is stored in TensorFlow, where one tensor becomes one tensor.

    Of several layouts the one that makes the right shape of the tensor is taken.
    """

    modules: tuple[type[nn.Module], ...]
    leaf: str
    tf_names: tuple[str, ...]
    layouts: tuple[Layout, ...] = (IDENTITY,)


_LINEAR = (nn.Linear,)
_EMBEDDING = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of every rank
    nn.LayerNorm,
    nn.GroupNorm,
)
_RUNNING = (nn.modules.batchnorm._NormBase,)
_RMS_NORM = (nn.RMSNorm,)
_PRELU = (nn.PReLU,)

# What batch norms keep besides their weights: by torch's name what TensorFlow calls it, and what it
# has nothing like.
STATISTICS = {"running_mean": "moving_mean", "running_var": "moving_variance"}
BATCHES = "num_batches_tracked"
_SLOPE_NAMES = ("alpha", "alphas", "negative_slope")
_USUAL = ("weight", "bias")
# A tensor with the name of the layer: TensorFlow 1's programs keep tables without a layer around.
_ITSELF = ""
# Besides Keras's and contrib's: Sonnet's and GPT-2's `w` and `b`; Flax's `embedding` and
# `negative_slope`.
_KERNEL_NAMES = ("kernel", "weights", "w")
_BIAS_NAMES = ("bias", "biases", "bias_weights", "b")
_TABLE_NAMES = ("embeddings", "embedding", "embedding_weights", "weights", _ITSELF)

_RULES: tuple[_LeafRule, ...] = (
    _LeafRule(_LINEAR, "weight", _KERNEL_NAMES, (TRANSPOSE, *POINTWISE)),
    _LeafRule(_LINEAR, "bias", _BIAS_NAMES),
    _LeafRule(_EMBEDDING, "weight", _TABLE_NAMES),
    _LeafRule(_NORMS, "weight", ("gamma", "scale", "g")),
    _LeafRule(_NORMS, "bias", ("beta", "offset", "b")),
    *(_LeafRule(_RUNNING, ours, (theirs,)) for ours, theirs in STATISTICS.items()),
    _LeafRule(_RMS_NORM, "weight", ("scale",)),
    _LeafRule(_PRELU, "weight", _SLOPE_NAMES, (IDENTITY, *PRELU, PRELU_OF_ONE)),
)


# What Keras calls the tensors of its common layers: such a name says what a tensor is for. `scale`
# and `alpha` are left out, as layers of users have such ones, too.
KERAS_NAMES = frozenset(
    {
        "recurrent_kernel",
        *(rule.tf_names[0] for rule in _RULES if rule.modules not in (_RMS_NORM, _PRELU)),
    }
)


@frozen
class _Refusal:
    """A tensor that TensorFlow has not, or not as torch has it.

    Where a rule for the same tensor makes the right shape, the rule counts.
    """

    modules: tuple[type[nn.Module], ...]
    leaf: str
    tf_names: tuple[str, ...]
    reason: str


_NO_LAYER = "TensorFlow has no layer like it"

_REFUSALS: tuple[_Refusal, ...] = (
    _Refusal((nn.Bilinear,), "weight", ("weight",), _NO_LAYER),
    _Refusal((nn.Bilinear,), "bias", ("bias",), _NO_LAYER),
    # keras/src/layers/normalization/layer_normalization.py warns of its own `rms_scaling`.
    _Refusal(
        _RMS_NORM,
        "weight",
        ("gamma",),
        "a gamma belongs to Keras' LayerNormalization, which with rms_scaling=True divides by the "
        "standard deviation, not by the root mean square",
    ),
    _Refusal(
        _PRELU,
        "weight",
        _SLOPE_NAMES,
        "it has one slope for each channel or one for all; Keras' alpha is that only if its axes "
        "before the last, the channels, are shared (shared_axes)",
    ),
)


def tf_forms(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The ways in which TensorFlow may keep a tensor of a layer; its own name is among them."""
    original = original_of(module, leaf)
    if original is not None:
        return forms_of_original(original, tf_forms(module, original.leaf))
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        from torch_warmstart.layouts.tensorflow.recurrent import recurrent_forms

        return recurrent_forms(module, leaf)
    if isinstance(module, nn.MultiheadAttention):
        from torch_warmstart.layouts.tensorflow.attention import attention_forms

        return attention_forms(module, leaf)
    if isinstance(module, nn.modules.conv._ConvNd):
        return _conv_forms(module, leaf)
    if is_untransposed_linear(module):
        return _untransposed_forms(leaf)
    forms = [
        Form((_names(leaf, rule.tf_names),), layout)
        for rule in _RULES
        if isinstance(module, rule.modules) and rule.leaf == leaf
        for layout in rule.layouts
    ]
    if isinstance(module, nn.Linear) and leaf in ("weight", "bias"):
        from torch_warmstart.layouts.tensorflow.attention import attention_linear_forms

        forms += attention_linear_forms(module, leaf)
    if leaf == "weight" and isinstance(module, _TABLES):
        forms += _table_in_parts()
    # A refusal comes first: where no form makes the right shape, it is what the user hears.
    refused = [
        _refused(module, leaf, refusal.tf_names, refusal.reason)
        for refusal in _REFUSALS
        if isinstance(module, refusal.modules) and refusal.leaf == leaf
    ]
    return (*refused, *forms) or (Form(((leaf,),)),)


def is_untold_square(module: nn.Module, leaf: str, name: str, shape: Shape) -> bool:
    """Whether a square tensor is taken as it is, and nobody says where its outputs or rows are.

    A kernel of a user's class, or of what torch.export has left of one: `x @ w`, or as `nn.Linear`
    has it. A table of biases, which T5 keeps as [heads, distances].
    """
    called = name.rpartition("/")[2]
    if called == leaf or len(shape) != 2 or not shape[0] == shape[1] > 1:
        return False
    if isinstance(module, _EMBEDDING):
        is_by_distance = bool(_BY_DISTANCE.search(called))
        return leaf == "weight" and (is_by_distance or not _TABLES_OF_ENTRIES.search(called))
    return called in _KERNEL_NAMES and tf_forms(module, leaf) == (Form(((leaf,),)),)


_BY_DISTANCE = re.compile("rel|bias", re.IGNORECASE)  # T5X calls it rel_embedding
_TABLES_OF_ENTRIES = re.compile("emb|lookup|table|vocab|weight|w[tp]e", re.IGNORECASE)


def forms_of_own_norm(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """What a norm's tensor is called, for a user's class that keeps what norms keep; or nothing.

    MobileBERT's NoNorm, FrozenBatchNorm2d. By its tensors alone: a guess, to be proposed.
    """
    own = {**module._parameters, **module._buffers}
    shapes = {t.shape for name, t in own.items() if t is not None and name != BATCHES}
    is_one = set(_USUAL) <= set(own) <= {*_USUAL, *STATISTICS, BATCHES} and len(shapes) == 1
    if not is_one or torch_layer_of(module) is not None or len(shapes.pop()) != 1:
        return ()
    rules = (rule for rule in _RULES if rule.modules in (_NORMS, _RUNNING) and rule.leaf == leaf)
    return tuple(Form((_names(leaf, rule.tf_names),)) for rule in rules)


# Tensor2tensor's tables, of words and of the softmax over them, which is not transposed either.
_TABLES = (*_EMBEDDING, *_LINEAR)
_MOST_PARTS = 64


@functools.cache
def _table_in_parts() -> tuple[Form, ...]:
    return tuple(
        Form(tuple((f"weights_{part}",) for part in range(count)), concatenated(count))
        for count in range(2, _MOST_PARTS + 1)
    )


def flax_forms(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The ways in which Flax may keep it: Keras's, but for convolutions the other way round.

    And running statistics by other names.
    """
    original = original_of(module, leaf)
    if original is not None:
        return forms_of_original(original, flax_forms(module, original.leaf))
    if leaf in STATISTICS and isinstance(module, _RUNNING):
        return (Form((_names(leaf, (leaf.removeprefix("running_"),)),)),)
    forms, turned = tf_forms(module, leaf), _turned(module, leaf)
    return turned if turned and _is_square(module) else (*turned, *forms)


def tf_or_flax_forms(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The ways in which one of them may keep it; presumed to be Keras's where both fit."""
    original = original_of(module, leaf)
    if original is not None:
        return forms_of_original(original, tf_or_flax_forms(module, original.leaf))
    forms, turned = tf_forms(module, leaf), _turned(module, leaf)
    if turned and _is_square(module):
        return tuple(replace(form, is_presumed=True) for form in forms)
    return (*forms, *turned)


def _is_square(module: nn.Module) -> bool:
    return getattr(module, "in_channels", 0) == getattr(module, "out_channels", 1)


def _turned(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The forms of Flax's that Keras does not have: kernels of transposed convolutions."""
    if not isinstance(module, nn.modules.conv._ConvTransposeNd) or leaf != "weight":
        return ()
    forms = tf_forms(module, leaf)
    return tuple(replace(f, layout=CONV_TRANSPOSE_FLAX) for f in forms if f.refusal is None)


def find_form(layout: str, module: nn.Module, leaf: str) -> Form:
    """A layout that the user named, for one tensor of a layer.

    Raises SettingsError if there is none of that name for it.
    """
    from torch_warmstart.layouts.tensorflow.recurrent import named_recurrent_form

    by_users_word = named_recurrent_form(layout, module, leaf)
    if by_users_word is not None:
        return by_users_word
    for form in tf_forms(module, leaf):
        if form.layout.name == layout and form.refusal is None:
            return form
    row = stacked_row(layout)
    if row is not None:
        return Form(((leaf,),), row[0], part=row[1])
    return Form(((leaf,),), named_layout(layout))


def absent_in_tf(module: nn.Module, leaf: str) -> float | None:
    """What a norm's scale or offset is in effect where TensorFlow's layer was made without it."""
    is_norm = isinstance(module, (*_NORMS, *_RMS_NORM))
    return {"weight": 1.0, "bias": 0.0}.get(leaf) if is_norm else None


def is_uncounted_in_tf(module: nn.Module, leaf: str) -> bool:
    """True for what TensorFlow has no counterpart for.

    That is `num_batches_tracked`, and the vectors by which torch estimates a spectral norm.
    """
    if leaf == BATCHES:
        return isinstance(module, _RUNNING)
    return vector_of(module, leaf) is not None


# -- convolutions ----------------------------------------------------------------------------------

_DEPTHWISE_NAMES = ("depthwise_kernel", "depthwise_weights")
_POINTWISE_NAMES = ("pointwise_kernel", "pointwise_weights")
# A SeparableConv is two convolutions in torch: children of a module of its name, called so or
# numbered by an nn.Sequential.
_DEPTHWISE_CHILDREN = ("depthwise", "0")
_POINTWISE_CHILDREN = ("pointwise", "1")
_GROUPS_REFUSAL = "TensorFlow's transposed convolutions have no groups"


def _conv_forms(module: nn.modules.conv._ConvNd, leaf: str) -> tuple[Form, ...]:
    """A convolution's own form, and the one of the SeparableConv that it may be a half of."""
    if leaf == "weight":
        return _kernel_forms(module)
    if leaf != "bias":
        return (Form(((leaf,),)),)
    own = Form((_names(leaf, _BIAS_NAMES),))
    if not _is_pointwise(module):
        return (own,)
    return (own, Form((_in_parent(_POINTWISE_CHILDREN, ("bias", "biases")),)))


def _kernel_forms(module: nn.modules.conv._ConvNd) -> tuple[Form, ...]:
    names = _names("weight", _KERNEL_NAMES)
    if module.transposed:
        if module.groups > 1:
            return (_refused(module, "weight", names, _GROUPS_REFUSAL),)
        return (Form((names,), CONV_TRANSPOSE),)
    layout, forms = CONV, []
    if module.groups == module.in_channels:
        if module.groups > 1:  # with one channel it is a convolution like any other
            layout = depthwise(module.in_channels)
        names += _DEPTHWISE_NAMES
        forms.append(Form((_in_parent(_DEPTHWISE_CHILDREN, _DEPTHWISE_NAMES),), layout))
    if _is_pointwise(module):
        forms.append(Form((_in_parent(_POINTWISE_CHILDREN, _POINTWISE_NAMES),), CONV))
    return (Form((names,), layout), *forms)


def _is_pointwise(module: nn.modules.conv._ConvNd) -> bool:
    return module.groups == 1 and set(module.kernel_size) == {1} and not module.transposed


def _in_parent(children: tuple[str, ...], tf_names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(in_parent(child, name) for child in children for name in tf_names)


# -- transformers ----------------------------------------------------------------------------------


def _untransposed_forms(leaf: str) -> tuple[Form, ...]:
    """As GPT-2 has a kernel, of width 1, and transformers in TensorFlow a bias, of `[1, n]`."""
    names = _names(leaf, _KERNEL_NAMES if leaf == "weight" else _BIAS_NAMES)
    return tuple(Form((names,), layout) for layout in (IDENTITY, squeeze(1)))


# -- shared ----------------------------------------------------------------------------------------


def _names(leaf: str, tf_names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((leaf, *tf_names)))


def _refused(module: nn.Module, leaf: str, names: tuple[str, ...], reason: str) -> Form:
    called = f"nn.{type(module).__name__}" if is_torchs_own(module) else type(module).__name__
    return Form((names,), refusal=f"{called}.{leaf}: {reason}")
