"""Situations of the field that came out wrong, or were refused, by names."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _linear(*names):
    return nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in names})


def _numbered(state):
    return {key: torch.full_like(value, at + 1.0) for at, (key, value) in enumerate(state.items())}


@pytest.mark.parametrize("prefix", ["model.", "base_model.model.", "bert.", "net.0."])
def test_one_prefix_for_all_is_one_problem_with_the_rule_that_works(prefix):
    model = _linear(*(f"layer{n}" for n in range(10)))
    source = {f"{prefix}{k}": v for k, v in _numbered(model.state_dict()).items()}
    with pytest.raises(tws.PlanError) as error:
        tws.warm_start(model, source)
    (problem,) = error.value.problems
    assert problem.code == "rule-missing"
    rules = eval(str(problem).split("var_name_to_prev_var_name=")[1].split("}")[0] + "}")
    tws.warm_start(model, tws.WarmStartSettings(source, ".*", None, rules))
    assert model["layer9"].weight.eq(10).all()
    with pytest.warns(tws.WarmStartWarning) as heard:
        tws.warm_start(model, tws.WarmStartSettings(source, on_missing="keep"))
    assert {"rule-missing", "everything-kept"} <= {
        str(each.message).rpartition("[")[2].rstrip("]") for each in heard
    }


def test_of_averages_that_were_saved_alone_the_rule_is_said(tmp_path):
    arrays = {f"l{n}/kernel/ExponentialMovingAverage": np.full((3, 2), n, "f4") for n in range(4)}
    np.savez(tmp_path / "m.npz", **arrays)
    model = nn.ModuleDict({f"l{n}": nn.Linear(3, 2, bias=False) for n in range(4)})
    with pytest.raises(tws.PlanError) as error:
        tws.warm_start(model, tmp_path / "m.npz")
    (problem,) = error.value.problems
    said = str(problem).split("var_name_to_prev_var_name=")[1].split("]")[0] + "]"
    rules = eval(said)
    assert rules == [("(.+)", r"\1/ExponentialMovingAverage")]
    settings = tws.WarmStartSettings(tmp_path / "m.npz", var_name_to_prev_var_name=rules)
    tws.warm_start(model, settings)
    assert model["l3"].weight.eq(3).all()


def test_of_two_prefixes_that_would_do_both_are_said():
    model = _linear(*(f"layer{n}" for n in range(4)))
    source = {f"{p}.{k}": v for p in ("model", "ema_model") for k, v in model.state_dict().items()}
    with pytest.raises(tws.PlanError) as error:
        tws.warm_start(model, source)
    (problem,) = error.value.problems
    assert problem.code == "rule-missing"
    assert "2 rules find 4 of the 4 each" in str(problem)
    assert "{'/': 'model.'} or {'/': 'ema_model.'}" in str(problem)


def test_of_two_models_that_are_called_otherwise_a_rule_for_each_is_said():
    towers = {name: _linear(*(f"layer{n}" for n in range(4))) for name in ("g", "d")}
    model = nn.ModuleDict(towers)
    state = towers["g"].state_dict()
    source = {f"{p}.{k}": v for p in ("gen", "disc") for k, v in state.items()}
    with pytest.raises(tws.PlanError) as error:
        tws.warm_start(model, source)
    (problem,) = error.value.problems
    assert problem.code == "rule-missing"
    assert "Rules for 2 scopes find 8 of the 8 together." in str(problem)
    for name in towers:
        for other in ("gen", "disc"):
            assert f"{{'{name}.': '{other}.'}}" in str(problem)
    rules = {"g.": "gen.", "d.": "disc."}
    tws.warm_start(model, tws.WarmStartSettings(source, var_name_to_prev_var_name=rules))


def test_a_pattern_where_a_name_is_wanted_says_how_a_pattern_is_written():
    rule, source = {r"layer\d\..*": "old"}, {"old": torch.ones(1)}
    with pytest.raises(tws.PlanError, match="patterns are pairs in a list"):
        tws.warm_start(_linear("layer0"), tws.WarmStartSettings(source, ".*", None, rule))


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module"])
def test_a_wrapper_in_the_middle_of_a_key_is_no_part_of_it(wrapper):
    model = nn.ModuleDict({"a": _linear("b", "c")})
    state = _numbered(model.state_dict())
    source = {key.replace("a.", f"a.{wrapper}."): value for key, value in state.items()}
    tws.warm_start(model, source)
    assert model["a"]["c"].weight.eq(2).all()


def test_a_rule_of_a_suggestion_never_throws_a_number_away(tmp_path):
    source = {"layers/gru/kernel": np.ones((3, 3), "f4")}
    suggestions = tws.suggest_names(_linear("gru1"), source)
    path = tmp_path / "rules.toml"
    tws.save_rules(path, suggestions)
    if "gru" not in path.read_text():
        return
    model = _linear("gru1", "gru2")
    with pytest.raises(tws.WarmStartError):
        tws.warm_start(model, tws.WarmStartSettings(source, ".*", None, tws.load_rules(path)))
    assert not torch.equal(model["gru1"].weight, model["gru2"].weight)


def test_names_that_torchs_own_load_hooks_change():
    old, new = nn.Linear(3, 3), nn.Linear(3, 3)
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(old)
    new = nn.utils.parametrizations.weight_norm(new)
    tws.warm_start(new, old.state_dict())
    x = torch.randn(2, 3)
    assert torch.allclose(new(x), old(x))


class Renaming(nn.Module):
    """A model whose state_dict calls its tensors otherwise than it does."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3, bias=False)
        self.register_state_dict_post_hook(self._rename)
        self.register_load_state_dict_pre_hook(self._rename_back)

    @staticmethod
    def _rename(module, state, prefix, _):
        state[f"{prefix}outer.weight"] = state.pop(f"{prefix}inner.weight")

    @staticmethod
    def _rename_back(module, state, prefix, *_):
        state[f"{prefix}inner.weight"] = state.pop(f"{prefix}outer.weight")


def test_a_model_that_renames_its_keys_starts_from_its_twin():
    model, twin = Renaming(), Renaming()
    tws.warm_start(model, twin.state_dict())
    assert torch.equal(model.inner.weight, twin.inner.weight)


def _pops(module, state, prefix, *_):
    state[f"{prefix}fc.weight"] = state.pop(f"{prefix}old")


def _replaces(module, state, prefix, *_):
    module.fc.weight = nn.Parameter(torch.zeros(3, 3))
    _pops(module, state, prefix)


def _raises(module, state, prefix, *_):
    raise ValueError


@pytest.mark.parametrize(("hook", "is_found"), [(_pops, True), (_replaces, True), (_raises, False)])
def test_a_plan_finds_what_a_hook_renames_and_changes_nothing(hook, is_found):
    model = _linear("fc")
    model.register_load_state_dict_pre_hook(hook)
    weight, values = model["fc"].weight, model["fc"].weight.clone()
    source = {"old": torch.ones(3, 3)}
    if is_found:
        plan = tws.plan_warm_start(model, source)
        assert str(plan.items[0].reason) == "renamed by a load hook of the model"
    else:
        with pytest.raises(tws.PlanError):
            tws.plan_warm_start(model, source)
    assert model["fc"].weight is weight
    assert torch.equal(weight, values)
    if hook is _pops:
        tws.warm_start(model, source)
        assert model["fc"].weight is weight
        assert weight.eq(1).all()


def test_a_subclass_of_tensors_is_a_source():
    class Named(torch.Tensor):
        pass

    source = {"a.weight": torch.ones(3, 3).as_subclass(Named)}
    model = _linear("a")
    tws.warm_start(model, source)
    assert model["a"].weight.eq(1).all()
    assert type(model["a"].weight) is nn.Parameter


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_param_groups_may_be_others(groups):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    named = list(model.named_parameters())
    decay = [p for n, p in named if "bias" not in n]
    others = [p for n, p in named if "bias" in n]
    old = torch.optim.AdamW([{"params": decay}, {"params": others, "weight_decay": 0}])
    model(torch.randn(2, 3)).sum().backward()
    old.step()
    new = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    params = list(new.parameters())
    split = {1: [params], 2: [params[:2], params[2:]], 3: [params[:1], params[1:3], params[3:]]}
    optimizer = torch.optim.AdamW([{"params": each} for each in split[groups]])
    source = {"model": model.state_dict(), "optimizer": old.state_dict()}
    tws.warm_start(new, source, optimizer=optimizer)
    for mine, theirs in zip(params, (p for _, p in named), strict=True):
        assert torch.equal(optimizer.state[mine]["exp_avg"], old.state[theirs]["exp_avg"])


def test_one_loose_tensor_hides_no_state():
    model = _linear("a", "b")
    source = {"actor": _numbered(model.state_dict()), "log_alpha": torch.zeros(())}
    tws.warm_start(model, source)
    assert model["b"].weight.eq(2).all()


def test_keras_weights_in_several_files_are_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "model.weights.json"
    weight_map = {f"/layers/{name}/vars": [f"m_{name}.weights.h5"] for name in ("dense", "dense_1")}
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    for value, (folder, (name,)) in enumerate(weight_map.items()):
        with h5py.File(tmp_path / name, "w") as file:
            variables = file.create_group(folder)
            variables.attrs["name"] = "ab"[value]
            variables["0"] = np.full((3, 3), value, "float32")
    model = _linear("a", "b")
    tws.warm_start(model, str(path))
    assert (model["a"].weight.eq(0).all(), model["b"].weight.eq(1).all()) == (True, True)


def test_ids_beyond_64_bits_and_a_default_device_of_meta_are_errors_of_ours():
    info = tws.VocabInfo([2**64], -1, 0, [1])
    with pytest.raises(tws.WarmStartError, match="64"):
        tws.warm_start(
            nn.Embedding(1, 2),
            tws.WarmStartSettings({"weight": torch.ones(1, 2)}, ".*", {"weight": info}),
        )
    with torch.device("meta"):
        model = nn.Linear(2, 2, bias=False).to_empty(device="cpu")
        tws.warm_start(model, {"weight": torch.ones(2, 2, device="cpu")})
    assert model.weight.eq(1).all()


def test_arrays_of_numpy_in_memory_are_a_state():
    model = _linear("a")
    tws.warm_start(model, {"a.weight": np.ones((3, 3), "f4")})
    assert model["a"].weight.eq(1).all()


@pytest.mark.parametrize("adam", [torch.optim.Adam, torch.optim.AdamW])
def test_amsgrad_may_be_new(adam):
    old = nn.Linear(2, 2)
    trained = adam(old.parameters())
    old(torch.ones(1, 2)).sum().backward()
    trained.step()
    new = nn.Linear(2, 2)
    optimizer = adam(new.parameters(), amsgrad=True)
    source = {"model": old.state_dict(), "optimizer": trained.state_dict()}
    tws.warm_start(new, source, optimizer=optimizer)
    state = optimizer.state[new.weight]
    assert torch.equal(state["exp_avg"], trained.state[old.weight]["exp_avg"])
    assert "max_exp_avg_sq" in state


class _Counting(nn.Module):
    """Its hook renames, and leaves traces in the module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.seen = 0
        self._register_load_state_dict_pre_hook(self._rename)

    def _rename(self, state, prefix, *_):
        self.seen += 1
        self.more = "made by the hook"
        self.weight = nn.Parameter(torch.full((3,), 9.0))
        if f"{prefix}old" in state:
            state[f"{prefix}weight"] = state.pop(f"{prefix}old")


def test_a_plan_leaves_nothing_of_what_a_hook_does_to_its_module() -> None:
    model = _Counting()
    before = model.weight
    plan = tws.plan_warm_start(model, tws.WarmStartSettings({"old": torch.ones(3)}))
    assert [item.keys for item in plan.items] == [("old",)]
    assert model.seen == 0
    assert model.weight is before
    assert not hasattr(model, "more")


def test_a_hook_that_takes_itself_off_while_planning_is_there_when_it_loads() -> None:
    model = nn.Linear(3, 3, bias=False)

    def once(module, state, prefix, *_):
        state[f"{prefix}weight"] = state.pop(f"{prefix}old")
        handle.remove()

    handle = model.register_load_state_dict_pre_hook(once)
    old = torch.rand(3, 3)
    plan = tws.plan_warm_start(model, tws.WarmStartSettings({"old": old}))
    assert len(model._load_state_dict_pre_hooks) == 1
    tws.apply_plan(plan)
    assert torch.equal(model.weight.detach(), old)
    assert not model._load_state_dict_pre_hooks
