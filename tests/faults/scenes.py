"""Models, optimizers and checkpoints that faults are put into, and what they hold, as bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import VocabInfo, WarmStartSettings

_INFO = {"words.weight": VocabInfo(["c", "x", "a", "y"], -1, 0, list("abcde"))}


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Mapping[str, object]:
    """All that a warm start may change, each tensor as its bytes, with where it is."""
    found: dict[str, object] = {}
    named = [*model.named_parameters(remove_duplicate=False)]
    named += [*model.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        found[name] = (id(tensor), tensor.requires_grad, _bytes(tensor))
    for module in model.modules():
        if hasattr(module, "notes"):
            found[f"{id(module)}/extra"] = copy.deepcopy(module.notes)
    if optimizer is not None:
        for at, parameter in enumerate(p for g in optimizer.param_groups for p in g["params"]):
            state = optimizer.state.get(parameter, {})
            found[f"state {at}"] = tuple(
                (k, _bytes(v) if isinstance(v, torch.Tensor) else v) for k, v in state.items()
            )
    return found


def _bytes(tensor: torch.Tensor) -> bytes:
    tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    if tensor.layout is not torch.strided or tensor.is_meta:
        return b""
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


class Doubling(nn.Linear):
    """Changes what it loads, before and after torch does."""

    def _load_from_state_dict(self, state, prefix, *rest):
        state[f"{prefix}weight"] = state[f"{prefix}weight"] * 2
        super()._load_from_state_dict(state, prefix, *rest)
        with torch.no_grad():
            self.bias.mul_(3)


class Plain(nn.Module):
    """Nothing of its own."""

    def __init__(self, rows: int, middle: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.words = nn.Embedding(rows, 3)
        self.middle = middle(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.out = nn.Linear(3, 2)


class Hooked(Plain):
    """With a module that loads itself, and hooks of every kind."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows, Doubling)
        self.seen: list[float] = []
        self.register_load_state_dict_pre_hook(_halve_the_bias)
        self.norm.register_load_state_dict_post_hook(_add_one)
        self.words.register_load_state_dict_pre_hook(lambda *_: None)


def _add_one(module, _):
    with torch.no_grad():
        module.weight.add_(1)


def _halve_the_bias(module, state, prefix, *rest):
    if f"{prefix}out.bias" in state:
        state[f"{prefix}out.bias"] = state[f"{prefix}out.bias"] / 2


@dataclass(frozen=True)
class Scene:
    """A model that can be warm-started, made anew each time and always the same."""

    name: str
    make: Callable[[], tuple[nn.Module, torch.optim.Optimizer | None, tws.WarmStartPlan]]
    options: Mapping[str, object] = field(default_factory=dict)  # of `apply_plan`


class Standing:
    """A scene that is planned once, and put back to where it began after each fault."""

    def __init__(self, scene: Scene) -> None:
        self.model, self.optimizer, self._plan = scene.make()
        self._options = scene.options
        modules = [*self.model.modules()]
        registers = [where for m in modules for where in (m._parameters, m._buffers)]
        self._registers = [(where, dict(where)) for where in registers]
        self._others = [(m, m.notes) for m in modules if hasattr(m, "notes")]
        states = {} if self.optimizer is None else self.optimizer.state
        self._states = {parameter: dict(state) for parameter, state in states.items()}
        own = [*self.model.parameters(), *self.model.buffers()]
        own += [v for state in states.values() for v in state.values() if torch.is_tensor(v)]
        self._values = [
            (tensor, tensor.data, tensor.detach().clone(), tensor.requires_grad) for tensor in own
        ]

    def apply(self) -> tws.WarmStartReport:
        """Carries out what is planned."""
        return tws.apply_plan(self._plan, **self._options)

    def has_its_objects(self) -> bool:
        """Whether the modules have the very tensors that they began with."""
        return all(
            [*where] == [*entries] and all(where[name] is entries[name] for name in entries)
            for where, entries in self._registers
        )

    def restore(self) -> None:
        """Values, the optimizer's state, and what else a module has."""
        torch.manual_seed(2)
        for where, entries in self._registers:
            where.clear()
            where.update(entries)
        with torch.no_grad():
            for tensor, memory, value, requires_grad in self._values:
                tensor.data = memory
                tensor.copy_(value)
                tensor.requires_grad_(requires_grad)
        for module, notes in self._others:
            module.notes = notes
        if self.optimizer is not None:
            self.optimizer.state.clear()
            for parameter, state in self._states.items():
                self.optimizer.state[parameter] = dict(state)


def _trained(net: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(net.parameters(), amsgrad=True)
    for parameter in net.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _scene(
    name: str,
    net: Callable[[int], nn.Module],
    *,
    new_rows: object = None,
    has_state: bool = False,
    with_optimizer: bool = True,
) -> Scene:
    torch.manual_seed(1)
    old = Plain(5)
    checkpoint = {"model": old.state_dict(), "optimizer": _trained(old).state_dict()}
    if not with_optimizer:
        del checkpoint["optimizer"]

    def make():
        torch.manual_seed(2)
        model = net(4)
        optimizer = None
        if with_optimizer:
            optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
            optimizer = _trained(model) if has_state else optimizer
        info = {
            name: VocabInfo(i.new_vocab, -1, 0, i.old_vocab, backup_initializer=new_rows)
            for name, i in _INFO.items()
        }
        settings = WarmStartSettings(checkpoint, [".*"], info)
        return model, optimizer, tws.plan_warm_start(model, settings, optimizer=optimizer)

    return Scene(name, make)


def scenes() -> list[Scene]:
    """One of each kind."""
    return [
        _scene("plain", Plain, with_optimizer=False),
        _scene("keep", Plain, new_rows="keep", has_state=True),
        _scene("new slots", Plain, new_rows=nn.init.ones_),
        _scene("hooked", Hooked, new_rows="keep", has_state=True),
        _scene("hooked, new slots", Hooked),
    ]
