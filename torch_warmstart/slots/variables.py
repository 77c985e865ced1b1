"""An optimizer's state as variables: `<variable>/<slot>`, such as `embed.weight/exp_avg`.

What an optimizer keeps for a parameter is learnt by asking it: a copy of it, over a tiny parameter
of the same rank, takes one step with a gradient of zeros. So slots are known before the first
step, with every option of the optimizer's param group (amsgrad, centered, capturable, ...), and
optimizers that this library has never heard of work too.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from torch_warmstart.errors import SettingsError, UnsupportedError
from torch_warmstart.model import Owner, Shape, Slot, Variable

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]

# What slots begin with that are not zero, or that a step with a gradient of zeros changes: in
# torch/optim/{adagrad,adamax,nadam,rprop,asgd}.py, by class and slot, from the param group.
_STARTS: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], float]] = {
    ("Adagrad", "sum"): lambda group: float(group["initial_accumulator_value"]),
    ("Adamax", "exp_inf"): lambda _: 0.0,
    ("NAdam", "mu_product"): lambda _: 1.0,
    ("Rprop", "step_size"): lambda group: float(group["lr"]),
    ("ASGD", "ax"): lambda _: 0.0,
    ("ASGD", "mu"): lambda _: 1.0,
    ("ASGD", "eta"): lambda group: float(group["lr"]),
}
_STEP = "step"
# Of the tiny parameter: each dimension is known by its size, or where that may be a coincidence, by
# how it changes when all sizes do.
_SIZES = (11, 13, 7, 5, 3, 2, 17)
_OTHER_SIZES = (13, 7, 5, 3, 2, 17, 11)
_VALUE = 0.5  # of the tiny parameter: what an optimizer copies from it is told from zeros
_NO_DECAY = {"weight_decay": 0}  # it would be a gradient


def slot_variables(optimizers: Optimizers, variables: Iterable[Variable]) -> tuple[Variable, ...]:
    """The slots of a model's parameters, in the order of its parameters.

    Raises:
        SettingsError: an optimizer has none of the model's parameters, or two have the same one.
        UnsupportedError: an optimizer does not keep its state by parameter.
    """
    by_id = {id(v.tensor): v for v in variables if v.kind == "parameter"}
    found: dict[int, list[Variable]] = {}
    for optimizer in _as_list(optimizers):
        known = _known_slots(optimizer, by_id, found)
        if not known:
            raise SettingsError(
                f"The optimizer ({type(optimizer).__name__}) has none of the model's parameters: "
                "make it from model.parameters(), after the model is in its final place."
            )
        found.update(known)
    return tuple(slot for key in by_id for slot in found.get(key, ()))


def left_out(optimizers: Optimizers, variables: Iterable[Variable]) -> tuple[list[str], int]:
    """The model's parameters that no optimizer has, and how many have no place in the model.

    Of the model's, those that are trained.
    """
    known = {id(v.tensor): v for v in variables if v.kind == "parameter"}
    groups = [group for optimizer in _as_list(optimizers) for group in optimizer.param_groups]
    held = {id(tensor) for group in groups for tensor in group["params"]}
    names = [v.name for key, v in known.items() if key not in held and v.tensor.requires_grad]
    return names, len(held - known.keys())


def is_as_planned(variable: Variable) -> bool:
    """Whether an optimizer's slot, if it has it now, is still what a plan was made for."""
    slot = variable.slot
    assert slot is not None
    tensor = _tensor_in(slot)
    planned = variable.tensor
    return tensor is None or (tensor.shape == planned.shape and tensor.dtype == planned.dtype)


class SlotTargets:
    """What is written to for each slot of one warm start.

    Slots that an optimizer does not have yet, and plain numbers, are made beside the optimizer, all
    slots of a parameter together, because an optimizer takes a state with one slot for a state with
    all. `hand_over` gives them to it.
    """

    def __init__(self, variables: Iterable[Variable], touched: Iterable[Variable]) -> None:
        """Makes them, each filled with what it begins with.

        Args:
            variables: All slot variables there are.
            touched: Those that will be written.

        Raises:
            UnsupportedError: the optimizer keeps things that are not known before its first step.
        """
        written = {id(variable) for variable in touched if variable.slot is not None}
        parameters = {id(v.slot.parameter) for v in touched if v.slot is not None}
        self._made: dict[int, tuple[Slot, torch.Tensor]] = {}
        self._constants: list[tuple[Slot, dict[str, Any]]] = []
        self._probes = _Probes()
        for variable in variables:
            slot = variable.slot
            if slot is None or id(slot.parameter) not in parameters:
                continue
            if not _state_of(slot):
                self._constants.append((slot, self._constants_of(slot)))
            if _tensor_in(slot) is None:
                is_written = id(variable) in written
                self._made[id(variable)] = (slot, _make_slot(variable, slot, is_written))

    def __getitem__(self, variable: Variable) -> torch.Tensor:
        """The tensor to write a variable's values to."""
        if id(variable) in self._made:
            return self._made[id(variable)][1]
        assert variable.slot is not None
        tensor = _tensor_in(variable.slot)
        assert tensor is not None  # otherwise it has been made
        return tensor.detach()

    def hand_over(self) -> None:
        """Gives the optimizers what was made."""
        for slot, constants in self._constants:
            slot.optimizer.state[slot.parameter.tensor].update(constants)
        for slot, tensor in self._made.values():
            value = tensor if slot.python_type is None else slot.python_type(tensor.item())
            slot.optimizer.state[slot.parameter.tensor][slot.name] = value

    def _constants_of(self, slot: Slot) -> dict[str, Any]:
        """What the optimizer's state begins with besides its slots: flags, mostly."""
        probed = self._probes.state(slot.optimizer, slot.group, slot.parameter.tensor)
        others = {name: value for name, value in probed.items() if name not in _numbers(probed)}
        strange = [name for name, value in others.items() if not isinstance(value, _Constant)]
        if strange:
            raise UnsupportedError(
                f"{type(slot.optimizer).__name__} keeps {strange[0]!r} for each parameter, a "
                f"{type(others[strange[0]]).__name__}, which its first step makes: let it take a "
                "step before the warm start."
            )
        return others


_Constant = bool | str | None


def _state_of(slot: Slot) -> Mapping[str, Any]:
    state: Mapping[str, Any] = slot.optimizer.state.get(slot.parameter.tensor, {})
    return state


def _tensor_in(slot: Slot) -> torch.Tensor | None:
    """What an optimizer has for a slot, if it is a tensor and should be one."""
    value = _state_of(slot).get(slot.name)
    return value if isinstance(value, torch.Tensor) and slot.python_type is None else None


def _make_slot(variable: Variable, slot: Slot, is_written: bool) -> torch.Tensor:
    parameter, dtype = slot.parameter.tensor, variable.tensor.dtype
    present = _state_of(slot).get(slot.name)
    start = slot.start if present is None else float(present)
    if start is None and not is_written:
        raise UnsupportedError(
            f"{variable.name}: nobody knows what {type(slot.optimizer).__name__} begins with. Let "
            "vars_to_warm_start take this slot too, or let the optimizer take a step first."
        )
    if variable.shape and variable.shape == tuple(parameter.shape):  # strided like the parameter
        options: dict[str, Any] = {"dtype": dtype, "device": slot.device, "requires_grad": False}
        return torch.full_like(parameter, start or 0.0, **options)
    return torch.full(variable.shape, start or 0.0, dtype=dtype, device=slot.device)


def _as_list(optimizers: Any) -> list[torch.optim.Optimizer]:
    listed = list(optimizers) if isinstance(optimizers, list | tuple) else [optimizers]
    for optimizer in listed:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise SettingsError(
                "optimizer must be a torch.optim.Optimizer or a list of them, not a "
                f"{type(optimizer).__name__}."
            )
    return [_unwrapped(optimizer) for optimizer in listed]


def _unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that keeps the state: a wrapper, such as accelerate's, may only pass it on."""
    while "state" not in vars(optimizer):
        inner = getattr(optimizer, "optimizer", None)
        if not isinstance(inner, torch.optim.Optimizer):
            raise UnsupportedError(
                f"{type(optimizer).__name__} keeps its state in a way that is not known: pass the "
                "optimizer that it wraps."
            )
        optimizer = inner
    return optimizer


def _known_slots(
    optimizer: torch.optim.Optimizer,
    by_id: Mapping[int, Variable],
    taken: Mapping[int, list[Variable]],
) -> dict[int, list[Variable]]:
    found: dict[int, list[Variable]] = {}
    probes = _Probes()
    for group in optimizer.param_groups:
        for tensor in group["params"]:
            variable = by_id.get(id(tensor))
            if variable is None:  # of another module, a loss with weights for example
                continue
            if id(tensor) in taken:
                raise SettingsError(f"Two optimizers have {variable.name!r}.")
            found[id(tensor)] = _slots_of(optimizer, group, variable, probes)
    return found


def _slots_of(
    optimizer: torch.optim.Optimizer,
    group: dict[str, Any],
    parameter: Variable,
    probes: _Probes,
) -> list[Variable]:
    state = optimizer.state.get(parameter.tensor, {})
    probed = _numbers(probes.state(optimizer, group, parameter.tensor))
    slots = []
    for name, like in {**_numbers(state), **probed}.items():
        number = type(like) if isinstance(like, int | float) else None
        tensor = state.get(name)
        if not isinstance(tensor, torch.Tensor) or number is not None:
            shape = probes.shape(optimizer, group, parameter, name) if number is None else ()
            tensor = _without_data(like, shape)
        device = like.device if isinstance(like, torch.Tensor) else torch.device("cpu")
        start = _start(optimizer, group, name, like)
        slot = Slot(optimizer, parameter, name, group, device, start, number)
        owners = tuple(_slot_owner(owner, name) for owner in parameter.owners)
        slots.append(Variable(tensor, "slot", owners, slot))
    return slots


def _slot_owner(owner: Owner, name: str) -> Owner:
    return Owner(f"{owner.name}/{name}", f"{owner.state_dict_name}/{name}", owner.module, name)


def _without_data(like: Any, shape: Shape) -> torch.Tensor:
    """A tensor on the meta device as the optimizer will make it for the parameter."""
    # Python's floats, any count.
    dtype = like.dtype if isinstance(like, torch.Tensor) else torch.float64
    return torch.empty(shape, device="meta", dtype=dtype)


def _scaled_up(tiny: Shape, other: Shape, shape: Shape) -> Shape | None:
    """A slot's shape for the real parameter, from those for two tiny ones; None if it is not told.

    A size that does not change is one; others stand for a dimension, or for the number of elements.
    """
    count = len(shape)
    sizes = dict(zip(zip(_SIZES, _OTHER_SIZES, strict=True), shape, strict=False))
    sizes[math.prod(_SIZES[:count]), math.prod(_OTHER_SIZES[:count])] = math.prod(shape)
    if len(tiny) != len(other):
        return None
    found = [a if a == b else sizes.get((a, b)) for a, b in zip(tiny, other, strict=True)]
    known = tuple(size for size in found if size is not None)
    return known if len(known) == len(found) else None


def _start(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], name: str, like: Any
) -> float | None:
    for cls in type(optimizer).__mro__:
        if (cls.__name__, name) in _STARTS and cls.__module__.startswith("torch.optim"):
            return _STARTS[cls.__name__, name](group)
    if name == _STEP:
        return 0.0
    values = torch.as_tensor(like)
    return 0.0 if not values.any() else None


# -- asking the optimizer --------------------------------------------------------------------------


class _Probes:
    """What optimizers keep for parameters, asked once for each kind of parameter in a group."""

    def __init__(self) -> None:
        self._known: dict[object, dict[str, Any]] = {}

    def state(
        self,
        optimizer: torch.optim.Optimizer,
        group: dict[str, Any],
        tensor: torch.Tensor,
        sizes: Shape = _SIZES,
    ) -> dict[str, Any]:
        """The state of a tiny parameter like `tensor`, after a step that changes nothing."""
        key = (id(group), tensor.ndim, tensor.dtype, tensor.device, sizes)
        if key not in self._known:
            with _without_gradients(optimizer):
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
        if tiny in ((), _SIZES[: tensor.ndim]):
            return parameter.shape if tiny else ()
        others = self.state(optimizer, group, tensor, _OTHER_SIZES)
        shape = _scaled_up(tiny, tuple(getattr(others.get(name), "shape", ())), parameter.shape)
        if shape is None:
            raise UnsupportedError(
                f"{parameter.name}: {type(optimizer).__name__} keeps {name!r}, whose shape does "
                "not follow from the parameter's in a way that is known: let the optimizer take a "
                "step before the warm start."
            )
        return shape


@contextlib.contextmanager
def _without_gradients(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Takes the real gradients away: a step that finds the real parameters then does nothing."""
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    gradients = [tensor.grad for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.grad = None
        yield
    finally:
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = gradient


def _probe(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], tensor: torch.Tensor, shape: Shape
) -> dict[str, Any]:
    failures = []
    for is_sparse in (False, True):  # SparseAdam takes sparse gradients only
        tiny = torch.full(shape, _VALUE, dtype=tensor.dtype, device=tensor.device)
        zeros = torch.zeros_like(tiny)
        tiny.grad = zeros.to_sparse() if is_sparse else zeros
        try:
            return _state_after_a_step(optimizer, group, tiny)
        except KeyError:  # Adagrad makes its state when it is made; before torch 2.9 only then
            return dict(optimizer.state.get(tensor, {}))
        except Exception as error:  # LBFGS needs a closure; others may raise anything
            failures.append(error)
    raise UnsupportedError(
        f"{type(optimizer).__name__} does not keep its state by parameter in a way that can be "
        f"warm-started ({failures[0]}): leave `optimizer` out."
    ) from failures[0]


def _state_after_a_step(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], tiny: torch.Tensor
) -> dict[str, Any]:
    no_decay = {name: value for name, value in _NO_DECAY.items() if name in group}
    own = {name: _copied(value) for name, value in group.items() if name != "params"}
    probe = _blank_copy(optimizer, [{**own, **no_decay, "params": [tiny]}], defaultdict(dict))
    # Of the class: a learning rate scheduler replaces the instance's by one bound to the original.
    step = type(optimizer).step
    if getattr(step, "hooked", False):  # hooks for all optimizers are not for this
        step = getattr(step, "__wrapped__", step)
    step(probe)
    return dict(probe.state[tiny])


def _blank_copy(
    optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], state: dict[Any, Any]
) -> Any:
    """An optimizer with the same options and other parameters.

    `copy.copy` would lose what a class keeps besides torch's own attributes, and `__setstate__`
    may write to the state that is shared.
    """
    twin: Any = object.__new__(type(optimizer))
    for name, value in vars(optimizer).items():
        if isinstance(value, torch.optim.Optimizer):  # one that it wraps
            vars(twin)[name] = _blank_copy(value, groups, state)
        else:
            vars(twin)[name] = OrderedDict() if name.endswith("_hooks") else _copied(value)
    vars(twin).pop("step", None)
    vars(twin).update(param_groups=groups, state=state)
    return twin


def _copied(value: Any) -> Any:
    """What a step may change in place."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return copy.copy(value) if isinstance(value, dict | list | set) else value


def _numbers(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, torch.Tensor | int | float) and not isinstance(value, bool)
    }
