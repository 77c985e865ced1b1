"""The changes of layout that layers of one tensor each need, and every layout by its name.

Each says where TensorFlow's side of it is written down; torch's is in the documentation of the
module that is named. They return views where a view can say it, for the executor copies them into
place.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable

import torch
from torch import nn

from torch_warmstart.errors import SettingsError, UnsupportedError, did_you_mean
from torch_warmstart.layouts.layout import IDENTITY, Layout, Shape, Tensors, cat

# -- the order of the axes -------------------------------------------------------------------------


def _transposed(tensor: torch.Tensor) -> Tensors:
    return (tensor.t(),)


def _last_axes_first(kernel: torch.Tensor) -> Tensors:
    return (kernel.movedim((-1, -2), (0, 1)),)


def _first_axes_last(weight: torch.Tensor) -> Tensors:
    return (weight.movedim((0, 1), (-1, -2)),)


def _last_axis_first(tensor: torch.Tensor) -> Tensors:
    return (tensor.movedim(-1, 0),)


def _first_axis_last(tensor: torch.Tensor) -> Tensors:
    return (tensor.movedim(0, -1),)


# Dense keeps its kernel as [in, out] and computes x @ kernel (keras/src/layers/core/dense.py);
# nn.Linear keeps [out, in] and computes x @ weight.T.
TRANSPOSE = Layout("transpose", _transposed, _transposed, ranks=(2,))

# Convolutions of 1, 2 and 3 dimensions keep their kernel as [*sizes, in / groups, out]
# (keras/src/layers/convolutional/base_conv.py), nn.Conv*d as [out, in / groups, *sizes]. Both
# correlate rather than convolve, so nothing is flipped, and in both the outputs of a group stand
# side by side.
CONV = Layout("conv", _last_axes_first, _first_axes_last)

# Transposed ones keep [*sizes, out, in] (keras/src/layers/convolutional/base_conv_transpose.py),
# nn.ConvTranspose*d [in, out / groups, *sizes]: both are a convolution's kernel, applied backwards.
CONV_TRANSPOSE = Layout("conv_transpose", _last_axes_first, _first_axes_last)

# Flax's keep [*sizes, in, out] and run the other way, unless transpose_kernel=True
# (flax/linen/linear.py, `ConvTranspose`; jax.lax.conv_transpose).
CONV_TRANSPOSE_FLAX = Layout(
    "conv_transpose_flax",
    lambda kernel: (_flipped(kernel).movedim(-1, 0).movedim(-1, 0),),
    lambda weight: (_flipped(weight.movedim(0, -1).movedim(0, -1)),),
)

# A value for each place of features that are channels-last in TensorFlow and channels-first in
# torch: [*sizes, channels] to [channels, *sizes].
CHANNELS_FIRST = Layout("channels_first", _last_axis_first, _first_axis_last)

# MLX's convolutions keep [out, *sizes, in / groups], transposed ones [out, *sizes, in]
# (mlx `python/mlx/nn/layers/convolution.py`, `convolution_transpose.py`).
CONV_CHANNELS_LAST = Layout(
    "conv_channels_last",
    lambda kernel: (kernel.movedim(-1, 1),),
    lambda weight: (weight.movedim(1, -1),),
)


# -- axes of size 1 come or go ---------------------------------------------------------------------


def _pointwise(dims: int) -> Layout:
    """A convolution of size 1 as nn.Linear: [1, ..., in, out] to [out, in].

    slim's networks end in one (`Logits/Conv2d_1c_1x1`). In one dimension that is the projection of
    a single head of attention too, and `heads` has it.
    """

    def to_torch(kernel: torch.Tensor) -> Tensors:
        return (kernel.view(kernel.shape[-2:]).t(),)  # view: fails where a size is not 1

    def to_tf(weight: torch.Tensor) -> Tensors:
        return (weight.t()[(None,) * dims],)

    return Layout(f"pointwise_{dims}d", to_torch, to_tf, ranks=(dims + 2,))


def _slopes(dims: int) -> Layout:
    """The slopes of a PReLU that shares them along all axes but the channels: [1, ..., c] to [c].

    They have the shape of the input without its batch, and size 1 along `shared_axes`
    (keras/src/layers/activations/prelu.py); nn.PReLU has `num_parameters`, one a channel or one.
    """

    def to_torch(alpha: torch.Tensor) -> Tensors:
        return (alpha.view(alpha.shape[-1]),)  # view: fails where a size is not 1

    def to_tf(weight: torch.Tensor) -> Tensors:
        return (weight[(None,) * dims],)

    return Layout(f"prelu_{dims}d", to_torch, to_tf, ranks=(dims + 1,))


POINTWISE = tuple(_pointwise(dims) for dims in (2, 3))
PRELU = tuple(_slopes(dims) for dims in (1, 2, 3))


# One slope for all, without an axis: Flax's PReLU.
PRELU_OF_ONE = Layout(
    "prelu_of_one",
    lambda slope: (slope.reshape(1),),
    lambda weight: (weight.reshape(()),),
    ranks=(0,),
)


# -- axes that are cut or joined: the number says where --------------------------------------------


def depthwise(in_channels: int) -> Layout:
    """A depthwise kernel, [*sizes, in, multiplier], as a grouped one, [in * multiplier, 1, *sizes].

    Output `i * multiplier + m` of TensorFlow is made of input `i`
    (keras/src/layers/convolutional/base_depthwise_conv.py); with `groups=in_channels` so is
    torch's, since the outputs of a group stand side by side.
    """

    def to_torch(kernel: torch.Tensor) -> Tensors:
        return (kernel.movedim((-2, -1), (0, 1)).flatten(0, 1).unsqueeze(1),)

    def to_tf(weight: torch.Tensor) -> Tensors:
        return (torch.unflatten(weight.squeeze(1), 0, (in_channels, -1)).movedim((0, 1), (-2, -1)),)

    return Layout(f"depthwise[{in_channels}]", to_torch, to_tf)


def flatten_channels_last(channels: int) -> Layout:
    """What stands behind a Flatten of channels-last features, for a Flatten of channels-first ones.

    TensorFlow numbers the features by [*sizes, channels] (keras/src/layers/reshaping/flatten.py
    keeps their order), torch's model by [channels, *sizes]. For the kernel of a Dense,
    [features, out] to [out, features], and for anything with one value a feature.
    """

    def to_torch(tensor: torch.Tensor) -> Tensors:
        return (_channels_first(tensor, channels).t(),)  # t: nothing happens to a vector

    def to_tf(tensor: torch.Tensor) -> Tensors:
        return (_channels_last(tensor.t(), channels),)

    return Layout(f"flatten_channels_last[{channels}]", to_torch, to_tf)


def unflatten_channels_last(channels: int) -> Layout:
    """What stands before a Reshape into channels-last features, for one into channels-first ones.

    For the kernel of a Dense, [in, features] to [features, in], and for its bias.
    """

    def to_torch(tensor: torch.Tensor) -> Tensors:
        return (_channels_first(tensor.t(), channels),)

    def to_tf(tensor: torch.Tensor) -> Tensors:
        return (_channels_last(tensor, channels).t(),)

    return Layout(f"unflatten_channels_last[{channels}]", to_torch, to_tf)


def _channels_first(features: torch.Tensor, channels: int) -> torch.Tensor:
    """Axis 0, [*sizes, channels] in one, as [channels, *sizes] in one."""
    return torch.unflatten(features, 0, (-1, channels)).transpose(0, 1).flatten(0, 1)


def _channels_last(features: torch.Tensor, channels: int) -> torch.Tensor:
    return torch.unflatten(features, 0, (channels, -1)).transpose(0, 1).flatten(0, 1)


# -- products by an equation -----------------------------------------------------------------------

_EQUATION = re.compile(r"(\w*),(\w+)->(\w*)", re.ASCII)


def einsum(equation: str) -> Layout:
    """The kernel of an EinsumDense as the weight of nn.Linear, [out, in]; by its equation.

    The axes that the kernel shares with the input are what nn.Linear takes, in the input's order;
    those that it shares with the output are what it makes, in the output's
    (keras/src/layers/core/einsum_dense.py). The inverse cannot know how several axes were one, and
    writes the first.

    Raises UnsupportedError if no nn.Linear computes it.
    """
    given, kernel, made = _axes_of(equation)
    taken = [axis for axis in given if axis in kernel and axis not in made]
    new = [axis for axis in made if axis in kernel and axis not in given]
    if set(kernel) != {*taken, *new} or len({*kernel}) != len(kernel):
        raise UnsupportedError(
            f"its equation is {equation!r}, whose kernel is another one for each index of an axis "
            "that input and output share; nn.Linear has one for all"
        )
    order = [kernel.index(axis) for axis in (*new, *taken)]
    back = [order.index(axis) for axis in range(len(order))]

    def to_torch(tensor: torch.Tensor) -> Tensors:
        moved = tensor.permute(order)
        return (moved.reshape(math.prod(moved.shape[: len(new)]), -1),)

    def to_tf(weight: torch.Tensor) -> Tensors:
        split = weight.view(-1, *[1] * (len(new) - 1), weight.shape[1], *[1] * (len(taken) - 1))
        return (split.permute(back),)

    return Layout(f"einsum[{equation}]", to_torch, to_tf, ranks=(len(kernel),))


def einsum_bias(equation: str, bias_axes: str) -> Layout:
    """Its bias, which has to have all the axes that the kernel makes; raises UnsupportedError."""
    given, kernel, made = _axes_of(equation)
    new = [axis for axis in made if axis in kernel and axis not in given]
    if [axis for axis in made if axis in bias_axes] != new:
        raise UnsupportedError(
            f"its bias is for the axes {bias_axes!r} of {equation!r}, that of nn.Linear for "
            f"{''.join(new)!r}"
        )

    def to_torch(bias: torch.Tensor) -> Tensors:
        return (bias.flatten(),)

    def to_tf(bias: torch.Tensor) -> Tensors:
        return (bias.view(-1, *[1] * (len(new) - 1)),)

    return Layout(f"einsum_bias[{equation}]", to_torch, to_tf, ranks=(len(new),))


def _axes_of(equation: str) -> tuple[str, str, str]:
    """The axes of the input, the kernel and the output; an ellipsis is in both or in none."""
    found = _EQUATION.fullmatch(equation.replace("...", "").replace(" ", ""))
    if found is None:
        raise UnsupportedError(f"its equation is {equation!r}, which has not two operands")
    return found[1], found[2], found[3]


# -- a kernel that runs the other way --------------------------------------------------------------


def _flipped(kernel: torch.Tensor) -> torch.Tensor:
    return kernel.flip(tuple(range(kernel.dim() - 2)))


# Theano's convolutions turned their kernels round, so that of a file of Keras on Theano each is
# mirrored (keras `engine/saving.py`, `convert_kernel`).
CONV_FLIPPED = Layout(
    "conv_flipped",
    lambda kernel: _last_axes_first(_flipped(kernel)),
    lambda weight: (_flipped(*_first_axes_last(weight)),),
)
CONV_TRANSPOSE_FLIPPED = Layout(
    "conv_transpose_flipped",
    lambda kernel: _last_axes_first(_flipped(kernel)),
    lambda weight: (_flipped(*_first_axes_last(weight)),),
)


# -- a tensor that is only a part of TensorFlow's --------------------------------------------------


def squeeze(axes: int) -> Layout:
    """Axes of size 1 in front go: [1, in, out] to [in, out], [1, 1, 1, channels] to [channels].

    GPT-2's dense layers are convolutions of width 1 whose kernel transformers' Conv1D keeps
    untransposed; Sonnet's moving averages have the rank of what they average.
    """

    def to_torch(tensor: torch.Tensor) -> Tensors:
        return (tensor.view(tensor.shape[axes:]),)  # view: fails where a size is not 1

    def to_tf(tensor: torch.Tensor) -> Tensors:
        return (tensor[(None,) * axes],)

    return Layout(f"squeeze[{axes}]", to_torch, to_tf)


@functools.lru_cache(maxsize=256)
def shaped(*shape: int) -> Layout:
    """Axes of size 1 come or go, anywhere; the others stay as they are: [1, c, 1, 1] to [c].

    A convolution's bias of OpenAI's baselines, [1, c, 1, 1]; positions, [p, width], for [1, p,
    width]. The inverse cannot know where they were, and writes none.
    """

    def to_torch(tensor: torch.Tensor) -> Tensors:
        if not is_same_but_ones(tensor.shape, shape):
            raise RuntimeError("of other sizes than 1")
        return (tensor.reshape(shape),)

    def to_tf(tensor: torch.Tensor) -> Tensors:
        return (tensor.squeeze(),)

    return Layout(f"shaped[{', '.join(map(str, shape))}]", to_torch, to_tf)


def is_same_but_ones(first: Shape, second: Shape) -> bool:
    """Whether two shapes differ, and only in axes of size 1."""
    sizes = ([size for size in shape if size != 1] for shape in (first, second))
    return tuple(first) != tuple(second) and next(sizes) == next(sizes)


# All layers in one tensor, [layers, ...], each of which is a tensor of its own in torch: XLNet with
# `untie_r`. `stacked[2]` is the third of them; `stacked[2, 1]` of [in, layers, out], as T5X and
# MaxText have it (their `scan_axis`, `param_scan_axis`).
@functools.lru_cache(maxsize=16)
def _stacked_along(axis: int) -> Layout:
    def to_torch(stack: torch.Tensor) -> Tensors:
        return stack.unbind(axis)

    def to_tf(*rows: torch.Tensor) -> Tensors:
        return (torch.stack(rows, axis),)

    return Layout("stacked" if not axis else f"stacked along {axis}", to_torch, to_tf)


_ROW_NAME = re.compile(r"stacked\[(\d{1,18})(?:, ?(\d))?\]", re.ASCII)


def stacked(row: int, axis: int = 0) -> str:
    """The name of the layout that takes one of the stacked tensors."""
    return f"stacked[{row}, {axis}]" if axis else f"stacked[{row}]"


def stacked_row(name: str) -> tuple[Layout, int] | None:
    """The layout of a stack, and which of its tensors a name means; None: it means another one."""
    numbered = _ROW_NAME.fullmatch(name)
    return (_stacked_along(int(numbered[2] or 0)), int(numbered[1])) if numbered else None


def fits_either_way(module: nn.Module, key: str, shape: Shape) -> bool:
    """Whether nobody says if a Linear's weight has its outputs first, as torch's does, or last.

    A square tensor that is not called a weight: `proj`, `w`, as one has who computes `x @ w`.
    """
    is_square = len(shape) == 2 and shape[0] == shape[1] > 1
    leaf = key.replace("/", ".").rpartition(".")[2].lower()
    return is_square and isinstance(module, nn.Linear) and not _TORCHS.search(leaf)


# Names of tensors that are as torch has them. (`weights` is what slim calls kernels.)
_TORCHS = re.compile("weight(?!s$)|original|embed|bias")


def other_orders(module: nn.Module) -> tuple[Layout, ...]:
    """The orders that others keep the axes of a layer's weight in: as `x @ w`, or channels last."""
    if isinstance(module, nn.Linear):
        return (TRANSPOSE,)
    if not isinstance(module, nn.modules.conv._ConvNd):
        return ()
    return (channels_last_of(module), CONV_TRANSPOSE if module.transposed else CONV)


def channels_last_of(module: nn.modules.conv._ConvNd) -> Layout:
    """How a kernel is kept with the channels last, and torch's axes in front of them, as in MLX."""
    return CHANNELS_FIRST if module.transposed else CONV_CHANNELS_LAST


def is_kept_by(layout: Layout, shape: Shape) -> bool:
    """Whether an order of axes moves the values of a tensor, and leaves its shape as it is."""
    return math.prod(shape[1:]) > 1 and layout.shapes_in_torch([shape]) == (shape,)


def is_of_a_part(name: str) -> bool:
    """Whether a layout only says which part of a tensor is a layer's: what is left is its own."""
    numbered = _NUMBERED_NAME.fullmatch(name)
    is_squeeze = numbered is not None and numbered[1] == squeeze.__name__
    return is_squeeze or stacked_row(name) is not None


def then(first: Layout, second: Layout) -> Layout:
    """Each tensor that one layout makes, changed by another one."""

    def to_torch(*tensors: torch.Tensor) -> Tensors:
        return tuple(one for made in first.to_torch(*tensors) for one in second.to_torch(made))

    def to_tf(*tensors: torch.Tensor) -> Tensors:
        return first.to_tf(*(one for tensor in tensors for one in second.to_tf(tensor)))

    return Layout(f"{first.name}, {second.name}", to_torch, to_tf, first.num_tf)


def concatenated(count: int) -> Layout:
    """Rows that are cut into several tensors, one behind the other.

    Tensor2tensor keeps a table as `weights_0`, `weights_1`, ...; the inverse cuts as it does, into
    sizes that differ by one at most.
    """

    def to_torch(*parts: torch.Tensor) -> Tensors:
        return (cat(parts),)

    def to_tf(table: torch.Tensor) -> Tensors:
        return table.tensor_split(count)

    return Layout("concatenated", to_torch, to_tf, num_tf=count)


# -- by name ---------------------------------------------------------------------------------------

# What a user may name in var_name_to_layout, and with a number in brackets.
LAYOUTS = {
    layout.name: layout
    for layout in (
        *(IDENTITY, TRANSPOSE, CONV, CONV_TRANSPOSE, CHANNELS_FIRST, CONV_CHANNELS_LAST),
        *(CONV_FLIPPED, CONV_TRANSPOSE_FLIPPED, CONV_TRANSPOSE_FLAX, PRELU_OF_ONE),
        *POINTWISE,
        *PRELU,
    )
}
NUMBERED: dict[str, Callable[[int], Layout]] = {
    make.__name__: make
    for make in (
        depthwise,
        flatten_channels_last,
        unflatten_channels_last,
        squeeze,
    )
}
_BY_EQUATION = re.compile(r"einsum\[(.+)\]")
_BY_SHAPE = re.compile(r"shaped\[(\d{1,18}(?:, ?\d{1,18})*)\]", re.ASCII)
_NUMBERED_NAME = re.compile(r"(\w+)\[([1-9]\d{0,17})\]", re.ASCII)


def named_layout(name: str) -> Layout:
    """The layout of a name; raises SettingsError if there is none."""
    numbered = _NUMBERED_NAME.fullmatch(name)
    if numbered and numbered[1] in NUMBERED:
        return NUMBERED[numbered[1]](int(numbered[2]))
    if name in LAYOUTS:
        return LAYOUTS[name]
    by_shape = _BY_SHAPE.fullmatch(name)
    if by_shape:
        return shaped(*(int(size) for size in by_shape[1].split(",")))
    by_equation = _BY_EQUATION.fullmatch(name)
    if by_equation:
        return einsum(by_equation[1])
    names = [
        *LAYOUTS,
        *(f"{numbered}[number]" for numbered in (*NUMBERED, "stacked")),
        *("einsum[equation]", "shaped[sizes]"),
    ]
    raise SettingsError(
        f"no layout is called {name!r}; there are {', '.join(names)}.{did_you_mean(name, names)}"
    )
