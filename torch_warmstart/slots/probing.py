"""What optimizers keep for a parameter, learnt by asking them: a tiny one takes a step.

A copy of the optimizer, over a tiny parameter of the same rank, takes one step with a gradient of
zeros. So slots are known before the first step, with every option of the optimizer's param group
(amsgrad, centered, capturable, ...), and optimizers that this library has never heard of work too.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.model import Journal, Shape, Variable
from torch_warmstart.model.sharding import registered_of
from torch_warmstart.slots.axes import FLAT, shape_along
from torch_warmstart.slots.torch_optimizers import is_torchs_own

# Of the tiny parameter: each dimension is known by its size, or where that may be a coincidence, by
# how it changes when all sizes do.
_SIZES = (11, 13, 7, 5, 3, 2, 17)
_OTHER_SIZES = (13, 7, 5, 3, 2, 17, 11)
_VALUE = 0.5  # of the tiny parameter: what an optimizer copies from it is told from zeros
_NO_DECAY = {"weight_decay": 0}  # it would be a gradient
_LARGE = 1 << 12  # numbers of a tensor in a list of the optimizer's, which is not of a tiny one
_Probed = tuple[dict[str, Any], tuple[str, ...]]  # a state, what has changed in the group


class Probes:
    """What optimizers keep for parameters, asked once for each kind of parameter in a group."""

    def __init__(self) -> None:
        self._known: dict[object, _Probed] = {}

    def state(
        self,
        optimizer: torch.optim.Optimizer,
        group: dict[str, Any],
        tensor: torch.Tensor,
        sizes: Shape = _SIZES,
    ) -> dict[str, Any]:
        """The state of a tiny parameter like `tensor`, after a step that changes nothing."""
        return self._probed(optimizer, group, tensor, sizes)[0]

    def changed(
        self, optimizer: torch.optim.Optimizer, group: dict[str, Any], tensor: torch.Tensor
    ) -> tuple[str, ...]:
        """What a step changes in the param group: counts of steps, estimates of a rate."""
        return self._probed(optimizer, group, tensor, _SIZES)[1]

    def _probed(
        self,
        optimizer: torch.optim.Optimizer,
        group: dict[str, Any],
        tensor: torch.Tensor,
        sizes: Shape,
    ) -> _Probed:
        key = (id(group), tensor.ndim, tensor.dtype, tensor.device, sizes)
        if key not in self._known:
            is_known = is_torchs_own(optimizer)  # steps what its param groups hold, and no more
            with contextlib.nullcontext() if is_known else _untouched(optimizer):
                self._known[key] = _probe(optimizer, group, tensor, sizes[: tensor.ndim])
        return self._known[key]

    def shape(
        self,
        optimizer: torch.optim.Optimizer,
        group: dict[str, Any],
        parameter: Variable,
        name: str,
    ) -> Shape:
        """The shape that a slot will have for a parameter.

        Raises UnsupportedError if it does not follow from the parameter's.
        """
        tensor = parameter.tensor
        tiny = tuple(self.state(optimizer, group, tensor)[name].shape)
        axes = self.axes(optimizer, group, tensor, name)
        if axes is None:
            raise UnsupportedError(
                f"{parameter.name}: {type(optimizer).__name__} keeps {name!r}, whose shape does "
                "not follow from the parameter's in a way that is known: let the optimizer take a "
                "step before the warm start."
            )
        return shape_along(axes, parameter.shape, tiny)

    def axes(
        self,
        optimizer: torch.optim.Optimizer,
        group: dict[str, Any],
        tensor: torch.Tensor,
        name: str,
    ) -> tuple[int | None, ...] | None:
        """The axis of its parameter that each axis of a slot is; None for one that is none of them.

        None at all if the slot is not there after a step, or its shape follows otherwise.
        """
        slot = self.state(optimizer, group, tensor).get(name)
        if not isinstance(slot, torch.Tensor):
            return None
        if tuple(slot.shape) in ((), _SIZES[: tensor.ndim]):
            return tuple(range(slot.ndim))
        other = self.state(optimizer, group, tensor, _OTHER_SIZES).get(name)
        if not isinstance(other, torch.Tensor) or slot.ndim != other.ndim or slot is other:
            return None  # the same one is the real parameter's, made with the optimizer
        return _axes(tuple(slot.shape), tuple(other.shape), tensor.ndim)


@contextlib.contextmanager
def _untouched(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Puts back what a step does to the real parameters and their state, and the random numbers.

    It finds no gradients there and does nothing then, unless it goes by more than gradients.
    """
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    kept = [v for s in optimizer.state.values() for v in _values(s) if isinstance(v, torch.Tensor)]
    journal = Journal(torch.nn.Module(), [*tensors, *kept])
    with journal.trial():
        for tensor in tensors:
            tensor.grad = None
        yield


def _values(state: Any) -> Collection[Any]:
    return state.values() if isinstance(state, Mapping) else ()


def _probe(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], tensor: torch.Tensor, shape: Shape
) -> _Probed:
    failures: list[Exception] = []
    for is_sparse in (False, True):  # SparseAdam takes sparse gradients only
        tiny = torch.full(shape, _VALUE, dtype=tensor.dtype, device=tensor.device)
        zeros = torch.zeros_like(tiny)
        try:
            tiny.grad = zeros.to_sparse() if is_sparse else zeros
            return _state_after_a_step(optimizer, group, tiny)
        except KeyError as error:  # Adagrad makes its state when it is made, before torch 2.9
            made = optimizer.state.get(registered_of(tensor))
            if made:
                return dict(made), ()
            failures.append(error)
        except Exception as error:  # LBFGS needs a closure; others may raise anything
            failures.append(error)
    raise UnsupportedError(
        f"{type(optimizer).__name__} does not keep its state by parameter in a way that can be "
        f"warm-started ({failures[0]}): leave `optimizer` out."
    ) from failures[0]


def _state_after_a_step(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], tiny: torch.Tensor
) -> _Probed:
    no_decay = {name: value for name, value in _NO_DECAY.items() if name in group}
    own = {name: _copied(value) for name, value in group.items() if name != "params"}
    groups = [{**own, **no_decay, "params": [tiny]}]
    probe = blank_copy(optimizer, groups, defaultdict(dict))
    # Of the class: a learning rate scheduler replaces the instance's by one bound to the original.
    step = type(optimizer).step
    if getattr(step, "hooked", False):  # hooks for all optimizers are not for this
        step = getattr(step, "__wrapped__", step)
    step(probe)
    after = {n: v for n, v in groups[0].items() if n != "params" and n not in no_decay}
    changed = [n for n, v in after.items() if n not in group or not _is_same(group[n], v)]
    return dict(probe.state[tiny]), tuple(changed)


def _is_same(before: Any, after: Any) -> bool:
    try:
        if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
            return torch.equal(before, after)
        return bool(before == after)
    except Exception:  # what cannot be compared is no count
        return True


def blank_copy(
    optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], state: dict[Any, Any]
) -> Any:
    """An optimizer with the same options and other parameters.

    `copy.copy` would lose what a class keeps besides torch's own attributes, and `__setstate__`
    may write to the state that is shared.
    """
    twin: Any = object.__new__(type(optimizer))
    for name, value in vars(optimizer).items():
        if name in ("param_groups", "state", "step"):
            continue
        if isinstance(value, torch.optim.Optimizer):  # one that it wraps
            vars(twin)[name] = blank_copy(value, groups, state)
        else:
            vars(twin)[name] = OrderedDict() if name.endswith("_hooks") else _copied(value)
    vars(twin).update(param_groups=groups, state=state)
    return twin


def _copied(value: Any, *, is_within: bool = False) -> Any:
    """What a step may change in place, and of containers what is in them."""
    if isinstance(value, torch.Tensor):
        if is_within and value.numel() > _LARGE:  # writing to it is an error, and it takes no room
            return torch.zeros((), dtype=value.dtype).expand(value.shape)
        return value.detach().clone()
    made = copy.copy(value) if isinstance(value, dict | list | set) else value
    if isinstance(made, dict):
        made.update({key: _copied(each, is_within=True) for key, each in value.items()})
    elif isinstance(made, list):
        made[:] = [_copied(each, is_within=True) for each in value]
    return made


def _axes(tiny: Shape, other: Shape, count: int) -> tuple[int | None, ...] | None:
    """What the axes of a slot are, from its shapes for two tiny parameters; None if it is not told.

    A size that does not change is one; others stand for an axis, or for the number of elements.
    """
    sizes = zip(_SIZES[:count], _OTHER_SIZES[:count], strict=True)
    known: dict[tuple[int, int], int] = {pair: axis for axis, pair in enumerate(sizes)}
    known.setdefault((math.prod(_SIZES[:count]), math.prod(_OTHER_SIZES[:count])), FLAT)
    pairs = list(zip(tiny, other, strict=True))
    if any(a != b and (a, b) not in known for a, b in pairs):
        return None
    return tuple(None if a == b else known[a, b] for a, b in pairs)


def numbers(state: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a state's values that are slots: tensors and counts."""
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, torch.Tensor | int | float) and not isinstance(value, bool)
    }


def holds_numbers(value: Any) -> bool:
    """Whether numbers or tensors lie in a container."""
    inner = value.values() if isinstance(value, Mapping) else value
    if not isinstance(inner, Collection) or isinstance(inner, str | bytes | torch.Tensor):
        return False
    return any(isinstance(v, torch.Tensor | int | float) or holds_numbers(v) for v in inner)
