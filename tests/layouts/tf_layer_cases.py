"""Layers of TensorFlow, each with the module of torch that belongs to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import WarmStartSettings


def _as_it_is(tensor):
    return tensor


@dataclass(frozen=True)
class Case:
    """A layer of TensorFlow, and the module of torch that computes the same."""

    name: str
    shape: tuple  # of an input, without the batch
    layer: str  # its class
    options: Mapping
    module: Callable
    libraries: tuple = ("keras", "tf_keras", "tf1")
    channels_first: bool = True  # in torch
    num_ids: int = 0  # the inputs are ids below it
    before: Callable = _as_it_is  # what is done to TensorFlow's inputs first
    after: Callable = _as_it_is  # and to its outputs
    torch_before: Callable = _as_it_is
    torch_after: Callable = _as_it_is
    layouts: Mapping = field(default_factory=dict)  # the user's, by leaf

    def __str__(self):
        return self.name


def _reshape(*shape):
    """Of TensorFlow's tensors, which are not imported for the other tests of this file."""

    def reshape(tensor):
        import tensorflow as tf

        return tf.reshape(tensor, (-1, *shape))

    return reshape


def separable_case(
    convolution, in_channels, multiplier, out, size, names=("depthwise", "pointwise"), **options
):
    """A SeparableConv in torch."""
    between = in_channels * multiplier
    depthwise = convolution(in_channels, between, size, groups=in_channels, bias=False)
    halves = (depthwise, convolution(between, out, 1, **options))
    return nn.Sequential(OrderedDict(zip(names, halves, strict=True)))


KERAS = ("keras", "tf_keras")
KERAS_3 = ("keras",)
EPSILON = 0.02  # not what any layer has by default
NORM = {"epsilon": EPSILON}
BATCH_NORM = "BatchNormalization"
FLAT = "flatten_channels_last[3]"
UNFLAT = "unflatten_channels_last[3]"


def _dense_cases():
    return [
        Case("dense", (3,), "Dense", {"units": 5}, lambda: nn.Linear(3, 5)),
        Case("dense_square", (4,), "Dense", {"units": 4}, lambda: nn.Linear(4, 4)),
        Case(
            "dense_of_sequences",
            (6, 3),
            "Dense",
            {"units": 5, "use_bias": False},
            lambda: nn.Linear(3, 5, bias=False),
            channels_first=False,
        ),
        Case(
            "dense_of_flattened",
            (4, 5, 3),
            "Dense",
            {"units": 7},
            lambda: nn.Linear(60, 7),
            before=_reshape(60),
            torch_before=nn.Flatten(),
            layouts={"weight": FLAT},
        ),
        Case(
            "dense_of_flattened_square",
            (3, 3, 3),
            "Dense",
            {"units": 27},
            lambda: nn.Linear(27, 27),
            before=_reshape(27),
            torch_before=nn.Flatten(),
            layouts={"weight": FLAT},
        ),
        Case(
            "norm_of_flattened",
            (4, 5, 3),
            BATCH_NORM,
            NORM,
            lambda: nn.BatchNorm1d(60, EPSILON),
            before=_reshape(60),
            after=_reshape(4, 5, 3),
            torch_before=nn.Flatten(),
            torch_after=nn.Unflatten(1, (3, 4, 5)),
            layouts=dict.fromkeys(("weight", "bias", "running_mean", "running_var"), FLAT),
        ),
        Case(
            "dense_to_unflatten",
            (7,),
            "Dense",
            {"units": 60},
            lambda: nn.Linear(7, 60),
            after=_reshape(4, 5, 3),
            torch_after=nn.Unflatten(1, (3, 4, 5)),
            layouts={"weight": UNFLAT, "bias": UNFLAT},
        ),
        Case(
            "split_into_heads",
            (4, 5),
            "EinsumDense",
            {"equation": "abc,cde->abde", "output_shape": (None, 3, 2), "bias_axes": "de"},
            lambda: nn.Linear(5, 6),
            KERAS,
            channels_first=False,
            torch_after=nn.Unflatten(-1, (3, 2)),
        ),
        Case(
            "joined_from_heads",
            (4, 3, 2),
            "EinsumDense",
            {"equation": "abcd,cde->abe", "output_shape": (None, 5), "bias_axes": "e"},
            lambda: nn.Linear(6, 5),
            KERAS,
            channels_first=False,
            torch_before=nn.Flatten(-2),
        ),
    ]


def _conv(name, layer, in_channels, out, size, sizes, module, *, libraries=KERAS, **options):
    """A convolution on both sides; options that only one has are left to `module`."""
    options = {"filters": out, "kernel_size": size, **options}
    return Case(name, (*sizes, in_channels), layer, options, module, libraries)


def _conv_cases():
    everywhere = (*KERAS, "tf1")
    return [
        _conv(
            *("conv1d", "Conv1D", 2, 5, 3, (7,)),
            lambda: nn.Conv1d(2, 5, 3, stride=2),
            strides=2,
            libraries=everywhere,
        ),
        _conv(
            *("conv2d", "Conv2D", 3, 5, (3, 2), (6, 7)),
            lambda: nn.Conv2d(3, 5, (3, 2)),
            libraries=everywhere,
        ),
        _conv(
            *("conv2d_square", "Conv2D", 3, 3, (3, 3), (6, 6)),
            lambda: nn.Conv2d(3, 3, 3, padding="same", bias=False),
            padding="same",
            use_bias=False,
            libraries=everywhere,
        ),
        _conv(
            *("conv3d", "Conv3D", 3, 4, (1, 2, 3), (3, 4, 5)),
            lambda: nn.Conv3d(3, 4, (1, 2, 3)),
            libraries=everywhere,
        ),
        _conv(
            *("conv1d_in_groups", "Conv1D", 4, 6, 3, (7,)),
            lambda: nn.Conv1d(4, 6, 3, groups=2),
            groups=2,
        ),
        _conv(
            *("conv2d_in_groups", "Conv2D", 4, 6, (3, 2), (6, 7)),
            lambda: nn.Conv2d(4, 6, (3, 2), groups=2),
            groups=2,
        ),
        _conv(
            *("conv2d_in_as_many_groups", "Conv2D", 3, 6, (3, 2), (6, 7)),
            lambda: nn.Conv2d(3, 6, (3, 2), groups=3),
            groups=3,
        ),
        Case(
            "conv1d_as_linear",
            (5, 3),
            "Conv1D",
            {"filters": 5, "kernel_size": 1},
            lambda: nn.Linear(3, 5),
            channels_first=False,
        ),
        Case(
            "conv2d_as_linear",
            (4, 5, 3),
            "Conv2D",
            {"filters": 5, "kernel_size": 1},
            lambda: nn.Linear(3, 5),
            channels_first=False,
        ),
        _conv(
            *("conv1d_transposed", "Conv1DTranspose", 2, 5, 3, (7,)),
            lambda: nn.ConvTranspose1d(2, 5, 3, stride=2),
            strides=2,
        ),
        _conv(
            *("conv2d_transposed", "Conv2DTranspose", 3, 5, (3, 2), (6, 7)),
            lambda: nn.ConvTranspose2d(3, 5, (3, 2)),
            libraries=everywhere,
        ),
        _conv(
            *("conv2d_transposed_square", "Conv2DTranspose", 3, 3, (4, 4), (5, 5)),
            lambda: nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1),
            strides=2,
            padding="same",
            libraries=everywhere,
        ),
        _conv(
            *("conv3d_transposed", "Conv3DTranspose", 3, 4, (1, 2, 3), (3, 4, 5)),
            lambda: nn.ConvTranspose3d(3, 4, (1, 2, 3)),
            libraries=everywhere,
        ),
        Case(
            "depthwise1d",
            (7, 3),
            "DepthwiseConv1D",
            {"kernel_size": 4, "depth_multiplier": 2},
            lambda: nn.Conv1d(3, 6, 4, groups=3),
            KERAS,
        ),
        Case(
            "depthwise2d",
            (6, 7, 3),
            "DepthwiseConv2D",
            {"kernel_size": (3, 2), "depth_multiplier": 2},
            lambda: nn.Conv2d(3, 6, (3, 2), groups=3),
            KERAS,
        ),
        Case(
            "depthwise2d_square",
            (6, 6, 3),
            "DepthwiseConv2D",
            {"kernel_size": 3, "depth_multiplier": 3, "padding": "same", "use_bias": False},
            lambda: nn.Conv2d(3, 9, 3, groups=3, padding=1, bias=False),
            KERAS,
        ),
        Case(
            "depthwise2d_of_one_channel",
            (6, 7, 1),
            "DepthwiseConv2D",
            {"kernel_size": (3, 2), "depth_multiplier": 4},
            lambda: nn.Conv2d(1, 4, (3, 2)),
            KERAS,
        ),
        Case(
            "separable1d",
            (7, 3),
            "SeparableConv1D",
            {"filters": 5, "kernel_size": 3, "depth_multiplier": 2},
            lambda: separable_case(nn.Conv1d, 3, 2, 5, 3),
        ),
        Case(
            "separable2d",
            (6, 7, 3),
            "SeparableConv2D",
            {"filters": 5, "kernel_size": (3, 2), "depth_multiplier": 2},
            lambda: separable_case(nn.Conv2d, 3, 2, 5, (3, 2)),
        ),
        Case(
            "separable2d_square",
            (6, 6, 3),
            "SeparableConv2D",
            {"filters": 3, "kernel_size": 3},
            lambda: separable_case(nn.Conv2d, 3, 1, 3, 3, names=("0", "1")),
        ),
    ]


def _other_cases():
    return [
        Case("norm", (4,), BATCH_NORM, NORM, lambda: nn.BatchNorm1d(4, EPSILON)),
        Case("norm1d", (5, 4), BATCH_NORM, NORM, lambda: nn.BatchNorm1d(4, EPSILON)),
        Case("norm2d", (5, 6, 4), BATCH_NORM, NORM, lambda: nn.BatchNorm2d(4, EPSILON)),
        Case("norm3d", (2, 3, 5, 4), BATCH_NORM, NORM, lambda: nn.BatchNorm3d(4, EPSILON)),
        Case("synced", (5, 6, 4), BATCH_NORM, NORM, lambda: nn.SyncBatchNorm(4, EPSILON)),
        Case(
            "layer_norm",
            (5, 4),
            "LayerNormalization",
            NORM,
            lambda: nn.LayerNorm(4, EPSILON),
            KERAS,
            channels_first=False,
        ),
        Case(
            "layer_norm_of_two_axes",
            (5, 6, 4),
            "LayerNormalization",
            {**NORM, "axis": [2, 3]},
            lambda: nn.LayerNorm((6, 4), EPSILON),
            KERAS,
            channels_first=False,
        ),
        Case(
            "layer_norm_of_all_axes",
            (5, 6, 4),
            "LayerNormalization",
            {**NORM, "axis": [1, 2, 3]},
            lambda: nn.LayerNorm((4, 5, 6), EPSILON),
            KERAS,
            layouts={"weight": "channels_first", "bias": "channels_first"},
        ),
        Case(
            "group_norm",
            (5, 6, 4),
            "GroupNormalization",
            {**NORM, "groups": 2},
            lambda: nn.GroupNorm(2, 4, EPSILON),
            KERAS,
        ),
        Case(
            "instance_norm",
            (5, 6, 4),
            "GroupNormalization",
            {**NORM, "groups": -1},
            lambda: nn.InstanceNorm2d(4, EPSILON, affine=True),
            KERAS,
        ),
        Case(
            "rms_norm",
            (5, 4),
            "RMSNormalization",
            NORM,
            lambda: nn.RMSNorm(4, EPSILON),
            KERAS_3,
            channels_first=False,
        ),
        Case(
            "embedding",
            (6,),
            "Embedding",
            {"input_dim": 9, "output_dim": 4},
            lambda: nn.Embedding(9, 4),
            KERAS,
            channels_first=False,
            num_ids=9,
        ),
        Case(
            "bag",
            (2,),
            "Embedding",
            {"input_dim": 9, "output_dim": 4},
            lambda: nn.EmbeddingBag(9, 4, mode="sum"),
            KERAS,
            channels_first=False,
            num_ids=9,
            after=lambda vectors: vectors[:, 0] + vectors[:, 1],
        ),
        Case("prelu", (4,), "PReLU", {}, lambda: nn.PReLU(4), KERAS),
        Case("prelu1d", (5, 4), "PReLU", {"shared_axes": [1]}, lambda: nn.PReLU(4), KERAS),
        Case("prelu2d", (5, 6, 4), "PReLU", {"shared_axes": [1, 2]}, lambda: nn.PReLU(4), KERAS),
        Case(
            "prelu3d", (2, 3, 5, 4), "PReLU", {"shared_axes": [1, 2, 3]}, lambda: nn.PReLU(4), KERAS
        ),
        Case("prelu_one", (5, 6, 4), "PReLU", {"shared_axes": [1, 2, 3]}, nn.PReLU, KERAS),
    ]


CASES = [*_dense_cases(), *_conv_cases(), *_other_cases()]

# Who saved it, how, and in which dtype.
WAYS = [
    ("keras", "checkpoint", "float64"),
    ("keras", ".keras", "float32"),
    ("keras", ".weights.h5", "float64"),
    ("tf_keras", "checkpoint", "float32"),
    ("tf_keras", ".h5", "float64"),
    ("tf1", "V2", "float64"),
    ("tf1", "V1", "float32"),
]


def port_of(way, folder):
    from tf_layers_oracle import save_layers

    cases = [case for case in CASES if way[0] in case.libraries]
    path, outcomes = save_layers(*way, cases, folder)
    model = _model(cases, way[2])
    layouts = {f"{c.name}.{leaf}": layout for c in cases for leaf, layout in c.layouts.items()}
    tws.warm_start(model, WarmStartSettings(path, [".*"], var_name_to_layout=layouts))
    return path, outcomes, model


def _model(cases, dtype):
    """Torch's modules under the names of TensorFlow's layers, with weights of their own."""
    torch.manual_seed(7)
    model = nn.ModuleDict({case.name: case.module() for case in cases})
    return model.to(getattr(torch, dtype)).eval()
