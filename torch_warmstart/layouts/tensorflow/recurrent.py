"""Where TensorFlow keeps the tensors of recurrent layers and cells, and in which layout.

A cell is taken as a whole, for its tensors say together what it is: a recurrent_kernel beside the
kernel makes it one of Keras', whose bias has nothing added to it; peepholes beside it make it one
that torch has not. A tensor that the user names alone is taken for what it can be by its shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from torch_warmstart.layouts.layout import Form, Layout
from torch_warmstart.layouts.leaf import numbered
from torch_warmstart.layouts.recurrent import (
    KERAS_BIAS,
    KERAS_CELL,
    KERAS_CELL_NO_BIAS,
    KERAS_GRU,
    KERAS_GRU_BIAS,
    KERAS_GRU_KERNEL,
    KERAS_GRU_NO_BIAS,
    KERAS_KERNEL,
    RESET_BEFORE,
    TF1_LSTM_KERNEL,
    TF1_RNN,
    TF1_RNN_KERNEL,
    tf1_lstm,
    tf1_lstm_bias,
    tf1_lstm_projected,
    with_forget_bias,
)
from torch_warmstart.values import frozen

Names = tuple[str, ...]
_TF1_BIDIRECTIONAL = ("bidirectional_rnn/", "")  # the scope, or one of the user's in its place

_OWN_NAME_REFUSAL = "torch and TensorFlow keep the gates of recurrent cells differently"
_PEEPHOLE_REFUSAL = "its cell has peepholes ({}), which torch's has not"
_BIAS_REFUSAL = "its cell has a bias, the module has bias=False"
_RESET_UNKNOWN_REFUSAL = (
    "a GRU without a bias does not show whether it has reset_after=True, which torch computes, or "
    "reset_after=False, which no weights of torch's GRU can be; if it has reset_after=True, name "
    "the layout {!r} in var_name_to_layout"
)
_TF1_GRU_REFUSAL = f"TensorFlow 1's GRUCell {RESET_BEFORE}"
_STACKED_DIRECTIONS_REFUSAL = (
    "TensorFlow ran each direction through all layers by itself; torch gives each layer both "
    "directions of the layer before, so nn.{}(num_layers=..., bidirectional=True) computes "
    "something else. Two modules, one a direction, can hold it"
)

_FORGET_BIAS = 1.0  # the default of every LSTM cell of TensorFlow 1, but for that of cuDNN
# tf.contrib.cudnn_rnn's CudnnCompatibleLSTMCell, as which a CudnnLSTM is saved (DeepSpeech).
_CUDNN_CELL = "cudnn_compatible_lstm_cell"
_LAYOUT_NAME = re.compile(r"(tf1_lstm\w*)(?:\[forget_bias=([-+.\de]+)\])?", re.ASCII)
_LEAF = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(?:_l(\d{1,18})(_reverse)?)?")

# In this order layouts of whole cells return them; a projection's kernel comes with the kernel.
_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_PROJECTED_PARTS = ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")

_CELLS: tuple[tuple[tuple[type[nn.Module], ...], tuple[str, Names]], ...] = (
    (
        (nn.LSTM, nn.LSTMCell),
        ("lstm_cell", ("lstm_cell*", "basic_lstm_cell*", f"{_CUDNN_CELL}*")),
    ),
    ((nn.GRU, nn.GRUCell), ("gru_cell", ("gru_cell*",))),
)
_OTHER_CELLS = ("simple_rnn_cell", ("basic_rnn_cell*",))

_GATED = (nn.LSTM, nn.LSTMCell, nn.GRU, nn.GRUCell)
# Keras's and TensorFlow 1's, up to 1.1 and before 1.0; Sonnet 1's, which are as the latter.
_OF_KNOWN_CELLS = frozenset(
    (
        *("kernel", "recurrent_kernel", "bias", "weights", "biases"),
        *("Matrix", "Bias", "W_0", "W_P_0", "B", "w_gates", "b_gates"),
    )
)
_NO_BIAS = (KERAS_CELL_NO_BIAS, KERAS_GRU_NO_BIAS)
_UNNAMED: tuple[Names, ...] = ((),)  # one tensor, and only the user says which

_PEEPHOLES_TF1 = "w_f_diag"
_PEEPHOLES_KERAS = "input_gate_peephole_weights"  # PeepholeLSTMCell of Keras 2


def recurrent_forms(
    module: nn.Module, leaf: str, forget_bias: float = _FORGET_BIAS
) -> tuple[Form, ...]:
    """The ways in which TensorFlow may keep a tensor of a recurrent layer or cell."""
    called = type(module).__name__
    own_name = Form(((leaf,),), refusal=f"nn.{called}.{leaf}: {_OWN_NAME_REFUSAL}")
    wanted = _cell_tensor(module, leaf)
    if wanted is None:  # a subclass's own
        return (own_name,)
    forms = _forms_at(module, wanted, forget_bias)
    if wanted.bidirectional and wanted.layers > 1:
        refusal = _STACKED_DIRECTIONS_REFUSAL.format(called)
        forms.append(Form((_stacked_in_one_direction(wanted),), refusal=refusal))
    return (*forms, own_name)


def presumed_cell(form: Form, module: nn.Module, leaf: str, names: Iterable[str]) -> Form:
    """The form of a recurrent layer's tensor, once it is seen how the checkpoint calls its cell.

    Presumed, if it is called as no cell is whose gates are known: programs of their own have other
    orders, as OpenAI's baselines keep `wx` by i, f, o, c. A cell that is called as cuDNN's adds no
    forget bias; as programs have called cells so that do, that is presumed, too.
    """
    if form.refusal is not None or not isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return form
    names = list(names)
    leaves = {name.rpartition("/")[2].removeprefix("_") for name in names}
    unknown = {leaf for leaf in leaves if not leaf.isdecimal()} - _OF_KNOWN_CELLS
    if isinstance(module, _GATED) and unknown:
        return replace(form, is_presumed=True)
    is_usual = form.layout.name == usual_cell(form.layout.name)
    if not is_usual or not is_called_as_cudnns(names):
        return form
    others = recurrent_forms(module, leaf, forget_bias=0.0)
    pairs = zip(recurrent_forms(module, leaf), others, strict=True)
    found = next(other for own, other in pairs if own.layout is form.layout)
    return replace(form, layout=found.layout, is_presumed=leaf.startswith("bias_ih"))


def usual_cell(layout: str) -> str:
    """The layout of such a cell, by name, that adds what TensorFlow 1's do by default."""
    return with_forget_bias(layout, _FORGET_BIAS)


def is_called_as_cudnns(names: Iterable[str]) -> bool:
    """Whether keys are called as TensorFlow 1 calls the cell that runs what cuDNN has trained."""
    return any(_CUDNN_CELL in name for name in names)


def one_layer_forms(module: nn.Module, leaf: str) -> tuple[int, tuple[Form, ...]] | None:
    """Of a stack of recurrent layers, which a tensor is of, and its forms if that is a layer alone.

    None: the module is no such stack.
    """
    wanted = _cell_tensor(module, leaf) if isinstance(module, nn.RNNBase) else None
    if wanted is None or wanted.layers == 1:
        return None
    alone = replace(wanted, layer=0, layers=1)
    return wanted.layer, tuple(_forms_at(module, alone, _FORGET_BIAS))


def _forms_at(module: nn.Module, wanted: _CellTensor, forget_bias: float) -> list[Form]:
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return _lstm_forms(wanted, forget_bias)
    if isinstance(module, nn.GRU | nn.GRUCell):
        return _gru_forms(wanted)
    return _rnn_forms(wanted)


def named_recurrent_form(layout: str, module: nn.Module, leaf: str) -> Form | None:
    """The form of a layout that needs the user's word for it, or None.

    These are `tf1_lstm[forget_bias=0.0]` and the like, and those of a GRU that does not show what
    it is.
    """
    if not isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return None
    if layout in (KERAS_GRU_KERNEL.name, KERAS_GRU_NO_BIAS.name):
        forms = recurrent_forms(module, leaf)
        return next((replace(f, refusal=None) for f in forms if f.layout.name == layout), None)
    named = _LAYOUT_NAME.fullmatch(layout)
    if named is None:
        return None
    try:
        forget_bias = float(named[2] or _FORGET_BIAS)
    except ValueError:
        return None
    called = with_forget_bias(layout, forget_bias)  # 0 is 0.0 too
    forms = recurrent_forms(module, leaf, forget_bias)
    return next((f for f in forms if f.layout.name == called and f.refusal is None), None)


# -- which cell ------------------------------------------------------------------------------------


@frozen
class _CellTensor:
    """Which tensor of which cell a leaf is."""

    tensor: str  # "weight_ih"
    layer: int
    layers: int
    reverse: bool
    bidirectional: bool
    has_bias: bool
    keras_cell: str  # what Keras calls such cells
    tf1_cells: Names  # what TensorFlow 1 calls them

    @property
    def is_bias(self) -> bool:
        return self.tensor.startswith("bias")


def _cell_tensor(module: nn.Module, leaf: str) -> _CellTensor | None:
    found = _LEAF.fullmatch(leaf)
    if found is None:
        return None
    layers, bidirectional = 1, False
    if isinstance(module, nn.RNNBase):
        layers, bidirectional = module.num_layers, module.bidirectional
    cells = next((cells for types, cells in _CELLS if isinstance(module, types)), _OTHER_CELLS)
    has_bias = bool(module.bias)
    reverse = bool(found[3])
    return _CellTensor(
        found[1], int(found[2] or 0), layers, reverse, bidirectional, has_bias, *cells
    )


def _keras_cell(wanted: _CellTensor) -> tuple[Names, Names, Names]:
    kernel, recurrent, bias = (
        _keras_names(wanted, name) for name in ("kernel", "recurrent_kernel", "bias")
    )
    return kernel, recurrent, bias


def _tf1_cell(wanted: _CellTensor) -> tuple[Names, Names]:
    # They are `weights` and `biases` up to TensorFlow 1.1.
    return _tf1_names(wanted, "kernel", "weights"), _tf1_names(wanted, "bias", "biases")


def _keras_names(wanted: _CellTensor, name: str) -> Names:
    """What Keras may call a tensor of a cell.

    An attribute's path is `cell/kernel`, a name `lstm_cell_3/kernel`; layers of TensorFlow 1 have
    no part for the cell. StackedRNNCells numbers its cells in paths from 0 (`cells/1`; in files of
    Keras 3 `cells/lstm_cell_1`), and in names by how many there were before in the program.
    """
    k, cell = wanted.layer, wanted.keras_cell
    cells = [
        f"cell/cells/{k}/",
        f"cell/cells/{cell}{f'_{k}' if k else ''}/",
        f"stacked_rnn_cells*/{numbered(cell, k, wanted.layers)}/",
    ]
    if wanted.layers == 1:
        cells = ["", "cell/", f"{cell}*/", *cells]
    sides: Names = ("",)
    if wanted.bidirectional:  # Bidirectional's attribute, and its names: that of the layer behind
        sides = _keras_sides(wanted)
        cells = cells if wanted.layers == 1 else []
    return tuple(f"{side}{cell}{name}" for side in sides for cell in cells)


def _keras_sides(wanted: _CellTensor) -> Names:
    """Where Keras keeps one direction of a bidirectional layer: by its attribute, and by name."""
    side = "backward" if wanted.reverse else "forward"
    return (f"{side}_layer/", f"{side}_*/")


def _tf1_side(wanted: _CellTensor) -> str:
    """The scope of one direction in TensorFlow 1."""
    return "bw" if wanted.reverse else "fw"


def _tf1_names(wanted: _CellTensor, *names: str) -> Names:
    """What TensorFlow 1 may call a tensor of a cell, with the scopes of the functions that run it.

    `dynamic_rnn` opens `rnn`, `bidirectional_dynamic_rnn` `bidirectional_rnn/fw`, and a scope that
    the user gives takes the place of either; `stack_bidirectional_dynamic_rnn` numbers the layers.
    """
    k, cells = wanted.layer, [f"{cell}/" for cell in wanted.tf1_cells]
    inner = [f"multi_rnn_cell/cell_{k}/{cell}" for cell in cells]
    if wanted.layers == 1:
        inner = ["", *cells, *inner]
    if not wanted.bidirectional:
        paths = [f"{scope}{path}" for scope in ("", "rnn/") for path in inner]
        return tuple(f"{path}{name}" for path in paths for name in names)
    side = _tf1_side(wanted)
    paths = [
        f"{scope}cell_{k}/bidirectional_rnn/{side}/{cell}"
        for scope in ("stack_bidirectional_rnn/", "")
        for cell in cells
    ]
    if wanted.layers == 1:
        paths += [f"{scope}{side}/{path}" for scope in _TF1_BIDIRECTIONAL for path in inner]
    return tuple(f"{path}{name}" for path in paths for name in names)


def _stacked_in_one_direction(wanted: _CellTensor) -> Names:
    """What a stack of cells inside a bidirectional layer is called."""
    inner = replace(wanted, bidirectional=False)
    stacks = [
        *(name for name in _keras_names(inner, "kernel") if "cells" in name),
        *(name for name in _tf1_names(inner, "kernel") if name.startswith("multi_rnn_cell")),
    ]
    tf1 = (f"{scope}{_tf1_side(wanted)}/" for scope in _TF1_BIDIRECTIONAL)
    sides = (*_keras_sides(wanted), *tf1)
    return tuple(f"{side}{stack}" for side in sides for stack in stacks)


# -- forms -----------------------------------------------------------------------------------------


def _lstm_forms(wanted: _CellTensor, forget_bias: float) -> list[Form]:
    kernel, recurrent, bias = _keras_cell(wanted)
    keras = _whole(wanted, (kernel, recurrent, bias), KERAS_CELL)
    if not wanted.is_bias:
        keras += _whole(wanted, (kernel, recurrent), KERAS_CELL_NO_BIAS)
    tf1_kernel, tf1_bias = _tf1_cell(wanted)
    projection = _tf1_names(wanted, "projection/kernel", "projection/weights")
    projected = tf1_lstm_projected(forget_bias)
    tf1 = [
        *_whole(wanted, (tf1_kernel, tf1_bias), tf1_lstm(forget_bias)),
        *_whole(wanted, (tf1_kernel, projection, tf1_bias), projected, _PROJECTED_PARTS),
    ]
    return [
        *_lstm_tensors(wanted, forget_bias),
        *_or_refused(keras, _PEEPHOLES_KERAS, _keras_names(wanted, _PEEPHOLES_KERAS)),
        *_or_refused(tf1, _PEEPHOLES_TF1, _tf1_names(wanted, _PEEPHOLES_TF1)),
    ]


def _lstm_tensors(wanted: _CellTensor, forget_bias: float) -> list[Form]:
    if wanted.is_bias:
        return [_alone(wanted, KERAS_BIAS), _alone(wanted, tf1_lstm_bias(forget_bias))]
    if wanted.tensor == "weight_hr":
        return [Form(_UNNAMED, KERAS_KERNEL)]
    return [Form(_UNNAMED, KERAS_KERNEL), _alone(wanted, TF1_LSTM_KERNEL)]


def _rnn_forms(wanted: _CellTensor) -> list[Form]:
    kernel, recurrent, bias = _keras_cell(wanted)
    whole = [
        *_whole(wanted, (kernel, recurrent, bias), KERAS_CELL),
        *_whole(wanted, _tf1_cell(wanted), TF1_RNN),
    ]
    if wanted.is_bias:
        return [_alone(wanted, KERAS_BIAS), *whole]
    no_bias = _whole(wanted, (kernel, recurrent), KERAS_CELL_NO_BIAS)
    return [Form(_UNNAMED, KERAS_KERNEL), _alone(wanted, TF1_RNN_KERNEL), *whole, *no_bias]


def _gru_forms(wanted: _CellTensor) -> list[Form]:
    kernel, recurrent, bias = _keras_cell(wanted)
    whole = _whole(wanted, (kernel, recurrent, bias), KERAS_GRU)
    gates = _tf1_names(wanted, "gates/kernel", "gates/weights")
    refused = Form((gates,), refusal=_TF1_GRU_REFUSAL)
    if wanted.is_bias:
        return [_alone(wanted, KERAS_GRU_BIAS), *whole, refused]
    alone = Form(_UNNAMED, KERAS_GRU_KERNEL)
    if not wanted.has_bias:  # the bias, which is going to be read too, would show it
        alone = replace(alone, refusal=_RESET_UNKNOWN_REFUSAL.format(alone.layout.name))
    refusal = _RESET_UNKNOWN_REFUSAL.format(KERAS_GRU_NO_BIAS.name)
    no_bias = _whole(wanted, (kernel, recurrent), KERAS_GRU_NO_BIAS)
    return [alone, *whole, *(replace(form, refusal=refusal) for form in no_bias), refused]


def _whole(
    wanted: _CellTensor, names: tuple[Names, ...], layout: Layout, parts: Names = _PARTS
) -> list[Form]:
    """The form of a whole cell, if the tensor is a part of it."""
    if wanted.tensor not in parts:
        return []
    drops_bias = not wanted.has_bias and layout not in _NO_BIAS
    refusal = _BIAS_REFUSAL if drops_bias else None
    return [Form(names, layout, parts.index(wanted.tensor), refusal)]


def _alone(wanted: _CellTensor, layout: Layout) -> Form:
    """One of TensorFlow's tensors, which becomes the two of torch that end in _ih and _hh."""
    return Form(_UNNAMED, layout, part=int(wanted.tensor.endswith("_hh")))


def _or_refused(forms: list[Form], name: str, peepholes: Names) -> list[Form]:
    """The forms, each refused where the cell has peepholes too."""
    refusal = _PEEPHOLE_REFUSAL.format(name)
    refused = [replace(form, names=(*form.names, peepholes), refusal=refusal) for form in forms]
    return forms + refused
