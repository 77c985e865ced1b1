"""A torch module for a layer of Keras, made from its configuration, and how it is called.

It is what somebody who ports the layer would write: torch's layer, and around it what torch's layer
does not do by itself (axes moved, padding, activations, what runs backwards turned round).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Run = Callable[..., torch.Tensor]
Shape = tuple[Any, ...]
Made = tuple[nn.Module | None, Run]

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: F.softmax(x, -1),
    "gelu": F.gelu,
    "swish": F.silu,
    "silu": F.silu,
    "elu": F.elu,
    "softplus": F.softplus,
    "hard_swish": F.hardswish,
    "hard_silu": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
}


def module_of(layer: Any, shapes: Sequence[Shape]) -> Made:
    """The module for a layer, None if it has no weights, and what runs it as Keras does."""
    config = layer.get_config()
    kind = type(layer).__name__
    return _MAKERS[kind](layer, config, shapes)


def _activated(module: nn.Module, config: dict[str, Any], run: Run) -> Made:
    name = config.get("activation") or "linear"
    act = _ACTIVATIONS[name]
    return module, lambda *x, **how: act(run(*x, **how))


def _first(module: nn.Module, axis: int = -1) -> Run:
    """A module of channels first, on tensors of channels last."""
    return lambda x: module(x.movedim(axis, 1)).movedim(1, axis)


# -- layers of one product -------------------------------------------------------------------------


def _dense(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    linear = nn.Linear(shapes[0][-1], config["units"], bias=config["use_bias"])
    return _activated(linear, config, linear)


def _einsum(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    """The contracted axes are the input's last ones, the new axes the output's last ones."""
    inputs, rest = config["equation"].replace("...", "").split(",")
    kernel, outputs = rest.split("->")
    contracted = [axis for axis in inputs if axis in kernel and axis not in outputs]
    new = [axis for axis in outputs if axis not in inputs]
    sizes = dict(zip(kernel, (int(s) for s in layer.kernel.shape), strict=True))
    made = [sizes[axis] for axis in new]
    linear = nn.Linear(math.prod(sizes[a] for a in contracted), math.prod(made),
                       bias=bool(config["bias_axes"]))  # fmt: skip

    def run(x: torch.Tensor) -> torch.Tensor:
        return linear(x.flatten(-len(contracted))).unflatten(-1, made)

    return _activated(linear, config, run)


def _embedding(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    table = nn.Embedding(config["input_dim"], config["output_dim"])
    return table, lambda x: table(x.long())


# -- convolutions ----------------------------------------------------------------------------------


def _padded(
    x: torch.Tensor, config: dict[str, Any], size: Sequence[int], by: float = 0.0
) -> torch.Tensor:
    """With channels first, padded as TensorFlow does."""
    if config["padding"] == "valid":
        return x
    pads: list[int] = []
    for axis, width in enumerate(size):
        stride, dilation = config["strides"][axis], config["dilation_rate"][axis]
        reach = (width - 1) * dilation
        if config["padding"] == "causal":
            pads = [reach, 0, *pads]
            continue
        length = x.shape[2 + axis]
        total = max(0, (math.ceil(length / stride) - 1) * stride + reach + 1 - length)
        pads = [total // 2, total - total // 2, *pads]
    return F.pad(x, pads, value=by)


def _rank_of(config: dict[str, Any], layer: Any) -> int:
    return int(next(c for c in type(layer).__name__ if c.isdecimal()))


def _conv(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    rank, size = _rank_of(config, layer), list(config["kernel_size"])
    channels_first = config["data_format"] == "channels_first"
    channels = shapes[0][1 if channels_first else -1]
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](
        channels, config["filters"], tuple(size), stride=tuple(config["strides"]),
        dilation=tuple(config["dilation_rate"]), groups=config["groups"],
        bias=config["use_bias"],
    )  # fmt: skip

    def run(x: torch.Tensor) -> torch.Tensor:
        if channels_first:
            return conv(_padded(x, config, size))
        return conv(_padded(x.movedim(-1, 1), config, size)).movedim(1, -1)

    return _activated(conv, config, run)


def _conv_transpose(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    rank, size = _rank_of(config, layer), list(config["kernel_size"])
    conv = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1](
        shapes[0][-1], config["filters"], tuple(size), stride=tuple(config["strides"]),
        bias=config["use_bias"],
    )  # fmt: skip

    def run(x: torch.Tensor) -> torch.Tensor:
        found = conv(x.movedim(-1, 1))
        if config["padding"] == "same":
            for axis, (width, stride) in enumerate(zip(size, config["strides"], strict=True), 2):
                wanted, cut = x.shape[axis - 1] * stride, max(width - stride, 0)
                found = found.narrow(axis, cut // 2, wanted)
        return found.movedim(1, -1)

    return _activated(conv, config, run)


def _depthwise(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    conv = _depthwise_module(layer, config, shapes)
    size = list(config["kernel_size"])

    def run(x: torch.Tensor) -> torch.Tensor:
        return conv(_padded(x.movedim(-1, 1), config, size)).movedim(1, -1)

    return _activated(conv, config, run)


def _depthwise_module(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> nn.Module:
    channels = shapes[0][-1]
    return (nn.Conv1d, nn.Conv2d)[_rank_of(config, layer) - 1](
        channels, channels * config["depth_multiplier"], tuple(config["kernel_size"]),
        stride=tuple(config["strides"]), dilation=tuple(config["dilation_rate"]), groups=channels,
        bias=config["use_bias"],
    )  # fmt: skip


def _separable(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    both = nn.Module()
    depthwise = _depthwise_module(layer, {**config, "use_bias": False}, shapes)
    both.depthwise = depthwise
    pointwise = (nn.Conv1d, nn.Conv2d)[_rank_of(config, layer) - 1]
    both.pointwise = pointwise(
        shapes[0][-1] * config["depth_multiplier"], config["filters"], 1, bias=config["use_bias"]
    )
    size = list(config["kernel_size"])

    def run(x: torch.Tensor) -> torch.Tensor:
        x = depthwise(_padded(x.movedim(-1, 1), config, size))
        return both.pointwise(x).movedim(1, -1)

    return _activated(both, config, run)


# -- norms -----------------------------------------------------------------------------------------


def _axes(config: dict[str, Any]) -> list[int]:
    axis = config["axis"]
    return list(axis) if isinstance(axis, list | tuple) else [axis]


def _batch_norm(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    (axis,) = _axes(config)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    norm = kind[len(shapes[0])](shapes[0][axis], config["epsilon"], 1 - config["momentum"])
    return norm, _first(norm, axis)


def _layer_norm(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    axes = [axis % len(shapes[0]) for axis in _axes(config)]
    norm = nn.LayerNorm([shapes[0][axis] for axis in axes], config["epsilon"])
    return norm, norm


def _group_norm(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    channels = shapes[0][-1]
    groups = channels if config["groups"] == -1 else config["groups"]
    norm = nn.GroupNorm(groups, channels, config["epsilon"])
    return norm, _first(norm)


def _rms_norm(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    norm = nn.RMSNorm(shapes[0][-1], config["epsilon"])
    return norm, norm


def _p_relu(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    slopes = nn.PReLU(shapes[0][-1])
    return slopes, _first(slopes)


# -- recurrent -------------------------------------------------------------------------------------

_RNN = {"LSTM": nn.LSTM, "GRU": nn.GRU, "SimpleRNN": nn.RNN}
_CELLS = {"LSTMCell": nn.LSTM, "GRUCell": nn.GRU, "SimpleRNNCell": nn.RNN}


def _rnn_module(kind: type, wide: int, config: dict[str, Any], **more: Any) -> nn.RNNBase:
    if kind is nn.RNN and config["activation"] == "relu":
        more["nonlinearity"] = "relu"
    return kind(wide, config["units"], batch_first=True, bias=config["use_bias"], **more)


def _output(found: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    return found if config["return_sequences"] else found[:, -1]


def _recurrent(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    module = _rnn_module(_RNN[type(layer).__name__], shapes[0][-1], config)

    def run(x: torch.Tensor) -> torch.Tensor:
        return _output(module(x.flip(1) if config["go_backwards"] else x)[0], config)

    return module, run


def _of_cells(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    cell = config["cell"]
    cells = cell["config"]["cells"] if cell["class_name"].endswith("StackedRNNCells") else [cell]
    kind = _CELLS[cells[0]["class_name"].rpartition(">")[2]]
    module = _rnn_module(kind, shapes[0][-1], cells[0]["config"], num_layers=len(cells))

    def run(x: torch.Tensor) -> torch.Tensor:
        return _output(module(x.flip(1) if config["go_backwards"] else x)[0], config)

    return module, run


def _bidirectional(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    inner = config["layer"]
    kind = _RNN[inner["class_name"].rpartition(">")[2]]
    module = _rnn_module(kind, shapes[0][-1], inner["config"], bidirectional=True)

    def run(x: torch.Tensor) -> torch.Tensor:
        found, _ = module(x)
        ahead, back = found.chunk(2, -1)
        if not inner["config"]["return_sequences"]:
            ahead, back = ahead[:, -1], back[:, 0]
        merge = {
            "concat": lambda: torch.cat((ahead, back), -1),
            "sum": lambda: ahead + back,
            "mul": lambda: ahead * back,
            "ave": lambda: (ahead + back) / 2,
        }
        return merge[config["merge_mode"]]()

    return module, run


# -- attention, wrappers, layers without weights ---------------------------------------------------


def _attention(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    width = shapes[0][-1]
    module = nn.MultiheadAttention(
        width, config["num_heads"], bias=config["use_bias"], batch_first=True
    )

    def run(query: torch.Tensor, value: torch.Tensor, key: torch.Tensor | None = None) -> Any:
        return module(query, value if key is None else key, value, need_weights=False)[0]

    return module, run


def _wrapper(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    return module_of(layer.layer, [(shape[0], *shape[2:]) for shape in shapes])


def _spectral(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    return module_of(layer.layer, shapes)


def _plain(run: Callable[..., torch.Tensor]) -> Callable[..., Made]:
    return lambda *_: (None, run)


def _activation(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    return None, _ACTIVATIONS[config["activation"]]


def _reshape(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    return None, lambda x: x.reshape(len(x), *config["target_shape"])


def _concatenate(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    return None, lambda *x: torch.cat(x, config["axis"])


def _relu(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    if config["negative_slope"] or config["threshold"]:
        raise NotImplementedError(config)
    most = config["max_value"]
    return None, lambda x: x.clamp(0, None if most is None else float(most))


def _global_average(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    return None, lambda x: x.mean((1, 2), keepdim=config["keepdims"])


def _pooling(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    """The maximum, or the average, of what is not padding."""
    size, how = config["pool_size"], {**config, "dilation_rate": (1, 1)}

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.movedim(-1, 1)
        if "Max" in type(layer).__name__:
            found = F.max_pool2d(_padded(x, how, size, -torch.inf), size, config["strides"])
        else:
            total, count = (
                F.avg_pool2d(_padded(each, how, size), size, config["strides"])
                for each in (x, torch.ones_like(x))
            )
            found = total / count
        return found.movedim(1, -1)

    return None, run


def _zero_padding(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    (top, bottom), (left, right) = config["padding"]
    return None, lambda x: F.pad(x, (0, 0, left, right, top, bottom))


def _rescaling(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    return None, lambda x: x * config["scale"] + config["offset"]


def _normalization(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    """What its configuration holds, or what it adapted itself to, which it keeps as variables."""
    told = config["mean"] is not None
    module = nn.Module()
    for name in ("mean", "variance"):
        value = config[name] if told else torch.zeros(tuple(getattr(layer, f"adapt_{name}").shape))
        module.register_buffer(name, torch.as_tensor(value))

    def run(x: torch.Tensor) -> torch.Tensor:
        return (x - module.mean) / module.variance.sqrt().clamp(1e-7)

    return None if told else module, run


def _operation(layer: Any, config: dict[str, Any], shapes: Sequence[Shape]) -> Made:
    runs = {"__operators__.add": lambda x, y: x + y, "math.multiply": lambda x, y: x * y}
    return None, runs[config["function"]]


_MAKERS: dict[str, Callable[..., Made]] = {
    "Dense": _dense,
    "EinsumDense": _einsum,
    "Embedding": _embedding,
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _conv),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _conv_transpose),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "RMSNormalization": _rms_norm,
    "PReLU": _p_relu,
    **dict.fromkeys(_RNN, _recurrent),
    "RNN": _of_cells,
    "Bidirectional": _bidirectional,
    "MultiHeadAttention": _attention,
    "TimeDistributed": _wrapper,
    "SpectralNormalization": _spectral,
    "Activation": _activation,
    "ReLU": _relu,
    "Flatten": _plain(lambda x: x.flatten(1)),
    "Dropout": _plain(lambda x: x),
    "GlobalAveragePooling1D": _plain(lambda x: x.mean(1)),
    "GlobalAveragePooling2D": _global_average,
    **dict.fromkeys(("MaxPooling2D", "AveragePooling2D"), _pooling),
    "ZeroPadding2D": _zero_padding,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "Add": _plain(lambda *x, y=0.0: sum(x) + y),
    "Multiply": _plain(lambda *x, y=1.0: math.prod(x) * y),
    "TFOpLambda": _operation,
    "Concatenate": _concatenate,
    "Reshape": _reshape,
    "UpSampling1D": _plain(lambda x: x.repeat_interleave(2, 1)),
}
