"""What a file says of a layer decides its layout, or that torch's layer cannot be it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_warmstart.layouts.layout import Form
from torch_warmstart.layouts.named import CONV, TRANSPOSE, einsum, named_layout
from torch_warmstart.layouts.recurrent import KERAS_CELL, KERAS_GRU_NO_BIAS
from torch_warmstart.layouts.tensorflow import Described, as_described

SIZES = dict(zip("abcdef", (2, 3, 4, 5, 6, 7), strict=True))


def described(form, layer, module, leaf="weight", shapes=((4, 4),), into=(4, 4)):
    return as_described(form, layer, module=module, leaf=leaf, shapes=shapes, into=into)


@pytest.mark.parametrize(
    "equation",
    ["ab,bc->ac", "ab,cb->ac", "abc,cd->abd", "...c,cd->...d", "abc,cde->abde", "abc,dec->abde",
     "abc,dce->abde", "abcd,cde->abe", "abcd,ecd->abe", "abcd,dce->abe", "abc,bcd->ad"],
)  # fmt: skip
def test_a_kernel_by_its_equation_computes_the_same(equation):
    inputs, rest = equation.replace("...", "a").split(",")
    kernel, outputs = rest.split("->")
    x = torch.randn([SIZES[axis] for axis in inputs], dtype=torch.float64)
    weight = torch.randn([SIZES[axis] for axis in kernel], dtype=torch.float64)
    expected = torch.einsum(equation.replace("...", "a"), x, weight)
    (linear,) = einsum(equation).to_torch(weight)
    taken = [axis for axis in inputs if axis in kernel and axis not in outputs]
    moved = torch.einsum(
        f"{inputs}->{''.join(a for a in inputs if a not in taken)}{''.join(taken)}", x
    )
    found = moved.flatten(moved.dim() - len(taken)) @ linear.t()
    assert torch.allclose(found.flatten(), expected.flatten())
    assert named_layout(f"einsum[{equation}]").shapes_in_torch([tuple(weight.shape)])


def test_an_equation_with_a_kernel_for_each_index_is_refused():
    layer = Described("einsum_dense", {"equation": "abc,bcd->abd", "bias_axes": None})
    assert (
        "another one for each index"
        in described(Form((("kernel",),), TRANSPOSE), layer, nn.Linear(4, 4)).refusal
    )


def test_an_einsum_without_its_equation_is_refused_where_it_may_be_either():
    form = Form((("kernel",),), TRANSPOSE)
    linear = nn.Linear(4, 4)
    assert "equation" in described(form, Described("einsum_dense"), linear).refusal
    assert described(form, Described("dense"), linear) is form
    presumed = described(form, Described(""), linear)
    assert presumed.layout is TRANSPOSE
    assert presumed.is_presumed
    oblong = described(
        form, Described("einsum_dense"), nn.Linear(4, 3), shapes=((3, 4),), into=(3, 4)
    )
    assert oblong.layout.name == "identity"
    within = Described("einsum_dense", around="multi_head_attention")
    assert described(form, within, linear) is form


@pytest.mark.parametrize(
    ("module", "kind", "options", "said"),
    [
        (nn.LSTM, "lstm", {"recurrent_activation": "hard_sigmoid"}, "hard_sigmoid"),
        (nn.LSTM, "lstm", {"activation": "relu"}, "activation='relu'"),
        (nn.GRU, "gru", {"activation": "tanh", "reset_after": False}, "reset_after=False"),
        (nn.RNN, "simple_rnn", {"activation": "relu"}, "torch's layer has tanh"),
        (nn.LSTM, "lstm", {"go_backwards": True}, "runs backwards"),
        (nn.LSTM, "lstm_cell", {"recurrent_activation": "tanh"}, "tanh"),
        (nn.LSTM, "rnn", {"go_backwards": False, "cell": {
            "class_name": "LSTMCell", "config": {"activation": "elu"}}}, "elu"),
        (nn.LSTM, "rnn", {"cell": {"class_name": "StackedRNNCells", "config": {"cells": [
            {"class_name": "LSTMCell", "config": {"activation": "tanh"}},
            {"class_name": "LSTMCell", "config": {"activation": "selu"}}]}}}, "selu"),
        (nn.LSTM, "bidirectional", {"layer": {
            "class_name": "LSTM", "config": {"recurrent_activation": "hard_sigmoid"}}}, "hard"),
        (nn.LSTM, "bidirectional", {"layer": {
            "class_name": "LSTM", "config": {"go_backwards": True}}}, "backwards"),
        (nn.LSTM, "bidirectional", {
            "layer": {"class_name": "LSTM", "config": {"go_backwards": False}},
            "backward_layer": {"class_name": "LSTM", "config": {"go_backwards": False}}},
         "forwards"),
    ],
)  # fmt: skip
def test_what_torchs_recurrent_layer_cannot_be_is_refused(module, kind, options, said):
    form = Form((("kernel",),), KERAS_CELL)
    found = described(form, Described(kind, options), module(4, 4), "weight_ih_l0")
    assert said in found.refusal


@pytest.mark.parametrize(
    ("module", "kind", "options"),
    [
        (nn.LSTM(4, 4), "lstm", {"activation": "tanh", "recurrent_activation": "sigmoid"}),
        (nn.RNN(4, 4, nonlinearity="relu"), "simple_rnn", {"activation": "relu"}),
        (nn.LSTM(4, 4), "bidirectional", {
            "layer": {"class_name": "LSTM", "config": {"go_backwards": False}},
            "backward_layer": {"class_name": "LSTM", "config": {"go_backwards": True}}}),
        (nn.LSTM(4, 4), "lstm", None),
    ],
)  # fmt: skip
def test_what_it_can_be_is_not(module, kind, options):
    form = Form((("kernel",),), KERAS_CELL)
    assert described(form, Described(kind, options), module, "weight_ih_l0").refusal is None


def test_a_gru_without_a_bias_is_what_the_file_says():
    form = Form((("kernel",),), KERAS_GRU_NO_BIAS, refusal="not known")
    gru = nn.GRU(4, 4, bias=False)
    after = Described("gru", {"reset_after": True})
    assert described(form, after, gru, "weight_ih_l0").refusal is None
    assert described(form, Described("gru", {}), gru, "weight_ih_l0").refusal == "not known"


def test_theanos_kernels_are_mirrored():
    """Its convolution turned the kernel round, TensorFlow's and torch's do not."""
    form = Form((("kernel",),), CONV)
    conv = nn.Conv2d(3, 4, 2)
    found = described(form, Described("conv2d", backend="theano"), conv)
    kernel = torch.arange(48.0).view(2, 2, 3, 4)
    (weight,) = found.layout.to_torch(kernel)
    assert torch.equal(weight, kernel.flip(0, 1).permute(3, 2, 0, 1))
    assert torch.equal(found.layout.to_tf(weight)[0], kernel)
    separable = described(form, Described("separable_conv2d", backend="theano"), conv)
    assert "Theano" in separable.refusal
    assert described(form, Described("conv2d", backend="tensorflow"), conv) is form


def test_a_layer_norm_that_scales_only_is_refused():
    form = Form((("gamma",),))
    layer = Described("layer_normalization", {"rms_scaling": True})
    assert "subtract the mean" in described(form, layer, nn.LayerNorm(4)).refusal


@pytest.mark.parametrize(
    ("kind", "module"),
    [
        ("rms_normalization", nn.LayerNorm(4)),
        ("layer_normalization", nn.RMSNorm(4)),
        ("group_normalization", nn.BatchNorm1d(4)),
        ("batch_normalization", nn.GroupNorm(2, 4)),
        ("conv1d_transpose", nn.Conv1d(4, 4, 3)),
        ("conv1d", nn.ConvTranspose1d(4, 4, 3)),
    ],
)
def test_a_layer_of_another_class_with_tensors_of_the_same_names_is_refused(kind, module):
    form = Form((("kernel",),), CONV)
    refused = described(form, Described(kind), module, shapes=((3, 4, 4),), into=(4, 4, 3))
    assert kind in (refused.refusal or "")
    of_another = described(form, Described("my_own_layer"), module, shapes=((3, 4, 4),))
    assert of_another.refusal is None


@pytest.mark.parametrize("options", [{"equation": "ab,cb->ac"}, {}])
def test_a_class_of_the_programs_own_may_be_an_einsum(options):
    layer = Described("my_product", options)
    form = described(Form((("kernel",),), TRANSPOSE), layer, nn.Linear(4, 4))
    assert (form.layout.name, form.is_presumed) == (
        ("identity", False) if options else ("transpose", True)
    )
    assert layer.is_own
    assert not any(Described(kind).is_own for kind in ("", "layer", "conv2d_transpose", "gru"))


@pytest.mark.parametrize(("kind", "is_presumed"), [("my_conv", True), ("conv2d", False)])
def test_it_may_be_a_convolution_the_other_way_round(kind, is_presumed):
    conv = nn.Conv2d(4, 4, 3)
    form = described(
        Form((("kernel",),), CONV),
        Described(kind, {}, name="d"),
        conv,
        shapes=((3, 3, 4, 4),),
        into=(4, 4, 3, 3),
    )
    assert form.is_presumed is is_presumed
