"""What a file says of a layer decides how its tensors are laid out, or that torch cannot have it.

A layer's class and its configuration, where the file has them: the equation of an EinsumDense, the
activations and the direction of a recurrent layer, what Keras ran on. What is only another value of
a setting that torch's layer has too is for the audit, not for here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.layouts.layout import IDENTITY, Form, Layout, Shape
from torch_warmstart.layouts.named import (
    CONV,
    CONV_FLIPPED,
    CONV_TRANSPOSE,
    CONV_TRANSPOSE_FLIPPED,
    TRANSPOSE,
    einsum,
    einsum_bias,
)
from torch_warmstart.layouts.parametrized import forms_of_original, original_of, shape_of_whole
from torch_warmstart.layouts.recurrent import KERAS_GRU_KERNEL, KERAS_GRU_NO_BIAS, RESET_BEFORE
from torch_warmstart.values import frozen

Options = Mapping[str, Any]

_TORCH_GATES = "sigmoid"
_EINSUM_UNKNOWN = (
    "it is the kernel of an EinsumDense, and the file does not have its equation: of shape {} it "
    "may have its outputs first or last. Name its layout in var_name_to_layout, with the equation "
    "of the original: 'einsum[ab,bc->ac]'"
)
_AXES = "abcdefgh"


# Keras's classes of layers that have variables; and what is none of an EinsumDense. Any other class
# is the program's own, and may compute what it likes from tensors of the same names.
_OF_KERAS = re.compile(
    r"layer|dense|einsum_dense|(reversible_)?embedding|locally_connected\dd|p_re_lu"
    r"|(depthwise_|separable_)?(conv|convolution)\dd(_transpose)?|conv_lstm\dd(_cell)?"
    r"|(sync_)?(batch|layer|group|rms|unit|spectral|instance)_normalization(_?v\d)?|normalization"
    r"|(cu_?dnn_?)?(lstm|gru)(_?v\d)?|(lstm|gru|simple_rnn)_cell|simple_rnn|rnn|stacked_rnn_cells"
    r"|bidirectional|time_distributed|wrapper|any_cell"
    r"|(multi_head_|grouped_query_|additive_)?attention"
)

# Stands for the layout that the names alone make of a weight, where another is computed from it.
_NOT_SAID = Layout("as_named", IDENTITY.to_torch, IDENTITY.to_tf)


@frozen
class Described:
    """What a file says of a layer."""

    kind: str = ""  # its class in snake case; "": not known
    options: Options | None = None  # its configuration; None: not known
    backend: str = ""  # what Keras ran on
    around: str = ""  # the class of the layer that it is in
    is_among_einsums: bool = False  # whether other layers of the file are EinsumDense
    name: str = ""  # what the file calls it

    @property
    def is_own(self) -> bool:
        """Whether the class is none of Keras's."""
        return bool(self.kind) and _OF_KERAS.fullmatch(self.kind) is None


def as_described(
    form: Form,
    layer: Described,
    *,
    module: nn.Module,
    leaf: str,
    shapes: Sequence[Shape],
    into: Shape,
) -> Form:
    """The form of a tensor once it is known what the file says of its layer.

    Args:
        form: What the names alone make of it.
        layer: What the file says.
        module: torch's layer.
        leaf: The tensor's name in it.
        shapes: Of the checkpoint's tensors.
        into: The shape in torch.
    """
    original = original_of(module, leaf)
    if original is not None:
        base = as_described(
            replace(form, layout=_NOT_SAID),
            layer,
            module=module,
            leaf=original.leaf,
            shapes=shapes,
            into=shape_of_whole(module, original, into),
        )
        if base.layout is _NOT_SAID:
            return replace(form, refusal=base.refusal, is_presumed=base.is_presumed)
        return forms_of_original(original, (replace(base, part=0),))[0]
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return _recurrent(form, module, layer)
    if isinstance(module, nn.Linear):
        return _product(form, leaf, layer, shapes[0], into)
    reason = _refused_kind(module, layer)
    if isinstance(module, nn.modules.conv._ConvNd) and not reason:
        form = _convolution(form, layer)
        is_open = not form.refusal and _may_be_transposed(form, module, layer, shapes[0])
        return replace(form, is_presumed=True) if is_open else form
    reason = reason or _refused_setting(module, layer.options or {})
    return replace(form, refusal=reason) if reason else form


# What layers are not that keep tensors of the same names and shapes: they compute something else.
_CONVOLUTIONS = frozenset(f"conv{rank}d" for rank in (1, 2, 3))
_TRANSPOSED = frozenset(f"{name}_transpose" for name in _CONVOLUTIONS)
_NORMS = frozenset(
    f"{what}_normalization" for what in ("batch", "group", "instance", "layer", "rms")
)
_OTHER_KINDS: Sequence[tuple[type[nn.Module], frozenset[str]]] = (
    (nn.modules.conv._ConvTransposeNd, _CONVOLUTIONS),
    (nn.modules.conv._ConvNd, _TRANSPOSED),
    (nn.LayerNorm, _NORMS - {"layer_normalization"}),
    (nn.RMSNorm, _NORMS - {"rms_normalization"}),
    (nn.modules.batchnorm._BatchNorm, _NORMS - {"batch_normalization"}),
    (nn.modules.instancenorm._InstanceNorm, _NORMS - {"instance_normalization"}),
    (nn.GroupNorm, _NORMS - {"group_normalization"}),
)


def _refused_kind(module: nn.Module, layer: Described) -> str | None:
    """That the file says another class of layer than torch's is."""
    others = next((kinds for kind, kinds in _OTHER_KINDS if isinstance(module, kind)), frozenset())
    if layer.kind not in others or _is_by_setting(module, layer.kind, layer.options or {}):
        return None
    return (
        f"the file says that its layer is a {layer.kind}, which computes something else than "
        f"nn.{type(module).__name__} from tensors of the same names"
    )


def _is_by_setting(module: nn.Module, kind: str, options: Options) -> bool:
    """Whether a setting makes another class of a layer what torch's is."""
    if isinstance(module, nn.RMSNorm):
        return kind == "layer_normalization" and bool(options.get("rms_scaling"))
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        groups = options.get("groups", -1)  # a group for each channel, or the file does not say
        return kind == "group_normalization" and groups in (-1, module.num_features)
    return False


def _refused_setting(module: nn.Module, options: Options) -> str | None:
    if isinstance(module, nn.LayerNorm) and options.get("rms_scaling"):
        return "the file says rms_scaling=True, which does not subtract the mean"
    axes = options.get("attention_axes")  # None, or once it is built, that of the steps alone
    if isinstance(module, nn.MultiheadAttention) and isinstance(axes, list) and len(axes) > 1:
        return f"the file says attention_axes={axes!r}; nn.MultiheadAttention attends along one"
    return None


# -- products --------------------------------------------------------------------------------------


def _product(form: Form, leaf: str, layer: Described, shape: Shape, into: Shape) -> Form:
    equation = (layer.options or {}).get("equation")
    try:
        if (layer.kind == "einsum_dense" or layer.is_own) and isinstance(equation, str):
            return _by_equation(form, leaf, equation, str((layer.options or {}).get("bias_axes")))
        is_attention = layer.around in ("multi_head_attention", "grouped_query_attention")
        if leaf != "weight" or form.refusal or is_attention or not _may_be_einsum(layer, shape):
            return form
        is_known = layer.kind and not layer.is_own
        if not is_known and len(shape) == 2 and not layer.is_among_einsums:
            return replace(form, is_presumed=shape == into and shape[0] == shape[1])
    except UnsupportedError as error:
        return replace(form, refusal=str(error))
    fitting = [
        layout for layout in _products(len(shape)) if layout.shapes_in_torch([shape]) == (into,)
    ]
    if len(fitting) > 1:
        return replace(form, refusal=_EINSUM_UNKNOWN.format(list(shape)))
    return replace(form, layout=fitting[0]) if fitting else form


def _may_be_einsum(layer: Described, shape: Shape) -> bool:
    """Whether a layer may be an EinsumDense: by its class, or if that is not known, its kernel.

    A square one of two axes fits either way, and one of three axes is none of a Dense.
    """
    if layer.kind and not layer.is_own:
        return layer.kind == "einsum_dense"
    return 1 not in shape if len(shape) == 3 else len(shape) == 2 and shape[0] == shape[1]


def _by_equation(form: Form, leaf: str, equation: str, bias_axes: str) -> Form:
    layout = einsum(equation) if leaf == "weight" else einsum_bias(equation, bias_axes)
    return replace(form, layout=_plain(layout, equation), refusal=None)


def _plain(layout: Layout, equation: str) -> Layout:
    """`transpose` and `identity` by their own names."""
    _, kernel, made = equation.replace("...", "").replace(" ", "").replace("->", ",").split(",")
    if layout.name.startswith("einsum_bias"):
        return layout if len(layout.ranks or ()) and layout.ranks != (1,) else IDENTITY
    if len(kernel) != 2:
        return layout
    return IDENTITY if kernel[0] in made else TRANSPOSE


def _products(rank: int) -> Iterator[Layout]:
    """The layouts that a kernel may have whose axes are in their natural order."""
    if rank == 2:
        yield from (TRANSPOSE, IDENTITY)
        return
    for count in range(1, rank):
        taken, new = _AXES[1 : count + 1], _AXES[count + 1 : rank + 1]
        yield einsum(f"a{taken},{taken}{new}->a{new}")
        new, taken = taken, new
        yield einsum(f"a{taken},{new}{taken}->a{new}")


# -- convolutions ----------------------------------------------------------------------------------

_UNKNOWN = ("", "layer")  # no class, or none but that it is no EinsumDense
# `deconv_1`, `conv_transpose`, `upsample`, `convUp`; but not `groups`, `transition`, `updated`.
_TRANSPOSED_NAME = re.compile(
    r"(?i:deconv|transp|trans(?![a-z]))|(?:(?<![A-Za-z])(?i:up|dec)|(?<=[a-z])(?:Up|Dec))(?!date)"
)


def _may_be_transposed(
    form: Form, module: nn.modules.conv._ConvNd, layer: Described, shape: Shape
) -> bool:
    """Whether a kernel may be that of a convolution the other way round: as many in as out.

    What the layer is called is taken for its class if it has the word, `block1_conv2`, `deconv_1`.
    """
    if form.layout.name not in _FLIPPED or len(set(shape[-2:])) > 1 or shape[-1] == 1:
        return False
    if layer.kind not in _UNKNOWN and not layer.is_own:
        return False
    is_called_so = _TRANSPOSED_NAME.search(layer.name) is not None
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return not is_called_so
    return is_called_so or "conv" not in layer.name.lower()


_FLIPPED = {CONV.name: CONV_FLIPPED, CONV_TRANSPOSE.name: CONV_TRANSPOSE_FLIPPED}


def _convolution(form: Form, layer: Described) -> Form:
    if layer.backend != "theano" or form.layout is IDENTITY:  # a bias
        return form
    if form.layout.name in _FLIPPED and not layer.kind.startswith(("depthwise", "separable")):
        return replace(form, layout=_FLIPPED[form.layout.name])
    reason = "Keras ran on Theano, and which way its kernel is turned there is not known"
    return replace(form, refusal=reason)


# -- recurrent -------------------------------------------------------------------------------------


def _recurrent(form: Form, module: nn.Module, layer: Described) -> Form:
    parts = list(_recurrent_parts(layer.kind, layer.options, reverse=False))
    for kind, options, reverse in parts:
        reason = _cannot_be(module, kind, options, reverse=reverse)
        if reason is not None:
            return replace(form, refusal=f"the file says {reason}")
    is_gru = form.layout in (KERAS_GRU_KERNEL, KERAS_GRU_NO_BIAS)
    if parts and is_gru and all(o.get("reset_after") is True for _, o, _ in parts):
        return replace(form, refusal=None)  # what a GRU without a bias does not show by itself
    return form


def _recurrent_parts(
    kind: str, options: Any, *, reverse: bool | None
) -> Iterator[tuple[str, Options, bool | None]]:
    """Layers and cells in a configuration: class, options, and whether it is to run backwards.

    None for a cell, which runs as the layer around it does.
    """
    if not isinstance(options, Mapping):
        return
    inner = {
        name: _class_and_options(options.get(name)) for name in ("layer", "backward_layer", "cell")
    }
    if kind == "bidirectional" and inner["layer"] is not None:
        ahead = inner["layer"]
        yield from _recurrent_parts(*ahead, reverse=False)
        if inner["backward_layer"] is not None:
            yield from _recurrent_parts(*inner["backward_layer"], reverse=True)
    elif kind in ("time_distributed", "wrapper") and inner["layer"] is not None:
        yield from _recurrent_parts(*inner["layer"], reverse=reverse)
    elif kind == "stacked_rnn_cells":
        for cell in map(_class_and_options, _listed(options.get("cells"))):
            if cell is not None:
                yield from _recurrent_parts(*cell, reverse=None)
    elif kind == "rnn":
        yield kind, options, reverse
        if inner["cell"] is not None:
            yield from _recurrent_parts(*inner["cell"], reverse=None)
    else:
        yield kind, options, reverse


def _class_and_options(layer: Any) -> tuple[str, Options] | None:
    if not isinstance(layer, Mapping) or not isinstance(layer.get("config"), Mapping):
        return None
    name = str(layer.get("class_name")).rpartition(">")[2]
    return _KINDS.get(name, name), layer["config"]


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


_KINDS = {"StackedRNNCells": "stacked_rnn_cells", "RNN": "rnn", "GRU": "gru", "GRUCell": "gru_cell"}


def _cannot_be(
    module: nn.Module, kind: str, options: Options, *, reverse: bool | None
) -> str | None:
    """What a part is set to that torch's layer cannot be; None if it can."""
    backwards = options.get("go_backwards")
    if reverse is not None and isinstance(backwards, bool) and backwards is not reverse:
        turned = "backwards" if backwards else "forwards"
        return (
            f"go_backwards={backwards}: it runs {turned}, torch's layer does not. A layer that is "
            "given its steps in the other order can hold it: say so by the layout's name in "
            "var_name_to_layout"
        )
    wanted = getattr(module, "nonlinearity", "tanh") if isinstance(module, _PLAIN_RNN) else "tanh"
    for name, torch_has in (("activation", wanted), ("recurrent_activation", _TORCH_GATES)):
        found = options.get(name, torch_has)
        if found != torch_has:
            return f"{name}={found!r}, torch's layer has {torch_has}"
    if kind.startswith("gru") and options.get("reset_after") is False:
        return f"reset_after=False, which {RESET_BEFORE}"
    return None


_PLAIN_RNN = (nn.RNN, nn.RNNCell)
