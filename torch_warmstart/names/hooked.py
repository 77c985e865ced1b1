"""Names that a model's own loading changes: by running its pre-hooks on tensors without values.

`load_state_dict` calls them before anything is looked up, so that a model finds in an old state
what it calls otherwise today (torch's own `parametrizations.weight.original0` was `weight_g`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from torch_warmstart.formats import Checkpoint
from torch_warmstart.model import Journal, modules_of, names_saved_by_itself, tensors_of
from torch_warmstart.model.sharding import is_of_sharding
from torch_warmstart.names.conventions import conventions_of
from torch_warmstart.names.renamed import BY_HOOK, Renamed

_Module = torch.nn.Module


def names_after_hooks(model: _Module, checkpoint: Checkpoint) -> Renamed:
    """The checkpoint's keys by what the model's hooks make of them, where that is another name.

    What they make anew of others (query, key and value of one tensor) has none; what they fill in
    themselves is not among them. A hook that wants values raises here; then nothing is known, and
    whoever loads will hear of it.
    """
    return Renamed(
        {**_as_it_saves(model, checkpoint), **_keys_by_name(model, checkpoint)},
        BY_HOOK,
        "a load hook of the model",
        f"load {checkpoint.url} into a model of its own by load_state_dict(), and pass that "
        "model's state_dict() as the checkpoint",
    )


def _as_it_saves(model: _Module, checkpoint: Checkpoint) -> Mapping[str, str]:
    """Keys of a state that a model of this class has made in its own way."""
    saved = names_saved_by_itself(model)
    return {
        name: key for name, key in saved.items() if key in checkpoint and name not in checkpoint
    }


def _keys_by_name(model: _Module, checkpoint: Checkpoint) -> Mapping[str, str]:
    if conventions_of(checkpoint).has_own_layers or not any(map(_hooks, modules_of(model))):
        return {}
    specs = (checkpoint.spec(key) for key in checkpoint)
    state: dict[str, Any] = {
        spec.key: torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        for spec in specs
        if spec.dtype is not None
    }
    keys = {id(tensor): key for key, tensor in state.items()}
    metadata = checkpoint.metadata()
    versions = metadata if isinstance(metadata, Mapping) else {}
    journal = Journal(model)  # a plan changes nothing
    journal.keep_attributes(modules_of(model))
    before = list(state.values())  # as long as they live their ids are theirs
    try:
        with torch.no_grad(), journal.trial():
            found = dict(_load(model, state, "", versions))
    except Exception:  # it is a user's, and may want whatever it likes
        return {}
    assert before is not None
    own = {id(tensor) for tensor in tensors_of(model)}
    return {
        name: keys.get(id(tensor), "")
        for name, tensor in found.items()
        if keys.get(id(tensor)) != name and _is_from_the_state(tensor) and id(tensor) not in own
    }


def _is_from_the_state(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.is_meta


def _hooks(module: _Module) -> list[Any]:
    tensors = (*module._parameters.values(), *module._buffers.values())
    if any(torch.nn.parameter.is_lazy(tensor) for tensor in tensors if tensor is not None):
        return []  # its own would give them shapes; they are refused afterwards
    return [hook for hook in module._load_state_dict_pre_hooks.values() if not is_of_sharding(hook)]


def _load(
    module: _Module, state: dict[str, Any], prefix: str, versions: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """What the modules would be given, by the names of their tensors, in torch's order."""
    metadata = versions.get(prefix[:-1], {"version": module._version})
    for hook in _hooks(module):
        hook(state, prefix, metadata, True, [], [], [])
    for leaf in (*module._parameters, *module._buffers):
        if prefix + leaf in state:
            yield prefix + leaf, state[prefix + leaf]
    for name, child in module._modules.items():
        if child is not None:
            inner = f"{prefix}{name}."
            below = {key: value for key, value in state.items() if key.startswith(inner)}
            yield from _load(child, below, inner, versions)
