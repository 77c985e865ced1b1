"""How variables are found: the same names on both sides, and rules where they differ."""

from __future__ import annotations

import re

import pytest
import torch
from cpu_time import cpu_seconds_below
from names_helpers import error, keys_of, linear
from torch import nn

import torch_warmstart as tws
from torch_warmstart import NameRules, SettingsError, WarmStartSettings
from torch_warmstart.names.index import NameIndex


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(2, 3)


def block(path):
    return {**linear(f"{path}/fc"), f"{path}/norm/gamma": (2,), f"{path}/norm/beta": (2,)}


def net(*paths, head="head"):
    shapes = linear(head, 2, 3) if head else {}
    for path in paths:
        shapes |= block(path)
    return shapes


EXPECTED = {
    "blocks.0.fc.weight": "b0/fc/kernel",
    "blocks.0.fc.bias": "b0/fc/bias",
    "blocks.0.norm.weight": "b0/norm/gamma",
    "blocks.0.norm.bias": "b0/norm/beta",
    "blocks.1.fc.weight": "b1/fc/kernel",
    "blocks.1.fc.bias": "b1/fc/bias",
    "blocks.1.norm.weight": "b1/norm/gamma",
    "blocks.1.norm.bias": "b1/norm/beta",
    "head.weight": "head/kernel",
    "head.bias": "head/bias",
}


# -- one more scope --------------------------------------------------------------------------------


def test_a_variable_is_found_in_one_more_scope(write):
    checkpoint = write(net("net/blocks/0", "net/blocks/1", head="net/head"))
    assert keys_of(Net(), checkpoint)["blocks.1.norm.weight"] == "net/blocks/1/norm/gamma"
    plan = tws.plan_warm_start(Net(), checkpoint)
    assert plan.items[0].reason == "TensorFlow's name, in a scope"


def test_a_name_without_a_scope_comes_first(write):
    checkpoint = write({**linear("fc"), **linear("other/fc")})
    assert keys_of(nn.ModuleDict({"fc": nn.Linear(2, 2)}), checkpoint) == {
        "fc.weight": "fc/kernel",
        "fc.bias": "fc/bias",
    }


def test_two_scopes_are_no_answer(write):
    checkpoint = write({**linear("generator/fc"), **linear("critic/fc")})
    text = error(nn.ModuleDict({"fc": nn.Linear(2, 2)}), checkpoint)
    assert "1. fc.weight is not in the checkpoint. Nearest: " in text
    assert "'critic/fc/kernel'" in text


def test_two_scopes_in_front_are_one_too_many(write):
    checkpoint = write(linear("a/b/fc"))
    assert "is not in the checkpoint" in error(nn.ModuleDict({"fc": nn.Linear(2, 2)}), checkpoint)


def test_a_number_is_no_name_of_a_layer(write):
    """`layers/1/kernel` says nothing about the layer that torch's Sequential numbers 1."""
    checkpoint = write({**linear("layers/0"), **linear("layers/1")})
    assert "0.weight is not in the checkpoint" in error(nn.Sequential(nn.Linear(2, 2)), checkpoint)


def test_slots_of_optimizers_are_not_in_a_scope(write):
    checkpoint = write({"fc/kernel/Adam": (2, 2), "Adam/m/fc/kernel": (2, 2)})
    model = nn.ModuleDict({"fc": nn.Linear(2, 2, bias=False)})
    assert "fc.weight is not in the checkpoint" in error(model, checkpoint)


def test_a_torch_state_is_not_searched_in_scopes():
    old = nn.ModuleDict({"teacher": nn.ModuleDict({"fc": nn.Linear(2, 2)})})
    model = nn.ModuleDict({"fc": nn.Linear(2, 2)})
    assert "fc.weight is not in the checkpoint" in error(model, old)


# -- the index -------------------------------------------------------------------------------------


def test_the_index_knows_patterns_scopes_and_numbers():
    index = NameIndex(
        ["a/cell/kernel", "a/cell_3/kernel", "a/cells/x/kernel", "s/a/cell_1/kernel:0", "b"]
    )
    assert list(index.matching("a", "cell*/kernel")) == ["a/cell/kernel", "a/cell_3/kernel"]
    assert list(index.matching("a", "cell/kernel")) == ["a/cell/kernel"]
    assert list(index.in_a_scope("a", "cell*/kernel")) == ["s/a/cell_1/kernel:0"]
    assert list(index.matching("a", "cell#1:2/kernel")) == ["a/cell_3/kernel"]
    assert list(index.matching("a", "cell#0:3/kernel")) == []
    assert list(index.matching("", "b*")) == ["b"]


def test_many_names_cost_no_search_through_all():
    index = NameIndex(f"layer_{k}/part_{k % 7}/kernel" for k in range(100_000))
    with cpu_seconds_below(5):
        for k in range(2_000):
            expected = [f"layer_{k}/part_{k % 7}/kernel"]
            assert list(index.matching(f"layer_{k}", "*/kernel")) == expected
            assert not list(index.in_a_scope(f"layer_{k}", "kernel"))
        assert index.near("layer_99999/part_4/kernle")[0] == "layer_99999/part_4/kernel"


# -- rules: names and scopes -----------------------------------------------------------------------


def test_a_scope_is_renamed_with_its_leaves(write):
    checkpoint = write(net("b0", "b1"))
    rules = {"blocks.0.": "b0/", "blocks/1/": "b1/"}
    assert keys_of(Net(), checkpoint, rules) == EXPECTED


def test_values_follow_a_scope(write):
    checkpoint = write(linear("old/x", 2, 3))
    model = nn.ModuleDict({"fc": nn.Linear(2, 3)})
    tws.warm_start(model, WarmStartSettings(checkpoint, ".*", None, {"fc.": "old/x/"}))
    assert model["fc"].weight.tolist() == [[3, 6], [4, 7], [5, 8]] or torch.equal(
        model["fc"].weight, tws.load_variable(checkpoint, "old/x/kernel").T
    )


@pytest.mark.parametrize("root", ["/", ".", ""])
def test_the_root_is_a_scope_on_either_side(write, root):
    checkpoint = write(net("deep/er/blocks/0", "deep/er/blocks/1", head="deep/er/head"))
    keys = keys_of(Net(), checkpoint, {root: "deep/er/"})
    assert keys["blocks.1.fc.weight"] == "deep/er/blocks/1/fc/kernel"
    wrapped = nn.ModuleDict({"net": nn.ModuleDict({"fc": nn.Linear(2, 2)})})
    assert keys_of(wrapped, write(linear("fc")), {"net.": root})["net.fc.bias"] == "fc/bias"


def test_an_inner_scope_counts_more_than_an_outer_one_and_a_name_more_than_both(write):
    checkpoint = write({**net("b0", "b1"), **linear("special"), "gain": (2,)})
    rules = {
        "blocks.": "nowhere/",
        "blocks.0.": "b0/",
        "blocks.0.fc.": "special/",
        "blocks.0.norm.weight": "gain",
        "blocks.1.": "b1/",
    }
    text = error(Net(), checkpoint, rules)
    assert (
        "var_name_to_prev_var_name: {'blocks.': 'nowhere/'} is not used: for each of its variables"
        " (such as 'blocks.0.fc.weight') another rule counts more." in text
    )
    del rules["blocks."]
    keys = keys_of(Net(), checkpoint, rules)
    assert keys["blocks.0.fc.weight"] == "special/kernel"
    assert keys["blocks.0.norm.weight"] == "gain"
    assert keys["blocks.0.norm.bias"] == "b0/norm/beta"


def test_a_scope_ends_where_its_name_ends(write):
    model = nn.ModuleDict({"enc": nn.Linear(2, 2), "enc_1": nn.Linear(2, 2)})
    checkpoint = write({**linear("old"), **linear("enc_1")})
    assert keys_of(model, checkpoint, {"enc.": "old/"}) == {
        "enc.weight": "old/kernel",
        "enc.bias": "old/bias",
        "enc_1.weight": "enc_1/kernel",
        "enc_1.bias": "enc_1/bias",
    }


def test_a_scope_of_a_torch_state():
    old = nn.ModuleDict({"model": nn.ModuleDict({"bert": Net()})})
    keys = keys_of(Net(), old, {"/": "model.bert."})
    assert keys["blocks.0.fc.weight"] == "model.bert.blocks.0.fc.weight"
    assert keys == keys_of(Net(), old, {"/": "model/bert/"})


def test_one_tensor_of_several(write):
    """A list names the tensors that TensorFlow keeps apart."""
    cell = nn.ModuleDict({"cell": nn.LSTMCell(2, 3)})
    checkpoint = write({"k": (2, 12), "r": (3, 12), "b": (12,)})
    rules = {name: ["k", "r", "b"] for name, _ in cell.named_parameters()}
    keys = keys_of(cell, checkpoint, rules)
    assert set(keys.values()) == {"k+r+b"}
    scope = {"cell.": "old/rnn/"}
    checkpoint = write({f"old/rnn/{k}": s for k, s in [("kernel", (2, 12)), ("bias", (12,))]})
    assert "old/rnn" in error(cell, checkpoint, scope)
    named = {"kernel": (2, 12), "recurrent_kernel": (3, 12), "bias": (12,)}
    checkpoint = write({f"old/rnn/{name}": shape for name, shape in named.items()})
    assert set(keys_of(cell, checkpoint, scope)) == {n for n, _ in cell.named_parameters()}


def test_a_name_may_have_torchs_leaf(write):
    checkpoint = write(net("b0", "b1", head="old"))
    rules = {"blocks.0.": "b0/", "blocks.1.": "b1/", "head.weight": "old/weight"}
    text = error(Net(), checkpoint, rules)  # one name says nothing of another
    assert "1. head.bias is not in the checkpoint" in text
    keys = keys_of(Net(), checkpoint, {**rules, "head.bias": "old.bias:0"})
    assert keys["head.weight"] == "old/kernel"


def test_slots_are_renamed_by_their_own_names(write):
    model = nn.ModuleDict({"w": nn.Linear(2, 2, bias=False)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    checkpoint = write({"old/kernel": (2, 2), "moment": (2, 2)})
    rules = {"w.": "old/", "w.weight/momentum_buffer": "moment"}
    settings = WarmStartSettings(checkpoint, [".*"], None, rules)
    plan = tws.plan_warm_start(model, settings, optimizer=optimizer)
    assert [item.keys for item in plan.items] == [("old/kernel",), ("moment",)]


# -- rules: patterns and functions -----------------------------------------------------------------


def test_the_first_pattern_that_matches_counts(write):
    checkpoint = write(net("b0", "b1", head="classes"))
    rules = [
        (r"blocks\.(\d)\.(.+)", r"b\1/\2"),
        (r"head/(weight|bias)", r"classes/\1"),
    ]
    renamed = {"head.weight": "classes/kernel", "head.bias": "classes/bias"}
    assert keys_of(Net(), checkpoint, rules) == {**EXPECTED, **renamed}
    text = error(Net(), checkpoint, [*rules, ("head.bias", "other")])
    assert "('head.bias', 'other') is not used: for each of its variables" in text


def test_a_pattern_is_for_a_whole_name(write):
    text = error(Net(), write(net("b0", "b1")), [("blocks", "b")])
    assert (
        "1. var_name_to_prev_var_name: ('blocks', 'b'): the pattern matches none of the model's 10 "
        "variables (it is matched against the whole name). Nearest: 'blocks.0.fc.weight', "
        "'blocks.0.fc.bias', 'blocks.0.norm.weight'." in text
    )


def test_a_pattern_may_give_tensorflows_leaf(write):
    checkpoint = write(net("blocks/0", "blocks/1", head="old"))
    rules = [("head.weight", "old/kernel"), ("head.bias", "old/bias")]
    assert keys_of(Net(), checkpoint, rules)["head.weight"] == "old/kernel"


def test_a_function_renames_what_it_wants_to(write):
    checkpoint = write(net("b0", "b1"))

    def rename(name):
        return name.replace("blocks.", "b") if "blocks" in name else None

    assert keys_of(Net(), checkpoint, rename) == EXPECTED
    assert keys_of(Net(), checkpoint, lambda name: name.replace("blocks.", "b")) == EXPECTED
    lists = {"head.weight": ["head/kernel"]}
    shapes = net("blocks/0", "blocks/1")
    assert keys_of(Net(), write(shapes), lists.get)["head.weight"] == "head/kernel"


def test_what_is_wrong_with_a_function_is_said(write):
    checkpoint = write(net("blocks/0", "blocks/1"))
    assert "the function renames nothing; it left all names alone." in error(
        Net(), checkpoint, lambda name: None
    )
    assert "the function returns 3 for 'head.weight'; it should be a str, a list of" in error(
        Net(), checkpoint, lambda name: 3 if name == "head.weight" else None
    )
    text = error(Net(), checkpoint, lambda name: {}[name])
    assert "has 1 problem" in text
    assert "raises KeyError('blocks.0.fc.weight') for 'blocks.0.fc.weight'." in text


def test_rules_of_all_kinds_together(write):
    checkpoint = write({**net("b0", "b1", head="old"), "bias": (3,)})
    rules = NameRules({"head.": "old/", "head.bias": "bias"}, [(r"blocks.(\d).(.+)", r"b\1/\2")])
    keys = keys_of(Net(), checkpoint, rules)
    assert keys["head.weight"] == "old/kernel"
    assert keys["head.bias"] == "bias"
    assert keys["blocks.1.norm.bias"] == "b1/norm/beta"


# -- rules that are wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "selection", "problem"),
    [
        (
            {"block.0.": "b0/"},
            ".*",
            "{'block.0.': 'b0/'}: the model has no variables in 'block.0.'. Did you mean "
            "'blocks.0.' or 'blocks.1.' or",
        ),
        (
            {"blocks.0.": "b0/", "blocks/0/": "b1/"},
            ".*",
            "'blocks.0.' and 'blocks/0/' are the same scope.",
        ),
        (
            {"blocks.0.": "b0/"},
            "head",
            "{'blocks.0.': 'b0/'} is not used, because vars_to_warm_start selects none of its 4 "
            "variables (such as 'blocks.0.fc.weight').",
        ),
        (
            {"haed.weight": "old"},
            ".*",
            "the model has no variable 'haed.weight'. Did you mean 'head.weight' or",
        ),
        (
            {"blocks.": "b/"},
            ".*",
            "{'blocks.': 'b/'}: c has nothing of what it asks for, such as 'b/0/fc/weight' for "
            "'blocks.0.fc.weight'. Did you mean 'b0/fc/",
        ),
        (
            {"blocks.0.": "b0/", "blocks.1.": "b0/", "head.weight": "head/kernl"},
            ".*",
            "head.weight: var_name_to_prev_var_name asks for 'head/kernl', which c does not have. "
            "Did you mean 'head/kernel' or",
        ),
    ],
)
def test_rules_that_do_nothing_are_errors(write, rules, selection, problem):
    text = error(Net(), write(net("b0", "b1")), rules, vars_to_warm_start=selection)
    assert f"var_name_to_prev_var_name: {problem}" in text or f"  1. {problem}" in text


def test_a_rule_that_finds_nothing_is_one_problem(write):
    text = error(Net(), write(net("b0", "b1")), {"blocks.": "b/"})
    assert "has 1 problem; nothing was changed" in text


def test_within_a_scope_a_variable_may_be_missing_like_any_other(write):
    shapes = {**net("b0", "b1"), "b0/norm/gamma": (2,)}
    del shapes["b1/norm/gamma"]
    checkpoint = write(shapes)
    rules = {"blocks.0.": "b0/", "blocks.1.": "b1/"}
    assert (
        "1. blocks.1.norm.weight: var_name_to_prev_var_name: {'blocks.1.': 'b1/'} asks for "
        "'b1/norm/weight', which c does not have. Did you mean 'b1/norm/beta'"
    ) in error(Net(), checkpoint, rules)
    keys = keys_of(Net(), checkpoint, rules, on_missing="keep")
    assert set(EXPECTED) - set(keys) == {"blocks.1.norm.weight"}
    assert "has nothing of what it asks for" in error(
        Net(), checkpoint, {"blocks.": "b/"}, on_missing="keep"
    )


def test_buffers_in_a_scope_need_no_rule_of_their_own(write):
    model = nn.ModuleDict({"bn": nn.BatchNorm1d(2)})
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    checkpoint = write({f"old/{name}": (2,) for name in names})
    assert set(keys_of(model, checkpoint, {"bn.": "old/"})) == {"bn.weight", "bn.bias"}
    report = tws.plan_warm_start(
        model, WarmStartSettings(checkpoint, [".*"], None, {"bn.": "old/"})
    )
    assert report.missing == ("bn.num_batches_tracked",)
    assert "It is a buffer: only a list, such as ['.*'], selects buffers." in error(
        model, checkpoint, [("bn.running_.+", "old/moving_mean")]
    )


def test_none_selects_variables_with_vocabularies_but_takes_renames_of_any(write):
    checkpoint = write(net("blocks/0", "blocks/1", head="old"))
    vocab = tws.VocabInfo(["a", "b", "c"], 3, 0, ["c", "a", "b"])
    keys = keys_of(
        Net(),
        checkpoint,
        {"head.": "old/", "blocks.0.": "blocks/1/"},
        vars_to_warm_start=None,
        var_name_to_vocab_info={"head.bias": vocab},
    )
    assert keys == {"head.bias": "old/bias"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"a": ""}, "maps variable names .str. to str; found 'a': ''"),
        ({"a": 3}, "maps variable names .str. to str, or to a list of str; found 'a': 3"),
        ({re.compile("a"): "b"}, r"Patterns are a list of pairs, \[\(pattern, replacement\)\]"),
        ({"a": []}, "or to a list of str; found 'a': \\[\\]"),
        ({"a.": "b"}, "in {'a.': 'b'} the first is a scope and the second is not"),
        ({"a": "b/"}, "in {'a': 'b/'} the second is a scope and the first is not"),
        ({"a.": ["b", "c"]}, "the first is a scope and the second is not"),
        ([("a",)], "pairs of str, .pattern, replacement.; found \\('a',\\)"),
        (["ab"], "a sequence consists of pairs of str"),
        ([("(", "b")], "'\\(' is not a regular expression: missing \\)"),
        ([("a", r"\1")], r"'\\\\1' cannot take the place of what 'a' matches: invalid group"),
        ([("a", r"\g<x>")], "cannot take the place of what 'a' matches: unknown group name"),
        ("abc", "must be a mapping, a sequence of .pattern, replacement., a function"),
    ],
)
def test_malformed_rules_are_refused_when_settings_are_made(rules, message):
    with pytest.raises(SettingsError, match=message):
        WarmStartSettings("c", var_name_to_prev_var_name=rules)


def test_settings_keep_a_copy_of_the_rules():
    rules = [("a", "b")]
    settings = WarmStartSettings("c", var_name_to_prev_var_name=rules)
    rules.append(("c", "d"))
    assert settings.var_name_to_prev_var_name == (("a", "b"),)
