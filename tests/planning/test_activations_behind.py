"""Activations that the file has for a layer, compared with what an nn.Sequential has behind it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torch_warmstart.layouts.tensorflow import Described
from torch_warmstart.planning.checks.audit import audit_port


def audits(model, *stated):
    """What is told of a model whose filled layers, in order, have these activations in the file."""
    filled = [m for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    layers = {
        module: Described("dense", {"activation": activation}, name=f"d{at}")
        for at, (module, activation) in enumerate(zip(filled, stated, strict=False))
    }
    found = audit_port(model, {module: ["transpose"] for module in layers}, layers)
    return [str(audit) for audit in found]


def two(*between):
    return nn.Sequential(nn.Linear(2, 3), *between, nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("model", "activation"),
    [
        (two(nn.ReLU()), "relu"),
        (two(nn.Dropout(0.0), nn.ReLU()), "relu"),
        (two(nn.Identity(), nn.Sequential(nn.Tanh())), "tanh"),
        (two(nn.GELU()), "gelu"),
        (two(nn.SiLU()), "swish"),
        (two(nn.LeakyReLU(0.2)), "leaky_relu"),
        (two(nn.ELU()), "elu"),
        (two(), None),
        (two(), "linear"),
        (two(nn.ReLU()), "linear"),  # which a layer of its own may apply
        (nn.Sequential(nn.Linear(2, 3)), "softmax"),  # a loss may have it
        (nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 2)]), "relu"),
        (nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 2)}), "relu"),
        (nn.Sequential(nn.Sequential(nn.Linear(2, 3)), nn.ReLU()), "relu"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2), nn.ReLU()), "relu"),
        (two(nn.ReLU()), {"class_name": "function", "config": "own"}),
        (two(nn.LeakyReLU(0.3)), {"class_name": "LeakyReLU", "config": {"alpha": 0.3000000119}}),
        (two(nn.Tanh()), {"class_name": "ELU", "config": {"alpha": [1.0]}}),
        (two(nn.Tanh()), {"class_name": "ELU", "config": {"alpha": 10**400}}),
        (two(nn.Tanh()), {"class_name": "ELU", "config": {}}),
        (two(nn.Tanh()), {"class_name": ["ELU"], "config": {"alpha": 1.0}}),
        (two(nn.Tanh()), ["ELU"]),
        (two(nn.Tanh()), {"class_name": "ReLU", "config": {"negative_slope": 0.1, "max_value": 6}}),
    ],
)
def test_what_agrees_or_cannot_be_seen_is_not_told(model, activation):
    assert audits(model, activation) == []


@pytest.mark.parametrize(
    ("model", "activation", "said"),
    [
        (
            two(nn.ReLU()),
            "gelu",
            "0: nn.ReLU (1) follows it; the file says activation='gelu'. Make it nn.GELU().",
        ),
        (
            two(),
            "relu",
            "0: nn.Linear (1) follows it, with no activation between; the file says "
            "activation='relu'. Put nn.ReLU() between them.",
        ),
        (two(nn.GELU(approximate="tanh")), "gelu", "nn.GELU (1) with approximate='tanh' follows"),
        (two(nn.ELU(0.5)), "elu", "with alpha=0.5 follows it; the file says activation='elu'"),
        (two(nn.LayerNorm(3), nn.ReLU()), "relu", "nn.LayerNorm (1) follows it, with no"),
        (nn.Sequential(nn.Sequential(nn.Linear(2, 3)), nn.Linear(3, 2)), "relu", "0.0: nn.Linear"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2), nn.GELU()), "gelu", "nn.MaxPool2d"),
        (two(nn.Softmax(-1)), "tanh", "Make it nn.Tanh()"),
        (two(), {"class_name": "function", "config": "own"}, "activation='own'. Put what it does"),
    ],
)
def test_what_differs_for_certain_is_told(model, activation, said):
    (found,) = [audit for audit in audits(model, activation) if "the file says" in audit]
    assert said in found


class Unlike(nn.Sequential):
    def forward(self, x):
        return F.relu(self[0](x))


def hooked():
    model = two()
    model[1].register_forward_pre_hook(lambda _, args: (args[0].relu(),))
    return model


def twice():
    layer = nn.Linear(2, 2)
    return nn.Sequential(layer, layer)


@pytest.mark.parametrize(
    "model",
    [
        Unlike(nn.Linear(2, 3), nn.Linear(3, 2)),
        hooked(),
        twice(),
        nn.Sequential(nn.Linear(2, 3), Unlike(nn.Linear(3, 2))),
    ],
)
def test_what_a_forward_or_a_hook_may_do_is_nobodys_business(model):
    assert audits(model, "relu") == []


def test_the_halves_of_a_separable_convolution_are_one_layer():
    model = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 4, 1), nn.ReLU())
    layer = Described("separable_conv2d", {"activation": "relu"}, name="c")
    filled = {model[0]: ["conv"], model[1]: ["conv"]}
    assert audit_port(model, filled, {model[0]: layer, model[1]: layer}) == ()
    without = nn.Sequential(*model[:2], nn.Conv2d(4, 4, 1))
    told = audit_port(without, filled, {model[0]: layer, model[1]: layer})
    assert {name for audit in told for name in audit.modules} == {"0", "1"}


def test_what_the_file_says_takes_the_place_of_a_default():
    (default,) = audits(two(nn.GELU()), "linear")
    assert "exact function" in default
    assert audits(two(nn.GELU()), "gelu") == []


@pytest.mark.parametrize(("activation", "count"), [("relu", 0), ("gelu", 1), (F.gelu, 0)])
def test_torchs_layer_of_a_transformer_shows_its_own(activation, count):
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation=activation)
    stated = "gelu" if activation is F.gelu else "relu"
    described = {layer.linear1: Described("dense", {"activation": stated}, name="up")}
    found = audit_port(layer, {layer.linear1: ["transpose"]}, described)
    told = [audit for audit in found if "linear1" in audit.modules]
    assert len(told) == count
    assert all("nn.GELU (activation) follows it" in str(audit) for audit in told)


def test_it_is_a_difference_that_matters():
    torch.manual_seed(0)
    x = torch.randn(3, 2)
    plain, right = two(), two(nn.ReLU())
    right.load_state_dict({key.replace("1.", "2."): v for key, v in plain.state_dict().items()})
    assert not torch.equal(plain(x), right(x))
