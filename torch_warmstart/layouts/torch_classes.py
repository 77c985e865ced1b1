"""Which layers are torch's own, and which class of torch's another one is made from."""

from __future__ import annotations

from torch import nn

_LAYERS = "torch.nn.modules."
# Its classes may hold anything: to be made from one says nothing of what a layer computes.
_CONTAINERS = nn.Sequential.__module__


def torch_layer_of(module: nn.Module) -> type[nn.Module] | None:
    """The class of torch's layers that a module is or inherits from; None if it is none of them."""
    classes = (cls for cls in type(module).__mro__ if cls.__module__.startswith(_LAYERS))
    layer: type[nn.Module] = next(classes)  # at the latest nn.Module
    return None if layer is nn.Module or layer.__module__ == _CONTAINERS else layer


def is_torchs_own(module: nn.Module) -> bool:
    """Whether a module computes what a class of torch.nn does, and not one derived from it.

    What torch derives from a layer as it parametrizes or shards it does not count as another.
    """
    classes = (cls for cls in type(module).__mro__ if not _is_wrapped_by_torch(cls))
    return next(classes).__module__.startswith(_LAYERS)


def _is_wrapped_by_torch(cls: type) -> bool:
    return cls.__module__.startswith("torch.") and not cls.__module__.startswith(_LAYERS)
