"""What torch optimizers keep by param groups: who is in them, counts of steps, options."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.norm = nn.Embedding(7, 4), nn.LayerNorm(4)
        self.hidden, self.out = nn.Linear(4, 6), nn.Linear(6, 2)


def _step(model, optimizer):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.rand(parameter.shape, generator=generator)
    optimizer.step()


def _decaying(model):
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def _by_depth(model):
    return [
        {"params": [p for n, p in model.named_parameters() if n.startswith(name)]}
        for name in ("out", "hidden", "norm", "embed")
    ]


def _single(model):
    return [{"params": list(model.parameters())}]


GROUPS = {"one": _single, "two": _decaying, "by depth": _by_depth}


def _assert_same(model, optimizer, old, old_optimizer):
    for new, before in zip(model.parameters(), old.parameters(), strict=True):
        for slot, value in old_optimizer.state[before].items():
            assert torch.equal(optimizer.state[new][slot], value)


@pytest.mark.parametrize("now", GROUPS)
@pytest.mark.parametrize("before", GROUPS)
@pytest.mark.parametrize("in_file", [False, True])
def test_groups_may_change_where_shapes_decide(tmp_path, before, now, in_file):
    old, model = Net(), Net(1)
    old_optimizer = torch.optim.AdamW(GROUPS[before](old))
    optimizer = torch.optim.AdamW(GROUPS[now](model))
    _step(old, old_optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    if in_file:
        torch.save(saved, tmp_path / "m.pt")
        saved = tmp_path / "m.pt"
    assert not tws.warm_start(model, saved, optimizer=optimizer).notes
    _assert_same(model, optimizer, old, old_optimizer)


def test_groups_may_change_where_names_decide():
    old, model = (nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))) for _ in range(2))
    named = list(old.named_parameters())
    old_optimizer = torch.optim.AdamW([{"params": named[3:]}, {"params": named[:3]}])
    if "param_names" not in old_optimizer.state_dict()["param_groups"][0]:
        pytest.skip("this torch saves no names")
    _step(old, old_optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    optimizer = torch.optim.AdamW(model.parameters())
    tws.warm_start(model, saved, optimizer=optimizer)
    _assert_same(model, optimizer, old, old_optimizer)


def _square():
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))


def _head_first(model):
    return [{"params": model[2].parameters()}, {"params": model[:2].parameters()}]


def _middle_first(model):
    return [{"params": [p for at in (1, 0, 2) for p in model[at].parameters()]}]


@pytest.mark.parametrize(
    ("before", "now"), [(_head_first, _single), (_middle_first, _middle_first)]
)
def test_groups_are_unclear_where_shapes_leave_several_orders(before, now):
    old, model = _square(), _square()
    old_optimizer = torch.optim.AdamW(before(old))
    _step(old, old_optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    optimizer = torch.optim.AdamW(now(model))
    with pytest.raises(tws.PlanError, match="their shapes fit in more than one order"):
        tws.warm_start(model, saved, optimizer=optimizer)


@pytest.mark.parametrize("now", [_single, _decaying, _head_first])
def test_one_group_has_the_models_order_whatever_groups_there_are_now(now):
    old, model = _square(), _square()
    old_optimizer = torch.optim.AdamW(old.parameters())
    _step(old, old_optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    optimizer = torch.optim.AdamW(now(model))
    tws.warm_start(model, saved, optimizer=optimizer)
    _assert_same(model, optimizer, old, old_optimizer)


def test_an_order_of_the_checkpoint_that_is_not_the_only_one_to_fit_is_said_to_be_taken():
    old, model = _square(), _square()
    old_optimizer = torch.optim.AdamW(old.parameters())
    _step(old, old_optimizer)
    state = {key: old.state_dict()[key] for at in "201" for key in (f"{at}.weight", f"{at}.bias")}
    saved = {"model": state, "optimizer": old_optimizer.state_dict()}
    plan = tws.plan_warm_start(model, saved, optimizer=torch.optim.AdamW(model.parameters()))
    (note,) = plan.notes
    assert note.code == "state-by-position"
    assert "fit too, with '0.weight' in place of '2.weight'." in note.text
    named = tws.WarmStartSettings(
        {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()},
        var_name_to_prev_var_name={"0.": "1.", "1.": "0."},
    )
    plan = tws.plan_warm_start(model, named, optimizer=torch.optim.AdamW(model.parameters()))
    assert not plan.notes  # a model of another class has its parameters in another order


# -- one optimizer of several models ---------------------------------------------------------------


def _actor_and_critic():
    return nn.ModuleDict({"actor": _square(), "critic": _square()})


def _of_both(models):
    return [{"params": one.parameters()} for one in models.values()]


def _saved_by_both(models):
    """As of `one.named_parameters()` for each model."""
    optimizer = torch.optim.AdamW(_of_both(models))
    _step(models, optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    for one, group in zip(models.values(), state["param_groups"], strict=True):
        group["param_names"] = [name for name, _ in one.named_parameters()]
    return optimizer, state


def test_a_name_that_parameters_of_two_models_have_identifies_neither():
    old, model = _actor_and_critic(), _square()
    saved = {"model": old["actor"].state_dict(), "optimizer": _saved_by_both(old)[1]}
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(tws.PlanError, match=r"calls several parameters '0\.weight'.* is unclear"):
        tws.warm_start(model, saved, optimizer=optimizer)


def test_an_optimizer_of_two_models_that_are_all_there_goes_by_position_and_says_so():
    old, model = _actor_and_critic(), _actor_and_critic()
    old_optimizer, state = _saved_by_both(old)
    saved = {"model": old.state_dict(), "optimizer": state}
    optimizer = torch.optim.AdamW(_of_both(model))
    with pytest.warns(tws.WarmStartWarning, match=r"'actor\.0\.weight', 'critic\.0\.weight'"):
        tws.warm_start(model, saved, optimizer=optimizer)
    _assert_same(model, optimizer, old, old_optimizer)


def test_names_of_a_part_may_be_those_of_another_part():
    old, model = _actor_and_critic(), _square()
    state = _saved_by_both(nn.ModuleDict({"actor": old["actor"]}))[1]
    saved = {"model": old.state_dict(), "optimizer": state}
    optimizer = torch.optim.AdamW(model.parameters())
    for entry, codes in ((None, ["state-by-position"]), ("optimizer", [])):
        settings = tws.WarmStartSettings(
            saved, var_name_to_prev_var_name={"/": "critic."}, optimizer_entry=entry
        )
        plan = tws.plan_warm_start(model, settings, optimizer=optimizer)
        assert [note.code for note in plan.notes] == codes
    del saved["model"]["actor.0.weight"]  # the first name is clear then
    plan = tws.plan_warm_start(
        model,
        tws.WarmStartSettings(saved, var_name_to_prev_var_name={"/": "critic."}),
        optimizer=optimizer,
    )
    (note,) = plan.notes
    assert "'0.bias', which may be 'critic.0.bias' as well as 'actor.0.bias'." in note.text


def test_many_ways_to_divide_parameters_end_soon():
    old, model = (nn.ParameterList([torch.ones(2) for _ in range(60)]) for _ in range(2))
    groups = [{"params": list(old.parameters())[at : at + 4]} for at in range(0, 60, 4)]
    old_optimizer = torch.optim.Adam(groups)
    _step(old, old_optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    with pytest.raises(tws.PlanError, match="which are which is unclear"):
        tws.warm_start(model, saved, optimizer=torch.optim.Adam(model.parameters()))


# -- options ---------------------------------------------------------------------------------------

OPTIONS = {
    "amsgrad": (torch.optim.Adam, {"amsgrad": True}, "max_exp_avg_sq"),
    "adamw": (torch.optim.AdamW, {"amsgrad": True}, "max_exp_avg_sq"),
    "centered": (torch.optim.RMSprop, {"centered": True}, "grad_avg"),
    "momentum": (torch.optim.RMSprop, {"momentum": 0.9}, "momentum_buffer"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_what_a_new_option_adds_begins_as_torch_begins_it(case):
    kind, options, slot = OPTIONS[case]
    old, model = Net(), Net(1)
    old_optimizer = kind(old.parameters())
    optimizer = kind(model.parameters(), **options)
    _step(old, old_optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    report = tws.warm_start(model, saved, optimizer=optimizer)
    _assert_same(model, optimizer, old, old_optimizer)
    assert optimizer.state[model.out.weight][slot].count_nonzero() == 0
    assert "ran without" in report[f"out.weight/{slot}"].reason
    _step(model, optimizer)
    if case == "amsgrad":
        now = optimizer.state[model.out.weight]
        assert torch.equal(now["max_exp_avg_sq"], now["exp_avg_sq"])


def test_an_options_slot_from_steps_of_the_optimizers_own_is_said():
    old, model = Net(), Net(1)
    old_optimizer = torch.optim.Adam(old.parameters())
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    _step(old, old_optimizer)
    _step(model, optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    report = tws.warm_start(model, saved, optimizer=optimizer)
    assert {note.code for note in report.notes} == {"slot-of-own-steps"}


@pytest.mark.parametrize("steps", [0, 1])
def test_a_state_from_steps_of_its_own_beside_another_weight_is_said(steps):
    old, model = Net(), Net(1)
    old_optimizer = torch.optim.SGD(old.parameters(), lr=0.1, momentum=0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    _step(old, old_optimizer)
    del old_optimizer.state[old.out.weight]  # as of a parameter that had no gradient
    for _ in range(steps):
        _step(model, optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    report = tws.warm_start(model, saved, optimizer=optimizer)
    assert report["out.weight/momentum_buffer"].state == "kept"
    assert [note.code for note in report.notes] == ["slot-of-own-steps"] * steps
    leaves = tws.WarmStartSettings(saved, [".*momentum_buffer"])  # weight and state stay
    plan = tws.plan_warm_start(model, leaves, optimizer=optimizer)
    assert not plan.notes


@pytest.mark.parametrize("count", [None, torch.ones(2), torch.zeros(()), 0])
@pytest.mark.filterwarnings("ignore::torch_warmstart.WarmStartWarning")
def test_a_count_of_whatever_kind_tells_whether_an_optimizer_has_stepped(count):
    old, model = Net(), Net(1)
    old_optimizer = torch.optim.SGD(old.parameters(), lr=0.1, momentum=0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for module, its in ((old, old_optimizer), (model, optimizer)):
        _step(module, its)
    del old_optimizer.state[old.out.weight]
    optimizer.state[model.out.weight]["step"] = count
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    report = tws.warm_start(model, saved, optimizer=optimizer)
    is_none_yet = count is not None and not torch.as_tensor(count).any()
    assert [note.code for note in report.notes] == ["slot-of-own-steps"] * (not is_none_yet)


# -- layers in another order -----------------------------------------------------------------------


def _layers(order, sizes):
    return nn.ModuleDict({name: nn.Linear(3, sizes[name]) for name in order})


def _by_layer(layers, *, backwards=False):
    groups = [{"params": list(layer.parameters())} for layer in layers.values()]
    return torch.optim.Adam(groups[::-1] if backwards else groups)


def test_alike_groups_of_layers_that_stand_otherwise_now_are_an_error():
    sizes = {"second": 4, "first": 4}
    old, model = _layers(sizes, sizes), _layers(reversed(sizes), sizes)
    old_optimizer, optimizer = _by_layer(old), _by_layer(model)
    _step(old, old_optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    with pytest.raises(tws.PlanError, match="fit in more than one order"):
        tws.warm_start(model, saved, optimizer=optimizer)


@pytest.mark.filterwarnings("ignore::torch_warmstart.WarmStartWarning")
def test_groups_are_taken_to_be_made_as_they_are_now_of_layers_that_stood_otherwise():
    sizes = {"one": 4, "two": 4, "three": 5}
    old, model = _layers(sizes, sizes), _layers(["three", "one", "two"], sizes)
    old_optimizer, optimizer = _by_layer(old, backwards=True), _by_layer(model, backwards=True)
    _step(old, old_optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    report = tws.warm_start(model, saved, optimizer=optimizer)
    assert [note.code for note in report.notes] == ["state-by-position"]
    for name, parameter in model.named_parameters():
        state = old_optimizer.state[old.get_parameter(name)]
        assert torch.equal(optimizer.state[parameter]["exp_avg"], state["exp_avg"])


# -- counts of steps in the param group ------------------------------------------------------------


def _counting_by_group(optimizer, model, as_tensor=False):
    """As apex's FusedAdam and LAMB save it."""
    state = copy.deepcopy(optimizer.state_dict())
    steps = [slots.pop("step") for slots in state["state"].values()]
    for group in state["param_groups"]:
        group["step"] = steps[0] if as_tensor else int(steps[0])
        for option in ("amsgrad", "decoupled_weight_decay", "foreach", "fused", "capturable"):
            group.pop(option, None)
    return {"model": model.state_dict(), "optimizer": state}


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("groups", ["one", "two"])
def test_a_count_of_a_groups_steps_is_each_parameters(tmp_path, groups, as_tensor):
    old, model = Net(), Net(1)
    old_optimizer = torch.optim.Adam(GROUPS[groups](old))
    for _ in range(5):
        _step(old, old_optimizer)
    torch.save(_counting_by_group(old_optimizer, old, as_tensor), tmp_path / "apex.pt")
    optimizer = torch.optim.Adam(model.parameters())
    report = tws.warm_start(model, tmp_path / "apex.pt", optimizer=optimizer)
    _assert_same(model, optimizer, old, old_optimizer)
    assert optimizer.state[model.out.weight]["step"] == 5
    last = len(GROUPS[groups](old)) - 1
    assert report["out.bias/step"].keys == (f"optimizer/param_groups/{last}/step",)


def test_a_count_in_a_flattened_param_group_is_found():
    old, model = Net(), Net(1)
    old_optimizer = torch.optim.Adam(old.parameters())
    _step(old, old_optimizer)
    flat = {}
    for name, parameter in old.named_parameters():
        flat[f"param_groups.{name}.step"] = 7
        for slot in ("exp_avg", "exp_avg_sq"):
            flat[f"state.{name}.{slot}"] = old_optimizer.state[parameter][slot]
    optimizer = torch.optim.Adam(model.parameters())
    tws.warm_start(model, {"model": old.state_dict(), "optimizer": flat}, optimizer=optimizer)
    assert all(optimizer.state[p]["step"] == 7 for p in model.parameters())


class Fused(torch.optim.Optimizer):
    """Counts by group, as apex's does."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self, closure=None):
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    for slot in ("exp_avg", "exp_avg_sq"):
                        state.setdefault(slot, torch.zeros_like(p))


def test_an_optimizer_that_counts_by_group_is_told_to_set_it():
    old, model = Net(), Net(1)
    old_optimizer = torch.optim.Adam(old.parameters())
    _step(old, old_optimizer)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    report = tws.warm_start(model, saved, optimizer=Fused(model.parameters()))
    assert "steps-not-set" in [note.code for note in report.notes]
