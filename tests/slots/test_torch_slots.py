"""Slots in the states that torch's optimizers saved: where they are, and whose they are."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch_slots_helpers import (
    ALL,
    CONTAINERS,
    Net,
    Reordered,
    assert_same_slots,
    flattened,
    step,
    take_slots,
    trained,
    with_names,
)

import torch_warmstart as tws
from torch_warmstart import PlanError, WarmStartSettings

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


# -- where the state is ----------------------------------------------------------------------------


POSITIONAL = {"usual", "lightning", "deeper"}


@pytest.mark.parametrize("where", ["memory", "file", "distributed"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_slots_are_found_in_every_container(name, where, tmp_path):
    old, old_optimizer = trained()
    checkpoint = CONTAINERS[name](old, old_optimizer)
    if where == "file":
        torch.save(checkpoint, tmp_path / "model.pt")
        checkpoint = tmp_path / "model.pt"
    elif where == "distributed":
        writer = dcp.FileSystemWriter(tmp_path / "step-1")
        dcp.save(checkpoint, storage_writer=writer, no_dist=True)
        checkpoint = tmp_path / "step-1"
    model, optimizer, report = take_slots(checkpoint)
    assert_same_slots(model, optimizer, old, old_optimizer)
    reason = "by position" if name in POSITIONAL else "by name"
    assert report["hidden.weight/exp_avg"].reason == reason
    assert report["hidden.weight/exp_avg"].state == "copied"
    assert report.unexpected_keys == ()
    step(model, optimizer)


def test_an_optimizer_itself_may_lie_in_the_container():
    old, old_optimizer = trained()
    model, optimizer, _ = take_slots({"model": old.state_dict(), "optimizer": old_optimizer})
    assert_same_slots(model, optimizer, old, old_optimizer)


def test_flattened_slots_in_a_safetensors_file(tmp_path):
    old, old_optimizer = trained()
    tensors = {
        f"optim.{k}": v for k, v in flattened(old, old_optimizer).items() if k.startswith("state")
    }
    save_file({**old.state_dict(), **tensors}, str(tmp_path / "a.safetensors"))
    model, optimizer, _ = take_slots(tmp_path / "a.safetensors")
    assert_same_slots(model, optimizer, old, old_optimizer)


def test_a_distributed_checkpoint_with_counts_as_numbers(tmp_path):
    old, old_optimizer = trained()
    state = old_optimizer.state_dict()
    for slots in state["state"].values():
        slots["step"] = int(slots["step"])
    writer = dcp.FileSystemWriter(tmp_path / "a")
    dcp.save({"model": old.state_dict(), "optimizer": state}, storage_writer=writer, no_dist=True)
    model, optimizer, report = take_slots(tmp_path / "a")
    assert_same_slots(model, optimizer, old, old_optimizer)
    assert report["out.bias/step"].change == "int64 -> float32"
    with tws.load_checkpoint(tmp_path / "a") as checkpoint:
        assert checkpoint.get_tensor("optimizer/state/0/step").item() == 1
        assert checkpoint.location("optimizer/state/0/step").files == ()


def test_keys_of_slots_are_read_and_not_listed():
    old, old_optimizer = trained()
    with tws.load_checkpoint(CONTAINERS["usual"](old, old_optimizer)) as checkpoint:
        assert list(checkpoint) == list(old.state_dict())
        exp_avg = old_optimizer.state[old.embed.weight]["exp_avg"]
        assert torch.equal(checkpoint.get_tensor("optimizer/state/0/exp_avg"), exp_avg)
        rows = checkpoint.get_tensor("optimizer/state/0/exp_avg", torch.tensor([2]))
        assert torch.equal(rows, exp_avg[2:3])
        assert checkpoint.spec("optimizer/state/0/step").shape == ()
        assert "optimizer/state/9/exp_avg" not in checkpoint
        (saved,) = checkpoint.optimizer_states()
        assert (saved.path, saved.is_named, saved.group_sizes) == ("optimizer", False, (7,))
        assert saved.slot_names == ("step", "exp_avg", "exp_avg_sq")


def test_unused_slots_are_told_only_if_there_is_an_optimizer():
    old, old_optimizer = trained()
    checkpoint = CONTAINERS["usual"](old, old_optimizer)
    assert tws.warm_start(Net(), WarmStartSettings(checkpoint, ALL)).unexpected_keys == ()
    _, _, report = take_slots(checkpoint, selection=[r".*[^/]", "(?!embed).*/"])
    assert report.unexpected_keys == ()
    _, _, report = take_slots(checkpoint, selection=["(?!embed)"])
    assert report.unexpected_keys == (
        "embed.weight",
        "optimizer/state/0/step",
        "optimizer/state/0/exp_avg",
        "optimizer/state/0/exp_avg_sq",
    )


# -- by name ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("prefixed", ["names", "keys", "both"])
def test_what_wrappers_add_to_names_is_forgiven(prefix, prefixed):
    old, old_optimizer = trained()
    state, model = with_names(old, old_optimizer), old.state_dict()
    if prefixed != "keys":
        group = state["param_groups"][0]
        group["param_names"] = [prefix + name for name in group["param_names"]]
    if prefixed != "names":
        model = {prefix + key: value for key, value in model.items()}
    new, optimizer, report = take_slots({"model": model, "optimizer": state})
    assert_same_slots(new, optimizer, old, old_optimizer)
    assert report["embed.weight/step"].reason == "by name"


def test_slots_follow_a_rename_of_their_parameter():
    old, old_optimizer = trained()
    renames = {"hidden.bias": "norm.weight", "norm.weight": "hidden.bias"}
    for container in ("named", "usual"):
        checkpoint = CONTAINERS[container](old, old_optimizer)
        model, optimizer, report = take_slots(checkpoint, var_name_to_prev_var_name=renames)
        expected = old_optimizer.state[old.norm.weight]["exp_avg"]
        assert torch.equal(optimizer.state[model.hidden.bias]["exp_avg"], expected)
        assert report["hidden.bias/exp_avg"].state == "renamed"


def test_keys_with_the_name_of_what_the_model_was_part_of():
    old, old_optimizer = trained()
    state = {f"net.{key}": value for key, value in old.state_dict().items()}
    renames = {key: f"net.{key}" for key in old.state_dict()}
    checkpoint = {"state_dict": state, "optimizer": with_names(old, old_optimizer)}
    model, optimizer, _ = take_slots(checkpoint, var_name_to_prev_var_name=renames)
    assert_same_slots(model, optimizer, old, old_optimizer)


@pytest.mark.parametrize("other", [nn.Linear(3, 3), nn.Linear(4, 4)], ids=["else", "alike"])
@pytest.mark.filterwarnings("ignore::torch_warmstart.WarmStartWarning")
def test_both_optimizers_have_the_names_of_a_part(other):
    def made():
        whole = nn.ModuleDict({"part": nn.Linear(4, 4), "other": copy.deepcopy(other)})
        return whole, torch.optim.Adam(whole["part"].named_parameters())

    (old, old_optimizer), (model, optimizer) = made(), made()
    step(old, old_optimizer)
    checkpoint = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    report = tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=optimizer)
    assert_same_slots(model, optimizer, old, old_optimizer)
    may_be_the_others = other.in_features == 4
    assert [note.code for note in report.notes] == ["state-by-position"] * may_be_the_others


def test_a_slot_can_be_named_by_its_key():
    old, old_optimizer = trained()
    renames = {"embed.weight/exp_avg_sq": "optimizer/state/0/exp_avg"}
    checkpoint = CONTAINERS["usual"](old, old_optimizer)
    model, optimizer, report = take_slots(checkpoint, var_name_to_prev_var_name=renames)
    slots = optimizer.state[model.embed.weight]
    assert torch.equal(slots["exp_avg"], slots["exp_avg_sq"])
    assert report["embed.weight/exp_avg_sq"].reason == "renamed in settings"


def test_a_tied_parameter_is_found_under_either_name():
    def tied(seed):
        model = Net(seed)
        model.hidden.weight = nn.Parameter(torch.rand(4, 4))
        model.tied = nn.Linear(4, 4)
        model.tied.weight = model.hidden.weight
        return model

    old, old_optimizer = trained(model=tied(0))
    for container in ("named", "usual", "distributed"):
        checkpoint = CONTAINERS[container](old, old_optimizer)
        renames = {"tied.weight": "tied.weight"}
        for settings in ({}, {"var_name_to_prev_var_name": renames}):
            model, optimizer, _ = take_slots(checkpoint, tied(1), **settings)
            assert_same_slots(model, optimizer, old, old_optimizer)


def test_a_parameter_that_the_state_does_not_name():
    old, old_optimizer = trained()
    state = with_names(old, old_optimizer)
    state["param_groups"][0]["param_names"][0] = "embedding.weight"
    checkpoint = {"model": old.state_dict(), "optimizer": state}
    message = (
        r"embed\.weight/step: the optimizer's state in <state_dict> has no parameter "
        r"'embed\.weight'\. Did you mean 'embedding\.weight'"
    )
    with pytest.raises(PlanError, match=message):
        take_slots(checkpoint)
    model, optimizer, report = take_slots(checkpoint, on_missing="keep")
    assert model.embed.weight not in optimizer.state
    assert report.missing_keys[0] == "embed.weight/step"


# -- by position -----------------------------------------------------------------------------------


def test_positions_are_those_of_the_checkpoints_model_not_of_todays():
    old, old_optimizer = trained()
    model, optimizer, _ = take_slots(CONTAINERS["usual"](old, old_optimizer), Reordered())
    assert_same_slots(model, optimizer, old, old_optimizer)


def test_frozen_parameters_have_a_place_and_no_state():
    old = Net()
    old.embed.weight.requires_grad_(False)
    old, old_optimizer = trained(model=old)
    for container in ("usual", "named", "distributed"):
        checkpoint = CONTAINERS[container](old, old_optimizer)
        model, optimizer, report = take_slots(checkpoint)
        assert_same_slots(model, optimizer, old, old_optimizer)
        account = report["embed.weight/exp_avg"]
        assert (account.state, account.reason) == (
            "kept",
            "the checkpoint's optimizer had none for it",
        )
        assert "embed.weight/exp_avg" in report.missing_keys


def test_an_optimizer_of_some_of_the_parameters():
    def partial(model):
        model.embed.weight.requires_grad_(False)
        return torch.optim.Adam([p for p in model.parameters() if p.requires_grad])

    old, model = Net(), Reordered()
    old_optimizer, optimizer = partial(old), partial(model)
    step(old, old_optimizer)
    settings = WarmStartSettings(CONTAINERS["usual"](old, old_optimizer), ALL)
    tws.warm_start(model, settings, optimizer=optimizer)
    assert_same_slots(model, optimizer, old, old_optimizer)


class Twins(nn.Module):
    """Layers of the same shapes."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.h1, self.h2, self.h3 = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)


@pytest.mark.parametrize("keep", [lambda m, o: o.state_dict(), with_names], ids=["number", "name"])
@pytest.mark.parametrize(("before", "now"), [("h1", "h2"), ("h1", "h1"), ("h3", "h3")])
def test_slots_that_may_be_another_layers_are_a_warning(before, now, keep):
    old, model = Twins(), Twins(seed=1)
    old_optimizer = torch.optim.Adam(getattr(old, before).parameters())
    step(old, old_optimizer)
    state = keep(old, old_optimizer)
    checkpoint = {"model": old.state_dict(), "optimizer": state}
    optimizer = torch.optim.Adam(getattr(model, now).parameters())
    settings = WarmStartSettings(checkpoint, ALL)
    if "param_names" in state["param_groups"][0]:
        if before != now:
            with pytest.raises(PlanError, match=r"has no parameter 'h2\.weight'"):
                tws.warm_start(model, settings, optimizer=optimizer)
        else:
            assert tws.warm_start(model, settings, optimizer=optimizer).notes == ()
        return
    may_be_others = before != now or now != "h3"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        report = tws.warm_start(model, settings, optimizer=optimizer)
    assert [str(w.message).endswith("[state-by-position]") for w in told] == [True] * may_be_others
    notes = tuple(map(str, report.notes))
    example = {
        "h1": "'h2.bias' in place of 'h1.bias'",
        "h2": "'h1.weight' in place of 'h2.weight'",
    }.get(now)
    expected = (
        "The optimizer's state at 'optimizer' is of 2 of the model's 6 parameters, which it "
        "numbers without naming them. They are taken for those that `optimizer` has now, but the "
        f"shapes would fit others too: {example}, for example. If "
        "the old optimizer had other parameters than this one, these slots are not theirs: save it "
        "from an optimizer with named parameters (torch.optim.Adam(model.named_parameters()))."
    )
    assert notes == ((expected,) if example else ())


def _decaying(model, kind=torch.optim.AdamW):
    """Two groups, as training scripts make them."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return kind([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}])


@pytest.mark.parametrize("model", [Net(seed=1), Reordered()], ids=["same", "reordered"])
def test_groups_are_those_of_the_current_optimizer(model):
    old = Net()
    old_optimizer, optimizer = _decaying(old), _decaying(model)
    step(old, old_optimizer)
    settings = WarmStartSettings(CONTAINERS["usual"](old, old_optimizer), ALL)
    tws.warm_start(model, settings, optimizer=optimizer)
    assert_same_slots(model, optimizer, old, old_optimizer)


def test_groups_whose_order_cannot_be_told_are_an_error():
    old, model = Net(), Net(seed=1)
    old_optimizer = _decaying(old)
    step(old, old_optimizer)
    groups = [group["params"] for group in _decaying(model).param_groups]
    groups[1][0], groups[1][1] = groups[1][1], groups[1][0]  # of one shape
    optimizer = torch.optim.AdamW([{"params": group} for group in groups])
    settings = WarmStartSettings(CONTAINERS["usual"](old, old_optimizer), ALL)
    with pytest.raises(PlanError, match="their shapes fit in more than one order"):
        tws.warm_start(model, settings, optimizer=optimizer)


def test_groups_in_an_order_of_their_own():
    def from_the_end(model):
        groups = [[model.out.weight, model.out.bias], [model.norm.weight, model.embed.weight]]
        return torch.optim.Adam([{"params": group} for group in groups])

    old, model = Net(), Net(seed=1)
    old_optimizer, optimizer = from_the_end(old), from_the_end(model)
    step(old, old_optimizer)
    settings = WarmStartSettings(CONTAINERS["usual"](old, old_optimizer), ALL)
    tws.warm_start(model, settings, optimizer=optimizer)
    assert_same_slots(model, optimizer, old, old_optimizer)


def test_groups_without_counterpart_are_an_error_that_says_what_to_do():
    """Where the shapes of their parameters do not say which group had which, either."""
    old = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(3)))
    parameters = list(old.parameters())
    old_optimizer = torch.optim.AdamW([{"params": parameters[:1]}, {"params": parameters[1:]}])
    step(old, old_optimizer)
    with pytest.raises(PlanError) as caught:
        take_slots(CONTAINERS["usual"](old, old_optimizer), copy.deepcopy(old))
    (problem,) = map(str, caught.value.problems)
    assert problem == (
        "The optimizer's state at 'optimizer' in <state_dict> numbers its parameters without "
        "naming them, and which are which is unclear: their shapes fit in more than one order. "
        "Save it from an optimizer with named parameters "
        "(torch.optim.Adam(model.named_parameters())), or name keys in var_name_to_prev"
        "_var_name, such as 'optimizer/state/0/step', or leave the slots out by a list in "
        "vars_to_warm_start."
    )


def test_counts_that_differ_are_an_error():
    old, old_optimizer = trained()
    state = {key: value for key, value in old.state_dict().items() if key != "out.bias"}
    with pytest.raises(PlanError, match="unclear: it has 7 parameters, the model 6 \\('embed.wei"):
        take_slots({"model": state, "optimizer": old_optimizer.state_dict()}, on_missing="keep")


def test_shapes_that_differ_are_an_error_unless_the_optimizer_shows_the_order():
    old, model = Net(), Net(seed=1)
    old_optimizer = torch.optim.Adam(reversed(list(old.parameters())))
    step(old, old_optimizer)
    checkpoint = CONTAINERS["usual"](old, old_optimizer)
    message = (
        r"unclear: number 0 would be 'embed\.weight' of shape \[7, 4\], but its 'exp_avg' has "
        r"shape \[2\]\. Save it"
    )
    with pytest.raises(PlanError, match=message):
        take_slots(checkpoint)
    optimizer = torch.optim.Adam(reversed(list(model.parameters())))
    tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=optimizer)
    assert_same_slots(model, optimizer, old, old_optimizer)


@st.composite
def _shapes(draw):
    sizes = st.integers(1, 3)
    return draw(st.lists(st.lists(sizes, max_size=3).map(tuple), min_size=1, max_size=6))


@given(_shapes(), st.randoms(use_true_random=False), st.sets(st.integers(0, 5)))
def test_by_position_finds_what_by_name_finds(shapes, random, frozen):
    names = [f"p{9 - number}" for number in range(len(shapes))]  # not in the alphabet's order

    def build(order):
        model = nn.ParameterDict()
        for number in order:
            model[names[number]] = nn.Parameter(
                torch.full(shapes[number], float(number)), requires_grad=number not in frozen
            )
        return model

    old = build(range(len(shapes)))
    optimizer = torch.optim.Adam(old.parameters())
    step(old, optimizer)
    taken = []
    for container in ("usual", "named"):
        order = list(range(len(shapes)))
        random.shuffle(order)
        model, new, _ = take_slots(CONTAINERS[container](old, optimizer), build(order))
        taken.append({name: new.state.get(model[name], {}) for name in names})
    for name in names:
        assert taken[0][name].keys() == taken[1][name].keys()
        assert all(torch.equal(taken[0][name][s], t) for s, t in taken[1][name].items())


class Plain(nn.Module):
    """Layers without a bias: nothing but the numbers tells their order."""

    def __init__(self, numbers=range(12), seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleDict({str(n): nn.Linear(2, 2, bias=False) for n in numbers})


def test_the_order_of_a_safetensors_file_is_not_taken_for_the_models(tmp_path):
    old, old_optimizer = trained(model=Plain())
    save_file(old.state_dict(), str(tmp_path / "model.safetensors"))
    torch.save(old_optimizer.state_dict(), tmp_path / "optimizer.pt")
    with tws.load_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint)[1:3] == ["layers.1.weight", "layers.10.weight"]
    with pytest.raises(PlanError, match="their shapes fit in more than one order"):
        take_slots(tmp_path, Plain(seed=1))
    model, optimizer, _ = take_slots(CONTAINERS["usual"](old, old_optimizer), Plain(seed=1))
    assert_same_slots(model, optimizer, old, old_optimizer)


class Narrowing(Net):
    """With shapes that tell the model's order from the alphabet's."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.hidden, self.out = nn.Linear(4, 3), nn.Linear(3, 2)


@pytest.mark.parametrize("name", ["optimizer.pt", "optimizer.bin"])
@pytest.mark.parametrize("make_optimizer", [lambda m: torch.optim.AdamW(m.parameters()), _decaying])
def test_a_directory_of_hugging_faces(tmp_path, name, make_optimizer):
    old, model = Narrowing(), Narrowing(seed=1)
    old_optimizer, optimizer = make_optimizer(old), make_optimizer(model)
    step(old, old_optimizer)
    save_file(old.state_dict(), str(tmp_path / "model.safetensors"))
    torch.save(old_optimizer.state_dict(), tmp_path / name)
    (tmp_path / "trainer_state.json").write_text("{}")
    report = tws.warm_start(model, WarmStartSettings(tmp_path, ALL), optimizer=optimizer)
    assert_same_slots(model, optimizer, old, old_optimizer)
    assert report.unexpected_keys == ()
    with tws.load_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint) == sorted(old.state_dict(), key=list(checkpoint).index)
        assert checkpoint.location("optimizer/state/0/step").files == (name,)
        assert checkpoint.location("out.bias").files == ("model.safetensors",)
        rows = torch.tensor([1])
        assert torch.equal(checkpoint.get_tensor("embed.weight", rows), old.embed.weight[rows])
        checkpoint.verify("optimizer/state/0/exp_avg")
        assert "optimizer/state/0/nothing" not in checkpoint


def test_an_optimizer_beside_the_weights_is_opened_only_for_its_slots(tmp_path):
    save_file(Net().state_dict(), str(tmp_path / "model.safetensors"))
    (tmp_path / "optimizer.pt").write_bytes(b"damaged")
    tws.warm_start(Net(), WarmStartSettings(tmp_path, ALL))
    with pytest.raises(tws.CorruptCheckpointError, match="optimizer.pt cannot be read"):
        take_slots(tmp_path)
