"""The models of the zoo: small, each with something that a port can get wrong.

The layers' names are those of the twin's attributes. Widths are equal wherever that makes a kernel
square, so that no shape betrays a wrong layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.nn.utils import parametrizations
from zoo.tape import Tape

Build = Callable[[Tape], Any]
W, T = 4, 5  # width, steps
BOTH, KERAS, TF_KERAS = ("keras", "tf_keras"), ("keras",), ("tf_keras",)


@dataclass(frozen=True)
class Animal:
    """A model of the zoo.

    `cannot` is a layer that no weights of torch's make equal: it must be refused, or where the file
    does not say what it is, an audit must name it. `told` is one of which the same holds only where
    the file does not say what it is.
    """

    name: str
    build: Build
    libraries: tuple[str, ...] = BOTH
    after: Callable[[Any], None] | None = None  # what is done to the model before it is saved
    wrap: Callable[[Any], Any] | None = None  # what is done to the layer `d` of the twin
    told: str = ""
    cannot: str = ""


ZOO: list[Animal] = []


def animal(
    name: str = "", libraries: tuple[str, ...] = BOTH, **more: Any
) -> Callable[[Build], Build]:
    def note(build: Build) -> Build:
        ZOO.append(Animal(name or build.__name__, build, libraries, **more))
        return build

    return note


def one(
    name: str, make: Callable[[Any], Any], *shape: int, libraries: tuple[str, ...] = BOTH,
    dtype: str = "float32", **more: Any,
) -> None:  # fmt: skip
    """A model of one layer, and a Dense behind it."""

    def build(t: Tape) -> int:
        x = t(make(t.L), t.input(*shape, dtype=dtype))
        return t(t.L.Dense(W, name="out"), x)

    ZOO.append(Animal(name, build, libraries, **more))


# -- how layers are put together -------------------------------------------------------------------


@animal()
def chain(t: Tape) -> int:
    x = t(t.L.Dense(W, activation="relu", name="a"), t.input(W))
    return t(t.L.Dense(W, name="b"), x)


@animal()
def swapped(t: Tape) -> int:
    """Two layers of one class, made in the other order than they are called."""
    second, first = t.L.Dense(W, name="second"), t.L.Dense(W, name="first")
    return t(second, t(first, t.input(W)))


@animal()
def out_of_order(t: Tape) -> int:
    x = t.input(W)
    late, early = t.L.Dense(W, name="early"), t.L.Dense(W, name="late")
    joined = t(t.L.Concatenate(name="join"), t(late, x), t(early, x), joined=True)
    return t(t.L.Dense(W, name="dense"), joined)


@animal()
def towers(t: Tape) -> int:
    a, b = t.input(W), t.input(W)
    left = t(t.L.Dense(W, name="left_2"), t(t.L.Dense(W, name="left_1"), a))
    right = t(t.L.Dense(W, name="right_2"), t(t.L.Dense(W, name="right_1"), b))
    return t(t.L.Add(name="add"), left, right, joined=True)


@animal()
def named_by_keras(t: Tape) -> int:
    """Layers without names of their own, renumbered to begin at 0."""
    t.keras.backend.clear_session()
    x = t.input(W)
    for _ in range(3):
        x = t(t.L.Dense(W), x)
    return x


@animal()
def numbers_from_elsewhere(t: Tape) -> int:
    """Numbers that begin where another model ended."""
    t.L.Dense(1), t.L.Dense(1)
    x = t.input(W)
    for _ in range(3):
        x = t(t.L.Dense(W), x)
    return x


@animal()
def shared(t: Tape) -> int:
    layer, x = t.L.Dense(W, activation="tanh", name="twice"), t.input(W)
    return t(t.L.Dense(W, name="out"), t(layer, t(layer, x)))


@animal()
def siamese(t: Tape) -> int:
    encoder = t.L.Dense(W, name="encoder")
    pair = t(encoder, t.input(W)), t(encoder, t.input(W))
    return t(t.L.Dense(W, name="head"), t(t.L.Concatenate(name="join"), *pair, joined=True))


@animal()
def nested(t: Tape) -> int:
    def inner(u: Tape) -> int:
        return u(u.L.Dense(W, name="y"), u(u.L.Dense(W, name="x"), u.input(W)))

    x = t(t.within("inside", inner), t.input(W))
    return t(t.L.Dense(W, name="out"), x)


@animal()
def nested_of_one_name(t: Tape) -> int:
    """A layer in a model within, and one of the same name in the model around it."""

    def inner(u: Tape) -> int:
        return u(u.L.Dense(W, name="same"), u.input(W))

    x = t(t.within("inside", inner), t.input(W))
    return t(t.L.Dense(W, name="same"), x)


@animal()
def nested_twice(t: Tape) -> int:
    def deep(u: Tape) -> int:
        return u(u.L.Dense(W, name="bottom"), u.input(W))

    def middle(u: Tape) -> int:
        x = u.input(W)
        return u(u.L.Dense(W, name="mid_den"), u(u.within("deep", deep), x))

    return t(t.L.Dense(W, name="top"), t(t.within("middle", middle), t.input(W)))


@animal()
def two_models_alike(t: Tape) -> int:
    def inner(u: Tape) -> int:
        return u(u.L.Dense(W, name="c1"), u.input(W))

    x = t(t.within("one", inner), t.input(W))
    return t(t.within("two", inner), x)


@animal()
def shared_with_a_model_within(t: Tape) -> int:
    layer = t.L.Dense(W, name="a")

    def inner(u: Tape) -> int:
        return u(layer, u.input(W))

    x = t(t.within("inside", inner), t.input(W))
    return t(t.L.Dense(W, name="b"), x)


@animal()
def frozen(t: Tape) -> int:
    x = t(t.L.Dense(W, name="still", trainable=False), t.input(W))
    return t(t.L.BatchNormalization(name="norm", trainable=False), x)


@animal()
def long_chain(t: Tape) -> int:
    """More than ten of a class, so that numbers do not sort as texts do."""
    x = t.input(W)
    for number in range(12):
        x = t(t.L.Dense(W, activation="tanh", name=f"dense_{11 - number}"), x)
    return x


@animal()
def residual(t: Tape) -> int:
    x = t(t.L.Dense(W, name="in"), t.input(W))
    for number in range(2):
        y = t(t.L.Dense(W, activation="relu", name=f"up{number}"), x)
        x = t(
            t.L.Add(name=f"add{number}"), x, t(t.L.Dense(W, name=f"down{number}"), y), joined=True
        )
    return x


@animal()
def two_outputs(t: Tape) -> list[int]:
    x = t(t.L.Dense(W, name="trunk"), t.input(W))
    return [t(t.L.Dense(W, name="left"), x), t(t.L.Dense(W, name="right"), x)]


@animal()
def picture(t: Tape) -> int:
    x = t(t.L.Conv2D(W, 3, activation="relu", name="conv"), t.input(6, 6, 3))
    x = t(t.L.BatchNormalization(name="bn"), x)
    x = t(t.L.Flatten(name="flat"), x)
    return t(t.L.Dense(W, name="out"), x)


@animal()
def transformer(t: Tape) -> int:
    x = t(t.L.Embedding(9, W, name="tokens"), t.input(T))
    y = t(t.L.MultiHeadAttention(2, W // 2, name="att"), x, x)
    x = t(t.L.LayerNormalization(name="ln1"), t(t.L.Add(name="add1"), x, y, joined=True))
    y = t(t.L.Dense(W, name="down"), t(t.L.Dense(2 * W, activation="gelu", name="up"), x))
    x = t(t.L.LayerNormalization(name="ln2"), t(t.L.Add(name="add2"), x, y, joined=True))
    return t(t.L.Dense(W, name="out"), x)


@animal()
def tagger(t: Tape) -> int:
    x = t(t.L.Embedding(9, W, name="tokens"), t.input(T))
    x = t(t.L.Bidirectional(t.L.LSTM(W, return_sequences=True), name="bi"), x)
    return t(t.L.TimeDistributed(t.L.Dense(W), name="tags"), x)


@animal()
def seq2seq(t: Tape) -> int:
    x = t(t.L.GRU(W, return_sequences=True, name="encoder"), t.input(T, W))
    x = t(t.L.GRU(W, return_sequences=True, name="decoder"), x)
    return t(t.L.Dense(W, name="out"), x)


# -- products --------------------------------------------------------------------------------------

one("no_bias", lambda L: L.Dense(W, use_bias=False, name="d"), W)
one("dense_of_sequences", lambda L: L.Dense(W, name="d"), T, W)
one("einsum", lambda L: L.EinsumDense("ab,bc->ac", W, bias_axes="c", name="d"), W)
one("einsum_transposed", lambda L: L.EinsumDense("ab,cb->ac", W, name="d"), W, told="d")
one(
    "einsum_transposed_bias",
    lambda L: L.EinsumDense("ab,cb->ac", W, bias_axes="c", name="d"),
    W,
    told="d",
)
one("einsum_sequences", lambda L: L.EinsumDense("abc,dc->abd", (None, W), name="d"), T, W, told="d")
one(
    "einsum_heads_in",
    lambda L: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", name="d"),
    T,
    W,
)
one(
    "einsum_heads_turned",
    lambda L: L.EinsumDense("abc,dec->abde", (None, 2, 2), bias_axes="de", name="d"),
    T,
    W,
)
one("einsum_heads_last", lambda L: L.EinsumDense("abc,dce->abde", (None, W, W), name="d"), T, W)


@animal()
def einsum_heads_out(t: Tape) -> int:
    x = t(t.L.EinsumDense("abc,cde->abde", (None, 2, 2), name="split"), t.input(T, W))
    return t(t.L.EinsumDense("abcd,cde->abe", (None, W), bias_axes="e", name="join"), x)


@animal()
def einsum_heads_out_turned(t: Tape) -> int:
    x = t(t.L.EinsumDense("abc,cde->abde", (None, 2, 2), name="split"), t.input(T, W))
    return t(t.L.EinsumDense("abcd,ecd->abe", (None, W), name="join"), x)


def _enable_lora(model: Any) -> None:
    model.get_layer("d").enable_lora(2)


one("lora", lambda L: L.Dense(W, name="d"), W, libraries=KERAS, after=_enable_lora)
one("lora_embedding", lambda L: L.Embedding(9, W, name="d"), T, libraries=KERAS, after=_enable_lora)
one("lora_einsum", lambda L: L.EinsumDense("ab,cb->ac", W, name="d"), W, libraries=KERAS,
    after=_enable_lora)  # fmt: skip
one("lora_conv", lambda L: L.Conv2D(W, 2, name="d"), 6, 6, W, libraries=KERAS, after=_enable_lora)
one("embedding", lambda L: L.Embedding(W, W, name="d"), T)
one("time_distributed", lambda L: L.TimeDistributed(L.Dense(W), name="d"), T, W)
one("spectral", lambda L: L.SpectralNormalization(L.Dense(W), name="d"), W, libraries=KERAS)
one("spectral_conv", lambda L: L.SpectralNormalization(L.Conv2D(W, 2), name="d"), 6, 6, W,
    libraries=KERAS)  # fmt: skip

one("weight_normed", lambda L: L.Dense(W, name="d"), W, wrap=parametrizations.weight_norm)
one("weight_normed_conv", lambda L: L.Conv2D(W, 2, name="d"), 6, 6, W,
    wrap=parametrizations.weight_norm)  # fmt: skip
one("weight_normed_einsum", lambda L: L.EinsumDense("abc,cde->abde", (None, 2, 3), name="d"), T, W,
    wrap=parametrizations.weight_norm)  # fmt: skip
one("spectrally_normed", lambda L: L.Dense(W, name="d"), W, wrap=parametrizations.spectral_norm,
    told="d")  # fmt: skip

# -- convolutions ----------------------------------------------------------------------------------

one("conv1d", lambda L: L.Conv1D(W, W, padding="same", name="c"), 6, W)
one("conv1d_causal", lambda L: L.Conv1D(W, 3, padding="causal", name="c"), 6, W)
one("conv2d_strided", lambda L: L.Conv2D(W, W, strides=2, padding="same", name="c"), 8, 8, W)
one("conv2d_dilated", lambda L: L.Conv2D(W, 3, dilation_rate=2, name="c"), 8, 8, W)
one("conv2d_grouped", lambda L: L.Conv2D(W, 3, groups=2, name="c"), 8, 8, W, libraries=KERAS)
one("conv2d_no_bias", lambda L: L.Conv2D(W, (2, 3), use_bias=False, name="c"), 6, 6, 3)
one("conv2d_pointwise", lambda L: L.Conv2D(W, 1, name="c"), 6, 6, W)
one("conv3d", lambda L: L.Conv3D(W, 2, name="c"), 4, 4, 4, W)
one("conv1d_transpose", lambda L: L.Conv1DTranspose(W, 3, strides=2, name="c"), 4, W)
one("conv2d_transpose", lambda L: L.Conv2DTranspose(W, 3, name="c"), 4, 4, W)
one(
    "conv2d_transpose_same",
    lambda L: L.Conv2DTranspose(W, 3, strides=2, padding="same", name="c"),
    4,
    4,
    W,
)
one("conv3d_transpose", lambda L: L.Conv3DTranspose(W, 2, strides=2, name="c"), 3, 3, 3, W)
one("depthwise1d", lambda L: L.DepthwiseConv1D(3, depth_multiplier=2, name="c"), 6, W)
one("depthwise2d", lambda L: L.DepthwiseConv2D(3, name="c"), 6, 6, W)
one(
    "depthwise2d_multiplied",
    lambda L: L.DepthwiseConv2D(3, depth_multiplier=3, padding="same", name="c"),
    6,
    6,
    W,
)
one("separable1d", lambda L: L.SeparableConv1D(W, 3, name="c"), 6, W)
one("separable2d", lambda L: L.SeparableConv2D(W, 3, depth_multiplier=2, name="c"), 6, 6, W)
one(
    "separable2d_no_bias",
    lambda L: L.SeparableConv2D(W, 3, use_bias=False, activation="relu", name="c"),
    6,
    6,
    W,
)

# -- norms and slopes ------------------------------------------------------------------------------

one("batch_norm", lambda L: L.BatchNormalization(name="n"), W)
one("batch_norm_no_scale", lambda L: L.BatchNormalization(scale=False, name="n"), W)
one("batch_norm_no_center", lambda L: L.BatchNormalization(center=False, name="n"), W)
one("batch_norm_bare", lambda L: L.BatchNormalization(center=False, scale=False, name="n"), W)
one("batch_norm_epsilon", lambda L: L.BatchNormalization(epsilon=0.1, momentum=0.9, name="n"), W)
one("batch_norm_of_pictures", lambda L: L.BatchNormalization(name="n"), 3, 3, W)
one("batch_norm_of_sequences", lambda L: L.BatchNormalization(axis=1, name="n"), W, W)
one("layer_norm", lambda L: L.LayerNormalization(name="n"), W)
one("layer_norm_no_scale", lambda L: L.LayerNormalization(scale=False, name="n"), W)
one("layer_norm_no_center", lambda L: L.LayerNormalization(center=False, name="n"), T, W)
one("layer_norm_two_axes", lambda L: L.LayerNormalization(axis=[1, 2], name="n"), 3, W)
one("layer_norm_cube", lambda L: L.LayerNormalization(axis=[1, 2, 3], name="n"), W, W, W)
one("layer_norm_rms", lambda L: L.LayerNormalization(rms_scaling=True, name="n"), W,
    libraries=KERAS, cannot="n")  # fmt: skip
one("group_norm", lambda L: L.GroupNormalization(2, name="n"), 3, 3, W)
one("group_norm_no_scale", lambda L: L.GroupNormalization(2, scale=False, name="n"), 3, W)
one("rms_norm", lambda L: L.RMSNormalization(name="n"), T, W, libraries=KERAS)
one("p_relu", lambda L: L.PReLU(name="n"), W)
one("p_relu_shared", lambda L: L.PReLU(shared_axes=[1, 2], name="n"), 3, 3, W)

# -- recurrent -------------------------------------------------------------------------------------

for _kind in ("LSTM", "GRU", "SimpleRNN"):
    _low = _kind.lower()
    one(_low, lambda L, k=_kind: getattr(L, k)(W, name="r"), T, W)
    one(f"{_low}_backwards", lambda L, k=_kind: getattr(L, k)(W, go_backwards=True, name="r"), T, W)
    one(f"{_low}_no_bias", lambda L, k=_kind: getattr(L, k)(W, use_bias=False, name="r"), T, W)
    one(
        f"{_low}_bidirectional",
        lambda L, k=_kind: L.Bidirectional(getattr(L, k)(W, return_sequences=True), name="r"),
        T,
        W,
    )
    one(f"{_low}_relu", lambda L, k=_kind: getattr(L, k)(W, activation="relu", name="r"), T, W,
        cannot="" if _kind == "SimpleRNN" else "r")  # fmt: skip
    one(
        f"{_low}_two_cells",
        lambda L, k=_kind: L.RNN([getattr(L, f"{k}Cell")(W) for _ in range(2)], name="r"),
        T,
        W,
    )
for _kind in ("LSTM", "GRU"):
    for _gate in ("hard_sigmoid", "tanh", "relu"):
        one(f"{_kind.lower()}_gate_{_gate}",
            lambda L, k=_kind, g=_gate: getattr(L, k)(W, recurrent_activation=g, name="r"), T, W,
            cannot="r")  # fmt: skip
one("gru_reset_before", lambda L: L.GRU(W, reset_after=False, name="r"), T, W, cannot="r")
one(
    "gru_reset_before_no_bias",
    lambda L: L.GRU(W, reset_after=False, use_bias=False, name="r"),
    T,
    W,
    cannot="r",
)
one(
    "bidirectional_summed",
    lambda L: L.Bidirectional(L.LSTM(W, return_sequences=True), merge_mode="sum", name="r"),
    T,
    W,
)
one(
    "bidirectional_hard",
    lambda L: L.Bidirectional(L.LSTM(W, recurrent_activation="hard_sigmoid"), name="r"),
    T,
    W,
    cannot="r",
)
one("cell", lambda L: L.RNN(L.LSTMCell(W), return_sequences=True, name="r"), T, W)
one("cell_hard", lambda L: L.RNN(L.GRUCell(W, recurrent_activation="hard_sigmoid"), name="r"), T, W,
    cannot="r")  # fmt: skip
one("three_cells", lambda L: L.RNN([L.LSTMCell(W) for _ in range(3)], name="r"), T, W)
one("dropout_within", lambda L: L.LSTM(W, dropout=0.5, recurrent_dropout=0.5, name="r"), T, W)

# -- attention -------------------------------------------------------------------------------------


def _attention(
    name: str, libraries: tuple[str, ...] = BOTH, cannot: str = "", **options: Any
) -> None:
    def build(t: Tape) -> int:
        x = t.input(T, W)
        x = t(t.L.MultiHeadAttention(2, W // 2, name="att", **options), x, x)
        return t(t.L.Dense(W, name="out"), x)

    ZOO.append(Animal(name, build, libraries, cannot=cannot))


_attention("attention")
_attention("attention_no_bias", use_bias=False)
_attention("attention_dropout", dropout=0.5)
_attention("attention_gate", KERAS, "att", use_gate=True)


@animal()
def cross_attention(t: Tape) -> int:
    x, memory = t.input(T, W), t.input(3, W)
    return t(t.L.MultiHeadAttention(2, W // 2, name="att"), x, memory)
