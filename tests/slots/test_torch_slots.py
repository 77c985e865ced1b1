"""Slots in the states that torch's optimizers saved: where they are, and whose they are."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, SettingsError, VocabInfo, WarmStartSettings
from torch_warmstart.formats.saved_optimizers import find_optimizers, in_keys
from torch_warmstart.slots.saved_slots import slot_keys

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")
ALL = [".*"]


class Net(nn.Module):
    """Parameters of several shapes, some of them equal, with buffers between."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.hidden = nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(1))
        self.out = nn.Linear(4, 2)


class Reordered(nn.Module):
    """The same parameters in another order."""

    def __init__(self, seed=1):
        super().__init__()
        net = Net(seed)
        self.out, self.hidden, self.norm, self.embed = net.out, net.hidden, net.norm, net.embed
        self.register_buffer("scale", torch.ones(1))


def step(model, optimizer, seed=0):
    """A step with a gradient of its own for every value, so that no two slots are equal."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.rand(parameter.shape, generator=generator)
    optimizer.step()


def trained(kind=torch.optim.Adam, model=None, **options):
    model = model or Net()
    optimizer = kind(model.parameters(), **options)
    step(model, optimizer)
    return model, optimizer


def assert_same_slots(model, optimizer, old, old_optimizer):
    """By the name of the parameter, whatever the order."""
    parameters, old_parameters = dict(model.named_parameters()), dict(old.named_parameters())
    assert parameters.keys() == old_parameters.keys()
    for name, parameter in parameters.items():
        slots = optimizer.state.get(parameter, {})
        expected = old_optimizer.state.get(old_parameters[name], {})
        assert slots.keys() == expected.keys(), name
        for slot, value in expected.items():
            assert torch.equal(torch.as_tensor(slots[slot]), torch.as_tensor(value)), (name, slot)


def take_slots(checkpoint, model=None, kind=torch.optim.Adam, selection=ALL, **settings):
    model = model or Net(seed=1)
    optimizer = kind(model.parameters())
    report = tws.warm_start(
        model, WarmStartSettings(checkpoint, selection, **settings), optimizer=optimizer
    )
    return model, optimizer, report


def by_name(model, optimizer):
    """The state as torch.distributed keeps it."""
    names = {id(p): name for name, p in model.named_parameters()}
    state = optimizer.state_dict()
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    groups = [
        {**g, "params": [names[ids[at]] for at in g["params"]]} for g in state["param_groups"]
    ]
    return {
        "state": {names[ids[at]]: slots for at, slots in state["state"].items()},
        "param_groups": groups,
    }


def flattened(model, optimizer):
    nested = by_name(model, optimizer)
    slots = {f"state.{n}.{s}": v for n, ss in nested["state"].items() for s, v in ss.items()}
    return {**slots, **{f"param_groups.{n}.lr": 0.1 for n in nested["param_groups"][0]["params"]}}


def with_names(model, optimizer):
    """As an optimizer of named parameters saves it."""
    state = optimizer.state_dict()
    names = {id(p): name for name, p in model.named_parameters()}
    for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        saved["param_names"] = [names[id(p)] for p in group["params"]]
    return state


# -- where the state is ----------------------------------------------------------------------------

CONTAINERS = {
    "usual": lambda m, o: {"model": m.state_dict(), "optimizer": o.state_dict(), "epoch": 3},
    "lightning": lambda m, o: {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": m.state_dict(),
        "optimizer_states": [o.state_dict()],
        "lr_schedulers": [{"last_epoch": 1}],
    },
    "deeper": lambda m, o: {
        "train": {"model": m.state_dict(), "optimizers": {"a": o.state_dict()}}
    },
    "named": lambda m, o: {"model": m.state_dict(), "optimizer": with_names(m, o)},
    "distributed": lambda m, o: {"model": m.state_dict(), "optimizer": by_name(m, o)},
    "flattened": lambda m, o: {"model": m.state_dict(), "optim": flattened(m, o)},
    "beside": lambda m, o: {
        **m.state_dict(),
        **{f"optimizer.{key}": value for key, value in flattened(m, o).items()},
    },
}
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
        r"embed\.weight/exp_avg: the optimizer's state in <state_dict> has no parameter "
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
def test_slots_that_may_be_another_layers_are_noted(before, now, keep):
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
    notes = tuple(map(str, tws.warm_start(model, settings, optimizer=optimizer).notes))
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
    old = Net()
    old_optimizer = _decaying(old)
    step(old, old_optimizer)
    with pytest.raises(PlanError) as caught:
        take_slots(CONTAINERS["usual"](old, old_optimizer))
    (problem,) = map(str, caught.value.problems)
    assert problem == (
        "The optimizer's state at 'optimizer' in <state_dict> numbers its parameters without "
        "naming them, and which are which is unclear: it has groups of 3 and 4 parameters, and "
        "`optimizer` no such groups to compare them with. Save it from an optimizer with named "
        "parameters (torch.optim.Adam(model.named_parameters())), or name keys in "
        "var_name_to_prev_var_name, such as 'optimizer/state/0/step', or leave the slots out of "
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


# -- several optimizers ----------------------------------------------------------------------------


def _two(model):
    return [
        torch.optim.Adam([model.embed.weight, model.norm.weight, model.norm.bias]),
        torch.optim.SGD([*model.hidden.parameters(), *model.out.parameters()], momentum=0.9),
    ]


@pytest.mark.parametrize(
    "keep", [lambda m, o: o.state_dict(), with_names], ids=["numbered", "named"]
)
def test_each_of_several_optimizers_finds_its_own(keep):
    old, model = Net(), Net(seed=1)
    old_ones, new_ones = _two(old), _two(model)
    for optimizer in old_ones:
        step(old, optimizer)
    states = {"first": keep(old, old_ones[0]), "second": keep(old, old_ones[1])}
    checkpoint = {"model": old.state_dict(), "optimizers": states}
    tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=new_ones[::-1])
    for new, before in zip(new_ones, old_ones, strict=True):
        assert_same_slots(model, new, old, before)


def test_a_slot_in_two_states_is_an_error_until_one_is_chosen():
    old, first = trained()
    _, second = trained()
    step(old, first)
    checkpoint = {
        "model": old.state_dict(),
        "optimizer": first.state_dict(),
        "optimizer_states": [second.state_dict()],
    }
    message = (
        r"embed.weight/step is in several optimizers' states: 'optimizer', 'optimizer_states/0'. "
        r"Say which one is meant: optimizer_entry='optimizer'"
    )
    with pytest.raises(PlanError, match=message):
        take_slots(checkpoint)
    for entry, chosen in (("optimizer", first), ("optimizer_states", second)):
        model, optimizer, report = take_slots(checkpoint, optimizer_entry=entry)
        for slot, value in chosen.state[chosen.param_groups[0]["params"][0]].items():
            assert torch.equal(optimizer.state[model.embed.weight][slot], value)
        assert len(report.unexpected_keys) == 21
    with pytest.raises(PlanError, match="there are 'optimizer', 'optimizer_states/0'"):
        take_slots(checkpoint, optimizer_entry="optimiser")


def test_an_entry_of_no_use_is_an_error():
    with pytest.raises(SettingsError, match="optimizer_entry='optimizer' is of no use without"):
        tws.warm_start(Net(), WarmStartSettings(Net(), optimizer_entry="optimizer"))
    with pytest.raises(SettingsError, match="optimizer_entry is a path of keys"):
        WarmStartSettings(Net(), optimizer_entry="/")


# -- other optimizers than before ------------------------------------------------------------------


@pytest.mark.parametrize("container", ["usual", "named"])
def test_adam_and_adamw_keep_the_same(container):
    old, old_optimizer = trained()
    checkpoint = CONTAINERS[container](old, old_optimizer)
    model, optimizer, _ = take_slots(checkpoint, kind=torch.optim.AdamW)
    assert_same_slots(model, optimizer, old, old_optimizer)


@pytest.mark.parametrize("container", ["usual", "named"])
def test_another_kind_of_optimizer_is_one_clear_error(container):
    old, old_optimizer = trained(torch.optim.SGD, lr=0.1, momentum=0.9)
    checkpoint = CONTAINERS[container](old, old_optimizer)
    with pytest.raises(PlanError) as caught:
        take_slots(checkpoint)
    problem = (
        "The optimizer's state in <state_dict> is of SGD (it has 'momentum_buffer'), and Adam "
        "cannot go on from that: it means other things by its slots. Make `optimizer` of the old "
        "kind, leave the slots out of vars_to_warm_start, or let them begin anew with "
        "on_missing='keep'."
    )
    assert tuple(map(str, caught.value.problems)) == (problem,)
    assert str(caught.value).endswith(
        "An optimizer's slot that is not in the checkpoint: name its key in "
        "var_name_to_prev_var_name, leave it out of vars_to_warm_start, or let it begin anew with "
        "on_missing='keep'."
    )
    model, optimizer, report = take_slots(checkpoint, on_missing="keep")
    assert not optimizer.state
    assert tuple(map(str, report.notes)) == (
        "The optimizer's state of 7 parameters (such as 'embed.weight') stays as it is, with all "
        f"of its slots, as parts of a state do not go together: {problem}",
    )
    assert len(report.missing_keys) == 21
    assert torch.equal(model.out.weight, old.out.weight)


KINDS = {
    "Adam": torch.optim.Adam,
    "Adam, amsgrad": lambda p: torch.optim.Adam(p, amsgrad=True),
    "AdamW": torch.optim.AdamW,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adamax": torch.optim.Adamax,
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "RMSprop": torch.optim.RMSprop,
    "RMSprop, momentum": lambda p: torch.optim.RMSprop(p, momentum=0.9),
    "RMSprop, all": lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    "Adafactor": torch.optim.Adafactor,
    "Rprop": torch.optim.Rprop,
    "ASGD": torch.optim.ASGD,
}
if hasattr(torch.optim, "Muon"):
    KINDS["Muon"] = lambda p: torch.optim.Muon(p, lr=0.1)
ADAMS = ("Adam", "AdamW", "NAdam", "RAdam")


def _rule(name):
    return name.partition(",")[0].replace("AdamW", "Adam")


class Matrices(nn.Module):
    """Of two dimensions, as Muon wants it."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b = nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)


@pytest.mark.parametrize("container", ["usual", "flattened"])
@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_a_state_is_taken_by_its_own_kind_and_by_relatives_with_a_remark(old, new, container):
    old_model, model = Matrices(), Matrices(seed=1)
    old_optimizer, optimizer = KINDS[old](old_model.parameters()), KINDS[new](model.parameters())
    step(old_model, old_optimizer)
    checkpoint = CONTAINERS["usual"](old_model, old_optimizer)
    if container == "flattened":
        names = ["a.weight", "b.weight"]
        options = old_optimizer.state_dict()["param_groups"][0]
        flat = {f"param_groups.{n}.{o}": v for n in names for o, v in options.items()}
        checkpoint["optimizer"] = {**flattened(old_model, old_optimizer), **flat}
    rules = _rule(old), _rule(new)
    are_relatives = rules[0] == rules[1] or set(rules) <= set(ADAMS)
    settings = {"on_missing": "keep"} if are_relatives else {}  # for what an option adds

    def start(**more):
        chosen = WarmStartSettings(checkpoint, ALL, **{**settings, **more})
        return tws.warm_start(model, chosen, optimizer=optimizer)

    if are_relatives:
        notes = tuple(map(str, start().notes))
        for slot, value in optimizer.state[model.a.weight].items():
            before = old_optimizer.state[old_model.a.weight].get(slot)
            if slot != "mu_product" and before is not None:
                assert torch.equal(value, before), slot
        remark = (
            f"The checkpoint's averages are {rules[0]}'s, which {rules[1]} goes on with by its own "
            "rule."
        )
        assert notes == (() if rules[0] == rules[1] else (remark,))
        step(model, optimizer)
        return
    with pytest.raises(PlanError) as caught:
        start()
    (problem,) = map(str, caught.value.problems)
    assert f"is of {rules[0]} (it has" in problem
    assert f"{new.partition(',')[0]} cannot go on from that" in problem
    before = copy.deepcopy(optimizer.state_dict())
    report = start(on_missing="keep")  # nothing, a count of steps neither
    assert str(optimizer.state_dict()) == str(before)
    assert problem in str(report.notes[0])


def test_nadams_product_follows_from_adams_steps():
    old, old_optimizer = trained()
    model, optimizer, report = take_slots(
        CONTAINERS["usual"](old, old_optimizer), kind=torch.optim.NAdam
    )
    assert optimizer.state[model.out.bias]["mu_product"].item() == pytest.approx(
        0.9 * (1 - 0.5 * 0.96**0.004)
    )
    assert report["out.bias/mu_product"].keys == ("optimizer/state/6/step",)


class Borrowed(torch.optim.Optimizer):
    """No class of torch's, which keeps what its argument names."""

    def __init__(self, params, slots=("momentum_buffer",), **options):
        self.slots = slots
        super().__init__(params, {"lr": 0.1, **options})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            for slot in self.slots if p.grad is not None else ():
                shape = () if slot == "step" else p.shape
                self.state[p].setdefault(slot, torch.zeros(shape)).add_(1)


@pytest.mark.parametrize(
    ("slots", "options", "kind", "taken"),
    [
        (["momentum_buffer"], {}, "SGD", True),  # may be SGD's
        (["momentum_buffer"], {"ns_steps": 5}, "SGD", False),
        (["momentum_buffer"], {"trust": 1}, "RMSprop, momentum", False),
        (["step", "exp_avg", "exp_avg_sq"], {"correct_bias": True}, "AdamW", True),
        (["step", "exp_avg", "exp_avg_sq", "trust"], {}, "Adam", True),  # nobody knows
        (["step", "square_avg"], {"rho": 0.9}, "RMSprop", True),  # Adadelta keeps more than that
    ],
)
def test_what_is_not_torchs_is_taken_unless_it_is_known_for_another(slots, options, kind, taken):
    old, model = Matrices(), Matrices(seed=1)
    old_optimizer = Borrowed(old.parameters(), slots, **options)
    step(old, old_optimizer)
    optimizer = KINDS[kind](model.parameters())
    settings = WarmStartSettings(CONTAINERS["usual"](old, old_optimizer), ALL)
    if taken:
        assert tws.warm_start(model, settings, optimizer=optimizer).notes == ()
        assert optimizer.state[model.a.weight][slots[-1] if slots[-1] != "trust" else "step"].any()
    else:
        with pytest.raises(PlanError, match="cannot go on from that"):
            tws.warm_start(model, settings, optimizer=optimizer)


def test_an_optimizer_that_is_not_torchs_does_not_take_what_is_known_for_another():
    old, old_optimizer = trained(torch.optim.RMSprop, model=Matrices(), momentum=0.9)
    checkpoint = CONTAINERS["usual"](old, old_optimizer)
    with pytest.raises(PlanError, match="is of RMSprop .* and Borrowed cannot go on from that"):
        take_slots(checkpoint, Matrices(seed=1), Borrowed)
    old, old_optimizer = trained(torch.optim.SGD, model=Matrices(), lr=0.1, momentum=0.9)
    model, optimizer, _ = take_slots(
        CONTAINERS["usual"](old, old_optimizer), Matrices(seed=1), Borrowed
    )
    assert_same_slots(model, optimizer, old, old_optimizer)


def test_a_part_of_a_state_is_not_taken_without_the_rest():
    old, old_optimizer = trained()
    checkpoint = CONTAINERS["named"](old, old_optimizer)
    del checkpoint["optimizer"]["state"][0]["exp_avg_sq"]
    model, optimizer, report = take_slots(checkpoint, on_missing="keep")
    assert model.embed.weight not in optimizer.state
    assert report["embed.weight/step"].reason == "the rest of its state is not taken"
    assert set(report.missing_keys) == {
        f"embed.weight/{n}" for n in ("step", "exp_avg", "exp_avg_sq")
    }
    assert tuple(map(str, report.notes)) == (
        "The optimizer's state of 1 parameter (such as 'embed.weight') stays as it is, with all of "
        "its slots, as parts of a state do not go together: embed.weight/exp_avg_sq: the "
        "optimizer's state in <state_dict> has none for 'embed.weight'.",
    )
    assert optimizer.state[model.out.bias]["step"] == 1
    names = {"embed.weight/exp_avg": "optimizer/state/0/exp_avg"}  # said by name, it is taken
    model, optimizer, _ = take_slots(checkpoint, on_missing="keep", var_name_to_prev_var_name=names)
    assert optimizer.state[model.embed.weight]["exp_avg"].any()
    assert optimizer.state[model.embed.weight]["step"] == 0


def test_a_layer_of_another_shape_begins_its_state_anew():
    old, old_optimizer = trained()
    model = Net(seed=1)
    model.out = nn.Linear(4, 3)
    _, optimizer, report = take_slots(
        CONTAINERS["usual"](old, old_optimizer), model, on_mismatch="keep"
    )
    assert model.out.weight not in optimizer.state
    assert report["out.weight/step"].reason == "the rest of its state is not taken"
    assert optimizer.state[model.hidden.weight]["step"] == 1


def test_amsgrad_that_is_new_is_told():
    old, old_optimizer = trained()
    checkpoint = CONTAINERS["usual"](old, old_optimizer)

    def amsgrad(parameters):
        return torch.optim.Adam(parameters, amsgrad=True)

    with pytest.raises(PlanError, match="no 'max_exp_avg_sq', .*it was trained without amsgrad"):
        take_slots(checkpoint, kind=amsgrad)
    for settings in ({"on_missing": "keep"}, {"selection": ["(?!.*max)"]}):
        model, optimizer, _ = take_slots(checkpoint, kind=amsgrad, **settings)
        slots = optimizer.state[model.out.weight]
        assert slots["max_exp_avg_sq"].count_nonzero() == 0
        assert torch.equal(slots["exp_avg"], old_optimizer.state[old.out.weight]["exp_avg"])
        step(model, optimizer)


def test_amsgrad_that_is_gone_leaves_its_slots_unused():
    old, old_optimizer = trained(amsgrad=True)
    _, _, report = take_slots(CONTAINERS["usual"](old, old_optimizer))
    assert len(report.unexpected_keys) == 7
    assert report.unexpected_keys[0] == "optimizer/state/0/max_exp_avg_sq"


@pytest.mark.parametrize("checkpoint", [Net(), Net().state_dict(), {"model": Net().state_dict()}])
def test_a_checkpoint_without_optimizer_says_so_once(checkpoint):
    with pytest.raises(PlanError) as caught:
        take_slots(checkpoint)
    (problem,) = map(str, caught.value.problems)
    assert "holds no optimizer's state, so there are no slots to take" in problem


def test_slots_of_another_shape_are_a_mismatch():
    old, old_optimizer = trained()
    state = copy.deepcopy(old_optimizer.state_dict())
    for slots in state["state"].values():  # as an optimizer of 8 bits keeps them
        slots["exp_avg"] = slots["exp_avg"].flatten().to(torch.uint8)
    checkpoint = {"model": old.state_dict(), "optimizer": state}
    with pytest.raises(
        PlanError, match=r"embed\.weight/exp_avg has shape \[7, 4\], but 'optimizer"
    ):
        take_slots(checkpoint)
    _, _, report = take_slots(checkpoint, on_mismatch="keep")
    assert report["embed.weight/exp_avg"].state == "kept"
    assert len(report.mismatched_keys) == 7


def test_factored_slots_are_checked_and_taken():
    old, old_optimizer = trained(torch.optim.Adafactor)
    model, optimizer, _ = take_slots(
        CONTAINERS["usual"](old, old_optimizer), Reordered(), torch.optim.Adafactor
    )
    assert_same_slots(model, optimizer, old, old_optimizer)


def test_slots_have_the_layout_of_their_parameter():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.rand(2, 3))

    old, model = Transposed(), Transposed()
    old.w = nn.Parameter(torch.rand(3, 2))
    old_optimizer, optimizer = (torch.optim.Adam(m.parameters()) for m in (old, model))
    step(old, old_optimizer)
    settings = WarmStartSettings(
        CONTAINERS["usual"](old, old_optimizer), ALL, var_name_to_layout={"w": "transpose"}
    )
    tws.warm_start(model, settings, optimizer=optimizer)
    assert torch.equal(optimizer.state[model.w]["exp_avg"], old_optimizer.state[old.w]["exp_avg"].T)
    assert optimizer.state[model.w]["step"].item() == 1


def test_a_plan_of_many_layers_with_slots_is_short():
    def layers():
        return nn.ModuleList(nn.Linear(4, 4) for _ in range(12))

    old, old_optimizer = trained(model=layers())
    model = layers()
    settings = WarmStartSettings(CONTAINERS["usual"](old, old_optimizer), ALL)
    plan = tws.plan_warm_start(model, settings, optimizer=torch.optim.Adam(model.parameters()))
    table = str(plan).split("\n\n")[1].splitlines()
    assert [" ".join(line.split()) for line in table[3:]] == [
        "{0...11}.weight/{step,exp_avg,exp_avg_sq} "
        "optimizer/state/{0,2...22}/{step,exp_avg,exp_avg_sq} scalar, [4, 4] copied by position",
        "{0...11}.bias/{step,exp_avg,exp_avg_sq} "
        "optimizer/state/{1,3...23}/{step,exp_avg,exp_avg_sq} scalar, [4] copied by position",
    ]
    report = str(tws.apply_plan(plan))
    assert "{0...11}.bias/{step,exp_avg,exp_avg_sq}" in report


def test_rows_of_slots_follow_a_vocabulary_in_every_container():
    old, old_optimizer = trained()
    words = [f"w{number}" for number in range(7)]
    info = VocabInfo(words[::-1], -1, 0, words)
    for make in CONTAINERS.values():
        checkpoint = make(old, old_optimizer)
        vocab = {"embed.weight": info}
        model, optimizer, report = take_slots(checkpoint, var_name_to_vocab_info=vocab)
        for slot in ("exp_avg", "exp_avg_sq"):
            expected = old_optimizer.state[old.embed.weight][slot].flip(0)
            assert torch.equal(optimizer.state[model.embed.weight][slot], expected)
        assert report["embed.weight/exp_avg"].rows.copied == 7


# -- whatever a container holds --------------------------------------------------------------------

_KEYS = st.sampled_from(["state", "param_groups", "params", "param_names", "0", 0, 1, "a.b", "x"])
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.just(torch.zeros(2)),
    st.sampled_from(["state.a.b", "param_groups.a.lr"]),
)
_JUNK = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(_KEYS, st.text(max_size=3)), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(_JUNK)
def test_any_container_is_looked_through(junk):
    optimizers, values = find_optimizers({"optimizer": junk, "state.a.b": 3, "model": {}})
    for optimizer in optimizers:
        for parameter in optimizer.parameters:
            assert set(parameter.slots.values()) <= values.keys()
    assert all(isinstance(value, torch.Tensor) for value in values.values())


def test_a_container_that_holds_itself_is_looked_through_once():
    container = {"optimizer": {"state": {0: {"m": 1.5}}, "param_groups": [{"params": [0]}]}}
    container.update({f"again{n}": container for n in range(100)})
    ((optimizer,), values) = find_optimizers(container)
    assert optimizer.path == "optimizer"
    assert values["optimizer/state/0/m"].item() == 1.5


def test_numbers_are_tensors_of_their_kind():
    state = {"state": {0: {"i": 3, "f": math.pi, "b": True, "n": None, "big": 1 << 70}}}
    _, values = find_optimizers({**state, "param_groups": [{"params": [0]}]})
    assert {key: value.dtype for key, value in values.items()} == {
        "state/0/i": torch.int64,
        "state/0/f": torch.float64,
    }


def test_state_that_no_group_lists_is_found_by_its_key():
    state = {"1": {"m": torch.ones(1)}, "a.b": {"m": torch.ones(1)}, "0": {"m": torch.ones(1)}}
    ((optimizer,), _) = find_optimizers(OrderedDict(state=state, param_groups=None))
    assert [parameter.name for parameter in optimizer.parameters] == [None, None, "a.b"]


def test_a_module_called_state_is_no_optimizer():
    assert in_keys(["state.a.weight", "x.state.b.weight", "my.optimizer.weight"]) == ()
    ((optimizer),) = in_keys(["optim.state.state.w.exp_avg", "net.state.w.x"])
    assert [p.name for p in optimizer.parameters] == ["state.w"]


@pytest.mark.parametrize("container", ["usual", "distributed"])
def test_a_damaged_distributed_checkpoint_is_read_or_an_error_of_ours(container, tmp_path):
    old, old_optimizer = trained(model=nn.Linear(2, 1))
    state = CONTAINERS[container](old, old_optimizer)
    dcp.save(state, storage_writer=dcp.FileSystemWriter(tmp_path / "a"), no_dist=True)
    metadata = tmp_path / "a" / ".metadata"
    whole = metadata.read_bytes()
    for at in range(3, len(whole), 97):
        metadata.write_bytes(whole[:at] + bytes([whole[at] ^ 0x11]) + whole[at + 1 :])
        try:
            with tws.load_checkpoint(tmp_path / "a") as checkpoint:
                for optimizer in checkpoint.optimizer_states():
                    for key in slot_keys([optimizer]):
                        checkpoint.get_tensor(key)
        except tws.WarmStartError:
            pass
