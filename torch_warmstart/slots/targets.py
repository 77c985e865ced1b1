"""What is written to for each slot of one warm start: the optimizer's own tensor, or a new one."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.model import Slot, Variable, mode_of
from torch_warmstart.model.sharding import (
    Boxed,
    is_sharded,
    local_tensors,
    registered_of,
    sharded_like,
    written_to,
)

if TYPE_CHECKING:
    from torch_warmstart.slots.probing import Probes

_Constant = bool | str | None
_LARGE = 4 << 20  # bytes of a slot from which the system gives it zeros


def is_as_planned(variable: Variable) -> bool:
    """Whether an optimizer's slot, if it has it now, is still what a plan was made for."""
    slot = variable.slot
    assert slot is not None
    if slot.is_fused:
        return True
    tensor = _tensor_in(slot)
    planned = variable.tensor
    if isinstance(planned, Boxed):
        return tensor is None or tensor.dtype == planned.dtype
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
        written = {variable for variable in touched if variable.slot is not None}
        parameters = {v.slot.parameter for v in touched if v.slot is not None}
        self._made: dict[Variable, tuple[Slot, torch.Tensor]] = {}
        self._constants: list[tuple[Slot, dict[str, Any]]] = []
        for variable in variables:
            slot = variable.slot
            if slot is None or slot.is_fused or slot.parameter not in parameters:
                continue
            if not _state_of(slot):
                self._constants.append((slot, self._constants_of(slot)))
            if _tensor_in(slot) is None:
                is_written = variable in written
                with mode_of(slot.parameter.tensor):
                    self._made[variable] = (slot, _make_slot(variable, slot, is_written))

    @functools.cached_property
    def _probes(self) -> Probes:
        from torch_warmstart.slots.probing import Probes

        return Probes()

    def __getitem__(self, variable: Variable) -> torch.Tensor:
        """The tensor to write a variable's values to."""
        if variable in self._made:
            return self._made[variable][1]
        if isinstance(variable.tensor, Boxed):
            return variable.tensor
        assert variable.slot is not None
        tensor = _tensor_in(variable.slot)
        assert tensor is not None  # otherwise it has been made
        return written_to(tensor)

    def hand_over(self) -> None:
        """Gives the optimizers what was made."""
        for slot, constants in self._constants:
            slot.optimizer.state[registered_of(slot.parameter.tensor)].update(constants)
        for slot, tensor in self._made.values():
            value = _value(tensor) if slot.python_type is None else slot.python_type(tensor.item())
            slot.optimizer.state[registered_of(slot.parameter.tensor)][slot.name] = value

    def _constants_of(self, slot: Slot) -> dict[str, Any]:
        """What the optimizer's state begins with besides its slots: flags, mostly."""
        from torch_warmstart.slots.probing import numbers

        probed = self._probes.state(slot.optimizer, slot.group, slot.parameter.tensor)
        others = {name: value for name, value in probed.items() if name not in numbers(probed)}
        strange = [name for name, value in others.items() if not isinstance(value, _Constant)]
        if strange:
            raise UnsupportedError(
                f"{type(slot.optimizer).__name__} keeps {strange[0]!r} for each parameter, a "
                f"{type(others[strange[0]]).__name__}, which its first step makes: let it take a "
                "step before the warm start."
            )
        return others


def _value(tensor: torch.Tensor) -> torch.Tensor:
    """What an optimizer is given: of a tensor of boxes, what is here."""
    if not isinstance(tensor, Boxed):
        return tensor
    local = local_tensors(tensor)
    return local[0] if local else torch.empty(0, dtype=tensor.dtype, device=tensor.device)


def _state_of(slot: Slot) -> Mapping[str, Any]:
    return slot.state


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
    if is_sharded(parameter) and variable.shape:
        return _sharded_slot(variable, slot, start or 0.0)
    if variable.shape and variable.shape == tuple(parameter.shape):  # strided like the parameter
        zeros = None if start else _large_zeros(parameter, dtype, slot.device)
        if zeros is not None:
            return zeros
        options: dict[str, Any] = {"dtype": dtype, "device": slot.device, "requires_grad": False}
        return torch.full_like(parameter, start or 0.0, **options)
    return torch.full(variable.shape, start or 0.0, dtype=dtype, device=slot.device)


def _large_zeros(
    parameter: torch.Tensor, dtype: torch.dtype, device: torch.device
) -> torch.Tensor | None:
    """Zeros for a slot that is as large as a table: memory as the system gives it, in huge pages.

    To write them, as torch does, would take as long as the rows that come over them.
    """
    size = parameter.numel() * dtype.itemsize
    is_plain = type(parameter.detach()) is torch.Tensor and parameter.layout == torch.strided
    if size < _LARGE or device.type != "cpu" or not (is_plain and parameter.is_contiguous()):
        return None
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(parameter.shape)


def _sharded_slot(variable: Variable, slot: Slot, start: float) -> torch.Tensor:
    """A slot that is sharded as its parameter is."""
    parameter, dtype = slot.parameter.tensor, variable.tensor.dtype
    if variable.shape != tuple(parameter.shape):
        raise UnsupportedError(
            f"{variable.name}: how {type(slot.optimizer).__name__} shards it does not follow from "
            "its parameter: let the optimizer take a step before the warm start."
        )
    parts = [
        torch.full_like(local, start, dtype=dtype, device=slot.device, requires_grad=False)
        for local in local_tensors(parameter)
    ]
    return sharded_like(parameter, parts)
