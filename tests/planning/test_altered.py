"""Weights that a torch checkpoint keeps quantised or adapted are never taken as whole ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

W = torch.ones(4, 4)
BYTES = W.to(torch.uint8)
FLOAT8 = W.to(torch.float8_e4m3fn)
QUANTISED = {
    "deepseek": {"fc.weight": FLOAT8, "fc.weight_scale_inv": W[:1, :1]},
    "float8": {"fc.weight": FLOAT8, "fc.weight_scale": torch.ones(1)},
    "float8, scale": {"fc.weight": FLOAT8, "fc.scale": torch.ones(1)},
    "int8": {"fc.weight": W.to(torch.int8), "fc.SCB": torch.ones(4)},
    "int8, scale": {"fc.weight": W.to(torch.int8), "fc.scale": torch.ones(4)},
    "nf4": {
        "fc.weight": BYTES.reshape(-1, 1)[:8],
        "fc.weight.absmax": torch.ones(1),
        "fc.weight.quant_map": torch.ones(16),
        "fc.weight.quant_state.bitsandbytes__nf4": torch.ones(9, dtype=torch.uint8),
    },
    "gptq": {
        "fc.qweight": torch.ones(1, 4, dtype=torch.int32),
        "fc.qzeros": torch.ones(1, 1, dtype=torch.int32),
        "fc.scales": torch.ones(1, 4),
        "fc.g_idx": torch.zeros(4, dtype=torch.int32),
    },
    "awq": {
        "fc.qweight": torch.ones(4, 1, dtype=torch.int32),
        "fc.qzeros": torch.ones(1, 1, dtype=torch.int32),
        "fc.scales": torch.ones(1, 4),
    },
    "quanto": {"fc.weight._data": W.to(torch.int8), "fc.weight._scale": torch.ones(4, 1)},
    "packed": {"fc.weight_packed": BYTES, "fc.weight_scale": torch.ones(4, 1)},
    "hqq": {"fc.W_q": BYTES, "fc.scale": W, "fc.zero": W},
}
ADAPTED = {
    "loralib": {"fc.weight": W, "fc.lora_A": W[:1], "fc.lora_B": W[:, :1]},
    "peft": {
        "fc.base_layer.weight": W,
        "fc.lora_A.default.weight": W[:1],
        "fc.lora_B.default.weight": W[:, :1],
    },
    "dora": {
        "fc.base_layer.weight": W,
        "fc.lora_A.default.weight": W[:1],
        "fc.lora_magnitude_vector.default.weight": torch.ones(4),
    },
    "ia3": {"fc.base_layer.weight": W, "fc.ia3_l.default": torch.ones(4, 1)},
}


class Own(nn.Module):
    """A layer that is none of torch's."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))


def _model(kind=None):
    return nn.ModuleDict({"fc": kind() if kind else nn.Linear(4, 4, bias=False)})


def _codes(source, model, **settings):
    with pytest.raises(tws.PlanError) as error:
        tws.warm_start(model, tws.WarmStartSettings(source, **settings))
    assert not model["fc"].weight.eq(1).all()
    return [problem.code for problem in error.value.problems], str(error.value)


@pytest.mark.parametrize("kind", [None, Own])
@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_weight_is_refused_and_said_to_be(name, kind):
    codes, text = _codes(QUANTISED[name], _model(kind))
    assert codes == ["weight-quantised"]
    assert "quantised" in text
    assert "dequantize" in text


@pytest.mark.parametrize("kind", [None, Own])
@pytest.mark.parametrize("name", ADAPTED)
@pytest.mark.parametrize("named", [False, True])
def test_a_weight_with_an_adapter_is_refused(name, kind, named):
    source = ADAPTED[name]
    key = next(iter(source))
    names = {"var_name_to_prev_var_name": {"fc.weight": key}} if named else {}
    codes, text = _codes(source, _model(kind), **names)
    assert codes == ["weight-adapted"]
    assert "lora_" in text or "ia3" in text


def test_the_original_beside_a_trained_one_is_never_taken():
    source = {"fc.original_module.weight": W, "fc.modules_to_save.default.weight": W * 2}
    assert _codes(source, _model())[0] == ["weight-replaced"]
    names = {"fc.weight": "fc.original_module.weight"}
    assert _codes(source, _model(), var_name_to_prev_var_name=names)[0] == ["weight-replaced"]
    names = {"fc.weight": "fc.modules_to_save.default.weight"}
    model = _model()
    tws.warm_start(model, tws.WarmStartSettings(source, ".*", None, names))
    assert torch.equal(model["fc"].weight, W * 2)


def test_what_stays_as_it_is_is_a_warning():
    model = _model()
    report = tws.warm_start(model, tws.WarmStartSettings(QUANTISED["gptq"], on_missing="keep"))
    assert ("weight-quantised", "warning") in [(n.code, n.severity) for n in report.notes]


def test_a_taken_one_is_refused_even_where_misfits_are_kept():
    codes, _ = _codes(QUANTISED["deepseek"], _model(), on_mismatch="keep")
    assert codes == ["weight-quantised"]


def test_many_layers_are_one_problem():
    source = {
        f"l{n}.{k}": v
        for n in range(5)
        for k, v in {"weight": FLOAT8, "weight_scale_inv": W[:1, :1]}.items()
    }
    model = nn.ModuleDict({f"l{n}": nn.Linear(4, 4, bias=False) for n in range(5)})
    with pytest.raises(tws.PlanError, match="and 4 other variables") as error:
        tws.warm_start(model, source)
    assert len(error.value.problems) == 1


def test_a_model_that_keeps_it_in_the_same_form_takes_it():
    model = nn.ModuleDict({"fc": nn.Linear(4, 4, bias=False)})
    model["fc"].lora_A = nn.Parameter(torch.zeros(1, 4))
    model["fc"].lora_B = nn.Parameter(torch.zeros(4, 1))
    tws.warm_start(model, ADAPTED["loralib"])
    assert torch.equal(model["fc"].weight, W)
    assert torch.equal(model["fc"].lora_A, W[:1])


def test_float8_by_itself_and_scales_of_a_norm_are_taken():
    model = _model()
    tws.warm_start(model, {"fc.weight": FLOAT8})
    assert torch.equal(model["fc"].weight, W)
    own = _model(Own)
    tws.warm_start(own, {"fc.weight": W, "fc.scale": torch.ones(4)})
    assert torch.equal(own["fc"].weight, W)


def test_a_layout_is_the_users_word():
    model = _model()
    layouts = {"fc.weight": "identity"}
    settings = tws.WarmStartSettings(QUANTISED["deepseek"], var_name_to_layout=layouts)
    tws.warm_start(model, settings)
    assert torch.equal(model["fc"].weight, W)
