"""Whose an optimizer's variables are in Keras's files, and files made by hand."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_names_helpers import HEADS, SEQUENCE, WIDE, by_two, save
from torch import nn

import torch_warmstart as tws

h5py = pytest.importorskip("h5py")

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
        by_two(L.MultiHeadAttention(HEADS, WIDE // HEADS, name="att")),
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
@pytest.mark.parametrize("is_wrapped_by_keras", [True, False])
def test_slots_of_an_optimizer_whose_loss_is_scaled(
    libraries: dict[str, Any], is_wrapped_by_keras: bool, tmp_path: Path
) -> None:
    keras = libraries["keras"]
    model, inner = _trained_model(keras), keras.optimizers.Adam()
    scaling = keras.optimizers.LossScaleOptimizer(inner)
    _build(model, scaling)
    if is_wrapped_by_keras:  # with mixed_float16 the configuration is that of the one within
        model._compile_config.config["optimizer"] = inner
    with tws.load_checkpoint(save(model, tmp_path / "m.keras")) as checkpoint:
        (found,) = checkpoint.graph_optimizers()
        by_value = {checkpoint.get_tensor(k).numpy().tobytes(): k for k in found.slots}
        for variable, name, slot in _slots_in_keras(model, inner):
            key = found.slots[by_value[variable.numpy().tobytes()]][name]
            assert np.array_equal(checkpoint.get_tensor(key).numpy(), slot.numpy()), name
        (count,) = found.full_names
        assert int(checkpoint.get_tensor(count)) == int(inner.iterations)


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
