"""What modules have, so that it can be put back after somebody else's code has run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch

_COLLECTIONS = (dict, set, list)  # themselves: a class of the user's may do as it likes
_FEW = 1_000  # entries of a collection of the user's, of which a copy costs next to nothing


class Attributes:
    """The attributes of modules and of their tensors, their children and hooks, as they were.

    Of optimizers their groups and states, too.

    What is in a list, dict or set that is an attribute, too, if it is no more than `_FEW`. Any
    other object that is an attribute, or in such a list, may change in itself; that is not seen.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Any, Any]] = []  # dicts, sets and lists; what was in them
        self._modes: list[tuple[torch.nn.Module, bool]] = []  # of TorchScript's, kept elsewhere

    def keep(self, modules: Iterable[torch.nn.Module]) -> None:
        """Remembers what modules have, and who listens to them."""
        for module in modules:
            own = vars(module)
            self._kept.append((own, own.copy()))
            if "training" not in own and hasattr(module, "training"):
                self._modes.append((module, module.training))
            for name, where in own.items():
                is_of_torch = name[:1] == "_" and isinstance(where, dict | set)
                if is_of_torch or (type(where) in _COLLECTIONS and len(where) <= _FEW):
                    self._kept.append((where, where.copy()))
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if isinstance(tensor, torch.Tensor):
                    self._kept.append((vars(tensor), vars(tensor).copy()))

    def keep_optimizers(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Remembers what optimizers have: learning rates and the like, whose state they keep.

        Not the numbers in tensors of their state, which are watched as memory.
        """
        for optimizer in optimizers:
            groups, state = optimizer.param_groups, optimizer.state
            within = [value for group in groups for value in group.values()]
            for where in (vars(optimizer), groups, *groups, state, *state.values(), *within):
                if type(where) in (*_COLLECTIONS, defaultdict):
                    self._kept.append((where, where.copy()))

    def put_back(self) -> None:
        """Makes all as it was; a second time makes no difference."""
        for where, before in reversed(self._kept):  # what was kept twice, as it was first
            if not _is_same_collection(where, before):
                where.clear()
                where.extend(before) if isinstance(where, list) else where.update(before)
        for module, is_training in self._modes:
            module.training = is_training


def is_same_register(where: Mapping[str, Any], entries: Mapping[str, Any]) -> bool:
    """Whether the very same objects are there, in the same order."""
    if len(where) != len(entries):
        return False
    both = zip(where.items(), entries.items(), strict=True)
    return all(a is b and _is_same_key(key, other) for (key, a), (other, b) in both)


def _is_same_key(one: Any, other: Any) -> bool:
    """Optimizers know their states by tensors, which compare number by number."""
    return one is other or (isinstance(one, str) and one == other)


def _is_same_collection(now: Any, before: Any) -> bool:
    """Whether a dict, list or set holds the very same objects, in the same order if it has one."""
    if isinstance(now, dict):
        return is_same_register(now, before)
    if isinstance(now, list):
        return [id(one) for one in now] == [id(one) for one in before]
    return {id(one) for one in now} == {id(one) for one in before}
