"""An optimizer's slots as the target of a warm start: every optimizer of torch, and others.

The oracle is index code written out by hand: it moves rows of weights and of state, and the two
ways must agree bit for bit, then and after training on.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import torch_warmstart as tws
from torch_warmstart import PlanError, SettingsError, UnsupportedError, VocabInfo, WarmStartSettings

OLD = ["apple", "banana", "guava", "orange", "plum"]
NEW = ["orange", "fig", "apple", "plum", "kiwi", "pear"]
SHARED = ["orange", "apple", "plum"]
ALL = [".*"]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other cost these small tensors more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Words(nn.Module):
    """Scores words; everything has two dimensions, as Muon wants it."""

    def __init__(self, words, *, sparse=False, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(words, 4, sparse=sparse)
        if not sparse:
            self.out = nn.Linear(4, 3, bias=False)

    def forward(self, ids):
        rows = self.embed(ids)
        return self.out(rows) if hasattr(self, "out") else rows


def _optimizers():
    """Every optimizer of torch that has a state by parameter, with the options that change it."""
    optim = torch.optim
    made = {
        "adam": lambda p: optim.Adam(p, lr=0.05),
        "adam-amsgrad": lambda p: optim.Adam(p, lr=0.05, amsgrad=True, weight_decay=0.1),
        "adam-foreach": lambda p: optim.Adam(p, lr=0.05, foreach=True),
        "adam-fused": lambda p: optim.Adam(p, lr=0.05, fused=True),
        "adam-tensor-lr": lambda p: optim.Adam(p, lr=torch.tensor(0.05), foreach=False),
        "adamw": lambda p: optim.AdamW(p, lr=0.05),
        "adamw-fused": lambda p: optim.AdamW(p, lr=0.05, fused=True, amsgrad=True),
        "adamw-maximize": lambda p: optim.AdamW(p, lr=0.05, maximize=True),
        "sgd-momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
        "sgd-nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        "sgd-dampening": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5),
        "sgd-fused": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
        "adagrad": lambda p: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.25),
        "adagrad-fused": lambda p: optim.Adagrad(p, lr=0.05, fused=True),
        "adadelta": optim.Adadelta,
        "rmsprop": lambda p: optim.RMSprop(p, lr=0.05),
        "rmsprop-all": lambda p: optim.RMSprop(p, lr=0.05, centered=True, momentum=0.9),
        "nadam": lambda p: optim.NAdam(p, lr=0.05),
        "radam": lambda p: optim.RAdam(p, lr=0.05),
        "adamax": lambda p: optim.Adamax(p, lr=0.05),
        "adafactor": lambda p: optim.Adafactor(p, lr=0.05),
        "rprop": lambda p: optim.Rprop(p, lr=0.05),
        "asgd": lambda p: optim.ASGD(p, lr=0.05, lambd=0.5, t0=2),
        "sparse-adam": lambda p: optim.SparseAdam(p, lr=0.05),
    }
    if hasattr(optim, "Muon"):
        made["muon"] = lambda p: optim.Muon(p, lr=0.05)
    return made


OPTIMIZERS = _optimizers()
# What rows without an old one begin with, where that is not zero.
STARTS = {("adagrad", "sum"): 0.25, ("rprop", "step_size"): 0.05}
# Their update of one row depends on all rows.
NOT_ROW_BY_ROW = {"adafactor", "muon"}


def build(name, words, *, seed=0, device="cpu"):
    model = Words(words, sparse=name == "sparse-adam", seed=seed).to(device)
    return model, OPTIMIZERS[name](model.parameters())


def train(model, optimizer, vocabulary, steps, seed=0):
    """Trains on shared words only, the same ones whatever their ids."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    for _ in range(steps):
        words = torch.randint(len(SHARED), (6,), generator=generator)
        ids = torch.tensor([vocabulary.index(SHARED[n]) for n in words], device=device)
        loss = (model(ids) - words.to(device)[:, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def vocab_info(**changes):
    fields = {"new_vocab": NEW, "new_vocab_size": -1, "num_oov_buckets": 0, "old_vocab": OLD}
    return VocabInfo(**{**fields, **changes})


def saved(model, optimizer):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def moved(tensor, start=0.0):
    """The oracle: rows of the old vocabulary, moved to where the new one has their words."""
    out = torch.full((len(NEW), *tensor.shape[1:]), start, dtype=tensor.dtype)
    for at, word in enumerate(NEW):
        if word in OLD:
            out[at] = tensor[OLD.index(word)]
    return out


def state_of(optimizer, parameter):
    return optimizer.state[parameter]


def by_hand(name, old, old_optimizer):
    """A new model and its optimizer, made by index code and `load_state_dict`."""
    model, optimizer = build(name, len(NEW), seed=1)
    with torch.no_grad():
        model.embed.weight.copy_(moved(old.embed.weight))
        if hasattr(model, "out"):
            model.out.weight.copy_(old.out.weight)
    state = copy.deepcopy(old_optimizer.state_dict())
    for slot, value in state["state"][0].items():
        if isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[0] == len(OLD):
            state["state"][0][slot] = moved(value, STARTS.get((name, slot), 0.0))
    optimizer.load_state_dict(state)
    return model, optimizer


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype and a.device == b.device
    return a == b and type(a) is type(b)


def assert_same_state(optimizer, other):
    state, expected = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert state.keys() == expected.keys()
    for at, slots in expected.items():
        assert state[at].keys() == slots.keys()
        for slot, value in slots.items():
            assert same(state[at][slot], value), (at, slot)


# -- every optimizer of torch ----------------------------------------------------------------------


@pytest.mark.parametrize("steps_before", [0, 2], ids=["fresh", "used"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_slots_follow_the_vocabulary_as_index_code_moves_them(name, steps_before):
    old, old_optimizer = build(name, len(OLD))
    train(old, old_optimizer, OLD, 5)
    model, optimizer = build(name, len(NEW), seed=1)
    train(model, optimizer, NEW, steps_before)
    settings = WarmStartSettings(saved(old, old_optimizer), ALL, {"embed.weight": vocab_info()})
    report = tws.warm_start(model, settings, optimizer=optimizer)
    expected, expected_optimizer = by_hand(name, old, old_optimizer)

    assert torch.equal(model.embed.weight, expected.embed.weight)
    assert_same_state(optimizer, expected_optimizer)
    assert report.missing_keys == report.unexpected_keys == ()

    steps = 2 if steps_before else 100
    train(model, optimizer, NEW, steps, seed=1)
    train(expected, expected_optimizer, NEW, steps, seed=1)
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    assert_same_state(optimizer, expected_optimizer)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - NOT_ROW_BY_ROW))
def test_training_goes_on_for_the_words_that_stay_and_would_not_without_slots(name):
    old, old_optimizer = build(name, len(OLD))
    train(old, old_optimizer, OLD, 5)
    checkpoint = copy.deepcopy(saved(old, old_optimizer))
    vocab = {"embed.weight": vocab_info()}
    model, optimizer = build(name, len(NEW), seed=1)
    tws.warm_start(model, WarmStartSettings(checkpoint, ALL, vocab), optimizer=optimizer)
    without, fresh = build(name, len(NEW), seed=1)
    tws.warm_start(without, WarmStartSettings(checkpoint, ".*", vocab))
    old_rows = [OLD.index(word) for word in SHARED]
    new_rows = [NEW.index(word) for word in SHARED]

    apart = 0.0
    for step in range(100):
        train(old, old_optimizer, OLD, 1, seed=step)
        train(model, optimizer, NEW, 1, seed=step)
        train(without, fresh, NEW, 1, seed=step)
        reached = old.embed.weight[old_rows]
        if name.endswith("fused"):  # whose rounding depends on where in a tensor a value lies
            torch.testing.assert_close(model.embed.weight[new_rows], reached)
        else:
            assert torch.equal(model.embed.weight[new_rows], reached), step
        apart = max(apart, (without.embed.weight[new_rows] - reached).abs().max().item())
    assert apart > 1e-3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_one_that_torch_would_save_and_load(name, device):
    if device.type == "cuda" and name == "adagrad-fused":
        pytest.skip("torch has no fused Adagrad for CUDA")
    old, old_optimizer = build(name, len(OLD), device=device)
    train(old, old_optimizer, OLD, 3)
    model, optimizer = build(name, len(OLD), seed=1, device=device)
    tws.warm_start(model, WarmStartSettings(saved(old, old_optimizer), ALL), optimizer=optimizer)
    assert_same_state(optimizer, old_optimizer)
    _, other = build(name, len(OLD), seed=2, device=device)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert_same_state(other, old_optimizer)
    train(model, optimizer, OLD, 1)
    train(old, old_optimizer, OLD, 1)
    assert_same_state(optimizer, old_optimizer)


@pytest.mark.cuda
@pytest.mark.parametrize(
    "options", [{"capturable": True}, {"fused": True}, {"fused": True, "amsgrad": True}], ids=str
)
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_steps_stay_on_the_gpu_where_the_optimizer_keeps_them(kind, options):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    old, model = Words(5).cuda(), Words(6, seed=1).cuda()
    old_optimizer = kind(old.parameters())
    train(old, old_optimizer, OLD, 3)  # whose steps are on the CPU
    optimizer = kind(model.parameters(), **options)
    checkpoint = saved(old, old_optimizer)
    if options.get("amsgrad"):
        for slots in checkpoint["optimizer"]["state"].values():
            slots["max_exp_avg_sq"] = slots["exp_avg_sq"].clone()
    settings = WarmStartSettings(checkpoint, ALL, {"embed.weight": vocab_info()})
    tws.warm_start(model, settings, optimizer=optimizer)
    assert state_of(optimizer, model.embed.weight)["step"].device.type == "cuda"
    assert state_of(optimizer, model.embed.weight)["step"].item() == 3
    train(model, optimizer, NEW, 2)


def test_what_an_optimizer_begins_with_is_asked_without_touching_it():
    model = Words(5)
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, OLD, 2)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    handle = register_optimizer_step_post_hook(lambda *_: calls.append("all"))
    before = copy.deepcopy(optimizer.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    weights = [p.detach().clone() for p in model.parameters()]
    try:
        tws.plan_warm_start(model, Words(5), optimizer=optimizer)
    finally:
        handle.remove()
    assert calls == []
    assert str(optimizer.state_dict()) == str(before)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(map(torch.equal, model.parameters(), weights))


def test_lbfgs_is_refused():
    model = Words(5)
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(UnsupportedError, match="LBFGS does not keep its state by parameter"):
        tws.plan_warm_start(model, Words(5), optimizer=optimizer)


def test_an_optimizer_that_could_not_step_either_is_refused():
    model = Words(5)
    optimizer = torch.optim.Adam(model.parameters(), capturable=True)  # on the CPU
    with pytest.raises(UnsupportedError, match="Adam does not keep its state .*capturable"):
        tws.plan_warm_start(model, Words(5), optimizer=optimizer)


def test_a_differentiable_optimizer_has_slots_too():
    old, model = Words(5), Words(5, seed=1)
    old_optimizer = torch.optim.Adam(old.parameters())
    train(old, old_optimizer, OLD, 2)
    optimizer = torch.optim.Adam(model.parameters(), differentiable=True)
    tws.warm_start(model, WarmStartSettings(saved(old, old_optimizer), ALL), optimizer=optimizer)
    assert_same_state(optimizer, old_optimizer)


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
    with pytest.raises(PlanError, match="nobody knows what Averaging begins with for the 3 rows"):
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
        {"model": model.state_dict()}, ".*", None, {"embed.weight/exp_avg": "x"}
    )
    with pytest.raises(PlanError) as caught:
        tws.warm_start(model, settings, optimizer=optimizer)
    assert tuple(map(str, caught.value.problems)) == (
        "var_name_to_prev_var_name: 'embed.weight/exp_avg' is not used, because vars_to_warm_start "
        "does not select it. It is an optimizer's slot: only a list, such as ['.*'], selects "
        "slots.",
    )
    settings = WarmStartSettings({"model": model.state_dict()}, "embed.weight/exp")
    with pytest.raises(PlanError, match=r"It matches the optimizer's slot 'embed\.weight/exp_avg'"):
        tws.warm_start(model, settings, optimizer=optimizer)


def test_a_state_of_containers_is_refused_before_its_first_step():
    class Factored(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                if p.grad is not None and not self.state[p]:
                    self.state[p].update(exp_avg=torch.zeros_like(p), factors=[torch.zeros(2)])

    old, model = Words(5), Words(5, seed=1)
    old_optimizer, optimizer = Factored(old.parameters()), Factored(model.parameters())
    train(old, old_optimizer, OLD, 1)
    before = model.embed.weight.detach().clone()
    settings = WarmStartSettings(saved(old, old_optimizer), ALL)
    with pytest.raises(UnsupportedError, match="Factored keeps 'factors' for each parameter, a li"):
        tws.warm_start(model, settings, optimizer=optimizer)
    assert torch.equal(model.embed.weight, before)
    train(model, optimizer, OLD, 1)
    tws.warm_start(model, settings, optimizer=optimizer)


# -- which tensors they are ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_slots_have_the_dtype_that_the_optimizer_gives_them(dtype):
    old, model = Words(5), Words(6, seed=1).to(dtype)
    old_optimizer = torch.optim.Adam(old.parameters())
    train(old, old_optimizer, OLD, 2)
    optimizer = torch.optim.Adam(model.parameters())
    settings = WarmStartSettings(saved(old, old_optimizer), ALL, {"embed.weight": vocab_info()})
    tws.warm_start(model, settings, optimizer=optimizer)
    slots = state_of(optimizer, model.embed.weight)
    assert slots["exp_avg"].dtype == dtype
    assert slots["step"].dtype == torch.float32
    exp_avg = state_of(old_optimizer, old.embed.weight)["exp_avg"]
    assert torch.equal(slots["exp_avg"], moved(exp_avg.to(dtype)))
    train(model, optimizer, NEW, 1)


def test_slots_have_the_strides_that_torch_would_give_them():
    def conv(seed):
        torch.manual_seed(seed)
        return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    old, model, stepped = conv(0), conv(1), conv(2)
    optimizers = [torch.optim.Adam(m.parameters()) for m in (old, model, stepped)]
    for module, optimizer in ((old, optimizers[0]), (stepped, optimizers[2])):
        module(torch.rand(1, 3, 5, 5)).sum().backward()
        optimizer.step()
    tws.warm_start(
        model, WarmStartSettings(saved(old, optimizers[0]), ALL), optimizer=optimizers[1]
    )
    made, torchs = (
        o.state[m.weight] for o, m in zip(optimizers[1:], (model, stepped), strict=True)
    )
    assert [made[n].stride() for n in made] == [torchs[n].stride() for n in torchs]
    assert made["exp_avg"].stride() == model.weight.stride() != (27, 9, 3, 1)
    assert torch.equal(made["exp_avg"], optimizers[0].state[old.weight]["exp_avg"])


def test_existing_state_is_filled_in_place():
    old, model = Words(5), Words(5, seed=1)
    pair = [torch.optim.Adam(m.parameters()) for m in (old, model)]
    train(old, pair[0], OLD, 3)
    train(model, pair[1], OLD, 1)
    before = state_of(pair[1], model.out.weight)["exp_avg"]
    tws.warm_start(model, WarmStartSettings(saved(old, pair[0]), ALL), optimizer=pair[1])
    assert state_of(pair[1], model.out.weight)["exp_avg"] is before
    assert_same_state(*pair)


def test_a_tied_parameter_has_one_set_of_slots_under_both_names():
    def tied(seed):
        model = Words(5, seed=seed)
        model.out = nn.Linear(4, 5, bias=False)
        model.out.weight = model.embed.weight
        return model

    old, model = tied(0), tied(1)
    pair = [torch.optim.Adam(m.parameters()) for m in (old, model)]
    old(torch.tensor([1, 2])).square().sum().backward()
    pair[0].step()
    settings = WarmStartSettings(saved(old, pair[0]), [r"out\.weight/"])
    report = tws.warm_start(model, settings, optimizer=pair[1])
    assert report["embed.weight/exp_avg"].names == ("embed.weight/exp_avg", "out.weight/exp_avg")
    assert_same_state(pair[1], pair[0])


def test_steps_are_kept_as_numbers_or_tensors_whichever_the_optimizer_wants():
    old, model = Words(5), Words(5, seed=1)
    pair = [torch.optim.Adam(m.parameters()) for m in (old, model)]
    train(old, pair[0], OLD, 3)
    checkpoint = saved(old, pair[0])
    for slots in checkpoint["optimizer"]["state"].values():
        slots["step"] = int(slots["step"])  # as before torch 1.12
    tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=pair[1])
    step = state_of(pair[1], model.embed.weight)["step"]
    assert torch.equal(step, torch.tensor(3.0))

    sparse = Words(5, sparse=True)
    optimizer = torch.optim.SparseAdam(sparse.parameters())
    settings = WarmStartSettings(saved(old, pair[0]), ["embed"])
    with pytest.raises(PlanError, match="numbers its parameters"):  # of one more parameter
        tws.warm_start(
            sparse,
            WarmStartSettings(
                {"model": {"embed.weight": old.embed.weight}, "optimizer": pair[0].state_dict()},
                ["embed"],
            ),
            optimizer=optimizer,
        )
    tws.warm_start(sparse, settings, optimizer=optimizer)
    assert state_of(optimizer, sparse.embed.weight)["step"] == 3
    assert type(state_of(optimizer, sparse.embed.weight)["step"]) is int


def test_a_slot_that_the_state_has_as_a_number_or_none_is_made_anew():
    old, model = Words(5), Words(5, seed=1)
    pair = [torch.optim.Adam(m.parameters()) for m in (old, model)]
    train(old, pair[0], OLD, 3)
    train(model, pair[1], OLD, 1)
    slots = state_of(pair[1], model.embed.weight)
    slots["step"], slots["exp_avg"] = 1, None  # as old checkpoints leave it behind
    tws.warm_start(model, WarmStartSettings(saved(old, pair[0]), ALL), optimizer=pair[1])
    assert_same_state(*pair)


# -- all or nothing --------------------------------------------------------------------------------


def _snapshot(model, optimizer):
    weights = [p.detach().clone() for p in model.parameters()]
    return weights, copy.deepcopy(optimizer.state_dict()["state"])


def _is_unchanged(model, optimizer, snapshot):
    weights, state = snapshot
    now = optimizer.state_dict()["state"]
    return (
        all(map(torch.equal, model.parameters(), weights))
        and now.keys() == state.keys()
        and all(same(now[at][n], v) for at, slots in state.items() for n, v in slots.items())
    )


@pytest.mark.parametrize("steps_before", [0, 2], ids=["fresh", "used"])
def test_a_failing_initializer_leaves_model_and_optimizer_as_they_were(steps_before):
    def fails(tensor):
        raise RuntimeError("no")

    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    model, optimizer = build("adam", len(NEW), seed=1)
    train(model, optimizer, NEW, steps_before)
    snapshot = _snapshot(model, optimizer)
    for name in ("embed.weight", "embed.weight/exp_avg"):
        vocab = {"embed.weight": vocab_info(), name: vocab_info(backup_initializer=fails)}
        settings = WarmStartSettings(saved(old, old_optimizer), ALL, vocab)
        with pytest.raises(RuntimeError, match="no"):
            tws.warm_start(model, settings, optimizer=optimizer)
        assert _is_unchanged(model, optimizer, snapshot)


@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")
def test_a_damaged_slot_leaves_model_and_optimizer_as_they_were(tmp_path):
    import torch.distributed.checkpoint as dcp

    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    dcp.save(
        saved(old, old_optimizer), storage_writer=dcp.FileSystemWriter(tmp_path / "a"), no_dist=True
    )
    with tws.load_checkpoint(tmp_path / "a") as checkpoint:
        key = checkpoint.optimizer_states()[0].parameters[1].slots["exp_avg_sq"]
        (file,) = checkpoint.location(key).files
        chunk = checkpoint._optimizers[1][key].chunks[0]
    data = bytearray((tmp_path / "a" / file).read_bytes())
    data[chunk.offset : chunk.offset + 64] = bytes(64)
    (tmp_path / "a" / file).write_bytes(data)

    model, optimizer = build("adam", len(OLD), seed=1)
    snapshot = _snapshot(model, optimizer)
    with pytest.raises(tws.CorruptCheckpointError):
        tws.warm_start(model, WarmStartSettings(tmp_path / "a", ALL), optimizer=optimizer)
    assert _is_unchanged(model, optimizer, snapshot)
    assert not optimizer.state


def test_an_optimizer_may_be_warm_started_from_itself():
    model, optimizer = build("adam", len(OLD))
    train(model, optimizer, OLD, 2)
    swapped = {"embed.weight/exp_avg": "optimizer/state/0/exp_avg_sq"}
    swapped["embed.weight/exp_avg_sq"] = "optimizer/state/0/exp_avg"
    before = {n: t.clone() for n, t in state_of(optimizer, model.embed.weight).items()}
    settings = WarmStartSettings(saved(model, optimizer), ALL, None, swapped)
    report = tws.warm_start(model, settings, optimizer=optimizer)
    now = state_of(optimizer, model.embed.weight)
    assert torch.equal(now["exp_avg"], before["exp_avg_sq"])
    assert torch.equal(now["exp_avg_sq"], before["exp_avg"])
    assert report["embed.weight/exp_avg"].reason == "renamed in settings"


def test_a_plan_can_be_applied_twice_and_after_a_step():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    model, optimizer = build("adam", len(OLD), seed=1)
    settings = WarmStartSettings(saved(old, old_optimizer), ALL)
    plan = tws.plan_warm_start(model, settings, optimizer=optimizer)
    for _ in range(2):
        train(model, optimizer, OLD, 1)
        tws.apply_plan(plan)
        assert_same_state(optimizer, old_optimizer)


def test_a_plan_for_slots_of_another_shape_is_refused():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    model, optimizer = build("adam", len(OLD), seed=1)
    settings = WarmStartSettings(saved(old, old_optimizer), ALL)
    plan = tws.plan_warm_start(model, settings, optimizer=optimizer)
    optimizer.state[model.embed.weight] = {"exp_avg": torch.zeros(3)}
    with pytest.raises(SettingsError, match=r"changed since .* \(embed\.weight/exp_avg is another"):
        tws.apply_plan(plan)


# -- which slots are taken -------------------------------------------------------------------------


def _momentum():
    torch.manual_seed(0)
    model = nn.ParameterDict({"v1": torch.rand(2), "v2": torch.rand(3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    (model["v1"].sum() + model["v2"].square().sum()).backward()
    return model, optimizer


def test_tensorflows_documented_example():
    old, old_optimizer = _momentum()
    old_optimizer.step()
    model, optimizer = _momentum()
    settings = WarmStartSettings(saved(old, old_optimizer), ["v1", "v2[^/]"])
    report = tws.warm_start(model, settings, optimizer=optimizer)
    assert all(map(torch.equal, model.parameters(), old.parameters()))
    taken = {account.name for account in report.variables if account.state != "kept"}
    assert taken == {"v1", "v1/momentum_buffer", "v2"}
    assert state_of(optimizer, model["v1"])["momentum_buffer"].tolist() == [1, 1]
    assert model["v2"] not in optimizer.state
    assert report["v2/momentum_buffer"].reason == "not selected"
    assert report.unexpected_keys == ("optimizer/state/1/momentum_buffer",)
    optimizer.step()


def test_a_str_selects_no_slots_and_says_so():
    old, old_optimizer = _momentum()
    old_optimizer.step()
    model, optimizer = _momentum()
    report = tws.warm_start(model, saved(old, old_optimizer), optimizer=optimizer)
    assert not optimizer.state
    assert "The optimizer's slots stay as they are" in str(report.notes[0])
    assert len(report.unexpected_keys) == 2


def test_none_takes_what_has_a_vocab_info_and_none_of_its_slots():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    checkpoint = saved(old, old_optimizer)
    model, optimizer = build("adam", len(NEW), seed=1)
    settings = WarmStartSettings(checkpoint, None, {"embed.weight": vocab_info()})
    tws.warm_start(model, settings, optimizer=optimizer)
    assert torch.equal(model.embed.weight, moved(old.embed.weight))
    assert not optimizer.state

    before = model.embed.weight.detach().clone()
    settings = WarmStartSettings(checkpoint, None, {"embed.weight/exp_avg": vocab_info()})
    report = tws.warm_start(model, settings, optimizer=optimizer)
    slots = state_of(optimizer, model.embed.weight)
    exp_avg = state_of(old_optimizer, old.embed.weight)["exp_avg"]
    assert torch.equal(slots["exp_avg"], moved(exp_avg))
    assert slots["exp_avg_sq"].count_nonzero() == slots["step"] == 0
    assert torch.equal(model.embed.weight, before)
    assert report["embed.weight/exp_avg"].state == "remapped"


def test_the_parameters_initializer_is_not_for_its_slots_but_the_slots_own_is():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    ones = vocab_info(backup_initializer=nn.init.ones_)
    old_slots = state_of(old_optimizer, old.embed.weight)
    for vocab, start in (({}, 0.0), ({"embed.weight/exp_avg": ones}, 1.0)):
        model, optimizer = build("adam", len(NEW), seed=1)
        settings = WarmStartSettings(
            saved(old, old_optimizer), ALL, {"embed.weight": ones, **vocab}
        )
        tws.warm_start(model, settings, optimizer=optimizer)
        slots = state_of(optimizer, model.embed.weight)
        assert torch.equal(model.embed.weight, moved(old.embed.weight, 1.0))
        assert torch.equal(slots["exp_avg"], moved(old_slots["exp_avg"], start))
        assert torch.equal(slots["exp_avg_sq"], moved(old_slots["exp_avg_sq"]))


def test_rows_that_the_parameter_keeps_begin_anew_in_its_slots():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    model, optimizer = build("adam", len(NEW), seed=1)
    train(model, optimizer, NEW, 2)
    before = model.embed.weight.detach().clone()
    vocab = {"embed.weight": vocab_info(backup_initializer="keep")}
    tws.warm_start(
        model, WarmStartSettings(saved(old, old_optimizer), ALL, vocab), optimizer=optimizer
    )
    new = [at for at, word in enumerate(NEW) if word not in OLD]
    assert torch.equal(model.embed.weight[new], before[new])
    assert state_of(optimizer, model.embed.weight)["exp_avg"][new].count_nonzero() == 0
