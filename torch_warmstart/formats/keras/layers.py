"""Keras's classes of layers: which variables each has, in order, and which layers within.

A class is known by its name in snake case, as Keras calls folders. Keras 3 and tf_keras write a
layer's trainable variables before the others, each in the order in which the layer makes them
(`Layer.save_own_variables`); Dense, EinsumDense, Embedding and convolutions write theirs by a
list of their own, which is in the same order as long as they are not quantised.

Not here, because what they keep has no names of Keras's: JaxLayer, FlaxLayer, TFSMLayer and
TorchModuleWrapper hold another library's variables, IndexLookup and its like vocabularies.

Source: keras `layers/**`, tf_keras `layers/**`.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from torch_warmstart.formats.keras.hdf5 import Dataset
from torch_warmstart.values import frozen

Options = Mapping[str, Any]
Shapes = Sequence[tuple[int, ...]]


@frozen
class Leaf:
    """A variable of a layer."""

    name: str  # "": what a layer within calls by its own name
    rank: int | None = None  # None: any
    when: Callable[[Options], bool] | None = None  # None: the layer always has it
    in_tf_keras: str = ""  # if tf_keras calls it otherwise
    is_integer: bool = False
    is_trained: bool = True  # unless the layer is frozen

    @property
    def names(self) -> tuple[str, ...]:
        """All names of it."""
        return tuple(name for name in (self.name, self.in_tf_keras) if name)


@frozen
class Inner:
    """A layer that is an attribute of another."""

    kind: str = ""  # its class; "": any, which the configuration or its own name tells
    name: str = ""  # what the outer layer calls it; "": what it is called itself
    otherwise: str = ""  # the class that is taken where nothing tells, if its variables fit


@frozen
class Layer:
    """A class of layers.

    `is_transparent` says that Keras leaves out the names of the layers within: tf_keras does, and
    whoever has no such wrapper in torch.
    """

    leaves: tuple[Leaf, ...] = ()
    inner: Mapping[str, Inner] = field(default_factory=dict)  # in the order of their variables
    is_transparent: bool = False
    fits: Callable[[Shapes], bool] = lambda _: True


def find_leaves(
    layer: Layer, found: Sequence[Dataset], options: Options | None
) -> list[Leaf | None]:
    """Which variable each dataset of a layer is, in order; None where more than one answer fits.

    Args:
        layer: The layer's class.
        found: Its variables.
        options: Its configuration; None if it is not known.
    """
    fitting = [leaves for leaves in _choices(layer.leaves, options) if _fits(layer, leaves, found)]
    if not fitting:
        return [None] * len(found)
    answers = zip(*fitting, strict=True)
    return [leaves[0] if len(set(leaves)) == 1 else None for leaves in answers]


def _choices(leaves: Sequence[Leaf], options: Options | None) -> Iterator[tuple[Leaf, ...]]:
    """The variables a layer may have; one answer if its options are known."""
    conditions = list(dict.fromkeys(leaf.when for leaf in leaves if leaf.when is not None))
    for answers in itertools.product((True, False), repeat=len(conditions)):
        holds = dict(zip(conditions, answers, strict=True))
        if options is None or all(when(options) == there for when, there in holds.items()):
            yield tuple(leaf for leaf in leaves if leaf.when is None or holds[leaf.when])


def _fits(layer: Layer, leaves: Sequence[Leaf], found: Sequence[Dataset]) -> bool:
    return (
        len(leaves) == len(found) > 0
        and all(map(_is_like, leaves, found))
        and layer.fits([dataset.shape for dataset in found])
    )


def _is_like(leaf: Leaf, dataset: Dataset) -> bool:
    """Whether a dataset can be a variable; a quantised layer's kernel is of integers."""
    dtype = dataset.torch_dtype
    if dtype is None or leaf.rank not in (None, len(dataset.shape)):
        return False
    return dtype.is_floating_point != leaf.is_integer


def _option(
    name: str, default: Any = True, test: Callable[[Any], bool] = bool
) -> Callable[[Options], bool]:
    return lambda options: test(options.get(name, default))


def _is_cell(shapes: Shapes) -> bool:
    """Kernels of as many gates, and a bias: one for all, or of GRUs two."""
    kernel, recurrent, *bias = shapes
    units, gates = recurrent
    return (
        kernel[1] == gates
        and units in (gates, gates // 3, gates // 4)
        and gates % max(units, 1) == 0
        and all(shape in ((gates,), (2, gates)) for shape in bias)
    )


# A variable that no optimizer changes.
_counted = functools.partial(Leaf, is_trained=False)

_SCALE, _CENTER = _option("scale"), _option("center")
_BIAS = Leaf("bias", 1, _option("use_bias"))
_KERNEL_AND_BIAS = Layer((Leaf("kernel"), _BIAS))
_NORM = Layer((Leaf("gamma", None, _SCALE), Leaf("beta", None, _CENTER)))

_RENORM = _option("renorm", default=False)
_BATCH_NORM = Layer(
    (
        Leaf("gamma", None, _SCALE),
        Leaf("beta", None, _CENTER),
        _counted("moving_mean", 1),
        _counted("moving_variance", 1),
        _counted("moving_stddev", 1, _RENORM),
        _counted("renorm_mean", 1, _RENORM),
        _counted("renorm_stddev", 1, _RENORM),
    )
)
_RMS = _option("rms_scaling", default=False)
_LAYER_NORM = Layer(
    (
        Leaf("gamma", None, lambda options: _SCALE(options) or _RMS(options)),
        Leaf("beta", None, lambda options: _CENTER(options) and not _RMS(options)),
    )
)
_ADAPTED = _option("mean", None, lambda value: value is None)
_NORMALIZATION = Layer(
    (
        _counted("mean", None, _ADAPTED),
        _counted("variance", None, _ADAPTED),
        _counted("count", 0, _ADAPTED, is_integer=True),
    )
)

_CELL_BIAS = Leaf("bias", None, _option("use_bias"))
_CELL = Layer((Leaf("kernel", 2), Leaf("recurrent_kernel", 2), _CELL_BIAS), fits=_is_cell)
_CONV_CELL = Layer((Leaf("kernel"), Leaf("recurrent_kernel"), _BIAS))
_CELLS = ("lstm_cell", "gru_cell", "simple_rnn_cell")
ANY_CELL = "any_cell"  # of Keras's own: all have the same variables

_PROJECTIONS = {  # in the order in which Keras 3 makes them
    "query": "query",
    "key": "key",
    "gate": "gate",
    "value": "value",
    "output": "attention_output",
}
# Attributes are visited by name, private ones last. Keras 3 has a property of most, tf_keras none.
_ATTENTION = Layer(
    inner={
        f"{private}{attribute}_dense": Inner("einsum_dense", name)
        for attribute, name in _PROJECTIONS.items()
        for private in ("", "_")
    }
)
_ANY = Inner()
_WRAPPER = Layer(inner={"layer": _ANY}, is_transparent=True)
_SPECTRAL_NORM = Layer((Leaf(""), _counted("vector_u", 2)), {"layer": _ANY}, is_transparent=True)

_CONVOLUTIONS = [f"conv{rank}d{kind}" for rank in (1, 2, 3) for kind in ("", "_transpose")]
_DEPTHWISE_KERNEL = Leaf("kernel", in_tf_keras="depthwise_kernel")
_SEPARABLE = Layer((Leaf("depthwise_kernel"), Leaf("pointwise_kernel"), _BIAS))

LAYERS: Mapping[str, Layer] = {
    "dense": Layer((Leaf("kernel", 2), _BIAS)),
    "einsum_dense": Layer((Leaf("kernel"), Leaf("bias", None, _option("bias_axes")))),
    "embedding": Layer((Leaf("embeddings", 2),)),
    "reversible_embedding": Layer(
        (
            Leaf("embeddings", 2),
            Leaf("reverse_embeddings", 2, _option("tie_weights", test=operator.not_)),
        )
    ),
    **dict.fromkeys(_CONVOLUTIONS, _KERNEL_AND_BIAS),
    **dict.fromkeys(("depthwise_conv1d", "depthwise_conv2d"), Layer((_DEPTHWISE_KERNEL, _BIAS))),
    **dict.fromkeys(("separable_conv1d", "separable_conv2d"), _SEPARABLE),
    **dict.fromkeys(
        ("locally_connected1d", "locally_connected2d"),
        Layer((Leaf("kernel"), Leaf("bias", None, _option("use_bias")))),
    ),
    "batch_normalization": _BATCH_NORM,
    "layer_normalization": _LAYER_NORM,
    "group_normalization": _NORM,
    "rms_normalization": Layer((Leaf("scale"),)),
    "normalization": _NORMALIZATION,
    "p_re_lu": Layer((Leaf("alpha"),)),
    **{
        name: Layer(inner={"cell": Inner(f"{name}_cell", f"{name}_cell")})
        for name in ("lstm", "gru", "simple_rnn")
    },
    **dict.fromkeys((*_CELLS, ANY_CELL), _CELL),
    **dict.fromkeys(
        [f"conv_lstm{rank}d" for rank in (1, 2, 3)],
        Layer(inner={"cell": Inner("conv_lstm_cell", "conv_lstm_cell")}, is_transparent=True),
    ),
    "conv_lstm_cell": _CONV_CELL,
    "rnn": Layer(inner={"cell": Inner(otherwise=ANY_CELL)}),
    "stacked_rnn_cells": Layer(),
    "bidirectional": Layer(
        inner={side: Inner(otherwise="rnn") for side in ("forward_layer", "backward_layer")}
    ),
    **dict.fromkeys(("multi_head_attention", "grouped_query_attention"), _ATTENTION),
    "attention": Layer(
        (
            Leaf("scale", 0, _option("use_scale", default=False)),
            Leaf("concat_score_weight", 0, _option("score_mode", "dot", "concat".__eq__)),
        )
    ),
    "additive_attention": Layer((Leaf("scale", 1, _option("use_scale")),)),
    "stft_spectrogram": Layer(
        (
            Leaf("real_kernel", 3, _option("mode", "log", "imag".__ne__)),
            Leaf("imag_kernel", 3, _option("mode", "log", "real".__ne__)),
        )
    ),
    **dict.fromkeys(("time_distributed", "wrapper"), _WRAPPER),
    "spectral_normalization": _SPECTRAL_NORM,
    "seed_generator": Layer((_counted("seed_generator_state", 1, is_integer=True),)),
}

# Attributes by which a layer is known where nothing else tells its class. All of them must be
# there; what is in them is named only if it has the shapes of that class too.
SIGNATURES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"cell"}), "rnn"),
    (frozenset({"forward_layer", "backward_layer"}), "bidirectional"),
    *(
        (
            frozenset(f"{private}{part}_dense" for part in ("query", "key", "value", "output")),
            "multi_head_attention",
        )
        for private in ("", "_")
    ),
)
# What layers of any class have, whoever wrote them.
EVERYWHERE: Mapping[str, Inner] = {
    name: Inner("seed_generator") for name in ("seed_generator", "_seed_generator")
}
