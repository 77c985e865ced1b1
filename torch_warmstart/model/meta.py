"""What of a model is on the meta device, where it holds nothing, and who could make it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_warmstart.dtypes import why_no_values
from torch_warmstart.errors import SettingsError
from torch_warmstart.model.modules import module_at
from torch_warmstart.model.variables import Owner, Variable, is_persistent, walk

_RESETTERS = ("reset_parameters", "_reset_parameters")  # the second of MultiheadAttention's


def check_tensors_hold_values() -> None:
    """Raises SettingsError where nothing would be read or written: a mode only makes believe."""
    why = why_no_values()
    if why:
        raise SettingsError(f"{why}. Warm-start the model outside of it.")


def is_on_meta(variable: Variable) -> bool:
    """Whether a parameter or buffer holds nothing yet."""
    return variable.slot is None and variable.tensor.is_meta


def resetter_of(module: torch.nn.Module) -> Callable[[], Any] | None:
    """What initialises a module's own tensors, if it says so."""
    found = (getattr(module, name, None) for name in _RESETTERS)
    return next((method for method in found if callable(method)), None)


def makers_of(variable: Variable) -> tuple[Owner, ...]:
    """Where a variable's module could initialise it; of a tied one any may."""
    return tuple(o for o in variable.owners if resetter_of(o.module) is not None)


def transient_buffers(model: torch.nn.Module) -> tuple[Variable, ...]:
    """The buffers that are in no state_dict, and so in no checkpoint."""
    return tuple(
        Variable(buffer, "buffer", (Owner(path + leaf, raw_path + leaf, module, leaf),))
        for path, raw_path, module in walk(model)
        for leaf, buffer in module._buffers.items()
        if buffer is not None and not is_persistent(module, leaf)
    )


def place_of(model: torch.nn.Module, owner: Owner) -> tuple[torch.nn.Module, str]:
    """The module that has a tensor as an attribute, and the attribute's name."""
    path, _, leaf = owner.state_dict_name.rpartition(".")
    module = module_at(model, path)
    assert module is not None  # it has been found there
    return module, leaf
