"""Recurrent layers: what TensorFlow computes, torch computes too once warm-started from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, WarmStartSettings

BATCH, TIME, WIDE, UNITS = 3, 5, 4, 3
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


# -- real layers of Keras --------------------------------------------------------------------------


def _lstm(keras, **more):
    return keras.layers.LSTM(UNITS, **more)


def _gru(keras, **more):
    return keras.layers.GRU(UNITS, **more)


def _rnn(keras, **more):
    return keras.layers.SimpleRNN(UNITS, **more)


def _relu(keras, **more):
    return keras.layers.SimpleRNN(UNITS, activation="relu", **more)


def _both_ways(inner):
    def make(keras, name, dtype, **more):
        return keras.layers.Bidirectional(inner(keras, dtype=dtype, **more), name=name, dtype=dtype)

    return make


def _stack(cell):
    def make(keras, dtype, **more):
        cells = [getattr(keras.layers, cell)(UNITS, dtype=dtype) for _ in range(2)]
        stacked = keras.layers.StackedRNNCells(cells, dtype=dtype)  # made by RNN it is float32
        return keras.layers.RNN(stacked, dtype=dtype, **more)

    return make


@dataclass(frozen=True)
class Case:
    make: Any
    module: type[nn.Module]
    files: str  # "3 keras": which Keras, and how it saves
    more: tuple = ()  # arguments of the module
    wide: int = WIDE
    dtype: str = "float32"
    bias: bool = True
    layers: int = 1
    bidirectional: bool = False

    def __str__(self):
        kind = f"{self.module.__name__}-{self.files.replace(' ', '-')}"
        flags = {
            "both-ways": self.bidirectional,
            "stacked": self.layers > 1,
            "square": self.wide == UNITS,
            "no-bias": not self.bias,
            "relu": bool(self.more),
        }
        return "-".join([kind, *(flag for flag, there in flags.items() if there), self.dtype])


CASES = [
    Case(_lstm, nn.LSTM, "3 checkpoint"),
    Case(_lstm, nn.LSTM, "3 keras", wide=UNITS),
    Case(_lstm, nn.LSTM, "2 h5"),
    Case(_lstm, nn.LSTM, "2 checkpoint", wide=UNITS, bias=False),
    Case(_lstm, nn.LSTM, "3 weights.h5", bias=False),
    Case(_gru, nn.GRU, "3 weights.h5", wide=UNITS),
    Case(_gru, nn.GRU, "2 keras"),
    Case(_gru, nn.GRU, "2 checkpoint", wide=UNITS),
    Case(_rnn, nn.RNN, "3 h5", wide=UNITS),
    Case(_rnn, nn.RNN, "2 checkpoint", bias=False),
    Case(_relu, nn.RNN, "3 checkpoint", more=(("nonlinearity", "relu"),)),
    Case(_both_ways(_lstm), nn.LSTM, "2 checkpoint", wide=UNITS, bidirectional=True),
    Case(_both_ways(_lstm), nn.LSTM, "3 h5", bidirectional=True),
    Case(_both_ways(_gru), nn.GRU, "3 checkpoint", wide=UNITS, bidirectional=True),
    Case(_both_ways(_rnn), nn.RNN, "2 h5", bidirectional=True, bias=False),
    Case(_stack("LSTMCell"), nn.LSTM, "2 checkpoint", wide=UNITS, layers=2),
    Case(_stack("LSTMCell"), nn.LSTM, "3 keras", wide=UNITS, layers=2),
    Case(_stack("GRUCell"), nn.GRU, "3 weights.h5", wide=UNITS, layers=2),
    Case(_stack("SimpleRNNCell"), nn.RNN, "2 h5", wide=UNITS, layers=2),
]


@pytest.fixture(scope="module")
def libraries():
    pytest.importorskip("tensorflow")
    import keras
    import tf_keras

    return {"3": keras, "2": tf_keras}


def _file(case, model, folder):
    how = case.files.partition(" ")[2]
    if how == "checkpoint":
        import tensorflow as tf

        return tf.train.Checkpoint(model).save(str(folder / "model"))
    path = str(folder / f"model.{how}")
    (model.save_weights if how == "weights.h5" else model.save)(path)
    return path


def _close(found, expected, tolerance):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def _same_in_torch(module, inputs, expected, gradient, tolerance):
    """Outputs, final states and the gradient of the sum of all squares."""
    x = torch.tensor(inputs, requires_grad=True)
    out, states = module(x)
    states = states if isinstance(states, tuple) else (states,)
    results = [out, *(s for each in zip(*states, strict=True) for s in each)]
    for found, value in zip(results, expected, strict=True):
        _close(found.detach(), value, tolerance)
    sum((result**2).sum() for result in results).backward()
    _close(x.grad, gradient, tolerance)


def _inputs(case):
    return np.random.default_rng(5).normal(size=(BATCH, TIME, case.wide)).astype(case.dtype)


def _randomise(model, dtype):
    rng = np.random.default_rng(7)
    model.set_weights([rng.normal(0, 0.5, w.shape).astype(dtype) for w in model.get_weights()])


def _keras_model(keras, case):
    layer = case.make(
        keras,
        name="enc",
        dtype=case.dtype,
        return_sequences=True,
        return_state=True,
        **({} if case.bias else {"use_bias": False}),
    )
    inputs = keras.Input((TIME, case.wide), dtype=case.dtype)
    model = keras.Model(inputs, layer(inputs))
    _randomise(model, case.dtype)
    return model


def _module(case):
    return case.module(
        case.wide,
        UNITS,
        num_layers=case.layers,
        bias=case.bias,
        bidirectional=case.bidirectional,
        batch_first=True,
        dtype=getattr(torch, case.dtype),
        **dict(case.more),
    )


def _in_both_dtypes(cases):
    return [replace(case, dtype=dtype) for case in cases for dtype in TOLERANCE]


GRU_WITHOUT_BIAS = "keras_gru_no_bias"


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", _in_both_dtypes(CASES), ids=str)
def test_a_layer_of_keras_computes_the_same_in_torch(case, libraries, tmp_path):
    import tensorflow as tf

    keras = libraries[case.files[0]]
    keras.layers.LSTM(2)(keras.Input((TIME, 2)))  # so that cells are not numbered from 0
    model = _keras_model(keras, case)
    path = _file(case, model, tmp_path)
    x = tf.constant(_inputs(case))
    with tf.GradientTape() as tape:
        tape.watch(x)
        results = tf.nest.flatten(model(x))
        loss = sum(tf.reduce_sum(result**2) for result in results)
    ported = nn.ModuleDict({"enc": _module(case)})
    report = tws.warm_start(ported, path)
    assert report.count("kept") == 0
    gradient = tape.gradient(loss, x).numpy()
    expected = [result.numpy() for result in results]
    _same_in_torch(ported["enc"], x.numpy(), expected, gradient, TOLERANCE[case.dtype])


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("cell", "module"), [("LSTM", nn.LSTMCell), ("GRU", nn.GRUCell), ("SimpleRNN", nn.RNNCell)]
)
def test_a_single_cell_of_torch_is_a_layer_of_keras(cell, module, dtype, libraries, tmp_path):
    import tensorflow as tf

    def make(keras, **more):
        return getattr(keras.layers, cell)(UNITS, **more)

    case = Case(make, module, "3 h5", dtype=dtype)
    model = _keras_model(libraries["3"], case)
    path = _file(case, model, tmp_path)
    inputs = tf.constant(_inputs(case))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        expected = model(inputs)[1:]
        loss = sum(tf.reduce_sum(state**2) for state in expected)
    ported = nn.ModuleDict({"enc": module(WIDE, UNITS, dtype=getattr(torch, dtype))})
    tws.warm_start(ported, path)
    x = torch.tensor(inputs.numpy(), requires_grad=True)
    state = None
    for step in x.unbind(1):
        state = ported["enc"](step, state)
    state = state if isinstance(state, tuple) else (state,)
    for found, value in zip(state, expected, strict=True):
        _close(found.detach(), value, TOLERANCE[dtype])
    sum((part**2).sum() for part in state).backward()
    _close(x.grad, tape.gradient(loss, inputs), TOLERANCE[dtype])


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_a_gru_without_a_bias_is_taken_at_the_users_word(libraries, tmp_path):
    case = Case(_gru, nn.GRU, "3 weights.h5", wide=UNITS, bias=False)  # which has no configuration
    model = _keras_model(libraries["3"], case)
    path = _file(case, model, tmp_path)
    ported = nn.ModuleDict({"enc": _module(case)})
    with pytest.raises(PlanError, match="a GRU without a bias does not show whether"):
        tws.warm_start(ported, path)
    layouts = {f"enc.weight_{name}_l0": GRU_WITHOUT_BIAS for name in ("ih", "hh")}
    tws.warm_start(ported, WarmStartSettings(path, var_name_to_layout=layouts))
    out, _ = ported["enc"](torch.tensor(_inputs(case)))
    _close(out.detach(), model(_inputs(case))[0], 1e-5)


# -- real cells of TensorFlow 1 --------------------------------------------------------------------


@dataclass(frozen=True)
class OldCase:
    name: str
    cells: Any  # of the module with the cells: the cells of all layers, in one direction
    module: type[nn.Module]
    wide: int = WIDE
    dtype: str = "float32"
    projected: int = 0
    run: str = "dynamic_rnn"
    layouts: str = ""

    def __str__(self):
        return f"{self.name}-{self.dtype}"


OLD_CASES = [
    OldCase("basic-lstm", lambda c: [c.BasicLSTMCell(UNITS)], nn.LSTM),
    OldCase("lstm-square", lambda c: [c.LSTMCell(UNITS)], nn.LSTM, wide=UNITS),
    OldCase(
        "projected",
        lambda c: [c.LSTMCell(UNITS, num_proj=2)],
        nn.LSTM,
        projected=2,
    ),
    OldCase(
        "forget-bias",
        lambda c: [c.BasicLSTMCell(UNITS, forget_bias=0.25)],
        nn.LSTM,
        layouts="tf1_lstm[forget_bias=0.25]",
    ),
    OldCase(
        "stacked",
        lambda c: [c.BasicLSTMCell(UNITS), c.LSTMCell(UNITS)],
        nn.LSTM,
        wide=UNITS,
    ),
    OldCase("both-ways", lambda c: [c.LSTMCell(UNITS)], nn.LSTM, run="bidirectional"),
    OldCase(
        "both-ways-stacked",
        lambda c: [c.LSTMCell(UNITS), c.BasicLSTMCell(UNITS)],
        nn.LSTM,
        run="stack_bidirectional",
    ),
    OldCase("rnn-square", lambda c: [c.BasicRNNCell(UNITS)], nn.RNN, wide=UNITS),
]


def _run(case, cells, tf1, x):
    """The outputs and final states of cells, by the function of TensorFlow 1 that ran such."""
    with tf1.variable_scope("enc"):
        if case.run == "dynamic_rnn":
            layers = cells.cells
            cell = cells.of.MultiRNNCell(layers) if len(layers) > 1 else layers[0]
            return tf1.nn.dynamic_rnn(cell, x, dtype=x.dtype)
        if case.run == "bidirectional":
            out, states = tf1.nn.bidirectional_dynamic_rnn(
                cells.cells[0], cells.again[0], x, dtype=x.dtype
            )
            return tf1.concat(out, -1), states
        # stack_bidirectional_dynamic_rnn of tf.contrib.rnn, which went with it
        all_states = []
        with tf1.variable_scope("stack_bidirectional_rnn"):
            for at, pair in enumerate(zip(cells.cells, cells.again, strict=True)):
                with tf1.variable_scope(f"cell_{at}"):
                    out, states = tf1.nn.bidirectional_dynamic_rnn(*pair, x, dtype=x.dtype)
                all_states.append(states)
                x = tf1.concat(out, -1)
        return x, all_states


@dataclass(frozen=True)
class Cells:
    of: Any
    cells: list
    again: list  # for the other direction


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", _in_both_dtypes(OLD_CASES), ids=str)
def test_cells_of_tensorflow_1_compute_the_same_in_torch(case, tmp_path):
    tf = pytest.importorskip("tensorflow")
    from tf_keras.src.layers.rnn import legacy_cells  # tf.compat.v1.nn.rnn_cell

    tf1 = tf.compat.v1
    with tf1.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(case.dtype, [None, TIME, case.wide])
        cells = Cells(legacy_cells, case.cells(legacy_cells), case.cells(legacy_cells))
        out, states = _run(case, cells, tf1, x)
        results = [out, *_states_h_first(tf1, states)]
        gradient = tf1.gradients([tf1.reduce_sum(r**2) for r in results], x)[0]
        rng = np.random.default_rng(3)
        for variable in tf1.global_variables():
            variable.load(rng.normal(0, 0.5, variable.shape).astype(case.dtype), session)
        *expected, gradient = session.run([*results, gradient], {x: _inputs(case)})
        path = tf1.train.Saver().save(session, str(tmp_path / "model"))
    ported = nn.ModuleDict(
        {
            "enc": case.module(
                case.wide,
                UNITS,
                num_layers=len(cells.cells),
                bidirectional=case.run != "dynamic_rnn",
                batch_first=True,
                dtype=getattr(torch, case.dtype),
                **({"proj_size": case.projected} if case.projected else {}),
            )
        }
    )
    layouts = {name: case.layouts for name, _ in ported.named_parameters()}
    tws.warm_start(
        ported, WarmStartSettings(path, var_name_to_layout=layouts if case.layouts else None)
    )
    _same_in_torch(ported["enc"], _inputs(case), expected, gradient, TOLERANCE[case.dtype])


def _states_h_first(tf1, states):
    """LSTMStateTuple is (c, h), torch has h first."""
    flat = tf1.nest.flatten(states)
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return [s for c, h in pairs for s in (h, c)] if len(flat) > 1 else flat
