"""Optimizers beside the real ones, for parameters that will take the place of others.

A twin has the options of the real optimizer and the new parameters; its state has room for what the
old ones' becomes. It is filled as any optimizer's state is, and what it holds is then handed over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.model import mode_of
from torch_warmstart.slots.axes import axes_in_slot
from torch_warmstart.slots.probing import Probes, blank_copy
from torch_warmstart.slots.variables import Optimizers, of_another_model, optimizers_in
from torch_warmstart.values import frozen

_Plain = int | float | str | None  # a bool is an int


@frozen(eq=False)
class Successor:
    """A parameter and the one that takes its place."""

    name: str
    old: torch.Tensor
    new: torch.Tensor
    axes: tuple[int, ...]  # along which it may have another size


@frozen(eq=False)
class OptimizerTwin:
    """An optimizer, and its twin for the successors of some of its parameters."""

    real: torch.optim.Optimizer
    twin: torch.optim.Optimizer
    successors: tuple[Successor, ...]

    @property
    def has_state(self) -> bool:
        """Whether the optimizer keeps something for one of them."""
        return bool(self.twin.state)

    def saved(self) -> Mapping[str, Any]:
        """What the real one keeps for them, as `state_dict()` has it, by name."""
        names = {id(s.new): s.name for s in self.successors}
        groups = [
            {**group, "params": [names[id(tensor)] for tensor in group["params"]]}
            for group in self.twin.param_groups
        ]
        state = {
            s.name: self.real.state[s.old] for s in self.successors if s.new in self.twin.state
        }
        return {"state": state, "param_groups": groups}


def make_twins(
    optimizers: Optimizers, successors: Sequence[Successor], parameters: Iterable[torch.Tensor]
) -> tuple[OptimizerTwin, ...]:
    """The twins of those optimizers that have a parameter which gets a successor.

    Args:
        optimizers: The real ones; they stay as they are.
        successors: Of the parameters that change.
        parameters: All of the model's.

    Raises:
        SettingsError: an optimizer has none of the model's parameters.
        UnsupportedError: it keeps something that cannot follow a parameter.
    """
    own = {id(tensor) for tensor in parameters}
    listed = optimizers_in(optimizers)
    for optimizer in listed:
        if not any(id(tensor) in own for g in optimizer.param_groups for tensor in g["params"]):
            raise of_another_model(optimizer)
    return tuple(twin for optimizer in listed for twin in _twin(optimizer, successors))


def _twin(
    optimizer: torch.optim.Optimizer, successors: Sequence[Successor]
) -> Iterator[OptimizerTwin]:
    by_id = {id(successor.old): successor for successor in successors}
    groups, held = [], []
    state: defaultdict[torch.Tensor, dict[str, Any]] = defaultdict(dict)
    probes = Probes()
    for group in optimizer.param_groups:
        own = [by_id[id(tensor)] for tensor in group["params"] if id(tensor) in by_id]
        options = {k: v for k, v in group.items() if k not in ("params", "param_names")}
        if own:
            groups.append({**options, "params": [successor.new for successor in own]})
        held += own
        for successor in own:
            kept = optimizer.state.get(successor.old, {})
            for name, value in kept.items():
                told = _told(probes, optimizer, group, successor, name)
                room = _room_for(optimizer, name, value, successor, told)
                state[successor.new][name] = room
    if held:
        _check_not_elsewhere(optimizer, held)
        yield OptimizerTwin(optimizer, blank_copy(optimizer, groups, state), tuple(held))


def _told(
    probes: Probes,
    optimizer: torch.optim.Optimizer,
    group: dict[str, Any],
    successor: Successor,
    name: str,
) -> tuple[int | None, ...] | None:
    """What the optimizer tells of a slot's axes, if it can be asked."""
    try:
        return probes.axes(optimizer, group, successor.old, name)
    except UnsupportedError:
        return None


def _check_not_elsewhere(optimizer: torch.optim.Optimizer, held: Sequence[Successor]) -> None:
    """LBFGS keeps a list of its parameters besides, and one state for all."""
    by_id = {id(successor.old): successor for successor in held}
    for name, value in vars(optimizer).items():
        if isinstance(value, list | tuple) and name != "param_groups":
            for tensor in value:
                if id(tensor) in by_id:
                    raise UnsupportedError(
                        f"{type(optimizer).__name__} keeps {by_id[id(tensor)].name} in its {name} "
                        "besides, which cannot follow: make a new optimizer instead of passing it."
                    )


def _room_for(
    optimizer: torch.optim.Optimizer,
    name: str,
    value: Any,
    successor: Successor,
    told: tuple[int | None, ...] | None,
) -> Any:
    """What stands for a slot of a successor until it is filled."""
    old, new = successor.old, successor.new
    if isinstance(value, _Plain):
        return value
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        raise UnsupportedError(
            f"{type(optimizer).__name__} keeps {name!r} for {successor.name}, a "
            f"{type(value).__name__}, which cannot follow: make a new optimizer instead."
        )
    shape = list(value.shape)
    if value.ndim and value.shape == (old.numel(),):
        return _like(value, [new.numel()])
    found = axes_in_slot(tuple(old.shape), tuple(value.shape), successor.axes, told)
    if found is None:
        raise UnsupportedError(
            f"{type(optimizer).__name__} keeps {name!r} of shape {shape} for "
            f"{successor.name}, {list(old.shape)}: along which axis it has the rows, or that it "
            "has them once, is not clear. Make a new optimizer instead."
        )
    for at, axis in zip(found, successor.axes, strict=True):
        if at is not None:
            shape[at] = new.shape[axis]
    return _like(value, shape)


def _like(value: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Zeros where a slot is all zeros, else ones: what it may begin with is told by that."""
    with mode_of(value):
        made = torch.zeros(shape, dtype=value.dtype, device=value.device)
    return made if value.is_meta or not bool(value.any()) else made.fill_(1)
