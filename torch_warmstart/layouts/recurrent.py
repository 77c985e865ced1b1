"""How recurrent cells keep their gates: layouts between TensorFlow's cells and torch's.

torch (torch/nn/modules/rnn.py) has weight_ih [gates * H, in], weight_hh [gates * H, H] and two
biases that it adds; LSTM's gates are i, f, g, o and GRU's r, z, n.

Keras (keras/src/layers/rnn/lstm.py, gru.py, simple_rnn.py; tf_keras has the same) has kernel
[in, gates * H], recurrent_kernel [H, gates * H] and one bias; LSTM's gates are i, f, c, o, so only
transposed, and GRU's z, r, h. A GRU with reset_after has a bias for each kernel, as torch has.

The cells of TensorFlow 1 (tf_keras/src/layers/rnn/legacy_cells.py) multiply [inputs, state] by one
kernel [in + H, gates * H]; LSTM's gates are i, j, f, o, and `forget_bias` is added to f whenever
the cell runs: it is in no checkpoint.

Where torch has two biases and TensorFlow one, the first gets the value and the second zeros. Both
have the same gradient as TensorFlow's one, so an optimizer's slots are copied to both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.layouts.layout import Layout, Tensors, cat
from torch_warmstart.layouts.named import TRANSPOSE

LSTM_GATES, GRU_GATES = 4, 3
_TF1_TO_TORCH = (0, 2, 1, 3)  # i, j, f, o -> i, f, g, o; and back
_KERAS_GRU_TO_TORCH = (1, 0, 2)  # z, r, h -> r, z, n; and back
# What a GRU does of which no weights of torch's can do the same.
RESET_BEFORE = (
    "applies the reset gate before the recurrent kernel; torch applies it after, and no weights "
    "make the two equal"
)


def _reordered(tensor: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """The last axis in blocks, one a gate, in another order."""
    gates = torch.unflatten(tensor, -1, (len(order), -1))
    return cat([gates[..., gate, :] for gate in order], dim=-1)


def _side_by_side(
    name: str, *parts: tuple[Layout, int], check: Callable[..., None] | None = None
) -> Layout:
    """Layouts of different tensors as one; each with how many of torch's it makes."""

    def to_torch(*tensors: torch.Tensor) -> Tensors:
        if check is not None:
            check(*tensors)
        return _apply([(layout.to_torch, layout.num_tf) for layout, _ in parts], tensors)

    def to_tf(*tensors: torch.Tensor) -> Tensors:
        return _apply([(layout.to_tf, made) for layout, made in parts], tensors)

    has_own_slots = any(layout.for_slots for layout, _ in parts)
    in_slots = [(layout.slot_layout, made) for layout, made in parts]
    return Layout(
        name,
        to_torch,
        to_tf,
        num_tf=sum(layout.num_tf for layout, _ in parts),
        for_slots=_side_by_side(f"{name}_slots", *in_slots) if has_own_slots else None,
    )


def _apply(
    functions: Sequence[tuple[Callable[..., Tensors], int]], tensors: Sequence[torch.Tensor]
) -> Tensors:
    """Each function on its share of the tensors, all results in a row."""
    results: list[torch.Tensor] = []
    for function, count in functions:
        results += function(*tensors[:count])
        tensors = tensors[count:]
    return tuple(results)


# -- one bias that becomes two ---------------------------------------------------------------------


def _with_zeros(bias: torch.Tensor) -> Tensors:
    return bias, torch.zeros_like(bias)


def _summed(bias_ih: torch.Tensor, bias_hh: torch.Tensor) -> Tensors:
    return (bias_ih + bias_hh,)


def _twice(bias: torch.Tensor) -> Tensors:
    return bias, bias


def _first(bias_ih: torch.Tensor, _: torch.Tensor) -> Tensors:
    return (bias_ih,)  # the two are equal: both biases have the same gradient


KERAS_BIAS = Layout(
    "keras_bias",
    _with_zeros,
    _summed,
    ranks=(1,),
    for_slots=Layout("keras_bias_slots", _twice, _first, ranks=(1,)),
)


# -- Keras' LSTM and SimpleRNN ---------------------------------------------------------------------


def _check_one_bias(
    kernel: torch.Tensor, recurrent_kernel: torch.Tensor, bias: torch.Tensor, kind: str = "LSTM"
) -> None:
    if bias.dim() == 1 and bias.shape[0] == 2 * kernel.shape[-1]:
        raise UnsupportedError(
            f"a bias of {bias.shape[0]} beside a kernel for {kernel.shape[-1]} is that of "
            f"CuDNN{kind}, which keeps its kernels in the order of cuDNN; Keras makes of it what "
            f"{kind} has, when it loads the file into one"
        )
    if recurrent_kernel.shape[-1] != kernel.shape[-1]:
        raise RuntimeError("kernels of different cells")


KERAS_KERNEL = TRANSPOSE  # of LSTM and SimpleRNN, whose gates have torch's order: i, f, c, o
KERAS_CELL = _side_by_side(
    "keras_cell", (KERAS_KERNEL, 1), (KERAS_KERNEL, 1), (KERAS_BIAS, 2), check=_check_one_bias
)
KERAS_CELL_NO_BIAS = _side_by_side("keras_cell_no_bias", (KERAS_KERNEL, 1), (KERAS_KERNEL, 1))


# -- Keras' GRU ------------------------------------------------------------------------------------


def _gru_kernel_in_torch(kernel: torch.Tensor) -> Tensors:
    return (_reordered(kernel, _KERAS_GRU_TO_TORCH).t(),)


def _gru_kernel_in_keras(weight: torch.Tensor) -> Tensors:
    return (_reordered(weight.t(), _KERAS_GRU_TO_TORCH),)


def _gru_bias_in_torch(bias: torch.Tensor) -> Tensors:
    if bias.dim() == 1:
        raise UnsupportedError(
            f"a bias of shape {list(bias.shape)} is that of a GRU with reset_after=False (with "
            f"reset_after=True it has two rows), which {RESET_BEFORE}"
        )
    bias_ih, bias_hh = _reordered(bias, _KERAS_GRU_TO_TORCH).unbind()
    return bias_ih, bias_hh


def _gru_bias_in_keras(bias_ih: torch.Tensor, bias_hh: torch.Tensor) -> Tensors:
    return (_reordered(torch.stack((bias_ih, bias_hh)), _KERAS_GRU_TO_TORCH),)


KERAS_GRU_KERNEL = Layout("keras_gru_kernel", _gru_kernel_in_torch, _gru_kernel_in_keras)
KERAS_GRU_BIAS = Layout("keras_gru_bias", _gru_bias_in_torch, _gru_bias_in_keras)
KERAS_GRU = _side_by_side(
    *("keras_gru", (KERAS_GRU_KERNEL, 1), (KERAS_GRU_KERNEL, 1), (KERAS_GRU_BIAS, 2)),
    check=functools.partial(_check_one_bias, kind="GRU"),
)
KERAS_GRU_NO_BIAS = _side_by_side("keras_gru_no_bias", (KERAS_GRU_KERNEL, 1), (KERAS_GRU_KERNEL, 1))


# -- the cells of TensorFlow 1 ---------------------------------------------------------------------


def _split_rows(kernel: torch.Tensor, state_size: int) -> Tensors:
    """The rows for the inputs and those for the state."""
    if kernel.shape[0] <= state_size:
        raise RuntimeError("no rows for the inputs")
    return kernel[:-state_size].t(), kernel[-state_size:].t()


def _rnn_kernel_in_torch(kernel: torch.Tensor) -> Tensors:
    return _split_rows(kernel, kernel.shape[1])


def _rnn_kernel_in_tf1(weight_ih: torch.Tensor, weight_hh: torch.Tensor) -> Tensors:
    return (torch.cat((weight_ih.t(), weight_hh.t())),)


def _lstm_kernel_in_torch(kernel: torch.Tensor) -> Tensors:
    return _split_rows(_reordered(kernel, _TF1_TO_TORCH), kernel.shape[1] // LSTM_GATES)


def _lstm_kernel_in_tf1(weight_ih: torch.Tensor, weight_hh: torch.Tensor) -> Tensors:
    return (_reordered(torch.cat((weight_ih.t(), weight_hh.t())), _TF1_TO_TORCH),)


def _projected_in_torch(kernel: torch.Tensor, projection: torch.Tensor) -> Tensors:
    if kernel.shape[1] != LSTM_GATES * projection.shape[0]:
        raise RuntimeError("a projection of another cell")
    split = _split_rows(_reordered(kernel, _TF1_TO_TORCH), projection.shape[1])
    return (*split, projection.t())


def _projected_in_tf1(
    weight_ih: torch.Tensor, weight_hh: torch.Tensor, weight_hr: torch.Tensor
) -> Tensors:
    return (*_lstm_kernel_in_tf1(weight_ih, weight_hh), weight_hr.t())


def _add_to_forget(bias: torch.Tensor, forget_bias: float) -> torch.Tensor:
    """Adds to the second of four gates, in torch's order."""
    i, f, g, o = bias.chunk(LSTM_GATES)
    raised = f if f.is_meta else f + forget_bias  # of shapes alone nothing is summed: `cat`
    return cat((i, raised, g, o))


TF1_RNN_KERNEL = Layout("tf1_rnn_kernel", _rnn_kernel_in_torch, _rnn_kernel_in_tf1, ranks=(2,))
TF1_RNN = _side_by_side("tf1_rnn", (TF1_RNN_KERNEL, 2), (KERAS_BIAS, 2))

TF1_LSTM_KERNEL = Layout("tf1_lstm_kernel", _lstm_kernel_in_torch, _lstm_kernel_in_tf1, ranks=(2,))
_TF1_LSTM_PROJECTED_KERNEL = Layout(
    "tf1_lstm_projected_kernel", _projected_in_torch, _projected_in_tf1, num_tf=2, ranks=(2, 2)
)


def with_forget_bias(layout: str, forget_bias: float) -> str:
    """What a layout of TensorFlow 1's LSTM cells is called where they add this when they run."""
    return f"{layout.partition('[')[0]}[forget_bias={forget_bias}]"


@functools.lru_cache(maxsize=64)
def tf1_lstm_bias(forget_bias: float) -> Layout:
    """The bias of TensorFlow 1's LSTM cells, which add `forget_bias` when they run."""

    def to_torch(bias: torch.Tensor) -> Tensors:
        return _with_zeros(_add_to_forget(_reordered(bias, _TF1_TO_TORCH), forget_bias))

    def to_tf(bias_ih: torch.Tensor, bias_hh: torch.Tensor) -> Tensors:
        return (_reordered(_add_to_forget(bias_ih + bias_hh, -forget_bias), _TF1_TO_TORCH),)

    return Layout(
        with_forget_bias("tf1_lstm_bias", forget_bias),
        to_torch,
        to_tf,
        ranks=(1,),
        for_slots=_TF1_LSTM_BIAS_SLOTS,
    )


def _slots_in_torch(bias: torch.Tensor) -> Tensors:
    return _twice(_reordered(bias, _TF1_TO_TORCH))


def _slots_in_tf1(bias_ih: torch.Tensor, _: torch.Tensor) -> Tensors:
    return (_reordered(bias_ih, _TF1_TO_TORCH),)


# What is added to a bias is not added to its gradient.
_TF1_LSTM_BIAS_SLOTS = Layout("tf1_lstm_bias_slots", _slots_in_torch, _slots_in_tf1, ranks=(1,))


@functools.lru_cache(maxsize=64)
def tf1_lstm(forget_bias: float) -> Layout:
    """TensorFlow 1's BasicLSTMCell, LSTMCell and LSTMBlockCell: kernel and bias."""
    name = with_forget_bias("tf1_lstm", forget_bias)
    return _side_by_side(name, (TF1_LSTM_KERNEL, 2), (tf1_lstm_bias(forget_bias), 2))


@functools.lru_cache(maxsize=64)
def tf1_lstm_projected(forget_bias: float) -> Layout:
    """TensorFlow 1's LSTMCell with num_proj: kernel, projection and bias."""
    name = with_forget_bias("tf1_lstm_projected", forget_bias)
    return _side_by_side(name, (_TF1_LSTM_PROJECTED_KERNEL, 3), (tf1_lstm_bias(forget_bias), 2))
