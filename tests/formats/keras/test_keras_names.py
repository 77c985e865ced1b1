"""Names in Keras's files: those of Keras's own variables, for every layer that has any.

Layers are Keras 3's and tf_keras's own, with random weights, saved by Keras. What each variable is
called is asked of Keras; and torch layers of the same names are filled from the files, and compute
the same, without a rename.
"""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

h5py = pytest.importorskip("h5py")

TIME, WIDE, UNITS, HEADS, BATCH = 5, 4, 3, 2, 2
FLAT, SEQUENCE, IMAGE = (WIDE,), (TIME, WIDE), (6, 6, WIDE)
LIBRARIES = ["keras", "tf_keras"]


@pytest.fixture(scope="module")
def libraries() -> dict[str, Any]:
    pytest.importorskip("tensorflow")
    return {name: pytest.importorskip(name) for name in LIBRARIES}


def randomise(model: Any) -> None:
    """No two variables are alike, so that none can be taken for another."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        if "int" not in str(weight.dtype):
            weight.assign(rng.uniform(0.1, 1, weight.shape).astype("float32"))


def save(model: Any, path: Path) -> Path:
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(str(path))
    return path


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
    ("mha", lambda L, n: _twice(L.MultiHeadAttention(2, 3, dropout=0.1, name=n)), SEQUENCE, "both"),
    ("gate", lambda L, n: _twice(L.MultiHeadAttention(2, 3, use_gate=True, name=n)), SEQUENCE,
     "keras"),
    ("gqa", lambda L, n: _twice(L.GroupQueryAttention(3, 4, 2, name=n)), SEQUENCE, "keras"),
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


def _twice(layer: Any) -> Callable[[Any], Any]:
    return lambda x: layer(x, x)


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
        lambda L, n: _twice(L.MultiHeadAttention(HEADS, WIDE // HEADS, name=n)),
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


# -- whose an optimizer's variables are ------------------------------------------------------------


def _trained_model(keras: Any, *layers: Any) -> Any:
    """Layers whose variables have the same shapes, so that only their order tells them apart."""
    inputs = keras.Input(SEQUENCE)
    hidden = inputs
    for layer in layers or _some_layers(keras.layers):
        hidden = layer(hidden)
    return keras.Model(inputs, hidden)


def _some_layers(L: Any) -> list[Any]:
    return [
        L.Dense(WIDE, name="b"),
        _twice(L.MultiHeadAttention(HEADS, WIDE // HEADS, name="att")),
        L.Conv1D(WIDE, 1, name="c"),
        L.BatchNormalization(name="n"),
        L.Dense(WIDE, name="a", trainable=False),
        L.Bidirectional(L.GRU(WIDE // 2, return_sequences=True), name="bi"),
        L.LSTM(WIDE, return_sequences=True, trainable=False, name="ls"),
        L.Dense(WIDE, name="z"),
    ]


def _build(model: Any, optimizer: Any) -> None:
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(2)
    for value in (*model.weights, *optimizer.variables):
        if value.shape and "int" not in str(value.dtype):
            value.assign(rng.uniform(0.1, 1, value.shape).astype("float32"))


def _slots_in_keras(model: Any, optimizer: Any) -> Iterator[tuple[Any, str, Any]]:
    """Each variable, what the list of a slot of it is called, and the slot."""
    for name, listed in vars(optimizer).items():
        if isinstance(listed, list) and name not in ("_variables", "_trainable_variables"):
            slots = [slot for slot in listed if hasattr(slot, "path")]
            for variable, slot in zip(
                model.trainable_variables if slots else (), slots, strict=True
            ):
                yield variable, name, slot


OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("Adam", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "adamw": ("AdamW", {}),
    "nadam": ("Nadam", {}),
    "adamax": ("Adamax", {}),
    "sgd": ("SGD", {"momentum": 0.9}),
    "rmsprop": ("RMSprop", {"momentum": 0.9, "centered": True}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {}),
    "ftrl": ("Ftrl", {}),
    "lion": ("Lion", {}),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("which", OPTIMIZERS)
def test_slots_are_those_of_the_variables_that_keras_means(
    libraries: dict[str, Any], which: str, tmp_path: Path
) -> None:
    keras = libraries["keras"]
    kind, options = OPTIMIZERS[which]
    model, optimizer = _trained_model(keras), getattr(keras.optimizers, kind)(**options)
    _build(model, optimizer)
    with tws.load_checkpoint(save(model, tmp_path / "m.keras")) as checkpoint:
        (found,) = checkpoint.graph_optimizers()
        expected = list(_slots_in_keras(model, optimizer))
        assert len(expected) == sum(map(len, found.slots.values())) > 0
        by_value = {checkpoint.get_tensor(k).numpy().tobytes(): k for k in found.slots}
        for variable, name, slot in expected:
            key = found.slots[by_value[variable.numpy().tobytes()]][name]
            assert np.array_equal(checkpoint.get_tensor(key).numpy(), slot.numpy()), name


@pytest.mark.tensorflow
def test_adam_goes_on_in_torch(libraries: dict[str, Any], tmp_path: Path) -> None:
    keras = libraries["keras"]
    dense = [keras.layers.Dense(WIDE, name=name) for name in "ba"]
    model, optimizer = _trained_model(keras, *dense), keras.optimizers.Adam(0.1)
    _build(model, optimizer)
    optimizer.iterations.assign(7)
    ours = nn.ModuleDict({name: nn.Linear(WIDE, WIDE) for name in "ab"})
    adam = torch.optim.Adam(ours.parameters(), lr=0.1)
    path = str(save(model, tmp_path / "m.keras"))
    tws.warm_start(ours, tws.WarmStartSettings(path, [".*"]), optimizer=adam)

    slots = {(v.path, name): slot.numpy() for v, name, slot in _slots_in_keras(model, optimizer)}
    for name in "ab":
        state = adam.state[ours[name].weight]  # type: ignore[index]
        assert int(state["step"]) == 7
        for ours_name, theirs in (("exp_avg", "_momentums"), ("exp_avg_sq", "_velocities")):
            expected = slots[f"{name}/kernel", theirs].T
            assert np.array_equal(state[ours_name].numpy(), expected), (name, ours_name)


def _frozen(L: Any) -> Any:
    return L.Bidirectional(L.GRU(WIDE, return_sequences=True), trainable=False)


def _shared(keras: Any) -> list[Any]:
    layer = keras.layers.Dense(WIDE)
    inner = keras.Sequential([keras.Input(SEQUENCE), layer])
    return [inner, layer, keras.layers.Dense(WIDE)]


# What makes the order of an optimizer's variables unknown: the layers, or the optimizer.
NOT_KNOWN: dict[str, tuple[Callable[[Any], list[Any]], Callable[[Any], Any]]] = {
    "shared": (_shared, lambda o: o.Adam()),
    "wrapped": (lambda k: [_frozen(k.layers)], lambda o: o.Adam()),
    "twice": (lambda k: [k.layers.SpectralNormalization(k.layers.Dense(3))], lambda o: o.Adam()),
    "average": (lambda k: [k.layers.Dense(3)], lambda o: o.Adam(use_ema=True)),
    "sums": (lambda k: [k.layers.Dense(3)], lambda o: o.Adam(gradient_accumulation_steps=2)),
    "scaled": (lambda k: [k.layers.Dense(3)], lambda o: o.LossScaleOptimizer(o.Adam())),
    "factored": (lambda k: [k.layers.Dense(3)], lambda o: o.Adafactor()),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("why", NOT_KNOWN)
def test_an_optimizer_of_unknown_order_is_left_alone(
    libraries: dict[str, Any], why: str, tmp_path: Path
) -> None:
    keras = libraries["keras"]
    layers, optimizer = NOT_KNOWN[why]
    model = _trained_model(keras, *layers(keras))
    _build(model, optimizer(keras.optimizers))

    assert tws.load_checkpoint(save(model, tmp_path / "m.keras")).graph_optimizers() == ()


@pytest.mark.tensorflow
def test_slots_of_another_shape_or_number_are_nobodys(
    libraries: dict[str, Any], tmp_path: Path
) -> None:
    """As when a layer was frozen after the optimizer had been built, or the file is not Keras's."""
    keras = libraries["keras"]
    model = _trained_model(keras, keras.layers.Dense(3, name="a"), keras.layers.Dense(3, name="b"))
    _build(model, keras.optimizers.Adam())
    model.get_layer("a").trainable = False

    assert tws.load_checkpoint(save(model, tmp_path / "m.keras")).graph_optimizers() == ()


# -- files made by hand ----------------------------------------------------------------------------

VECTOR, MATRIX = np.ones(12, "f4"), np.ones((3, 12), "f4")
CELL = [np.ones((4, 12), "f4"), MATRIX, VECTOR]


def _write(path: Path, layers: Mapping[str, list[np.ndarray]], **names: str) -> Path:
    with h5py.File(path, "w") as file:
        for folder, arrays in layers.items():
            group = file.create_group(f"{folder}/vars")
            for number, array in enumerate(arrays):
                group[str(number)] = array
            if folder.rpartition("/")[2] in names:
                group.attrs["name"] = names[folder.rpartition("/")[2]]
    return path


def _archive(path: Path, weights: Path, config: Any) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        file.write(weights, "model.weights.h5")
    return path


def _layer(kind: str, name: str, module: str = "keras.layers", **options: Any) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": {"name": name, **options}}


def _full_names(path: Path) -> set[str]:
    return set(tws.load_checkpoint(path).full_names())


@pytest.mark.parametrize(
    ("arrays", "is_cell"),
    [
        (CELL, True),
        (CELL[:2], True),
        ([CELL[0], MATRIX, np.ones((2, 12), "f4")], True),  # a GRU of four units
        ([CELL[0], MATRIX, VECTOR[:4]], False),
        ([CELL[0], CELL[0], VECTOR], True),  # a GRU of three gates
        ([CELL[0], np.ones((5, 12), "f4"), VECTOR], False),
        ([VECTOR, MATRIX], False),
        ([*CELL, VECTOR], False),  # with peepholes
    ],
)
def test_a_cell_is_one_by_its_shapes(arrays: list[Any], is_cell: bool, tmp_path: Path) -> None:
    path = _write(tmp_path / "m.h5", {"enc": [], "enc/cell": arrays})

    assert ("enc/cell/kernel" in _full_names(path)) == is_cell


def test_a_cell_of_the_users_own_is_not_named(tmp_path: Path) -> None:
    weights = _write(tmp_path / "m.h5", {"layers/rnn": [], "layers/rnn/cell": CELL})
    for module, named in (("keras.layers", True), ("mine", False)):
        cell = _layer("LSTMCell", "c", module)
        config = {"config": {"layers": [_layer("RNN", "enc", cell=cell)]}}
        names = _full_names(_archive(tmp_path / f"{module}.keras", weights, config))
        assert ("enc/c/kernel" in names) == named
        assert ("enc/c/vars/0" in names) != named


def test_a_configuration_of_another_layer_is_not_taken(tmp_path: Path) -> None:
    weights = _write(tmp_path / "m.h5", {"layers/dense": [MATRIX, VECTOR]}, dense="a")
    config = {"config": {"layers": [_layer("Dense", "b")]}}

    names = _full_names(_archive(tmp_path / "m.keras", weights, config))
    assert names == {"a/kernel", "a/bias", "layers/dense/kernel", "layers/dense/bias"}


def test_configurations_that_repeat_themselves_cost_no_more_than_folders(tmp_path: Path) -> None:
    config: Any = _layer("LSTM", "x")
    for _ in range(60):  # in each, both directions are made of the one layer: 2 ** 60
        config = _layer("Bidirectional", "x", layer=config)
    folder = "layers/bidirectional" + "/forward_layer" * 20
    weights = _write(tmp_path / "m.h5", {"layers/bidirectional": [], folder: [MATRIX]})

    path = _archive(tmp_path / "m.keras", weights, {"config": {"layers": [config]}})
    assert len(_full_names(path)) < 10


def test_a_number_of_a_thousand_digits_is_no_number(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file[f"layers/dense/vars/{'1' * 5000}"] = MATRIX

    assert _full_names(tmp_path / "m.h5") == set()


@pytest.mark.parametrize(
    "compiled", [None, [], {}, {"optimizer": "adam"}, {"optimizer": {"config": {}}}]
)
def test_a_strange_optimizer_is_none(tmp_path: Path, compiled: Any) -> None:
    layers = {"layers/dense": [MATRIX, VECTOR], "optimizer": [VECTOR]}
    weights = _write(tmp_path / "m.h5", layers)
    config = {
        **{"module": "keras", "class_name": "Sequential", "compile_config": compiled},
        "config": {"layers": [_layer("Dense", "a")]},
    }
    path = _archive(tmp_path / "m.keras", weights, config)

    assert tws.load_checkpoint(path).graph_optimizers() == ()
