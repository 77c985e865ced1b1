"""Query, key and value that were layers of their own, for nn.MultiheadAttention."""

from __future__ import annotations

import pytest
import torch
from attention_apart import HEADS, NAMES, WIDTH, Apart
from torch import nn

import torch_warmstart as tws


def _port(old, **settings):
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)})
    model["attn"].in_proj_bias.data.fill_(3.0)
    state = old if isinstance(old, dict) else nn.ModuleDict({"attn": old}).state_dict()
    return model["attn"], tws.warm_start(model, tws.WarmStartSettings(state, **settings))


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("key_bias", [True, False], ids=["key bias", "no key bias"])
def test_both_compute_the_same(names, key_bias):
    old = Apart(names, key_bias)
    new, report = _port(old)
    x = torch.randn(3, 5, WIDTH)
    assert torch.allclose(new(x, x, x)[0], old(x), atol=1e-6)
    assert not report.unexpected_keys
    assert [note.code for note in report.notes] == ["names-inferred"]


def test_a_rule_that_names_them_makes_it_sure():
    old = Apart()
    rules = {
        f"attn.in_proj_{leaf}": tuple(f"attn.{name}.{leaf}" for name in old.names)
        for leaf in ("weight", "bias")
    }
    new, report = _port(old, var_name_to_prev_var_name=rules)
    assert not report.notes
    assert torch.equal(new.in_proj_weight[WIDTH : 2 * WIDTH], old.k_proj.weight)


def test_what_lies_beside_them_counts():
    state = nn.ModuleDict({"attn": Apart()}).state_dict()
    adapter = {"attn.q_proj.lora_A.weight": torch.ones(2, WIDTH)}
    with pytest.raises(tws.PlanError, match="has an adapter beside it"):
        _port({**state, **adapter})


def test_the_layers_own_name_comes_before_what_others_make_of_theirs():
    state = nn.ModuleDict({"attn": Apart()}).state_dict()
    joined = {"attn.in_proj_weight": torch.ones(3 * WIDTH, WIDTH)}
    new, report = _port({**state, **joined})
    assert new.in_proj_weight.eq(1).all()
    left = {f"attn.{name}_proj.weight" for name in "qkv"}
    assert set(report.unexpected_keys) == left


def test_keys_of_fewer_heads_are_refused_with_what_can_be_done():
    state = nn.ModuleDict({"attn": Apart()}).state_dict()
    fewer = {name: value[:3] for name, value in state.items() if "k_proj" in name}
    with pytest.raises(tws.PlanError, match=r"in_proj_weight has shape \[18, 6\], but") as error:
        _port({**state, **fewer})
    assert "as in grouped-query attention" in str(error.value)
    assert "ClipOrPad" not in str(error.value)
    repeated = {name: value.repeat_interleave(2, 0) for name, value in fewer.items()}  # as it says
    new, _ = _port({**state, **repeated})
    assert torch.equal(new.in_proj_weight[6:12], repeated["attn.k_proj.weight"])


def test_keys_of_another_width_ask_for_a_layer_that_has_it():
    old = Apart()
    old.k_proj = nn.Linear(4, WIDTH)
    with pytest.raises(tws.PlanError, match="make the layer with its kdim and vdim") as error:
        _port(old)
    assert "ClipOrPad" not in str(error.value)


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_keys_and_values_of_other_widths_have_weights_of_their_own(names):
    old = Apart(names)
    for name, width in zip(names, (WIDTH, 4, 5), strict=True):
        setattr(old, name, nn.Linear(width, WIDTH))
    model = nn.MultiheadAttention(WIDTH, HEADS, kdim=4, vdim=5)
    report = tws.warm_start(model, old.state_dict())
    assert [note.code for note in report.notes] == ["names-inferred"]
    assert not report.unexpected_keys
    weights = (model.q_proj_weight, model.k_proj_weight, model.v_proj_weight)
    layers = [getattr(old, name) for name in names]
    assert all(torch.equal(w, one.weight) for w, one in zip(weights, layers, strict=True))
    assert torch.equal(model.in_proj_bias, torch.cat([one.bias for one in layers]))
