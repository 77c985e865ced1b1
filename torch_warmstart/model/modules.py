"""The modules and tensors that a model has registered, whatever methods its class has of its own.

A class may give other `parameters()` or `modules()` than torch's: those that are trained, or one of
several. `state_dict()` goes by what is registered, and so does a warm start.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

_Module = torch.nn.Module


def named_modules(
    model: _Module, prefix: str = "", *, is_each_once: bool = True
) -> Iterator[tuple[str, _Module]]:
    """As torch's own: the model first, and each module before those within it.

    Args:
        model: The model.
        prefix: Its own path.
        is_each_once: Whether one that stands in several places comes only at the first of them.
    """
    seen: set[int] | None = set() if is_each_once else None
    return _within(model, prefix, seen)


def _within(module: _Module, path: str, seen: set[int] | None) -> Iterator[tuple[str, _Module]]:
    if seen is not None:
        if id(module) in seen:  # a class may compare its modules in its own way
            return
        seen.add(id(module))
    yield path, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _within(child, f"{path}.{name}" if path else name, seen)


def module_at(model: _Module, path: str) -> _Module | None:
    """The module of a path, as `named_modules` has it; None if there is none."""
    found: _Module | None = model
    for name in path.split(".") if path else ():
        if found is None or name not in found._modules:
            return None
        found = found._modules[name]
    return found


def modules_of(model: _Module) -> Iterator[_Module]:
    """Each module once, the model first."""
    return (module for _, module in named_modules(model))


def tensors_of(model: _Module) -> Iterator[torch.Tensor]:
    """All parameters, then all buffers, also those that are in no state_dict; each once."""
    modules = list(modules_of(model))
    for of_kind in ("_parameters", "_buffers"):
        seen: set[int] = set()
        for module in modules:
            for tensor in getattr(module, of_kind).values():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield tensor
