"""An adapter is seen wherever its tensors stand, if their names are after a layer."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import torch_warmstart as tws

W = torch.ones(4, 4)


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4, bias=False)
        self.blocks = nn.ModuleList([nn.ModuleDict({"to_q": nn.Linear(4, 4, bias=False)})])


STORED = {"fc.weight": W, "blocks.0.to_q.weight": W}


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("fc_lora_A", "fc.weight"),
        ("fc_lora_A.default.weight", "fc.weight"),
        ("lora_fc.A", "fc.weight"),
        ("lora.fc.A", "fc.weight"),
        ("adapters.fc.lora_A.mine.weight", "fc.weight"),
        ("base_model.model.fc.lora_A.default.weight", "fc.weight"),
        ("fc_loha.w1_a", "fc.weight"),
        ("lora_unet_blocks_0_to_q.lora_down.weight", "blocks.0.to_q.weight"),
        ("blocks.0.processor.to_q_lora.down.weight", "blocks.0.to_q.weight"),
        ("blocks.0.to_q_lora.alpha", "blocks.0.to_q.weight"),
    ],
)
@pytest.mark.parametrize("is_file", [False, True])
def test_an_adapter_called_after_a_layer_is_a_problem(key, variable, is_file, tmp_path):
    source = {**STORED, key: W[:1].clone()}
    if is_file:
        save_file({k: v.clone() for k, v in source.items()}, tmp_path / "m.safetensors")
        source = str(tmp_path / "m.safetensors")
    model = Deep()
    with pytest.raises(tws.PlanError) as error:
        tws.warm_start(model, source)
    (problem,) = error.value.problems
    assert (problem.code, problem.subject) == ("weight-adapted", variable)
    assert repr(key) in problem.text
    assert not model.fc.weight.eq(1).all()


def test_the_layout_of_the_layer_is_the_users_word():
    source = {**STORED, "fc_lora_A": W[:1]}
    settings = tws.WarmStartSettings(source, var_name_to_layout={"fc.weight": "identity"})
    assert tws.plan_warm_start(Deep(), settings)


@pytest.mark.parametrize("key", ["blocks.7.fc.lora_A", "lora_head.weight", "fc_2.lora_A"])
def test_adapters_of_no_layer_that_is_there_are_a_warning(key):
    source = {**STORED, key: W[:1]}
    with pytest.warns(tws.WarmStartWarning, match="adapter-left-behind"):
        tws.warm_start(Deep(), source)


@pytest.mark.parametrize(
    "more",
    [
        {"other.weight": W, "other_lora_A": W[:1]},  # of a layer that nothing is taken from
        {"fc_2.weight": W, "fc_2_lora_A": W[:1]},
        {"fc_explorer.weight": W, "flora.weight": W, "fc.loral": W},  # no word of adapters
    ],
)
def test_other_tensors_are_no_adapters_of_a_layer(more):
    plan = tws.plan_warm_start(nn.ModuleDict({"fc": nn.Linear(4, 4, bias=False)}), STORED | more)
    assert not [note for note in plan.notes if "adapt" in note.code]


def test_a_model_that_has_the_adapter_takes_it():
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4, bias=False)
            self.fc_lora_A = nn.Parameter(torch.zeros(1, 4))

    model = Adapted()
    tws.warm_start(model, {"fc.weight": W, "fc_lora_A": W[:1]})
    assert model.fc_lora_A.eq(1).all()
