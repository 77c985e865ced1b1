"""What hooks and modules of their own make of a warm start is what is written and reported."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, VocabInfo, WarmStartSettings


class Net(nn.Module):
    def __init__(self, rows=3):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.words = nn.Embedding(rows, 2)
        self.last = nn.Linear(2, 2)


def _old():
    torch.manual_seed(3)
    return Net(4).state_dict()


_INFO = {"words.weight": VocabInfo(["c", "x", "a"], -1, 0, list("abcd"))}
_ROWS = [2, -1, 0]


def _settings(state, **more):
    return WarmStartSettings(state, [".*"], _INFO, **more)


def _bytes(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def _remapped(weight):
    rows = [weight[row] if row >= 0 else torch.zeros(2) for row in _ROWS]
    return torch.stack(rows)


# -- what raises -----------------------------------------------------------------------------------


class _Raising(nn.Linear):
    when = "before"

    def _load_from_state_dict(self, state, prefix, *rest):
        if self.when == "before":
            raise ValueError("not this one")
        with torch.no_grad():
            self.weight.zero_()
        if self.when == "during":
            raise ValueError("not this one")
        super()._load_from_state_dict(state, prefix, *rest)
        if self.when == "after":
            raise ValueError("not this one")


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("child", ["first", "last"])
def test_a_module_that_raises_leaves_all_as_it_was(when, child):
    model = Net()
    setattr(model, child, _Raising(2, 2))
    getattr(model, child).when = when
    before = _bytes(model)
    with pytest.raises(
        tws.WarmStartError, match=f"{child}.*_Raising.*ValueError: not this one"
    ) as e:
        tws.warm_start(model, _settings(_old()))
    assert isinstance(e.value.__cause__, ValueError)
    assert _same(before, _bytes(model))


@pytest.mark.parametrize("kind", ["pre", "post"])
@pytest.mark.parametrize("where", ["", "first", "words", "last"])
def test_a_hook_that_raises_leaves_all_as_it_was(kind, where):
    def raising(*_):
        with torch.no_grad():
            model.last.bias.fill_(7)
        raise KeyError("key")

    model = Net()
    module = model.get_submodule(where)
    getattr(module, f"register_load_state_dict_{kind}_hook")(raising)
    before = _bytes(model)
    with pytest.raises(tws.WarmStartError, match="hook") as error:
        tws.warm_start(model, _settings(_old()))
    assert isinstance(error.value.__cause__, KeyError)
    assert _same(before, _bytes(model))


def test_what_a_hook_puts_in_place_of_a_parameter_is_taken_out_again():
    def replacing(module, *_):
        module.weight = nn.Parameter(torch.zeros(5, 5))
        module.bias.data = torch.zeros(9)
        raise RuntimeError("no")

    model = Net()
    parameters = list(map(id, model.parameters()))
    before = _bytes(model)
    model.last.register_load_state_dict_pre_hook(replacing)
    with pytest.raises(tws.WarmStartError, match="no"):
        tws.warm_start(model, _settings(_old()))
    assert list(map(id, model.parameters())) == parameters
    assert _same(before, _bytes(model))


# -- what hooks change -----------------------------------------------------------------------------


def test_an_entry_that_a_hook_drops_is_kept_and_said_to_be():
    model, old = Net(), _old()
    before = _bytes(model)
    model.register_load_state_dict_pre_hook(lambda _, state, *__: state.pop("first.weight"))
    model.words.register_load_state_dict_pre_hook(lambda _, state, p, *__: state.pop(f"{p}weight"))
    report = tws.warm_start(model, _settings(old))
    after = _bytes(model)
    for name in ("first.weight", "words.weight"):
        assert torch.equal(before[name], after[name])
        assert report[name].state == "kept"
        assert "dropped it" in report[name].reason
    assert report["first.bias"].state == "copied"
    assert torch.equal(after["first.bias"], old["first.bias"])
    assert report.unexpected_keys == ("first.weight", "words.weight")
    assert {note.code for note in report.notes} >= {"not-taken-by-the-model"}


def test_a_module_that_ignores_what_it_gets_is_kept():
    class Deaf(nn.Linear):
        def _load_from_state_dict(self, *_):
            pass

    model = Net()
    model.last = Deaf(2, 2)
    before = _bytes(model)
    report = tws.warm_start(model, _settings(_old()))
    assert torch.equal(before["last.weight"], model.last.weight)
    assert [report[f"last.{leaf}"].state for leaf in ("weight", "bias")] == ["kept", "kept"]
    assert report["first.weight"].state == "copied"


def test_entries_that_a_hook_swaps_are_swapped():
    def swap(_, state, *__):
        state["first.weight"], state["last.weight"] = state["last.weight"], state["first.weight"]

    model, old = Net(), _old()
    model.register_load_state_dict_pre_hook(swap)
    report = tws.warm_start(model, _settings(old))
    assert torch.equal(model.first.weight, old["last.weight"])
    assert torch.equal(model.last.weight, old["first.weight"])
    assert report["first.weight"].state == "renamed"
    assert report["first.weight"].keys == ("last.weight",)


@pytest.mark.parametrize("in_place", [False, True])
def test_remapped_rows_are_changed_as_load_state_dict_would(in_place):
    def double(_, state, prefix, *__):
        if in_place:
            state[f"{prefix}weight"].mul_(2)
        else:
            state[f"{prefix}weight"] = state[f"{prefix}weight"] * 2

    model, old = Net(), _old()
    kept = copy.deepcopy(old)
    model.words.register_load_state_dict_pre_hook(double)
    model.last.register_load_state_dict_pre_hook(double)
    report = tws.warm_start(model, _settings(old))
    assert torch.equal(model.words.weight, 2 * _remapped(old["words.weight"]))
    assert torch.equal(model.last.weight, 2 * old["last.weight"])
    assert report["words.weight"].state == "remapped"
    assert report["last.weight"].state == "converted"
    assert "changed by the model's own loading" in report["last.weight"].reason
    assert _same(old, kept)


def test_rows_that_stay_are_seen_by_hooks():
    model, old = Net(), _old()
    before = model.words.weight.detach().clone()
    seen = []
    model.words.register_load_state_dict_pre_hook(
        lambda _, state, prefix, *__: seen.append(state[f"{prefix}weight"].clone())
    )
    info = {"words.weight": VocabInfo(["c", "x", "a"], -1, 0, list("abcd"), -1, "keep")}
    tws.warm_start(model, WarmStartSettings(old, ".*", info))
    expected = torch.stack([old["words.weight"][2], before[1], old["words.weight"][0]])
    assert torch.equal(seen[0], expected)
    assert torch.equal(model.words.weight, expected)


def test_hooks_run_once_and_in_torchs_order():
    calls = []

    def add_hooks(model):
        for name, module in model.named_modules():
            module.register_load_state_dict_pre_hook(lambda *_, n=name: calls.append(("pre", n)))
            module.register_load_state_dict_post_hook(lambda *_, n=name: calls.append(("post", n)))

    model = Net()
    add_hooks(model)
    tws.warm_start(model, _settings(_old()))
    ours = list(calls)
    calls.clear()
    twin = Net(4)
    add_hooks(twin)
    twin.load_state_dict(_old())
    assert ours == calls


def test_a_hook_that_only_looks_at_names_and_shapes_makes_nothing():
    from torch_warmstart.execution.loading.stand_ins import StandIn

    made = []

    def look(_, state, prefix, *__):
        for value in state.values():
            assert isinstance(value, torch.Tensor)
            assert value.shape
            assert value.dtype == torch.float32
            made.append(isinstance(value, StandIn) and value.is_made)

    model = Net()
    model.register_load_state_dict_pre_hook(look)
    tws.warm_start(model, _settings(_old()))
    assert made
    assert not any(made)


def test_a_post_hook_sees_its_module_loaded_and_nothing_missing():
    told = []

    def strict(module, keys):
        told.append((list(keys.missing_keys), list(keys.unexpected_keys)))
        assert not keys.missing_keys
        assert torch.equal(module.words.weight, _remapped(old["words.weight"]))

    model, old = Net(), _old()
    model.register_load_state_dict_post_hook(strict)
    report = tws.warm_start(model, WarmStartSettings(old, ["words.weight", "last.*"], _INFO))
    assert told == [([], [])]
    assert report["words.weight"].state == "remapped"
    assert report["first.weight"].reason == "not selected"


def test_a_post_hook_is_told_what_was_selected_and_is_not_there():
    told = []
    model, old = Net(), _old()
    del old["last.bias"]
    model.register_load_state_dict_post_hook(lambda _, keys: told.extend(keys.missing_keys))
    tws.warm_start(model, _settings(old, on_missing="keep"))
    assert told == ["last.bias"]


def test_what_a_post_hook_changes_is_not_called_copied():
    def clamp(module, _):
        with torch.no_grad():
            module.weight.clamp_(min=0)

    model, old = Net(), _old()
    model.last.register_load_state_dict_post_hook(clamp)
    report = tws.warm_start(model, _settings(old))
    assert torch.equal(model.last.weight, old["last.weight"].clamp(min=0))
    assert report["last.weight"].state == "converted"
    assert report["last.bias"].state == "copied"


def test_a_module_that_makes_new_parameters_of_what_it_loads():
    class Own(nn.Linear):
        def _load_from_state_dict(self, state, prefix, *rest):
            self.weight = nn.Parameter(state.pop(f"{prefix}weight"))
            super()._load_from_state_dict(state, prefix, *rest)

    model, old = Net(), _old()
    model.last = Own(2, 2)
    tws.warm_start(model, _settings(old))
    assert torch.equal(model.last.weight, old["last.weight"])
    assert type(model.last.weight) is nn.Parameter


def test_a_model_with_a_load_state_dict_of_its_own():
    class Renaming(Net):
        def load_state_dict(self, state, strict=True, assign=False):
            state = {k: v * 2 if k.startswith("last") else v for k, v in state.items()}
            return super().load_state_dict(state, strict, assign)

    model, old = Renaming(), _old()
    report = tws.warm_start(model, _settings(old))
    assert torch.equal(model.words.weight, _remapped(old["words.weight"]))
    assert torch.equal(model.last.weight, 2 * old["last.weight"])
    assert torch.equal(model.first.weight, old["first.weight"])
    assert (report["last.weight"].state, report["first.weight"].state) == ("converted", "copied")


def test_hooks_of_tied_modules_find_every_name():
    class Doubling(nn.Linear):
        def _load_from_state_dict(self, state, prefix, *rest):
            state[f"{prefix}weight"] = state[f"{prefix}weight"] * 2
            super()._load_from_state_dict(state, prefix, *rest)

    model = nn.Sequential(nn.Embedding(3, 2), Doubling(2, 3, bias=False))
    model[1].weight = model[0].weight
    source = {"0.weight": torch.ones(3, 2)}
    tws.warm_start(model, source)
    assert model[0].weight.tolist() == [[2, 2]] * 3


def test_norms_and_checkpoint_wrappers_keep_working():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    def make():
        return nn.Sequential(checkpoint_wrapper(nn.Linear(2, 2)), nn.BatchNorm1d(2))

    old, model = make(), make()
    old[1].running_mean.fill_(3)
    report = tws.warm_start(model, WarmStartSettings(old.state_dict(), [".*"]))
    assert _same(_bytes(old), _bytes(model))
    assert report.count("kept") == 0


def test_a_vocabulary_follows_hooks_with_clip_or_pad():
    model = nn.Embedding(2, 2)
    model.register_load_state_dict_pre_hook(lambda _, state, *__: state["weight"].add_(1))
    tws.warm_start(
        model, WarmStartSettings({"weight": torch.zeros(3, 2)}, ".*", {"weight": ClipOrPad()})
    )
    assert model.weight.tolist() == [[1, 1], [1, 1]]


def test_a_hook_that_gives_what_does_not_fit_is_an_error():
    model = Net()
    before = _bytes(model)

    def wrong(_, state, *__):
        state["last.weight"] = torch.ones(7)

    model.register_load_state_dict_pre_hook(wrong)
    with pytest.raises(tws.WarmStartError, match=r"last.weight: \[7\] into \[2, 2\]"):
        tws.warm_start(model, _settings(_old()))
    assert _same(before, _bytes(model))
