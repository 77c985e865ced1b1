"""Square weights in files that do not say whose they are: what nobody states is heard."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

W = torch.randn(4, 4)
RULE = {"fc.weight": "fc/w", "fc.bias": "fc/b"}


def model(**more):
    return nn.ModuleDict({"fc": nn.Linear(4, 4), **more})


def presumed(source, target=None, **settings):
    plan = tws.plan_warm_start(target or model(), tws.WarmStartSettings(source, **settings))
    return [str(note) for note in plan.notes if note.code == "layout-presumed"], plan


@pytest.mark.parametrize("name", ["w", "weights"])  # torch's own is `weight`, slim's `weights`
def test_a_square_tensor_that_torch_did_not_name_is_presumed_to_be_as_torch_has_it(name):
    rule = {**RULE, "fc.weight": f"fc/{name}"}
    source = {f"fc/{name}": W, "fc/b": torch.zeros(4)}
    (said,), plan = presumed(source, var_name_to_prev_var_name=rule)
    assert "{'fc.weight': 'identity'}" in said
    assert "{'fc.weight': 'transpose'}" in said
    assert plan.inferred == ("fc.weight",)
    for layout in ("identity", "transpose"):
        layouts = {"fc.weight": layout}
        found, _ = presumed(source, var_name_to_prev_var_name=rule, var_name_to_layout=layouts)
        assert found == []


def test_what_torch_named_is_torchs():
    rule = {"fc.": "old."}
    source = {"old.weight": W, "old.bias": torch.zeros(4)}
    assert presumed(source, var_name_to_prev_var_name=rule)[0] == []


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(4, *more)) for more in ([4], []))


@pytest.mark.parametrize("name", ["kernel", "w"])
def test_a_square_kernel_for_a_module_of_unknown_class_is_not_certain(name):
    """torch.export leaves no classes, and a user's own has its outputs first or last."""
    source = {f"fc/{name}": W, "fc/bias": torch.zeros(4), "other/gamma": torch.ones(2)}
    rule = {"fc.weight": f"fc/{name}"}
    exported = torch.export.export(model()["fc"], (torch.ones(1, 4),)).module()
    for one in (Own(), exported):
        target = nn.ModuleDict({"fc": one})
        (said,), plan = presumed(source, target, var_name_to_prev_var_name=rule)
        assert "{'fc.weight': 'transpose'}" in said
        assert plan.inferred == ("fc.weight",)
        layouts = {"fc.weight": "identity"}
        settings = {"var_name_to_prev_var_name": rule, "var_name_to_layout": layouts}
        assert presumed(source, target, **settings)[0] == []
    source["old/kernel"] = source.pop(f"fc/{name}")
    found = tws.suggest_names(nn.ModuleDict({"fc": Own()}), source)
    assert {item.variable: item.confidence for item in found.items}["fc.weight"] != "high"


@pytest.mark.parametrize(("columns", "is_sure"), [(4, False), (3, True)])
def test_a_kernel_is_proposed_for_a_users_module_whose_bias_is_found(columns, is_sure):
    own = nn.Module()
    own.weight, own.bias = nn.Parameter(torch.zeros(4, columns)), nn.Parameter(torch.zeros(4))
    kernel, bias = torch.ones(4, columns), torch.ones(4)
    source = {"fc/kernel": kernel, "fc/bias": bias, "other/gamma": torch.ones(2)}
    (found,) = tws.suggest_names(nn.ModuleDict({"fc": own}), source).items
    assert (found.variable, found.names) == ("fc.weight", ("fc/kernel",))
    assert (found.confidence != "low") == is_sure


def test_what_own_modules_and_files_call_alike_or_what_is_not_square_is_as_it_is():
    one = nn.Module()
    one.kernel, one.table = nn.Parameter(torch.zeros(4, 4)), nn.Parameter(torch.zeros(4, 2))
    one.words = nn.Parameter(torch.zeros(4, 4))
    source = {"old/kernel": W, "t/kernel": torch.zeros(4, 2), "words/embeddings": W}
    rule = {
        "fc.kernel": "old/kernel",
        "fc.table": "t/kernel",
        "fc.words": "words/embeddings",
    }
    target = nn.ModuleDict({"fc": one})
    assert presumed(source, target, var_name_to_prev_var_name=rule)[0] == []


def test_a_suggestion_of_one_is_not_sure():
    found = tws.suggest_names(model(), {"fc/w": W, "fc/b": torch.zeros(4)})
    assert {item.variable: item.confidence for item in found.items} == {
        "fc.weight": "low",
        "fc.bias": "high",
    }
    assert "outputs first or last" in str(found)


@pytest.mark.parametrize("says", [None, "identity", "transpose"])
def test_beside_weights_that_are_transposed_a_square_one_is_not_certain(says):
    """As in GPT-2, whose layers are [in, out] in files of torch."""
    target = model(up=nn.Linear(4, 16), out=nn.Linear(4, 4))
    source = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    source["up.weight"] = torch.randn(4, 16)
    layouts = {"up.weight": "transpose"} | ({"fc.weight": says} if says else {})
    said, _ = presumed(source, target, var_name_to_layout=layouts)
    (one,) = said
    name = "out.weight" if says else "fc.weight (and 1 other variable)"
    assert one.startswith(name)
    assert "weight' is transposed" in one
    assert presumed(target.state_dict(), target)[0] == []


@pytest.mark.parametrize("patterns", [{"on_mismatch": "keep"}, {"vars_to_warm_start": "(fc|out)"}])
def test_a_weight_that_stays_behind_as_it_is_turned_round_makes_square_ones_uncertain(patterns):
    target = model(up=nn.Linear(4, 16), out=nn.Linear(4, 4))
    source = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    source["up.weight"] = torch.randn(4, 16)
    (said,), _ = presumed(source, target, **patterns)
    assert said.startswith("fc.weight (and 1 other variable) are square")
    assert "'up.weight' is [4, 16] there, and [16, 4] here." in said
    layouts = {"fc.weight": "identity", "out.weight": "transpose"}
    assert presumed(source, target, var_name_to_layout=layouts, **patterns)[0] == []
    assert presumed({**source, "up.weight": torch.randn(16, 5)}, target, **patterns)[0] == []


def test_convolutions_beside_one_with_its_channels_last_are_uncertain_where_both_orders_fit():
    """As MLX writes them into `.npz`, which says no more."""
    target = nn.ModuleDict(
        {
            "same": nn.Conv2d(3, 8, 3),
            "point": nn.Conv2d(3, 8, 1),
            "depth": nn.Conv2d(8, 8, (1, 1), groups=8),
            "other": nn.Conv2d(8, 4, 3),
        }
    )
    source = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    source["other.weight"] = torch.randn(4, 3, 3, 8)
    (said,), _ = presumed(source, target, on_mismatch="keep")
    assert said.startswith("same.weight has axes of one size, taken in torch's order.")
    assert "{'same.weight': 'conv_channels_last'}" in said
    layouts = {"same.weight": "conv_channels_last", "other.weight": "conv_channels_last"}
    assert presumed(source, target, var_name_to_layout=layouts)[0] == []
    (said,), _ = presumed(
        source, target, var_name_to_layout={"other.weight": layouts["same.weight"]}
    )
    assert "'other.weight' is taken by 'conv_channels_last'." in said


def test_a_sibling_that_stays_behind_shows_the_order_by_its_bias():
    """As GPT-2's `c_attn` of a file of which only the `c_proj` is wanted."""
    target = nn.ModuleDict({"h": model(), "g": model()})
    source = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    left = {"h.attn.weight": torch.randn(4, 12), "h.attn.bias": torch.randn(12)}
    (said,), _ = presumed({**source, **left}, target)
    assert said.startswith("h.fc.weight is square")
    assert "'h.attn.weight' beside it is [4, 12], with a bias of 12." in said
    layouts = {"h.fc.weight": "identity"}
    assert presumed({**source, **left}, target, var_name_to_layout=layouts)[0] == []
    as_torch = {**left, "h.attn.weight": torch.randn(12, 4)}
    assert presumed({**source, **as_torch}, target)[0] == []


@pytest.mark.parametrize(
    "named", ["", "scope", "self/bias_by_distance", "relpos_bias/rel_embedding"]
)
def test_a_square_table_of_biases_may_have_its_entries_in_columns(named):
    """T5's are [heads, distances], and square where a model has 32 heads."""
    target = nn.ModuleDict({"relative_attention_bias": nn.Embedding(4, 4)})
    name = "relative_attention_bias.weight"
    source = {"relative_attention_bias": W, "other/kernel": torch.zeros(2, 3)}
    rule = {}
    if named == "scope":
        source = {"self/relative_attention_bias": W, "other/kernel": torch.zeros(2, 3)}
        rule = {"var_name_to_prev_var_name": {"/": "self/"}}
    elif named:
        source = {named: W, "other/kernel": torch.zeros(2, 3)}
        rule = {"var_name_to_prev_var_name": {name: named}}
    (said,), plan = presumed(source, target, **rule)
    assert f"{{{name!r}: 'identity'}}" in said
    assert f"{{{name!r}: 'transpose'}}" in said
    assert plan.inferred == (name,)
    layouts = {"var_name_to_layout": {name: "transpose"}}
    said, plan = presumed(source, target, **rule, **layouts)
    assert not said
    tws.apply_plan(plan)
    assert torch.equal(target["relative_attention_bias"].weight, W.T)


@pytest.mark.parametrize("name", ["position_embeddings", "words/lookup_table", "words/weights"])
def test_a_square_table_that_is_called_a_table_is_as_it_is(name):
    target = nn.ModuleDict({"t": nn.Embedding(4, 4)})
    source = {name: W, "other/kernel": torch.zeros(2, 3)}
    assert presumed(source, target, var_name_to_prev_var_name={"t.weight": name})[0] == []


@pytest.mark.parametrize(("heads", "is_sure"), [(4, False), (3, True)])
def test_a_table_with_its_entries_in_columns_is_proposed(heads, is_sure):
    target = nn.ModuleDict({"relative_attention_bias": nn.Embedding(4, heads)})
    bias = torch.randn(heads, 4)
    source = {"att/relative_attention_bias": bias, "other/kernel": torch.zeros(2, 5)}
    (item,) = tws.suggest_names(target, source).items
    assert item.names == ("att/relative_attention_bias",)
    assert (item.confidence == "high") == is_sure
    if not is_sure:
        assert "its entries first or last" in item.reason
        return
    rules = tws.suggest_names(target, source).as_rules()
    tws.warm_start(target, tws.WarmStartSettings(source, var_name_to_prev_var_name=rules))
    assert torch.equal(target["relative_attention_bias"].weight, bias.T)
