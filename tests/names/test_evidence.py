"""Names are evidence: what counts as a variable's name, and what is only near to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, WarmStartSettings


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a TF checkpoint `c` of float tensors of these shapes, each element another number."""
    monkeypatch.chdir(tmp_path)

    def write(shapes):
        start, entries = 0, []
        for key, shape in sorted(shapes.items()):
            values = np.arange(start, start + int(np.prod(shape)), dtype="<f4")
            start += len(values)
            entries.append(BundleEntry(key, DType.FLOAT, tuple(shape), values.tobytes()))
        write_bundle("c", entries)
        return "c"

    return write


def linear(path, rows=2, columns=2):
    return {f"{path}/kernel": (rows, columns), f"{path}/bias": (columns,)}


def plan(model, checkpoint, rules=None, selection=".*", **settings):
    made = WarmStartSettings(checkpoint, selection, None, rules, **settings)
    return tws.plan_warm_start(model, made)


def keys(planned):
    return {item.name: "+".join(item.keys) for item in planned.items if item.state != "kept"}


def error(model, checkpoint, rules=None, **settings):
    with pytest.raises(PlanError) as caught:
        plan(model, checkpoint, rules, **settings)
    return caught.value


def two(**more):
    return nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), **more})


# -- scopes ----------------------------------------------------------------------------------------


def test_a_scope_that_only_some_are_in_is_not_skipped(write):
    checkpoint = write({**linear("a"), **linear("target_network/b")})
    problems = error(two(), checkpoint).problems
    assert [p.subject for p in problems] == ["b.weight", "b.bias"]
    kept = plan(two(), checkpoint, on_missing="keep")
    assert keys(kept) == {"a.weight": "a/kernel", "a.bias": "a/bias"}


def test_two_scopes_are_not_skipped(write):
    checkpoint = write({**linear("online/a"), **linear("target/b")})
    assert len(error(two(), checkpoint).problems) == 4


def test_one_scope_for_all_is_skipped_and_said(write):
    planned = plan(two(), write({**linear("net/a"), **linear("net/b"), "global_step": ()}))
    assert planned.inferred == ("a.weight", "a.bias", "b.weight", "b.bias")
    assert "inferred: TensorFlow's name, in a scope" in str(planned)
    (note,) = [note for note in planned.notes if note.code == "scope-skipped"]
    assert "{'/': 'net/'}" in note.text
    certain = plan(two(), "c", {"/": "net/"})
    assert certain.inferred == ()
    assert not [note for note in certain.notes if note.code == "scope-skipped"]
    assert keys(certain) == keys(planned)


def test_what_has_a_rule_says_nothing_of_the_scope_of_others(write):
    checkpoint = write({**linear("old"), **linear("net/b")})
    assert keys(plan(two(), checkpoint, {"a.": "old/"}))["b.weight"] == "net/b/kernel"


def test_counts_of_steps_say_nothing_of_the_scope_of_others(write):
    model = two()
    model.register_buffer("global_step", torch.tensor(3))
    checkpoint = write({**linear("net/a"), **linear("net/b"), "global_step": (1,)})
    assert len(plan(model, checkpoint).inferred) == 4


# -- one tensor for two ----------------------------------------------------------------------------


def test_one_tensor_is_not_found_for_two_untied_variables(write):
    model = two(new=nn.Linear(2, 2))
    checkpoint = write({**linear("net/b"), **linear("net/new")})
    rules = {"a.": "net/b/"}  # a is b's tensor by a rule, and b finds it in a scope
    text = str(error(model, checkpoint, rules))
    assert "b.weight is not in the checkpoint under a name of its own" in text
    assert "'net/b/kernel'" in text
    kept = plan(model, checkpoint, rules, on_missing="keep")
    assert set(keys(kept)) == {"a.weight", "a.bias", "new.weight", "new.bias"}
    both = plan(model, checkpoint, {**rules, "b.": "net/b/"})
    assert keys(both)["b.bias"] == "net/b/bias"


def test_a_tied_state_fills_an_untied_model():
    old = two()
    old["b"].weight = old["a"].weight
    planned = plan(two(), old)
    assert keys(planned)["b.weight"] == "b.weight"
    assert planned.inferred == ()


# -- wrappers --------------------------------------------------------------------------------------

WRAPPERS = (
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
    "_dmp_wrapped_module.",
    "_fsdp_wrapped_module._checkpoint_wrapped_module._orig_mod.",
)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_wrappers_put_into_a_key_is_seen_through(wrapper):
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    state = {key.replace("0.1.", f"0.{wrapper}1."): v for key, v in model.state_dict().items()}
    state["0." + wrapper + "0.weight"] = state.pop("0.0.weight")
    target = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    tws.warm_start(target, state)
    for own, theirs in zip(target.parameters(), model.parameters(), strict=True):
        assert torch.equal(own, theirs)
    assert plan(target, state).inferred == ()


def test_wrappers_of_the_model_are_seen_through():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self._dmp_wrapped_module = two()

    assert set(keys(plan(Wrapped(), two()))) == {"a.weight", "a.bias", "b.weight", "b.bias"}


def test_module_is_a_wrapper_only_in_front_of_all_names():
    state = {f"module.{key}": value for key, value in two().state_dict().items()}
    assert keys(plan(two(), state))["a.bias"] == "module.a.bias"
    averaged = {**state, "n_averaged": torch.tensor(3)}
    assert keys(plan(two(), averaged))["a.bias"] == "module.a.bias"
    inside = {key.replace("a.", "a.module."): v for key, v in two().state_dict().items()}
    assert "a.weight is not in the checkpoint" in str(error(two(), inside))


def test_module_is_a_wrapper_where_the_model_has_data_parallel():
    model = nn.ModuleDict({"a": nn.DataParallel(nn.Linear(2, 2)), "b": nn.Linear(2, 2)})
    assert keys(plan(model, model.state_dict()))["a.weight"] == "a.module.weight"
    assert keys(plan(model, two()))["a.weight"] == "a.weight"


def test_a_module_of_the_users_called_module_is_one():
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    assert keys(plan(model, model.state_dict()))["module.weight"] == "module.weight"


# -- dots and slashes ------------------------------------------------------------------------------


def test_a_name_with_a_slash_is_found_in_its_own_state():
    model = nn.ModuleDict({"a/b": nn.Linear(2, 2), "a": nn.ModuleDict({"b": nn.Linear(2, 2)})})
    planned = plan(model, model.state_dict())
    assert planned.inferred == ()
    assert {item.name for item in planned.items} == set(model.state_dict())
    assert all(item.keys == (item.name,) for item in planned.items)


def test_names_with_dots_of_their_own_are_found(write):
    checkpoint = write({**linear("enc/layer_._0/dense"), **linear("enc/layer_._1/dense")})
    layers = nn.ModuleList(nn.ModuleDict({"dense": nn.Linear(2, 2)}) for _ in range(2))
    model = nn.ModuleDict({"layer": layers})
    rules = [(r"layer\.(\d+)\.(.+)", r"enc/layer_._\1/\2")]
    assert keys(plan(model, checkpoint, rules))["layer.1.dense.bias"] == "enc/layer_._1/dense/bias"
    scopes = {"layer.0.": "enc/layer_._0/", "layer.1.": "enc/layer_._1/"}
    assert keys(plan(model, checkpoint, scopes)) == keys(plan(model, checkpoint, rules))


# -- what rules may say ----------------------------------------------------------------------------


def test_a_scope_may_end_at_any_folder_of_a_layer(write):
    cell = {"kernel": (5, 12), "bias": (12,)}
    inner = "dec/multi_rnn_cell/cell_0/basic_lstm_cell"
    other = "dec/rnn/multi_rnn_cell/cell_0/basic_lstm_cell"
    checkpoint = write({f"{p}/{n}": shape for p in (inner, other) for n, shape in cell.items()})
    model = nn.ModuleDict({"decoder": nn.LSTM(2, 3)})
    ends = inner.split("/")
    for count in range(2, len(ends) + 1):
        scope = "/".join(ends[:count]) + "/"
        found = keys(plan(model, checkpoint, {"decoder.": scope}))
        assert set(found.values()) == {f"{inner}/kernel+{inner}/bias"}, scope


@pytest.mark.parametrize("rule", [None, {"a.": "net/a/", "b.": "net/b/"}], ids=["scope", "rule"])
def test_the_averages_of_what_has_another_name_are_named_where_they_are(write, rule):
    shapes = {**linear("net/a"), **linear("net/b")}
    averages = {f"{key}/ExponentialMovingAverage": shape for key, shape in shapes.items()}
    checkpoint = write({**shapes, **averages})
    planned = plan(two(), checkpoint, rule)
    (note,) = [note for note in planned.notes if note.code == "averages-left-behind"]
    assert "{'a.weight': 'net/a/kernel/ExponentialMovingAverage', ...}" in note.text
    assert "ends in /ExponentialMovingAverage" in note.text
    taken = plan(two(), checkpoint, [(r"(.+)", r"net/\1/ExponentialMovingAverage")])
    assert set(keys(taken).values()) == set(averages)


def test_a_rule_adds_a_suffix_to_whatever_the_name_is(write):
    shapes = {**linear("a"), **linear("b")}
    averages = {f"{key}/ExponentialMovingAverage": shape for key, shape in shapes.items()}
    checkpoint = write({**shapes, **averages})
    planned = plan(two(), checkpoint)
    (note,) = [note for note in planned.notes if note.code == "averages-left-behind"]
    assert "'a/kernel/ExponentialMovingAverage'" in note.text
    taken = plan(two(), checkpoint, [(r"(.+)", r"\1/ExponentialMovingAverage")])
    assert keys(taken) == {
        "a.weight": "a/kernel/ExponentialMovingAverage",
        "a.bias": "a/bias/ExponentialMovingAverage",
        "b.weight": "b/kernel/ExponentialMovingAverage",
        "b.bias": "b/bias/ExponentialMovingAverage",
    }
    assert not [note for note in taken.notes if note.code == "averages-left-behind"]
    model = two()
    tws.warm_start(
        model,
        WarmStartSettings(checkpoint, ".*", None, [("(.+)", r"\1/ExponentialMovingAverage")]),
    )
    expected = tws.load_variable(checkpoint, "b/kernel/ExponentialMovingAverage").T
    assert torch.equal(model["b"].weight, expected)
