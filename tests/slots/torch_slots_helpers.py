"""What the tests of slots in torch's files share."""

from __future__ import annotations

import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import WarmStartSettings

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
