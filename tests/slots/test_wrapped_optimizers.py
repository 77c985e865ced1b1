"""Slots of optimizers that are wrapped, split, or used in ways of their own."""

from __future__ import annotations

import pytest
import torch
from slots_helpers import (
    ALL,
    NEW,
    OLD,
    Words,
    assert_same_state,
    build,
    moved,
    saved,
    state_of,
    train,
    vocab_info,
)
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, SettingsError, UnsupportedError, WarmStartSettings


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other cost these small tensors more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# -- what optimizers are wrapped in, and how they are used -----------------------------------------


def test_a_scheduler_and_hooks_stay_attached():
    old, model = Words(5), Words(5, seed=1)
    old_optimizer = torch.optim.AdamW(old.parameters())
    train(old, old_optimizer, OLD, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    tws.warm_start(model, WarmStartSettings(saved(old, old_optimizer), ALL), optimizer=optimizer)
    assert calls == []
    train(model, optimizer, OLD, 1)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert calls == [1]
    assert state_of(optimizer, model.embed.weight)["step"].item() == 3


def _two_optimizers(model):
    return [
        torch.optim.SGD([model.embed.weight], lr=0.1, momentum=0.9),
        torch.optim.Adam([model.out.weight]),
    ]


def test_several_optimizers_as_a_list():
    old, model = Words(5), Words(5, seed=1)
    old_ones, new_ones = _two_optimizers(old), _two_optimizers(model)
    for optimizer in old_ones:
        train(old, optimizer, OLD, 2)
    names = [["embed.weight"], ["out.weight"]]
    states = [o.state_dict() for o in old_ones]
    for state, of in zip(states, names, strict=True):
        state["param_groups"][0]["param_names"] = of
    checkpoint = {"state_dict": old.state_dict(), "optimizer_states": states}
    report = tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=new_ones)
    for new, before in zip(new_ones, old_ones, strict=True):
        assert_same_state(new, before)
    assert report["out.weight/exp_avg"].reason == "by name"


def test_a_parameter_in_two_optimizers_is_an_error():
    model = Words(5)
    pair = [torch.optim.SGD(model.parameters()), torch.optim.Adam(model.parameters())]
    with pytest.raises(SettingsError, match=r"Two optimizers have 'embed\.weight'"):
        tws.plan_warm_start(model, Words(5), optimizer=pair)


def test_an_optimizer_of_another_model_is_an_error():
    with pytest.raises(SettingsError, match="has none of the model's parameters"):
        tws.plan_warm_start(Words(5), Words(5), optimizer=torch.optim.Adam(Words(5).parameters()))


def test_what_is_no_optimizer_is_an_error():
    with pytest.raises(SettingsError, match="must be a torch.optim.Optimizer or a list of them"):
        tws.plan_warm_start(Words(5), Words(5), optimizer=0.1)


def test_a_wrapper_that_passes_the_state_on_is_looked_through():
    class Accelerated(torch.optim.Optimizer):  # as Hugging Face's accelerate does it
        def __init__(self, optimizer):
            self.optimizer = optimizer

        @property
        def state(self):
            return self.optimizer.state

        @state.setter
        def state(self, state):
            self.optimizer.state = state

        @property
        def param_groups(self):
            return self.optimizer.param_groups

    old, model = Words(5), Words(5, seed=1)
    old_optimizer = torch.optim.Adam(old.parameters())
    train(old, old_optimizer, OLD, 2)
    inner = torch.optim.Adam(model.parameters())
    settings = WarmStartSettings(saved(old, old_optimizer), ALL)
    tws.warm_start(model, settings, optimizer=Accelerated(inner))
    assert_same_state(inner, old_optimizer)


def test_a_wrapper_that_steps_another_optimizer_does_not_step_it():
    class Slow(torch.optim.Optimizer):  # as Lookahead is written
        def __init__(self, optimizer):
            super().__init__(optimizer.param_groups, {})
            self.optimizer = optimizer
            self.param_groups = optimizer.param_groups
            self.state = optimizer.state

        def step(self, closure=None):
            self.optimizer.step()

    model = Words(5)
    inner = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    train(model, inner, OLD, 1)  # leaves gradients behind
    before = [p.detach().clone() for p in model.parameters()]
    plan = tws.plan_warm_start(model, Words(5), optimizer=Slow(inner))
    assert "embed.weight/momentum_buffer" in {item.name for item in plan.items}
    assert all(map(torch.equal, model.parameters(), before))


class Around(torch.optim.Optimizer):
    """Steps others, as ZeroRedundancyOptimizer and Lookahead do: its own state stays empty."""

    def __init__(self, optimizer, held):
        super().__init__(optimizer.param_groups, {})
        self.inner, self.held = optimizer, held(optimizer)

    def step(self, closure=None):
        self.inner.step()


HELD = {
    "itself": lambda optimizer: optimizer,
    "a list": lambda optimizer: [optimizer],
    "a dict": lambda optimizer: {"adam": optimizer},
}


@pytest.mark.parametrize("held", HELD)
def test_a_wrapper_beside_whose_state_another_is_used_is_refused(held):
    old, model = Words(5), Words(5, seed=1)
    old_optimizer = torch.optim.Adam(old.parameters())
    train(old, old_optimizer, OLD, 2)
    inner = torch.optim.Adam(model.parameters())
    optimizer = Around(inner, HELD[held])
    if held != "itself":
        optimizer.inner = None
    settings = WarmStartSettings(saved(old, old_optimizer), ALL)
    with pytest.raises(UnsupportedError, match=r"Around steps its '(inner|held)' \(Adam\)"):
        tws.warm_start(model, settings, optimizer=optimizer)
    tws.warm_start(model, settings, optimizer=inner)
    assert_same_state(inner, old_optimizer)


def test_an_optimizer_may_hold_another_for_other_parameters():
    old, model = Words(5), Words(5, seed=1)
    optimizers = [torch.optim.Adam(words.parameters()) for words in (old, model)]
    train(old, optimizers[0], OLD, 2)
    optimizers[1].judge = torch.optim.Adam(nn.Linear(3, 1).parameters())
    tws.warm_start(
        model, WarmStartSettings(saved(old, optimizers[0]), ALL), optimizer=optimizers[1]
    )
    assert_same_state(optimizers[1], optimizers[0])


def test_a_wrapper_that_steps_copies_of_its_parameters_is_refused():
    old, model = Words(5), Words(5, seed=1)
    old_optimizer = torch.optim.Adam(old.parameters())
    train(old, old_optimizer, OLD, 2)
    flat = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.masters = torch.optim.Adam([nn.Parameter(flat)])
    settings = WarmStartSettings(saved(old, old_optimizer), ALL)
    with pytest.raises(UnsupportedError, match=r"steps its 'masters' \(Adam\)"):
        tws.warm_start(model, settings, optimizer=optimizer)


def test_param_groups_may_be_added_later():
    old, model = Words(5), Words(5, seed=1)
    optimizers = []
    for words in (old, model):
        optimizer = torch.optim.Adam([words.embed.weight])
        optimizer.add_param_group({"params": [words.out.weight], "amsgrad": True, "lr": 0.1})
        optimizers.append(optimizer)
    train(old, optimizers[0], OLD, 2)
    tws.warm_start(
        model, WarmStartSettings(saved(old, optimizers[0]), ALL), optimizer=optimizers[1]
    )
    assert_same_state(optimizers[1], optimizers[0])
    assert "max_exp_avg_sq" in state_of(optimizers[1], model.out.weight)


def test_parameters_that_the_optimizer_does_not_have_have_no_slots():
    model = Words(5)
    plan = tws.plan_warm_start(model, Words(5), optimizer=torch.optim.Adam([model.out.weight]))
    slots = [item.name for item in plan.items if item.variable.kind == "slot"]
    assert slots == ["out.weight/step", "out.weight/exp_avg", "out.weight/exp_avg_sq"]


class Lion(torch.optim.Optimizer):
    """Somebody's own: one slot of the parameter's shape, and an option of its class."""

    def __init__(self, params, beta=0.9):
        super().__init__(params, {"lr": 0.01, "weight_decay": 0.1})
        self.beta = beta

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"] = torch.zeros_like(p)
                    state["is_warm"] = False
                p.add_(torch.sign(state["exp_avg"].lerp(p.grad, 0.1)), alpha=-group["lr"])
                state["exp_avg"].lerp_(p.grad + group["weight_decay"] * p, 1 - self.beta)
                state["is_warm"] = state["is_warm"] or True


def test_an_optimizer_that_nobody_heard_of():
    old, model = Words(5), Words(6, seed=1)
    old_optimizer = Lion(old.parameters())
    train(old, old_optimizer, OLD, 2)
    optimizer = Lion(model.parameters())
    settings = WarmStartSettings(saved(old, old_optimizer), ALL, {"embed.weight": vocab_info()})
    tws.warm_start(model, settings, optimizer=optimizer)
    exp_avg = state_of(old_optimizer, old.embed.weight)["exp_avg"]
    assert torch.equal(state_of(optimizer, model.embed.weight)["exp_avg"], moved(exp_avg))
    train(model, optimizer, NEW, 1)  # with the flag that its state begins with


class Factored(torch.optim.Optimizer):
    """Keeps means of rows and of columns, one number each, as transformers' Adafactor does."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if p.ndim > 1:
                    state["exp_avg_sq_row"] = p.grad.square().mean(-1)
                    state["exp_avg_sq_col"] = p.grad.square().mean(-2)
                else:
                    state["exp_avg_sq"] = p.grad.square()


def test_factors_of_a_square_matrix_are_told_by_their_names():
    def made(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        parameters = list(model.parameters())
        return model, Factored([{"params": parameters[::2]}, {"params": parameters[1::2]}])

    (old, old_optimizer), (model, optimizer) = made(0), made(1)
    old(torch.rand(3, 4)).square().sum().backward()
    old_optimizer.step()
    tws.warm_start(model, saved(old, old_optimizer), optimizer=optimizer)
    for parameter, before in zip(model.parameters(), old.parameters(), strict=True):
        for slot, value in old_optimizer.state[before].items():
            assert torch.equal(optimizer.state[parameter][slot], value)


class Eager(torch.optim.Optimizer):
    """Makes its state when it is made, as Adagrad did before torch 2.9."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})
        for p in self.param_groups[0]["params"]:
            self.state[p]["sum"] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                self.state[p]["sum"].add_(p.grad.square())
                p.addcdiv_(p.grad, self.state[p]["sum"].sqrt() + 1e-8, value=-0.1)


def test_an_optimizer_that_makes_its_state_when_it_is_made():
    old, model = Words(5), Words(6, seed=1)
    pair = [Eager(m.parameters()) for m in (old, model)]
    train(old, pair[0], OLD, 2)
    settings = WarmStartSettings(saved(old, pair[0]), ALL, {"embed.weight": vocab_info()})
    tws.warm_start(model, settings, optimizer=pair[1])
    expected = moved(state_of(pair[0], old.embed.weight)["sum"])
    assert torch.equal(state_of(pair[1], model.embed.weight)["sum"], expected)


class Averaging(torch.optim.Optimizer):
    """Begins with a copy of the parameter, and a number of Python's."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["z"], state["norm"], state["k"] = p.clone(), 0.0, 0
            state["z"].sub_(p.grad, alpha=self.param_groups[0]["lr"])
            state["k"] += 1
            state["norm"] += p.grad.norm().item()
            p.lerp_(state["z"], 1 / state["k"])


def test_a_slot_whose_beginning_nobody_knows_is_taken_whole_or_refused():
    old, model = Words(5), Words(5, seed=1)
    old_optimizer = Averaging(old.parameters())
    train(old, old_optimizer, OLD, 3)
    optimizer = Averaging(model.parameters())
    checkpoint = saved(old, old_optimizer)
    with pytest.raises(UnsupportedError, match="nobody knows what Averaging begins with"):
        tws.warm_start(
            model, WarmStartSettings(checkpoint, ["embed.weight/k"]), optimizer=optimizer
        )
    assert not optimizer.state
    tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=optimizer)
    assert_same_state(optimizer, old_optimizer)
    assert type(state_of(optimizer, model.embed.weight)["k"]) is int

    larger = Words(6)
    vocab = {"embed.weight": vocab_info()}
    with pytest.raises(PlanError, match="nobody knows what Averaging begins with for 3 rows"):
        tws.warm_start(
            larger,
            WarmStartSettings(checkpoint, ALL, vocab),
            optimizer=Averaging(larger.parameters()),
        )
    vocab["embed.weight/z"] = vocab_info(backup_initializer=nn.init.ones_)
    optimizer = Averaging(larger.parameters())
    tws.warm_start(larger, WarmStartSettings(checkpoint, ALL, vocab), optimizer=optimizer)
    z = state_of(old_optimizer, old.embed.weight)["z"]
    assert torch.equal(state_of(optimizer, larger.embed.weight)["z"], moved(z, 1.0))


class Shaped(torch.optim.Optimizer):
    """Keeps one tensor, of a shape that its argument makes from the parameter's."""

    def __init__(self, params, shape):
        self.shape = shape
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                self.state[p].setdefault("kept", torch.zeros(self.shape(p))).add_(1)


SHAPES = {
    "flat": lambda p: [p.numel()],
    "a constant": lambda p: [11, 13, 7],  # the sizes of the tiny parameter that is asked about
    "rows": lambda p: [p.shape[0]],
    "turned": lambda p: [p.shape[1], 1, p.shape[0]],
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_slots_of_shapes_that_follow_from_the_parameters(shape):
    old, model = Words(5), Words(5, seed=1)
    old_optimizer, optimizer = Shaped(old.parameters(), shape), Shaped(model.parameters(), shape)
    train(old, old_optimizer, OLD, 3)
    checkpoint = saved(old, old_optimizer)
    checkpoint["optimizer"]["param_groups"][0]["param_names"] = ["embed.weight", "out.weight"]
    tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=optimizer)
    assert_same_state(optimizer, old_optimizer)
    train(model, optimizer, OLD, 1)


def test_a_slot_whose_shape_is_not_known_is_refused_before_the_first_step():
    def halves(parameter):
        return [parameter.numel() // 2]

    old, model = Words(6), Words(6, seed=1)
    old_optimizer, optimizer = Shaped(old.parameters(), halves), Shaped(model.parameters(), halves)
    train(old, old_optimizer, OLD, 3)
    checkpoint = saved(old, old_optimizer)
    checkpoint["optimizer"]["param_groups"][0]["param_names"] = ["embed.weight", "out.weight"]
    message = (
        r"embed\.weight: Shaped keeps 'kept', whose shape does not follow from the parameter's in "
        r"a way that is known: let the optimizer take a step before the warm start\."
    )
    with pytest.raises(UnsupportedError, match=message):
        tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=optimizer)
    train(model, optimizer, OLD, 1)
    tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=optimizer)
    assert_same_state(optimizer, old_optimizer)


def test_a_flat_slot_does_not_follow_a_vocabulary():
    old, model = Words(5), Words(5, seed=1)
    old_optimizer, optimizer = (Shaped(m.parameters(), SHAPES["flat"]) for m in (old, model))
    train(old, old_optimizer, OLD, 3)
    checkpoint = saved(old, old_optimizer)
    checkpoint["optimizer"]["param_groups"][0]["param_names"] = ["embed.weight", "out.weight"]
    vocab = {"embed.weight": vocab_info(new_vocab=OLD[::-1])}
    with pytest.raises(PlanError, match=r"embed\.weight/kept is flat, so that the rows of embed"):
        tws.warm_start(model, WarmStartSettings(checkpoint, ALL, vocab), optimizer=optimizer)


def test_an_optimizer_from_before_a_layer_was_replaced_is_noted():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    model, optimizer = build("adam", len(OLD), seed=1)
    model.embed = nn.Embedding(len(NEW), 4)
    settings = WarmStartSettings(saved(old, old_optimizer), ALL, {"embed.weight": vocab_info()})
    report = tws.warm_start(model, settings, optimizer=optimizer)
    assert tuple(map(str, report.notes)) == (
        "1 parameter of the model (such as 'embed.weight') is in no optimizer, which has 1 tensor "
        "that the model does not have, as happens where a layer is replaced after the optimizer is "
        "made: make it from model.parameters() when the model is complete.",
    )
    settings = WarmStartSettings(
        saved(old, old_optimizer), ["embed"], {"embed.weight": vocab_info()}
    )
    assert tws.warm_start(model, settings, optimizer=optimizer).notes == ()


def test_an_entry_for_a_slot_that_is_not_selected_says_what_selects_it():
    model, optimizer = build("adam", len(OLD))
    settings = WarmStartSettings(
        {"model": model.state_dict()}, "out", None, {"embed.weight/exp_avg": "x"}
    )
    with pytest.raises(PlanError) as caught:
        tws.warm_start(model, settings, optimizer=optimizer)
    assert tuple(map(str, caught.value.problems)) == (
        "var_name_to_prev_var_name: 'embed.weight/exp_avg' is not used, because vars_to_warm_start "
        "does not select it. It is an optimizer's slot: a str selects those of the parameters that "
        "it matches, a list those whose own names match.",
    )
    settings = WarmStartSettings({"model": model.state_dict()}, "embed.weight/exp")
    with pytest.raises(PlanError, match=r"It matches the optimizer's slot 'embed\.weight/exp_avg'"):
        tws.warm_start(model, settings, optimizer=optimizer)


class Shrinks(torch.optim.Optimizer):
    """Changes all that it holds, whether it has a gradient or not, and draws noise."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})
        self.held = tuple(self.param_groups[0]["params"])
        self.average = {"of": torch.zeros(2)}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.state[parameter].setdefault("m", torch.zeros_like(parameter))
        for parameter in self.held:
            parameter.mul_(0.5)
            for slot in self.state[parameter].values():
                slot.add_(torch.rand(()))


def test_a_step_that_is_tried_leaves_real_parameters_and_chance_as_they_were():
    model = torch.nn.Linear(2, 2)
    optimizer = Shrinks(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    state = {"model": torch.nn.Linear(2, 2).state_dict(), "optimizer": optimizer.state_dict()}
    held = [*optimizer.held, *(s["m"] for s in optimizer.state.values())]
    before, chance = [one.detach().clone() for one in held], torch.get_rng_state()
    tws.plan_warm_start(model, state, optimizer=optimizer)
    assert all(torch.equal(one, was) for one, was in zip(held, before, strict=True))
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(parameter.grad is not None for parameter in model.parameters())
