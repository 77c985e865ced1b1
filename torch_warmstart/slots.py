"""An optimizer's state as variables: `<variable>/<slot>`, such as `embed.weight/exp_avg`.

What an optimizer keeps for a parameter is learnt by asking it: a copy of it, over a tiny parameter
of the same rank, takes one step with a gradient of zeros. So slots are known before the first
step, with every option of the optimizer's param group (amsgrad, centered, capturable, ...), and
optimizers that this library has never heard of work too.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from torch_warmstart.errors import SettingsError, UnsupportedError
from torch_warmstart.variables import Owner, Shape, Slot, Variable

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
_SIZES = (2, 3, 5, 7, 11, 13, 17)  # of the tiny parameter: each dimension is known by its size


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


def is_as_planned(variable: Variable) -> bool:
    """Whether an optimizer still has, or still lacks, the slot that a plan was made for."""
    slot = variable.slot
    assert slot is not None
    state = slot.optimizer.state.get(slot.parameter.tensor, {})
    if variable.tensor.device.type == "meta" and slot.python_type is None:
        return slot.name not in state
    return slot.python_type is not None or state.get(slot.name) is variable.tensor


class NewSlots:
    """The slots of one warm start that an optimizer does not have yet.

    They are made beside the optimizer, all slots of a parameter together, because an optimizer
    takes a state with one slot for a state with all. `hand_over` gives them to it.
    """

    def __init__(self, variables: Iterable[Variable], touched: Iterable[Variable]) -> None:
        """Makes them, each filled with what it begins with.

        Args:
            variables: All slot variables there are.
            touched: Those that will be written.
        """
        parameters = {id(slot.parameter) for v in touched if (slot := v.slot) is not None}
        self._made = {
            id(variable): (variable, _make_slot(variable))
            for variable in variables
            if (slot := variable.slot) is not None
            and id(slot.parameter) in parameters
            and (slot.python_type is not None or not slot.present)
        }

    def target(self, variable: Variable) -> torch.Tensor:
        """The tensor to write a variable's values to."""
        made = self._made.get(id(variable))
        return variable.tensor.detach() if made is None else made[1]

    def hand_over(self) -> None:
        """Gives the optimizers what was made."""
        for variable, tensor in self._made.values():
            slot = variable.slot
            assert slot is not None
            value = tensor if slot.python_type is None else slot.python_type(tensor.item())
            slot.optimizer.state[slot.parameter.tensor][slot.name] = value


def _make_slot(variable: Variable) -> torch.Tensor:
    slot = variable.slot
    assert slot is not None
    parameter, dtype = slot.parameter.tensor, variable.tensor.dtype
    start = _present_number(slot) if slot.python_type is not None else slot.start or 0.0
    if variable.shape and variable.shape == tuple(parameter.shape):  # strided like the parameter
        return torch.full_like(parameter, start, dtype=dtype, requires_grad=False)
    return torch.full(variable.shape, start, dtype=dtype, device=slot.device)


def _present_number(slot: Slot) -> float:
    return float(slot.optimizer.state.get(slot.parameter.tensor, {}).get(slot.name, slot.start))


def _as_list(optimizers: Any) -> list[torch.optim.Optimizer]:
    listed = list(optimizers) if isinstance(optimizers, list | tuple) else [optimizers]
    for optimizer in listed:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise SettingsError(
                "optimizer must be a torch.optim.Optimizer or a list of them, not a "
                f"{type(optimizer).__name__}."
            )
    return listed


def _known_slots(
    optimizer: torch.optim.Optimizer,
    by_id: Mapping[int, Variable],
    taken: Mapping[int, list[Variable]],
) -> dict[int, list[Variable]]:
    found: dict[int, list[Variable]] = {}
    probed: dict[object, dict[str, Any]] = {}
    for number, group in enumerate(optimizer.param_groups):
        for tensor in group["params"]:
            variable = by_id.get(id(tensor))
            if variable is None:  # of another module, a loss with weights for example
                continue
            if id(tensor) in taken:
                raise SettingsError(f"Two optimizers have {variable.name!r}.")
            key = (number, tensor.ndim, tensor.dtype, tensor.device)
            if key not in probed:
                probed[key] = _probe(optimizer, group, tensor)
            found[id(tensor)] = _slots_of(optimizer, group, variable, probed[key])
    return found


def _slots_of(
    optimizer: torch.optim.Optimizer,
    group: dict[str, Any],
    parameter: Variable,
    probed: Mapping[str, Any],
) -> list[Variable]:
    state = optimizer.state.get(parameter.tensor, {})
    slots = []
    for name, like in probed.items():
        tensor = state.get(name)
        if not isinstance(tensor, torch.Tensor):
            tensor = _without_data(like, parameter)
        number = type(like) if isinstance(like, int | float) else None
        device = like.device if isinstance(like, torch.Tensor) else torch.device("cpu")
        start = _start(optimizer, group, name, like)
        slot = Slot(optimizer, parameter, name, group, device, start, number)
        owners = tuple(_slot_owner(owner, name) for owner in parameter.owners)
        slots.append(Variable(tensor, "slot", owners, slot))
    return slots


def _slot_owner(owner: Owner, name: str) -> Owner:
    return Owner(f"{owner.name}/{name}", f"{owner.state_dict_name}/{name}", owner.module, name)


def _without_data(like: Any, parameter: Variable) -> torch.Tensor:
    """A tensor on the meta device as the optimizer will make it for the parameter."""
    if not isinstance(like, torch.Tensor):
        return torch.empty((), device="meta", dtype=torch.float32)
    shape = _scaled_up(tuple(like.shape), parameter.shape)
    return torch.empty(shape, device="meta", dtype=like.dtype)


def _scaled_up(tiny: Shape, shape: Shape) -> Shape:
    """A tiny slot's shape for the real parameter: each size stands for a dimension."""
    sizes = dict(zip(_SIZES, shape, strict=False))
    return tuple(sizes.get(size, size) for size in tiny)


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


def _probe(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], tensor: torch.Tensor
) -> dict[str, Any]:
    """What an optimizer keeps for a parameter like `tensor`, after a step that changes nothing."""
    for is_sparse in (False, True):
        tiny = torch.zeros(_SIZES[: tensor.ndim], dtype=tensor.dtype, device=tensor.device)
        tiny.requires_grad_()
        tiny.grad = torch.zeros_like(tiny).to_sparse() if is_sparse else torch.zeros_like(tiny)
        try:
            return _state_after_a_step(optimizer, group, tiny)
        except RuntimeError as error:  # SparseAdam takes sparse gradients only
            failure: Exception = error
        except KeyError:  # Adagrad makes its state when it is made; before torch 2.9 only then
            return _numbers(optimizer.state.get(tensor, {}))
        except TypeError as error:  # LBFGS needs a closure
            failure = error
            break
    raise UnsupportedError(
        f"{type(optimizer).__name__} does not keep its state by parameter in a way that can be "
        f"warm-started ({failure}): leave `optimizer` out."
    )


def _state_after_a_step(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], tiny: torch.Tensor
) -> dict[str, Any]:
    probe = copy.copy(optimizer)
    probe.state = defaultdict(dict)
    probe.param_groups = [{**group, "params": [tiny]}]
    probe._optimizer_step_pre_hooks = OrderedDict()  # the user's hooks are not for this
    probe._optimizer_step_post_hooks = OrderedDict()
    # Of the class: a learning rate scheduler replaces the instance's by one bound to the original.
    type(optimizer).step(probe)
    return _numbers(probe.state[tiny])


def _numbers(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, torch.Tensor | int | float) and not isinstance(value, bool)
    }
