"""Suggestions that hold: each rule is tried, and says no more than names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from cpu_time import cpu_seconds_below
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, WarmStartSettings


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(shapes, path="c"):
    """A TF checkpoint of float tensors of these shapes, each element another number."""
    start, entries = 0, []
    for key, shape in sorted(shapes.items()):
        values = np.arange(start, start + int(np.prod(shape)), dtype="<f4")
        start += len(values)
        entries.append(BundleEntry(key, DType.FLOAT, tuple(shape), values.tobytes()))
    write_bundle(path, entries)
    return path


def modules(**children):
    """A module of these children."""
    module = nn.Module()
    for name, child in children.items():
        setattr(module, name, child)
    return module


def dense(path, inputs=2, outputs=2):
    return {f"{path}/kernel": (inputs, outputs), f"{path}/bias": (outputs,)}


def proposed(suggestions):
    return {item.variable: "+".join(item.names) for item in suggestions.items}


def confidences(suggestions):
    return {item.confidence for item in suggestions.items}


def planned(model, checkpoint, rules, **settings):
    made = WarmStartSettings(checkpoint, var_name_to_prev_var_name=rules, **settings)
    plan = tws.plan_warm_start(model, made)
    return {item.name: "+".join(item.keys) for item in plan.items if item.state != "kept"}


def gru(path):
    shapes = {"kernel": (3, 15), "recurrent_kernel": (5, 15), "bias": (2, 15)}
    return {f"{path}/gru_cell/{name}": shape for name, shape in shapes.items()}


# -- rules -----------------------------------------------------------------------------------------


def test_no_pattern_comes_from_one_example():
    suggestions = tws.suggest_names(modules(gru1=nn.GRU(3, 5)), write(gru("old/gru")))
    assert [str(rule) for rule in suggestions.rules] == ["{'gru1.': 'old/gru/'}"]
    tws.save_rules("rules.toml", suggestions)
    two = modules(gru1=nn.GRU(3, 5), gru2=nn.GRU(3, 5))
    with pytest.raises(PlanError, match=r"gru2\.weight_ih_l0 is not in the checkpoint"):
        planned(two, "c", tws.load_rules("rules.toml"))


def test_a_number_that_is_in_one_side_only_stays_as_it_is():
    model = modules(net2=modules(blocks=nn.ModuleList(modules(fc=nn.Linear(2, 2)) for _ in "ab")))
    checkpoint = write({**dense("old/block_0/fc"), **dense("old/block_1/fc")})
    suggestions = tws.suggest_names(model, checkpoint)
    (rule,) = suggestions.rules
    assert rule.source == r"net2\.blocks\.(\d+)\.(.+)"
    assert rule.target == r"old/block_\1/\2"
    assert planned(model, checkpoint, suggestions.as_rules("low")) == proposed(suggestions)


def test_names_with_dots_of_their_own_are_suggested_and_found():
    layer = {"att": nn.Linear(2, 2), "out": nn.Linear(2, 2)}
    model = modules(layer=nn.ModuleList(modules(**layer) for _ in range(3)))
    names = [f"tf_bert/layer_._{k}/{name}" for k in range(3) for name in ("att", "out")]
    checkpoint = write({key: shape for name in names for key, shape in dense(name).items()})
    suggestions = tws.suggest_names(model, checkpoint)
    assert confidences(suggestions) == {"high"}
    assert len(suggestions.rules) == 1
    assert planned(model, checkpoint, suggestions.as_rules()) == proposed(suggestions)


# -- names and sizes -------------------------------------------------------------------------------


def test_names_that_differ_in_punctuation_are_near():
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    shapes = {f"conv{k}-BN/{leaf}": (4,) for k in (1, 2, 3) for leaf in leaves}
    model = modules(**{f"conv{k}_BN": nn.BatchNorm1d(4) for k in (3, 2, 1)})
    suggestions = tws.suggest_names(model, WarmStartSettings(write(shapes), [".*"]))
    assert confidences(suggestions) == {"high"}
    assert proposed(suggestions)["conv2_BN.running_mean"] == "conv2-BN/moving_mean"


def test_the_size_along_a_vocabulary_is_no_evidence():
    tables = {f"C{k}": nn.Embedding(10 + k, 4) for k in range(1, 27)}
    shapes = {f"input/C{k}_embedding/embedding_weights": (10 + k * 7 % 26, 4) for k in range(1, 27)}
    suggestions = tws.suggest_names(modules(emb=nn.ModuleDict(tables)), write(shapes))
    for k in range(1, 27):
        found = proposed(suggestions)[f"emb.C{k}.weight"]
        assert found == f"input/C{k}_embedding/embedding_weights"
    assert confidences(suggestions) == {"high"}
    assert len(suggestions.rules) == 1
    resized = [item for item in suggestions.items if "VocabInfo" in item.reason]
    assert len(resized) == sum(k != k * 7 % 26 for k in range(1, 27))


def test_another_size_and_another_name_are_nothing():
    suggestions = tws.suggest_names(modules(a=nn.Embedding(5, 4)), write({"z/embeddings": (6, 4)}))
    assert confidences(suggestions) == {"none"}


def test_the_axis_of_a_vocab_info_is_free():
    info = tws.VocabInfo(["x", "y"], -1, 0, ["x", "y", "z"])
    model = modules(head=nn.Linear(3, 2, bias=False))
    settings = WarmStartSettings(write({"old/head_1/kernel": (3, 3)}), ".*", {"head.weight": info})
    assert proposed(tws.suggest_names(model, settings)) == {"head.weight": "old/head_1/kernel"}


def test_numbers_that_agree_are_usable_and_not_sure():
    model = modules(**{f"fc{k}": nn.Linear(2, 2) for k in (1, 2, 3)})
    checkpoint = write({k: s for n in (1, 2, 3) for k, s in dense(f"dense_{n}").items()})
    suggestions = tws.suggest_names(model, checkpoint)
    assert confidences(suggestions) == {"medium"}
    tws.save_rules("rules.toml", suggestions)
    assert "\n# '" not in Path("rules.toml").read_text()
    rules = tws.load_rules("rules.toml")
    assert planned(model, checkpoint, rules)["fc2.weight"] == "dense_2/kernel"
    more = write({k: s for n in range(4) for k, s in dense(f"dense_{n}").items()}, "more")
    assert confidences(tws.suggest_names(model, more)) == {"low"}


def test_a_tensor_with_a_leaf_that_its_module_never_has_is_proposed_by_name():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Parameter(torch.zeros(6, 2, 3))
            self.k = nn.Parameter(torch.zeros(6, 2, 3))

    model = modules(rel_attn=Attention(), target_space=nn.Embedding(7, 5))
    shapes = {f"x/rel_attn/{name}/kernel": (6, 2, 3) for name in "qk"}
    checkpoint = write({**shapes, "target_space_embedding/kernel": (7, 5)})
    suggestions = tws.suggest_names(model, checkpoint)
    assert proposed(suggestions) == {
        "rel_attn.q": "x/rel_attn/q/kernel",
        "rel_attn.k": "x/rel_attn/k/kernel",
        "target_space.weight": "target_space_embedding/kernel",
    }
    assert planned(model, checkpoint, suggestions.as_rules("medium")) == proposed(suggestions)


# -- how they are used -----------------------------------------------------------------------------


def test_suggestions_are_settings_and_their_plan_says_so():
    model = modules(net=modules(fc=nn.Linear(2, 2), out=nn.Linear(2, 3)))
    checkpoint = write({**dense("old/fc"), **dense("old/out", 2, 3)})
    suggestions = tws.suggest_names(model, checkpoint)
    settings = WarmStartSettings(checkpoint, var_name_to_prev_var_name=suggestions)
    plan = tws.plan_warm_start(model, settings)
    assert plan.inferred == ("net.fc.weight", "net.fc.bias", "net.out.weight", "net.out.bias")
    assert "inferred: suggested" in str(plan)
    tws.save_rules("rules.toml", suggestions)
    rules = tws.load_rules("rules.toml")  # somebody may have looked at it
    own = WarmStartSettings(checkpoint, var_name_to_prev_var_name=rules)
    assert tws.plan_warm_start(model, own).inferred == ()


def test_layouts_come_with_the_rules():
    model = modules(head=nn.Linear(2, 3, bias=False))
    checkpoint = write({"old/head/output_weights": (3, 2)})
    suggestions = tws.suggest_names(model, checkpoint)
    assert suggestions.layouts("low") == {"head.weight": "identity"}
    tws.save_rules("rules.toml", suggestions, min_confidence="low")
    rules = tws.load_rules("rules.toml")
    tws.warm_start(model, WarmStartSettings(checkpoint, var_name_to_prev_var_name=rules))
    assert torch.equal(model.head.weight, tws.load_variable(checkpoint, "old/head/output_weights"))
    own = WarmStartSettings(
        checkpoint,
        var_name_to_prev_var_name=rules,
        var_name_to_layout={"head.weight": "transpose"},
    )
    assert own.var_name_to_layout == {"head.weight": "transpose"}


# -- work ------------------------------------------------------------------------------------------


def test_thousands_of_missing_names_are_told_at_once():
    names = ("query", "key", "value", "dense", "out")
    model = nn.ModuleDict(
        {f"block_{k}": nn.ModuleDict({n: nn.Linear(1, 1) for n in names}) for k in range(1_000)}
    )
    shapes = {}
    for k in range(1_000):
        for name in names:
            shapes |= dense(f"old_{k}/{name}x" if k < 200 else f"block_{k}/{name}", 1, 1)
    checkpoint = write(shapes)
    with cpu_seconds_below(8):
        suggestions = tws.suggest_names(model, checkpoint)
    assert len(suggestions.items) == 2_000
    with cpu_seconds_below(8), pytest.raises(PlanError) as caught:
        tws.plan_warm_start(model, checkpoint)
    assert len(caught.value.problems) == 2_000


def test_numbers_that_nobody_counts_to_are_words():
    long = "9" * 5_000
    model = modules(**{f"fc{k}_{long}": nn.Linear(2, 2) for k in (1, 2)})
    checkpoint = write({k: s for n in (1, 2) for k, s in dense(f"old/dense_{n}_{long}").items()})
    suggestions = tws.suggest_names(model, checkpoint)
    assert len(suggestions.items) == 4
    assert long in str(suggestions)
