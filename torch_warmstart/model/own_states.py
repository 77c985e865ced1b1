"""What a model calls its tensors in a state_dict of its own making.

A wrapper may hand on what its inner model has, without its own attribute in front, and load that.
"""

from __future__ import annotations

import torch

from torch_warmstart.model.journal import Journal
from torch_warmstart.model.modules import modules_of
from torch_warmstart.model.sharding import is_of_sharding

_Module = torch.nn.Module


def names_saved_by_itself(model: _Module) -> dict[str, str]:
    """The names in the state of a model that has methods of its own to save and load itself.

    By the names that its tensors have; only where these differ, and none where it is not clear.
    """
    own = type(model).state_dict, type(model).load_state_dict
    stock = _Module.state_dict, _Module.load_state_dict
    if any(a is b or is_of_sharding(a) for a, b in zip(own, stock, strict=True)):
        return {}
    journal = Journal(model)  # it may merge what it saves
    journal.keep_attributes(modules_of(model))
    try:
        with journal.trial():
            saved = _names(dict(model.state_dict()))
        return _differing(saved, _names(_Module.state_dict(model)))
    except Exception:  # it is a user's, and may want arguments
        return {}


def _differing(saved: dict[object, list[str]], own: dict[object, list[str]]) -> dict[str, str]:
    return {
        name: saved[tensor][0]
        for tensor, names in own.items()
        for name in names
        if len(saved.get(tensor, ())) == 1 and name not in saved[tensor]
    }


def _names(state: dict[str, torch.Tensor]) -> dict[object, list[str]]:
    """The names of each tensor, known by where it lies."""
    found: dict[object, list[str]] = {}
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and not tensor.is_meta and tensor.numel():
            place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            found.setdefault(place, []).append(name)
    return found
