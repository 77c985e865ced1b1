"""Names in Keras's files: those of Keras's own variables, for every layer that has any.

Layers are Keras 3's and tf_keras's own, with random weights, saved by Keras. What each variable is
called is asked of Keras; and torch layers of the same names are filled from the files, and compute
the same, without a rename.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_names_helpers import (
    BATCH,
    FLAT,
    HEADS,
    IMAGE,
    LIBRARIES,
    SEQUENCE,
    UNITS,
    WIDE,
    by_two,
    save,
)
from torch import nn

import torch_warmstart as tws


def randomise(model: Any) -> None:
    """No two variables are alike, so that none can be taken for another."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        if "int" not in str(weight.dtype):
            weight.assign(rng.uniform(0.1, 1, weight.shape).astype("float32"))


def path_of(variable: Any) -> str:
    """What Keras calls a variable."""
    path = variable.path if hasattr(variable, "path") else variable.name
    return str(path).removesuffix(":0")


def names_of(file: Path, model: Any) -> Iterator[tuple[str, set[str]]]:
    """What Keras calls each variable, and what it can be asked for by in its file."""
    with tws.load_checkpoint(file) as checkpoint:
        called: dict[str, set[str]] = {key: {key} for key in checkpoint}
        for name, keys in checkpoint.full_names().items():
            if len(keys) == 1:
                called[keys[0]].add(name)
        by_value: dict[bytes, set[str]] = {}
        for key in checkpoint:
            value = np.asarray(checkpoint.get_tensor(key)).tobytes()
            by_value.setdefault(value, set()).update(called[key])
        for variable in model.weights:
            if "int" not in str(variable.dtype):
                yield path_of(variable), by_value[variable.numpy().tobytes()]


# -- every layer -----------------------------------------------------------------------------------

Make = Callable[[Any, str], Any]
_INITIAL = {"name": "a_name_of_mine"}

# Name, what makes the layer, shape of its input, and which of the two libraries has it.
EVERY: list[tuple[str, Make, tuple[int, ...], str]] = [
    ("den", lambda L, n: L.Dense(3, name=n), FLAT, "both"),
    ("den_nb", lambda L, n: L.Dense(3, use_bias=False, name=n), FLAT, "both"),
    ("ein", lambda L, n: L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d", name=n), SEQUENCE,
     "both"),
    ("emb", lambda L, n: L.Embedding(7, 3, name=n), FLAT, "both"),
    ("rev", lambda L, n: L.ReversibleEmbedding(7, 3, tie_weights=False, name=n), FLAT, "keras"),
    ("bn", lambda L, n: L.BatchNormalization(name=n), FLAT, "both"),
    ("bn_c", lambda L, n: L.BatchNormalization(scale=False, name=n), FLAT, "both"),
    ("bn_r", lambda L, n: L.BatchNormalization(renorm=True, name=n), FLAT, "both"),
    ("bn_f", lambda L, n: L.BatchNormalization(trainable=False, name=n), FLAT, "both"),
    ("ln", lambda L, n: L.LayerNormalization(name=n), FLAT, "both"),
    ("ln_c", lambda L, n: L.LayerNormalization(scale=False, name=n), FLAT, "both"),
    ("ln_r", lambda L, n: L.LayerNormalization(rms_scaling=True, name=n), FLAT, "keras"),
    ("gn", lambda L, n: L.GroupNormalization(2, name=n), FLAT, "both"),
    ("rms", lambda L, n: L.RMSNormalization(name=n), FLAT, "keras"),
    ("nrm", lambda L, n: L.Normalization(name=n), FLAT, "both"),
    ("pre", lambda L, n: L.PReLU(name=n), FLAT, "both"),
    ("c1", lambda L, n: L.Conv1D(3, 2, name=n), SEQUENCE, "both"),
    ("c3t", lambda L, n: L.Conv3DTranspose(3, 2, name=n), (3, *IMAGE), "both"),
    ("dw1", lambda L, n: L.DepthwiseConv1D(2, name=n), SEQUENCE, "both"),
    ("dw2", lambda L, n: L.DepthwiseConv2D(2, use_bias=False, name=n), IMAGE, "both"),
    ("sep", lambda L, n: L.SeparableConv2D(3, 2, name=n), IMAGE, "both"),
    ("lc1", lambda L, n: L.LocallyConnected1D(3, 2, name=n), SEQUENCE, "tf_keras"),
    ("ls", lambda L, n: L.LSTM(3, dropout=0.5, name=n), SEQUENCE, "both"),
    ("gr", lambda L, n: L.GRU(3, reset_after=False, use_bias=False, name=n), SEQUENCE, "both"),
    ("sr", lambda L, n: L.SimpleRNN(3, name=n), SEQUENCE, "both"),
    ("cell", lambda L, n: L.RNN(L.GRUCell(3, **_INITIAL), name=n), SEQUENCE, "both"),
    ("stack", lambda L, n: L.RNN([L.LSTMCell(3), L.GRUCell(3, **_INITIAL)], name=n), SEQUENCE,
     "both"),
    ("bi", lambda L, n: L.Bidirectional(L.LSTM(3), name=n), SEQUENCE, "both"),
    ("bi2", lambda L, n: L.Bidirectional(
        L.GRU(3, **_INITIAL), backward_layer=L.GRU(3, name="other", go_backwards=True), name=n
    ), SEQUENCE, "both"),
    ("bi3", lambda L, n: L.Bidirectional(L.RNN([L.LSTMCell(3), L.LSTMCell(3)]), name=n), SEQUENCE,
     "both"),
    ("cl", lambda L, n: L.ConvLSTM1D(3, 2, name=n), (2, *SEQUENCE), "both"),
    ("bcl", lambda L, n: L.Bidirectional(L.ConvLSTM1D(3, 2), name=n), (2, *SEQUENCE), "both"),
    ("mha", lambda L, n: by_two(L.MultiHeadAttention(2, 3, dropout=0.1, name=n)), SEQUENCE, "both"),
    ("gate", lambda L, n: by_two(L.MultiHeadAttention(2, 3, use_gate=True, name=n)), SEQUENCE,
     "keras"),
    ("gqa", lambda L, n: by_two(L.GroupQueryAttention(3, 4, 2, name=n)), SEQUENCE, "keras"),
    ("att", lambda L, n: _listed(L.Attention(use_scale=True, score_mode="concat", name=n)),
     SEQUENCE, "both"),
    ("add", lambda L, n: _listed(L.AdditiveAttention(name=n)), SEQUENCE, "both"),
    ("td", lambda L, n: L.TimeDistributed(L.Dense(3), name=n), SEQUENCE, "both"),
    ("td2", lambda L, n: L.TimeDistributed(L.SeparableConv1D(3, 2, **_INITIAL), name=n),
     (2, *SEQUENCE), "both"),
    ("sn", lambda L, n: L.SpectralNormalization(L.Conv2D(3, 2), name=n), IMAGE, "keras"),
    ("stft", lambda L, n: L.STFTSpectrogram("psd", 4, 2, 4, window=None, name=n), (16, 1), "keras"),
]  # fmt: skip

# What `.weights.h5` of Keras 3 does not tell: which of two variables a single one is, and the class
# of a layer within another whose name does not tell it either.
OPEN_WITHOUT_CONFIG = {
    *("bn_c/beta", "ln_c/beta", "ln_r/gamma", "td2/a_name_of_mine/depthwise_kernel"),
    *("td2/a_name_of_mine/pointwise_kernel", "td2/a_name_of_mine/bias"),
}


def _listed(layer: Any) -> Callable[[Any], Any]:
    return lambda x: layer([x, x])


@pytest.fixture(scope="module")
def models(libraries: dict[str, Any]) -> dict[str, Any]:
    """A model with a layer of each kind, side by side."""
    made = {}
    for library, keras in libraries.items():
        inputs, outputs = [], []
        for name, make, shape, where in EVERY:
            if where in (library, "both"):
                inputs.append(keras.Input(shape))
                outputs.append(make(keras.layers, name)(inputs[-1]))
        made[library] = keras.Model(inputs, outputs)
        randomise(made[library])
    return made


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["keras", "weights.h5", "h5"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_variable_has_the_name_it_has_in_keras(
    models: dict[str, Any], library: str, suffix: str, tmp_path: Path
) -> None:
    file = save(models[library], tmp_path / f"m.{suffix}")
    others = {path: found for path, found in names_of(file, models[library]) if path not in found}

    if suffix != "weights.h5":
        assert not others
    elif library == "keras":
        assert set(others) == OPEN_WITHOUT_CONFIG
    else:  # no layer's name is in the file, but those of their classes are
        left = {path for path, found in others.items() if not any(map(_is_named, found))}
        assert {path.partition("/")[0] for path in left} == {"bn_c", "ln_c", "td", "td2", "bcl"}
        assert left & {"bn_c/beta", "bn_c/moving_mean", "ln_c/beta"} == {"bn_c/beta", "ln_c/beta"}


def _is_named(name: str) -> bool:
    return name.startswith("layers/") and not name.rpartition("/")[2].isdecimal()


@pytest.mark.tensorflow
def test_a_kernel_that_spectral_normalization_keeps_twice_is_one_name(
    models: dict[str, Any], tmp_path: Path
) -> None:
    names = tws.load_checkpoint(save(models["keras"], tmp_path / "m.keras")).full_names()

    assert names["sn/kernel"] == ("layers/spectral_normalization/layer/vars/0",)
    assert names["sn/vector_u"] == ("layers/spectral_normalization/vars/1",)
    assert not any("layers/spectral_normalization/vars/0" in keys for keys in names.values())


# -- models within models --------------------------------------------------------------------------


def _inner(keras: Any) -> Any:
    inputs = keras.Input(FLAT)
    hidden = keras.layers.Dense(5, name="in_den")(inputs)
    return keras.Model(inputs, keras.layers.Dense(5, name="den")(hidden), name="inner")


def _nested(keras: Any) -> Any:
    inputs = keras.Input(FLAT)
    middle = keras.Model(inputs, keras.layers.Dense(4, name="mid_den")(_inner(keras)(inputs)),
                         name="mid")  # fmt: skip
    outputs = keras.Input(FLAT)
    return keras.Model(outputs, keras.layers.Dense(3, name="den")(middle(outputs)))


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["keras", "weights.h5", "h5"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_in_a_model_is_a_scope_that_may_be_left_out(
    libraries: dict[str, Any], library: str, suffix: str, tmp_path: Path
) -> None:
    if (library, suffix) == ("tf_keras", "weights.h5"):
        pytest.skip("no layers' names there")
    model = _nested(libraries[library])
    randomise(model)
    middle = model.get_layer("mid")
    inner = middle.get_layer("inner")
    if suffix == "h5":  # which has the names of the outermost only
        expected = {"mid/in_den": inner.get_layer("in_den"), "mid/den": inner.get_layer("den")}
    else:
        expected = {"mid/inner/in_den": inner.get_layer("in_den"),
                    "mid/inner/den": inner.get_layer("den"),
                    "mid/mid_den": middle.get_layer("mid_den")}  # fmt: skip
    expected |= {
        "in_den": inner.get_layer("in_den"),
        "mid_den": middle.get_layer("mid_den"),
        "den": model.get_layer("den"),  # the model's own, not the inner one's
    }
    with tws.load_checkpoint(save(model, tmp_path / f"m.{suffix}")) as checkpoint:
        for name, layer in expected.items():
            kernel = checkpoint.get_tensor(f"{name}/kernel").numpy()
            assert kernel.tolist() == layer.get_weights()[0].tolist(), name


@pytest.mark.tensorflow
def test_names_are_not_guessed_where_a_layer_is_shared(
    libraries: dict[str, Any], tmp_path: Path
) -> None:
    """tf_keras writes a layer once, and numbers the ones behind it as if it were not there."""
    keras = libraries["tf_keras"]
    shared, inputs = keras.layers.Dense(4, name="a"), keras.Input(FLAT)
    inner = keras.Model(inputs, shared(inputs), name="inner")
    outer = keras.Input(FLAT)
    hidden = shared(inner(outer))
    model = keras.Model(outer, keras.layers.Dense(4, name="b")(hidden))
    randomise(model)
    with tws.load_checkpoint(save(model, tmp_path / "m.keras")) as checkpoint:
        kernel = checkpoint.get_tensor("a/kernel").numpy()
        assert kernel.tolist() == shared.get_weights()[0].tolist()
        assert not any(name.startswith("b/") for name in checkpoint.full_names())


class Attributes(nn.Module):
    """A model of one's own: layers are attributes here and there."""

    def __init__(self) -> None:
        super().__init__()
        self.att = nn.MultiheadAttention(WIDE, HEADS, batch_first=True)
        self.bi = nn.GRU(WIDE, UNITS, bidirectional=True, batch_first=True)
        self.den = nn.Linear(2 * UNITS, UNITS)
        self.enc = nn.LSTM(UNITS, UNITS, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.bi(self.att(x, x, x, need_weights=False)[0])
        out: torch.Tensor = self.enc(self.den(x))[0]
        return out


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_layers_that_are_attributes_are_known_by_what_is_in_them(
    libraries: dict[str, Any], tmp_path: Path
) -> None:
    keras = libraries["keras"]

    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.att = keras.layers.MultiHeadAttention(HEADS, WIDE // HEADS, name="no")
            self.bi = keras.layers.Bidirectional(
                keras.layers.GRU(UNITS, return_sequences=True, **_INITIAL), name="names"
            )
            self.den = keras.layers.Dense(UNITS, name="in")
            self.enc = keras.layers.LSTM(UNITS, return_sequences=True, name="common")

        def call(self, x: Any) -> Any:
            return self.enc(self.den(self.bi(self.att(x, x))))

    model, x = Own(), _random((BATCH, *SEQUENCE))
    model(x)
    randomise(model)
    for suffix in ("keras", "weights.h5"):
        ported = Attributes()
        tws.warm_start(ported, str(save(model, tmp_path / f"m.{suffix}")))
        _close(ported(torch.tensor(x)), model(x).numpy())


# -- without a rename ------------------------------------------------------------------------------


def _random(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype("float32")


def _close(found: torch.Tensor, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.detach().numpy() - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


class Separable(nn.Module):
    """Two convolutions, as Keras's one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(WIDE, WIDE, 2, groups=WIDE, bias=False)
        self.pointwise = nn.Conv2d(WIDE, UNITS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.pointwise(self.depthwise(x))
        return out


def _rnn(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = module(x)[0]
    return out


def _images(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = module(x.movedim(-1, 1))
    return out.movedim(1, -1)


def _attention(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = module(x, x, x, need_weights=False)[0]
    return out


@dataclass(frozen=True)
class Pair:
    """A layer of Keras and its counterpart."""

    make: Make
    module: Callable[[], nn.Module]
    call: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    folder: str  # where tf_keras's `.weights.h5` has it
    shape: tuple[int, ...] = SEQUENCE


def _whole(layer: str, **more: Any) -> Make:
    return lambda L, n: getattr(L, layer)(UNITS, return_sequences=True, name=n, **more)


def _two_sides(layer: str) -> Make:
    return lambda L, n: L.Bidirectional(_whole(layer)(L, None), name=n)


def _of_cells(cell: str, number: int) -> Make:
    def make(L: Any, n: str) -> Any:
        cells = [getattr(L, cell)(UNITS) for _ in range(number)]
        return L.RNN(cells[0] if number == 1 else cells, return_sequences=True, name=n)

    return make


def _torch(module: type[nn.Module], **more: Any) -> Callable[[], nn.Module]:
    return lambda: module(WIDE, UNITS, batch_first=True, **more)


PAIRS = {
    "ls": Pair(_whole("LSTM"), _torch(nn.LSTM), _rnn, "lstm"),
    "gr": Pair(_whole("GRU"), _torch(nn.GRU), _rnn, "gru"),
    "sr": Pair(_whole("SimpleRNN"), _torch(nn.RNN), _rnn, "simple_rnn"),
    "bi_ls": Pair(_two_sides("LSTM"), _torch(nn.LSTM, bidirectional=True), _rnn, "bidirectional"),
    "bi_gr": Pair(_two_sides("GRU"), _torch(nn.GRU, bidirectional=True), _rnn, "bidirectional_1"),
    "cell": Pair(_of_cells("GRUCell", 1), _torch(nn.GRU), _rnn, "rnn"),
    "stack": Pair(_of_cells("LSTMCell", 3), _torch(nn.LSTM, num_layers=3), _rnn, "rnn_1"),
    "att": Pair(
        lambda L, n: by_two(L.MultiHeadAttention(HEADS, WIDE // HEADS, name=n)),
        lambda: nn.MultiheadAttention(WIDE, HEADS, batch_first=True),
        _attention,
        "multi_head_attention",
    ),
    "dw": Pair(
        lambda L, n: L.DepthwiseConv2D(2, name=n),
        lambda: nn.Conv2d(WIDE, WIDE, 2, groups=WIDE),
        _images,
        "depthwise_conv2d",
        IMAGE,
    ),
    "sep": Pair(
        lambda L, n: L.SeparableConv2D(UNITS, 2, name=n),
        Separable,
        _images,
        "separable_conv2d",
        IMAGE,
    ),
    "td": Pair(
        lambda L, n: L.TimeDistributed(L.Dense(UNITS, name="inner"), name=n),
        lambda: nn.Linear(WIDE, UNITS),
        lambda module, x: module(x),
        "time_distributed",
    ),
}


@pytest.fixture(scope="module")
def paired(libraries: dict[str, Any]) -> dict[str, tuple[Any, Mapping[str, np.ndarray]]]:
    """For each library the model, and what its layers compute."""
    made = {}
    for library, keras in libraries.items():
        inputs = {name: keras.Input(pair.shape) for name, pair in PAIRS.items()}
        outputs = [PAIRS[name].make(keras.layers, name)(x) for name, x in inputs.items()]
        model = keras.Model(list(inputs.values()), outputs)
        randomise(model)
        computed = model([_random((BATCH, *pair.shape)) for pair in PAIRS.values()])
        made[library] = model, dict(zip(PAIRS, (y.numpy() for y in computed), strict=True))
    return made


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("library", "suffix"), list(itertools.product(LIBRARIES, ["keras", "weights.h5", "h5"]))
)
def test_layers_of_the_same_names_compute_the_same(
    paired: Any, library: str, suffix: str, tmp_path: Path
) -> None:
    model, computed = paired[library]
    ported = nn.ModuleDict({name: pair.module() for name, pair in PAIRS.items()})
    renames = {}
    if (library, suffix) == ("keras", "h5"):  # Keras 3 puts the name of what is wrapped behind
        renames = {"td.": "td/inner/"}
    if (library, suffix) == ("tf_keras", "weights.h5"):  # which has no layer's name
        renames = {f"{name}.": f"layers/{pair.folder}/" for name, pair in PAIRS.items()}
        renames["td."] += "layer/"
    path = str(save(model, tmp_path / f"m.{suffix}"))
    report = tws.warm_start(ported, tws.WarmStartSettings(path, var_name_to_prev_var_name=renames))
    assert report.count("kept") == 0
    for name, pair in PAIRS.items():
        _close(pair.call(ported[name], torch.tensor(_random((BATCH, *pair.shape)))), computed[name])
