"""Recurrent layers: what TensorFlow computes, torch computes too once it is warm-started from it.

Layers are TensorFlow's own, with random weights and biases, saved by TensorFlow; the torch model
has the same layer name, and nothing is renamed. Where inputs are as wide as the state, any order
of gates would fit, so that case comes with each kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, WarmStartSettings
from torch_warmstart.layouts import recurrent as gates

BATCH, TIME, WIDE, UNITS = 3, 5, 4, 3
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


# -- layouts, both ways ----------------------------------------------------------------------------


def _random(*shapes):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


KERNELS = ((WIDE, 12), (UNITS, 12))
TF1_KERNEL = (WIDE + UNITS, 12)
GRU_KERNELS = ((WIDE, 9), (UNITS, 9))
LAYOUTS = [
    (gates.KERAS_BIAS, [(12,)]),
    (gates.KERAS_CELL, [*KERNELS, (12,)]),
    (gates.KERAS_CELL_NO_BIAS, KERNELS),
    (gates.KERAS_GRU_KERNEL, [(WIDE, 9)]),
    (gates.KERAS_GRU_BIAS, [(2, 9)]),
    (gates.KERAS_GRU, [*GRU_KERNELS, (2, 9)]),
    (gates.KERAS_GRU_NO_BIAS, GRU_KERNELS),
    (gates.TF1_RNN_KERNEL, [(WIDE + UNITS, UNITS)]),
    (gates.TF1_RNN, [(WIDE + UNITS, UNITS), (UNITS,)]),
    (gates.TF1_LSTM_KERNEL, [TF1_KERNEL]),
    (gates.tf1_lstm_bias(1.0), [(12,)]),
    (gates.tf1_lstm(0.5), [TF1_KERNEL, (12,)]),
    (gates.tf1_lstm_projected(1.0), [(WIDE + 2, 12), (UNITS, 2), (12,)]),
]
with_layouts = pytest.mark.parametrize(
    ("layout", "shapes"), LAYOUTS, ids=[layout.name for layout, _ in LAYOUTS]
)


@with_layouts
def test_each_layout_is_undone_by_its_inverse(layout, shapes):
    for way in (layout, layout.slot_layout):
        there = _random(*shapes)
        back = way.to_tf(*way.to_torch(*there))
        assert [t.shape for t in back] == [t.shape for t in there]
        for old, new in zip(there, back, strict=True):
            torch.testing.assert_close(new, old, rtol=0, atol=1e-15)


@with_layouts
def test_each_inverse_is_undone_by_its_layout(layout, shapes):
    for way in (layout, layout.slot_layout):
        here = way.to_torch(*_random(*shapes))  # of what torch may have, what TensorFlow can hold
        back = way.to_torch(*way.to_tf(*here))
        for old, new in zip(here, back, strict=True):
            torch.testing.assert_close(new, old, rtol=0, atol=1e-15)


@with_layouts
def test_shapes_are_known_without_data(layout, shapes):
    made = layout.to_torch(*_random(*shapes))
    assert layout.shapes_in_torch(shapes) == tuple(tuple(tensor.shape) for tensor in made)


def test_two_biases_of_torch_are_one_of_tensorflow():
    bias_ih, bias_hh = torch.tensor([1.0, 2]), torch.tensor([10.0, 20])
    (bias,) = gates.KERAS_BIAS.to_tf(bias_ih, bias_hh)
    assert bias.tolist() == [11, 22]
    assert [b.tolist() for b in gates.KERAS_BIAS.to_torch(bias)] == [[11, 22], [0, 0]]


def test_a_slot_of_a_bias_is_a_slot_of_both():
    slot = torch.tensor([1.0, 2, 3, 4])
    assert [s.tolist() for s in gates.KERAS_BIAS.slot_layout.to_torch(slot)] == [[1, 2, 3, 4]] * 2
    both = gates.tf1_lstm_bias(1.0).slot_layout.to_torch(slot)
    assert [s.tolist() for s in both] == [[1, 3, 2, 4]] * 2  # i, j, f, o, and nothing added


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
    case = Case(_gru, nn.GRU, "3 h5", wide=UNITS, bias=False)
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


# -- what is refused, and why ----------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    def write(**shapes):
        return write_random_bundle(str(tmp_path / "model.ckpt-1"), shapes)

    return write


KERAS_LSTM = {
    "enc/lstm_cell/kernel": (UNITS, 12),
    "enc/lstm_cell/recurrent_kernel": (UNITS, 12),
    "enc/lstm_cell/bias": (12,),
}
TF1_LSTM = {"enc/rnn/lstm_cell/kernel": (2 * UNITS, 12), "enc/rnn/lstm_cell/bias": (12,)}
TF1_GRU = {
    "enc/rnn/gru_cell/gates/kernel": (2 * UNITS, 6),
    "enc/rnn/gru_cell/gates/bias": (6,),
    "enc/rnn/gru_cell/candidate/kernel": (2 * UNITS, 3),
    "enc/rnn/gru_cell/candidate/bias": (3,),
}
KERAS_GRU_BEFORE = {
    "enc/gru_cell/kernel": (UNITS, 9),
    "enc/gru_cell/recurrent_kernel": (UNITS, 9),
    "enc/gru_cell/bias": (9,),
}


def _with(tensors, **more):
    return {**tensors, **{key.replace("__", "/"): shape for key, shape in more.items()}}


def _in_both_directions(tensors):
    return {
        key.replace("enc/", f"enc/bidirectional_rnn/{side}/multi_rnn_cell/cell_{k}/").replace(
            "rnn/lstm", "lstm"
        ): shape
        for key, shape in tensors.items()
        for side in ("fw", "bw")
        for k in (0, 1)
    }


@pytest.mark.parametrize(
    ("module", "tensors", "message"),
    [
        (nn.GRU(UNITS, UNITS), KERAS_GRU_BEFORE, r"\[9\] is that of a GRU with reset_after=False"),
        (nn.GRU(UNITS, UNITS), TF1_GRU, "GRUCell applies the reset gate before the recurrent"),
        (nn.GRUCell(UNITS, UNITS), TF1_GRU, "GRUCell applies the reset gate before the recurrent"),
        (
            nn.LSTM(UNITS, UNITS),
            _with(TF1_LSTM, enc__rnn__lstm_cell__w_f_diag=(UNITS,)),
            r"its cell has peepholes \(w_f_diag\), which torch's has not",
        ),
        (
            nn.LSTM(2, UNITS, proj_size=2),
            _with(
                {"enc/rnn/lstm_cell/kernel": (4, 12), "enc/rnn/lstm_cell/bias": (12,)},
                enc__rnn__lstm_cell__w_f_diag=(UNITS,),
                enc__rnn__lstm_cell__projection__kernel=(UNITS, 2),
            ),
            r"its cell has peepholes \(w_f_diag\)",
        ),
        (
            nn.LSTM(UNITS, UNITS),
            _with(KERAS_LSTM, enc__lstm_cell__input_gate_peephole_weights=(UNITS,)),
            r"its cell has peepholes \(input_gate_peephole_weights\)",
        ),
        (
            nn.LSTM(UNITS, UNITS),
            _with(KERAS_LSTM, enc__lstm_cell__bias=(24,)),
            "a bias of 24 beside a kernel for 12 is that of CuDNNLSTM",
        ),
        (
            nn.LSTM(UNITS, UNITS, num_layers=2, bidirectional=True),
            _in_both_directions(TF1_LSTM),
            "ran each direction through all layers by itself",
        ),
        (nn.LSTM(UNITS, UNITS, bias=False), KERAS_LSTM, "has a bias, the module has bias=False"),
        (nn.LSTM(UNITS, UNITS, bias=False), TF1_LSTM, "has a bias, the module has bias=False"),
        (
            nn.LSTM(UNITS, UNITS, bias=False),
            {"enc/weight_ih_l0": (12, UNITS), "enc/weight_hh_l0": (12, UNITS)},
            "nn.LSTM.weight_ih_l0: torch and TensorFlow keep the gates",
        ),
    ],
)
def test_what_torch_cannot_be_is_refused(checkpoint, module, tensors, message):
    model = nn.ModuleDict({"enc": module})
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(PlanError, match=message):
        tws.warm_start(model, checkpoint(**tensors))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_bias_that_is_named_alone_may_be_either(checkpoint):
    model = nn.ModuleDict({"enc": nn.LSTM(UNITS, UNITS)})
    path = checkpoint(x=(12,))
    settings = WarmStartSettings(
        path, "enc.bias", var_name_to_prev_var_name={"enc.bias_ih_l0": "x", "enc.bias_hh_l0": "x"}
    )
    with pytest.raises(PlanError, match=r"'keras_bias' or 'tf1_lstm_bias\[forget_bias=1.0\]'"):
        tws.warm_start(model, settings)


@pytest.mark.parametrize(
    ("layout", "added"),
    [("keras_bias", None), ("tf1_lstm_bias", 1), ("tf1_lstm_bias[forget_bias=-2]", -2)],
)
def test_the_user_says_what_a_bias_is(checkpoint, layout, added):
    model = nn.ModuleDict({"enc": nn.LSTM(UNITS, UNITS)})
    path = checkpoint(x=(12,))
    names = ("enc.bias_ih_l0", "enc.bias_hh_l0")
    settings = WarmStartSettings(
        path,
        "enc.bias",
        var_name_to_prev_var_name=dict.fromkeys(names, "x"),
        var_name_to_layout=dict.fromkeys(names, layout),
    )
    tws.warm_start(model, settings)
    bias = tws.load_variable(path, "x")
    if added is not None:
        i, j, f, o = bias.chunk(4)
        bias = torch.cat((i, f + added, j, o))
    assert torch.equal(model["enc"].bias_ih_l0, bias)
    assert not model["enc"].bias_hh_l0.any()


@pytest.mark.parametrize("layout", ["tf1_lstm[forget_bias=much]", "tf1_lstm[forget_bias=1e5.]"])
def test_a_forget_bias_is_a_number(checkpoint, layout):
    model = nn.ModuleDict({"enc": nn.LSTM(UNITS, UNITS)})
    settings = WarmStartSettings(
        checkpoint(**TF1_LSTM), var_name_to_layout={"enc.bias_ih_l0": layout}
    )
    with pytest.raises(PlanError, match="no layout is called 'tf1_lstm"):
        tws.warm_start(model, settings)


def test_a_checkpoint_that_has_torchs_own_tensors_is_taken_at_the_users_word(checkpoint):
    model = nn.ModuleDict({"enc": nn.LSTM(UNITS, UNITS, bias=False)})
    path = checkpoint(**{"enc/weight_ih_l0": (12, UNITS), "enc/weight_hh_l0": (12, UNITS)})
    layouts = {f"enc.weight_{name}_l0": "identity" for name in ("ih", "hh")}
    tws.warm_start(model, WarmStartSettings(path, var_name_to_layout=layouts))
    assert torch.equal(model["enc"].weight_ih_l0, tws.load_variable(path, "enc/weight_ih_l0"))


def test_kernels_that_are_named_alone_are_told_apart_by_their_shape(checkpoint):
    path = checkpoint(**KERAS_LSTM, **TF1_LSTM)
    keras, tf1 = (
        tws.load_variable(path, f"enc/{k}/kernel") for k in ("lstm_cell", "rnn/lstm_cell")
    )
    model = nn.LSTM(UNITS, UNITS)
    for name, expected in (
        ("enc/lstm_cell/kernel", keras.t()),
        ("enc/rnn/lstm_cell/kernel", gates.TF1_LSTM_KERNEL.to_torch(tf1)[0]),
    ):
        tws.warm_start(
            model,
            WarmStartSettings(path, "weight_ih", None, {"weight_ih_l0": name}),
        )
        assert torch.equal(model.weight_ih_l0, expected)


def test_stacked_cells_come_in_the_order_of_their_numbers(checkpoint):
    cells = {
        key.replace("lstm_cell", f"stacked_rnn_cells_3/lstm_cell_{k}"): shape
        for key, shape in KERAS_LSTM.items()
        for k in (9, 10)
    }
    path = checkpoint(**cells)
    model = nn.ModuleDict({"enc": nn.LSTM(UNITS, UNITS, num_layers=2)})
    tws.warm_start(model, path)
    for layer, number in ((0, 9), (1, 10)):
        key = f"enc/stacked_rnn_cells_3/lstm_cell_{number}/kernel"
        weight = getattr(model["enc"], f"weight_ih_l{layer}")
        assert torch.equal(weight, tws.load_variable(path, key).t()), layer
    three = nn.ModuleDict({"enc": nn.LSTM(UNITS, UNITS, num_layers=3)})
    with pytest.raises(PlanError, match="enc.weight_ih_l0 is not in the checkpoint"):
        tws.warm_start(three, path)


def test_slots_of_a_bias_have_no_forget_bias_and_are_there_twice(checkpoint):
    slots = {
        f"{key}/{name}": shape for key, shape in TF1_LSTM.items() for name in ("Adam", "Adam_1")
    }
    path = checkpoint(**TF1_LSTM, **slots)
    model = nn.ModuleDict({"enc": nn.LSTM(UNITS, UNITS)})
    optimizer = torch.optim.Adam(model.parameters())
    settings = WarmStartSettings(path, [r".*(weight|bias)_.._l0$", ".*exp_avg"])
    tws.warm_start(model, settings, optimizer=optimizer)
    slot = tws.load_variable(path, "enc/rnn/lstm_cell/bias/Adam")
    i, j, f, o = slot.chunk(4)
    for name in ("bias_ih_l0", "bias_hh_l0"):
        state = optimizer.state[getattr(model["enc"], name)]
        assert torch.equal(state["exp_avg"], torch.cat((i, f, j, o))), name
