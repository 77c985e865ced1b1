"""Recurrent layers: their layouts, both ways, and what is refused."""

from __future__ import annotations

import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, WarmStartSettings
from torch_warmstart.layouts import recurrent as gates

BATCH, TIME, WIDE, UNITS = 3, 5, 4, 3


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
