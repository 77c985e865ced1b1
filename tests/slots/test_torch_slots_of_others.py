"""Slots of several optimizers of torch, of others than before, and of junk."""

from __future__ import annotations

import copy
import math
import warnings
from collections import OrderedDict

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
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
from torch_warmstart import PlanError, SettingsError, VocabInfo, WarmStartSettings
from torch_warmstart.formats.saved_optimizers import find_optimizers, in_keys
from torch_warmstart.slots.saved_slots import slot_keys

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


# -- several optimizers ----------------------------------------------------------------------------


class Twins(nn.Module):
    """Two nets of one shape, as a small GAN has."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.g, self.d = nn.Linear(2, 2), nn.Linear(2, 2)


def _of_twins(kinds, seed):
    model = Twins(seed)
    optimizers = [kinds[0](model.g.parameters(), lr=0.1), kinds[1](model.d.parameters(), lr=0.1)]
    return model, optimizers


def _saved_twins(kinds):
    """The optimizers of trained twins, and a checkpoint of all."""
    old, olds = _of_twins(kinds, seed=0)
    for optimizer in olds:
        step(old, optimizer)
    saved = {"opt_d": olds[1].state_dict(), "opt_g": olds[0].state_dict()}
    return olds, {"model": old.state_dict(), **saved}


@pytest.mark.parametrize("is_turned", [False, True])
def test_equal_nets_are_told_by_the_kinds_of_their_optimizers(is_turned):
    kinds = (torch.optim.Adam, torch.optim.Adagrad)
    olds, state = _saved_twins(kinds)
    model, optimizers = _of_twins(kinds, seed=1)
    given = optimizers[::-1] if is_turned else optimizers
    report = tws.warm_start(model, WarmStartSettings(state, ALL), optimizer=given)
    for here, there in zip(optimizers, olds, strict=True):
        pairs = zip(here.state.values(), there.state.values(), strict=True)
        assert all(torch.equal(mine[name], its[name]) for mine, its in pairs for name in its)
    # Nobody says who was whose.
    assert {note.code for note in report.notes} == {"state-by-position"}


def test_equal_nets_with_equal_optimizers_are_not_told_apart():
    kinds = (torch.optim.Adam, torch.optim.Adam)
    _, state = _saved_twins(kinds)
    model, optimizers = _of_twins(kinds, seed=1)
    with pytest.raises(PlanError, match="their shapes fit in more than one order"):
        tws.warm_start(model, WarmStartSettings(state, ALL), optimizer=optimizers)


@pytest.mark.filterwarnings("ignore::torch_warmstart.WarmStartWarning")
def test_equal_nets_are_told_by_what_is_selected_beside_an_entry():
    kinds = (torch.optim.Adam, torch.optim.Adam)
    olds, state = _saved_twins(kinds)
    model, optimizers = _of_twins(kinds, seed=1)
    names = [name for name, _ in model.named_children()]
    each = [
        WarmStartSettings(state, rf"{name}\.", optimizer_entry=entry)
        for name, entry in zip(names, ("opt_g", "opt_d"), strict=True)
    ]
    tws.warm_start(model, each, optimizer=optimizers)
    for here, there in zip(optimizers, olds, strict=True):
        pairs = zip(here.state.values(), there.state.values(), strict=True)
        assert all(torch.equal(mine[name], its[name]) for mine, its in pairs for name in its)


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
        "kind, leave the slots out by a list in vars_to_warm_start, or keep what `optimizer` has "
        "with on_missing='keep'."
    )
    assert tuple(map(str, caught.value.problems)) == (problem,)
    assert str(caught.value).endswith(
        "An optimizer's slot that is not in the checkpoint: name its key in "
        "var_name_to_prev_var_name, leave it out by a list in vars_to_warm_start (a str brings "
        "all), or keep what `optimizer` has with on_missing='keep'."
    )
    _, optimizer, _ = take_slots(checkpoint, selection=["[^/]+$"])  # as it advises
    assert not optimizer.state
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


PRESUMED = ["slot-of-presumed-kind"]


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            notes = tws.warm_start(model, settings, optimizer=optimizer).notes
        assert [note.code for note in notes] == PRESUMED * ("trust" in slots)
        assert optimizer.state[model.a.weight][slots[-1] if slots[-1] != "trust" else "step"].any()
    else:
        with pytest.raises(PlanError, match="cannot go on from that"):
            tws.warm_start(model, settings, optimizer=optimizer)


@pytest.mark.parametrize(
    ("there", "here", "codes"),
    [
        (None, ("exp_avg",), PRESUMED),  # Lion's, of Adam's
        (("exp_avg", "trust"), ("exp_avg",), PRESUMED),
        (("exp_avg",), ("exp_avg",), []),
        (("step", "exp_avg"), ("exp_avg",), []),  # who counts in param groups
    ],
)
def test_what_is_taken_by_name_alone_is_told(there, here, codes):
    old = Matrices()
    named = old.named_parameters()
    old_optimizer = torch.optim.Adam(named) if there is None else Borrowed(named, there)
    step(old, old_optimizer)
    model, checkpoint = Matrices(seed=1), CONTAINERS["usual"](old, old_optimizer)
    optimizer = Borrowed(model.named_parameters(), here)
    plan = tws.plan_warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=optimizer)
    assert [note.code for note in plan.notes] == codes
    assert ("a.weight/exp_avg" in plan.inferred) == bool(codes)


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

    _, _, report = take_slots(checkpoint, kind=amsgrad)
    reason = report["embed.weight/max_exp_avg_sq"].reason
    assert reason == "the checkpoint's optimizer ran without amsgrad"
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
    _, optimizer, report = take_slots(checkpoint)
    (note,) = report.notes
    assert note.severity == "warning"
    assert "holds no optimizer's state, so there are no slots to take" in str(note)
    assert not optimizer.state


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
        "optimizer/state/{0,2...22}/{step,exp_avg,exp_avg_sq} scalar, [4, 4] by position",
        "{0...11}.bias/{step,exp_avg,exp_avg_sq} "
        "optimizer/state/{1,3...23}/{step,exp_avg,exp_avg_sq} scalar, [4] by position",
        "In all rows: decision copied",
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
