"""Audits compare with what the file says where it says it, and with defaults where it does not."""

from __future__ import annotations

import pytest
from torch import nn

from torch_warmstart.layouts.tensorflow import Described
from torch_warmstart.planning.checks.audit import audit_port
from torch_warmstart.planning.checks.file_audit import untold

_ADDED = {"output_padding": 1}


def audits(module, options, kind="", layouts=("identity", "identity")):
    found = audit_port(
        nn.ModuleDict({"it": module}), {module: list(layouts)}, {module: Described(kind, options)}
    )
    return [str(audit) for audit in found]


def test_torchs_default_is_right_where_the_file_has_it():
    norm = nn.BatchNorm1d(2)
    assert audits(norm, {"epsilon": 1e-5, "momentum": 0.9}) == []
    assert audits(nn.LayerNorm(2), {"epsilon": 1e-5}) == []


def test_rows_that_are_shortened_are_told_without_a_file_too():
    table = nn.Embedding(3, 2, max_norm=1.0)
    (found,) = audit_port(nn.ModuleDict({"t": table}), {table: ["identity"]})
    assert "tf.nn.embedding_lookup does where it is given max_norm" in str(found)
    plain = nn.Embedding(3, 2)
    assert audit_port(nn.ModuleDict({"t": plain}), {plain: ["identity"]}) == ()


def test_another_epsilon_is_told_whatever_it_is():
    norm = nn.BatchNorm1d(2, eps=1e-3, momentum=0.01)
    assert audits(norm, {"epsilon": 0.1, "momentum": 0.99}) == [
        "it: eps=0.001; the file says epsilon=0.1. Make it nn.BatchNorm1d(..., eps=0.1)."
    ]
    assert (
        "momentum=0.9. Make it nn.BatchNorm1d(..., momentum=0.1)"
        in audits(norm, {"epsilon": 1e-3, "momentum": 0.9})[0]
    )


@pytest.mark.parametrize(
    ("module", "options", "said"),
    [
        (nn.GroupNorm(2, 4, 1e-3), {"epsilon": 1e-3, "groups": 4}, "num_groups=2"),
        (nn.RMSNorm(4), {"epsilon": 1e-6}, "eps=None; the file says epsilon=1e-06"),
        (nn.Conv2d(2, 2, 3), {"strides": [2, 2], "padding": "valid"}, "stride=(1, 1)"),
        (nn.Conv2d(2, 2, 3, 2, 1), {"strides": [2, 2], "padding": "same"}, "one more at the end"),
        (nn.Conv2d(2, 2, 3, padding=1), {"strides": 1, "padding": "valid"}, "pads nothing"),
        (nn.Conv2d(2, 2, 3, padding="same"), {"padding": "valid"}, "pads nothing"),
        (nn.Conv2d(2, 2, 5, padding=1), {"padding": "same"}, "padding=(1, 1); the file says"),
        (nn.Conv1d(2, 2, 4, padding=1), {"padding": "same"}, "(..., padding='same')."),
        (nn.Conv1d(2, 2, 3, padding=1, dilation=2), {"padding": "same", "dilation_rate": 2}, "sam"),
        (nn.Conv1d(2, 2, 3, padding=2), {"padding": "causal"}, "pads the beginning alone"),
        (nn.Conv1d(2, 2, 3, padding="same"), {"padding": "causal"}, "pads the beginning alone"),
        (nn.Conv1d(2, 2, 3), {"dilation_rate": [2]}, "dilation=(1,)"),
        (
            nn.ConvTranspose1d(2, 2, 3, 2, 1, 1),
            {"strides": [2], "padding": "same"},
            "and crop the result: 0 in front and 1 behind.",
        ),
        (
            nn.ConvTranspose1d(2, 2, 4, 2, 2),
            {"strides": [2], "padding": "same"},
            "Make it nn.ConvTranspose1d(..., padding=(1,), output_padding=(0,)).",
        ),
        (
            nn.ConvTranspose1d(2, 2, 4, 2, 1),
            {"strides": [2], "padding": "valid"},
            "Make it nn.ConvTranspose1d(..., padding=(0,), output_padding=(0,)).",
        ),
        (nn.LSTM(2, 2, bidirectional=True), {"merge_mode": "sum"}, "merge_mode='sum'"),
        (nn.LayerNorm(4), {"axis": [1], "dtype": {}}, "the file says axis=[1], of the original's"),
        (nn.Embedding(3, 2, max_norm=1.0), {"input_dim": 3}, "max_norm=1.0, which shortens"),
        (nn.Embedding(3, 2), {"logit_soft_cap": 2.0}, "the file says logit_soft_cap=2.0"),
        (nn.GRU(2, 2, batch_first=True), {"time_major": True}, "the file says time_major=True"),
        (nn.LayerNorm(4), {"axis": -2, "dtype": {}}, "the file says axis=-2, of the original's"),
        (nn.LayerNorm((3, 4)), {"axis": [-1, -3]}, "the file says axis=[-1, -3]"),
        (nn.RMSNorm(4, 1e-6), {"axis": 1, "dtype": {}}, "give the module its input with them last"),
    ],
)
def test_other_settings(module, options, said):
    (found,) = audits(module, options)
    assert said in found


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (nn.Conv2d(2, 2, 3, 2), {"strides": [2, 2], "padding": "same"}),
        (nn.Conv2d(2, 2, 3, padding=1), {"strides": [1, 1], "padding": "same"}),
        (nn.Conv2d(2, 2, 4, padding="same"), {"padding": "same"}),
        (nn.Conv2d(2, 2, 1), {"padding": "same"}),
        (nn.Conv2d(2, 2, 3), {"padding": "same"}),  # what pads may be another module
        (nn.Conv1d(2, 2, 3, padding=2, dilation=2), {"padding": "same", "dilation_rate": 2}),
        (nn.ConvTranspose2d(2, 2, 3, padding=1), {"padding": "same"}),
        (nn.ConvTranspose2d(2, 2, 4, 2, 1), {"strides": [2, 2], "padding": "same"}),
        (nn.ConvTranspose1d(2, 2, 2, 3, 0, 1), {"strides": [3], "padding": "same"}),
        (nn.ConvTranspose1d(2, 2, 3, 2, 1, 1), {"strides": 2, "padding": "same", **_ADDED}),
        (nn.ConvTranspose1d(2, 2, 3, 2), {"strides": [2], "padding": "same"}),  # it may crop
        (nn.Conv1d(2, 2, 3), {"padding": "causal"}),
        (nn.Conv1d(2, 2, 3, padding="valid"), {"padding": "valid"}),
        (nn.GroupNorm(4, 4, 1e-3), {"epsilon": 1e-3, "groups": -1}),
        (nn.Embedding(3, 2, padding_idx=0), {"mask_zero": True, "logit_soft_cap": None}),
        (nn.LSTM(2, 2), {"activation": "tanh"}),
        (nn.LayerNorm(4), {"axis": [-1], "dtype": {}}),
        (nn.LayerNorm((3, 4)), {"axis": [-1, -2], "dtype": {}}),
        (nn.LayerNorm(4), {"axis": [2], "dtype": "float32"}),  # Keras 2 counts so
    ],
)
def test_settings_that_agree_are_not_told(module, options):
    assert audits(module, options) == []


def told(module, kind, layouts):
    return ["".join(found) for found in untold(module, Described(kind), layouts)]


def test_what_the_file_does_not_say_and_would_matter_is_told():
    (recurrent,) = told(nn.LSTM(2, 2), "", ["keras_cell"] * 4)
    assert "hard_sigmoid" in recurrent
    assert told(nn.LSTM(2, 2), "", ["tf1_lstm[forget_bias=1.0]"] * 4) == []


def test_a_class_of_the_programs_own_is_told():
    (own,) = told(nn.Linear(2, 3), "scaled_dense", ["transpose"])
    assert "a class of the program's own, 'scaled_dense'" in own
    assert told(nn.Linear(2, 3), "dense", ["transpose"]) == []
    assert told(nn.ModuleList(), "scaled_dense", ["identity"]) != []
    assert told(type("Own", (nn.Module,), {})(), "scaled_dense", ["identity"]) == []


def test_sizes_that_do_not_show_their_order_are_told():
    (cube,) = audits(nn.LayerNorm((4, 4, 4)), {"epsilon": 1e-5})
    assert "channels_first" in cube
    assert audits(nn.LayerNorm((3, 4)), {"epsilon": 1e-5}) == []
    done = ["channels_first", "channels_first"]
    assert audits(nn.LayerNorm((4, 4, 4)), {"epsilon": 1e-5}, layouts=done) == []


def test_a_bias_that_is_left_unpermuted_keeps_the_audit():
    model = nn.Sequential(nn.Linear(2, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 1, 1))
    half = {model[0]: ["unflatten_channels_last[3]", "identity"]}
    both = {model[0]: ["unflatten_channels_last[3]"] * 2}
    assert any("unflatten_channels_last" in str(audit) for audit in audit_port(model, half))
    assert not audit_port(model, both)
