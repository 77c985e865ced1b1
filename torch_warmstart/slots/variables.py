"""An optimizer's state as variables: `<variable>/<slot>`, such as `embed.weight/exp_avg`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from torch_warmstart.errors import SettingsError, UnsupportedError
from torch_warmstart.model import Owner, Shape, Slot, Variable
from torch_warmstart.model.sharding import (
    Boxed,
    FusedState,
    boxed_like,
    fused_states,
    is_sharded,
    plain_optimizers,
    registered_of,
)
from torch_warmstart.slots.probing import Probes, holds_numbers, numbers
from torch_warmstart.slots.torch_optimizers import PRODUCT, STEP, is_torchs_own

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]

# What slots begin with that are not zero, or that a step with a gradient of zeros changes: in
# torch/optim/{adagrad,adamax,nadam,rprop,asgd}.py, by class and slot: a number, or what it is
# called in the param group; in the constructor's defaults of Adagrad, which looks at no group.
_STARTS: Mapping[tuple[str, str], float | str] = {
    ("Adagrad", "sum"): "initial_accumulator_value",
    ("Adamax", "exp_inf"): 0.0,
    ("NAdam", PRODUCT): 1.0,
    ("RMSprop", "momentum_buffer"): 0.0,  # its eps is 0 in float16: 0 / 0
    ("Rprop", "step_size"): "lr",
    ("ASGD", "ax"): 0.0,
    ("ASGD", "mu"): 1.0,
    ("ASGD", "eta"): "lr",
}


def slot_variables(
    optimizers: Optimizers, variables: Iterable[Variable], model: torch.nn.Module
) -> tuple[Variable, ...]:
    """The slots of a model's parameters, in the order of its parameters.

    Raises:
        SettingsError: an optimizer has none of the model's parameters, or two have the same one.
        UnsupportedError: an optimizer does not keep its state by parameter.
    """
    by_id = {id(registered_of(v.tensor)): v for v in variables if v.kind == "parameter"}
    found = _fused_slots(optimizers, by_id, model)
    for optimizer in optimizers_in(optimizers):
        known = _known_slots(optimizer, by_id, found)
        if not known:
            raise of_another_model(optimizer)
        found.update(known)
    return tuple(slot for key in by_id for slot in found.get(key, ()))


def changed_slot(planned: Sequence[Variable], variables: Iterable[Variable]) -> str | None:
    """A slot that optimizers no longer keep since it was planned for, or keep besides; else None.

    Args:
        planned: The slots.
        variables: What they are of, among others.
    """
    by_id = {id(registered_of(v.tensor)): v for v in variables if v.kind == "parameter"}
    slots = [v.slot for v in planned if v.slot is not None and not v.slot.is_fused]
    now: dict[int, list[Variable]] = {}
    for optimizer in {id(slot.optimizer): slot.optimizer for slot in slots}.values():
        now.update(_known_slots(optimizer, by_id, now))
    names = dict.fromkeys(slot.name for found in now.values() for slot in found)
    then = dict.fromkeys(v.name for v in planned if v.slot is not None and not v.slot.is_fused)
    return next((n for n in (*then, *names) if (n in then) != (n in names)), None)


def of_another_model(optimizer: torch.optim.Optimizer) -> SettingsError:
    """An optimizer that has none of the model's parameters."""
    return SettingsError(
        f"The optimizer ({type(optimizer).__name__}) has none of the model's parameters: make it "
        "from model.parameters(), after the model is in its final place."
    )


def left_out(optimizers: Optimizers, variables: Iterable[Variable]) -> tuple[list[str], int]:
    """The model's parameters that no optimizer has, and how many have no place in the model.

    Of the model's, those that are trained.
    """
    known = {id(registered_of(v.tensor)): v for v in variables if v.kind == "parameter"}
    groups = [group for optimizer in optimizers_in(optimizers) for group in optimizer.param_groups]
    held = {id(tensor) for group in groups for tensor in group["params"]}
    names = [
        v.name
        for key, v in known.items()
        if key not in held and v.tensor.requires_grad and not isinstance(v.tensor, Boxed)
    ]
    return names, len(held - known.keys())


def changed_in_groups(slots: Iterable[Slot]) -> tuple[str, ...]:
    """What a step of an optimizer, that of some slots, changes in their param groups.

    None of torch's own does; nor is there a step to try of what kernels update.
    """
    probes = Probes()
    found: dict[str, None] = {}
    for slot in slots:
        if not (is_torchs_own(slot.optimizer) or slot.is_fused):
            tensor = slot.parameter.tensor
            found.update(dict.fromkeys(probes.changed(slot.optimizer, slot.group, tensor)))
    return tuple(found)


def optimizers_in(optimizers: Any) -> list[torch.optim.Optimizer]:
    """The optimizers that keep the state, of one or a list; raises SettingsError for others.

    Those of TorchRec's kernels are not among them.
    """
    return [_unwrapped(one) for given in _listed(optimizers) for one in plain_optimizers(given)]


def _listed(optimizers: Any) -> list[torch.optim.Optimizer]:
    listed = list(optimizers) if isinstance(optimizers, list | tuple) else [optimizers]
    for optimizer in listed:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise SettingsError(
                "optimizer must be a torch.optim.Optimizer or a list of them, not a "
                f"{type(optimizer).__name__}."
            )
    return listed


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
    if (others := _stepped_by(optimizer)) is not None:
        raise UnsupportedError(
            f"{type(optimizer).__name__} steps {others}, with a state that is not its own: pass "
            "what it wraps (a list, if those are several) as `optimizer`."
        )
    return optimizer


def _stepped_by(optimizer: torch.optim.Optimizer) -> str | None:
    """The attribute in which an optimizer has others that keep what its steps use; else None."""
    for name, value in vars(optimizer).items():
        inner = list(value.values()) if isinstance(value, dict) else value
        for one in inner if isinstance(inner, list | tuple) else [inner]:
            if isinstance(one, torch.optim.Optimizer) and _is_for(one, optimizer):
                return f"its {name!r} ({type(one).__name__})"
    return None


def _is_for(inner: torch.optim.Optimizer, optimizer: torch.optim.Optimizer) -> bool:
    """Whether another optimizer keeps a state of its own for parameters that this one has.

    Or for copies of them, in another dtype or in one piece: as many numbers. One for other
    parameters is only held: of a discriminator, or of what Muon leaves to Adam.
    """
    if inner is optimizer or getattr(inner, "state", None) is optimizer.state:
        return False
    theirs, ours = _parameters(inner), _parameters(optimizer)
    numbers = [sum(tensor.numel() for tensor in each.values()) for each in (theirs, ours)]
    return not theirs.keys().isdisjoint(ours) or numbers[0] == numbers[1]


def _parameters(optimizer: torch.optim.Optimizer) -> dict[int, torch.Tensor]:
    return {id(one): one for group in optimizer.param_groups for one in group["params"]}


def _known_slots(
    optimizer: torch.optim.Optimizer,
    by_id: Mapping[int, Variable],
    taken: Mapping[int, list[Variable]],
) -> dict[int, list[Variable]]:
    found: dict[int, list[Variable]] = {}
    probes = Probes()
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
    probes: Probes,
) -> list[Variable]:
    state = optimizer.state.get(registered_of(parameter.tensor), {})
    made = _probed(optimizer, group, parameter, probes)
    _check_plain(optimizer, {**made, **state})
    probed = numbers(made)
    slots = []
    for name, like in {**numbers(state), **probed}.items():
        number = type(like) if isinstance(like, int | float) else None
        tensor = state.get(name)
        if not isinstance(tensor, torch.Tensor) or number is not None:
            shape = probes.shape(optimizer, group, parameter, name) if number is None else ()
            tensor = _without_data(like, shape)
        elif isinstance(parameter.tensor, Boxed):
            shape = probes.shape(optimizer, group, parameter, name)
            tensor = _in_boxes(optimizer, parameter, name, tensor, shape)
        device = like.device if isinstance(like, torch.Tensor) else torch.device("cpu")
        start = _start(optimizer, group, name, like)
        axes = probes.axes(optimizer, group, parameter.tensor, name) if name in probed else None
        slot = Slot(optimizer, parameter, name, group, device, start, number, axes=axes)
        owners = tuple(_slot_owner(owner, name) for owner in parameter.owners)
        slots.append(Variable(tensor, "slot", owners, slot))
    return slots


def _check_plain(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Raises UnsupportedError for values that are in a container, and so no slots."""
    for name, value in state.items():
        if not isinstance(value, torch.Size) and holds_numbers(value):
            raise UnsupportedError(
                f"{type(optimizer).__name__} keeps {name!r} for each parameter, a "
                f"{type(value).__name__} of numbers or tensors, which is no slot: leave "
                "`optimizer` out, and give it the old one's state by its load_state_dict()."
            )


def _probed(
    optimizer: torch.optim.Optimizer,
    group: dict[str, Any],
    parameter: Variable,
    probes: Probes,
) -> dict[str, Any]:
    """What a step keeps for a parameter: nothing for a frozen one that no step can be taken of.

    Packed weights (int8, uint8, float8) are such, in an optimizer of all `model.parameters()`.
    """
    try:
        return probes.state(optimizer, group, parameter.tensor)
    except UnsupportedError:
        if registered_of(parameter.tensor).requires_grad:
            raise
        return {}


def _in_boxes(
    optimizer: torch.optim.Optimizer,
    parameter: Variable,
    name: str,
    value: torch.Tensor,
    shape: Shape,
) -> torch.Tensor:
    """A slot that an optimizer has for what is here of a parameter, as a part of the whole."""
    if not shape:
        return value
    boxes, like = parameter.boxes, parameter.tensor
    assert isinstance(like, Boxed)
    if shape != parameter.shape or len(boxes) > 1:
        raise UnsupportedError(
            f"{parameter.name}: where its {name!r} of {type(optimizer).__name__} lies in that of "
            "the whole table is not known: leave `optimizer` out."
        )
    return boxed_like(like, shape, boxes, [value][: len(boxes)], value.dtype)


def _fused_slots(
    optimizers: Optimizers, by_id: Mapping[int, Variable], model: torch.nn.Module
) -> dict[int, list[Variable]]:
    """The slots of tables that their kernels update, by what is registered for each."""
    by_name = {o.state_dict_name: key for key, v in by_id.items() for o in v.owners}
    return {
        by_name[name]: [
            _fused_slot(by_id[by_name[name]], entry, tensor, state)
            for entry, tensor in state.kept.items()
        ]
        for name, state in fused_states(model, _listed(optimizers))
        if name in by_name
    }


def _fused_slot(
    parameter: Variable, name: str, tensor: torch.Tensor, state: FusedState
) -> Variable:
    slot = Slot(state.optimizer, parameter, name, {}, tensor.device, 0.0, is_fused=True)
    owners = tuple(_slot_owner(owner, name) for owner in parameter.owners)
    return Variable(tensor, "slot", owners, slot)


def _slot_owner(owner: Owner, name: str) -> Owner:
    return Owner(f"{owner.name}/{name}", f"{owner.state_dict_name}/{name}", owner.module, name)


def _without_data(like: Any, shape: Shape) -> torch.Tensor:
    """A tensor on the meta device as the optimizer will make it for the parameter."""
    # Python's floats, any count.
    dtype = like.dtype if isinstance(like, torch.Tensor) else torch.float64
    return torch.empty(shape, device="meta", dtype=dtype)


def _start(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], name: str, like: Any
) -> float | None:
    for cls in type(optimizer).__mro__:
        if (cls.__name__, name) in _STARTS and cls.__module__.startswith("torch.optim"):
            begin = _STARTS[cls.__name__, name]
            said = optimizer.defaults if cls.__name__ == "Adagrad" else group
            return float(said[begin]) if isinstance(begin, str) else begin
    if name == STEP:
        return 0.0
    if isinstance(like, torch.Tensor) and is_sharded(like):
        return None  # to look at all of it is to ask the other processes
    return 0.0 if not torch.as_tensor(like).any() else None
