"""What a model's own loading is given for a tensor: itself, but not made before it is looked at.

A load hook mostly renames or drops entries and looks at shapes. To make it all the tensors of a
model, and of each vocabulary's table the new one, would be a second copy of the model. What a hook
looks at or changes is made for it, apart from the checkpoint; the rest never is, and is streamed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

_Tensor: Any = torch.Tensor

# What a stand-in answers by itself: it has no bytes, but all the rest.
_TOLD = frozenset(
    [
        *(
            getattr(_Tensor, name).__get__
            for name in (
                *("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_meta"),
                *("is_sparse", "is_quantized", "is_leaf", "is_cuda", "itemsize", "nbytes"),
            )
        ),
        *(_Tensor.size, _Tensor.dim, _Tensor.numel, _Tensor.stride, _Tensor.nelement),
        *(_Tensor.element_size, _Tensor.is_floating_point, _Tensor.is_complex, _Tensor.__len__),
        *(_Tensor.ndimension, _Tensor.is_contiguous, _Tensor.__hash__),
    ]
)


class StandIn(torch.Tensor):
    """A tensor of a shape and dtype that is made when its values are needed."""

    _make: Callable[[], torch.Tensor]
    _made: torch.Tensor | None

    @staticmethod
    def __new__(cls, like: torch.Tensor, make: Callable[[], torch.Tensor]) -> StandIn:
        """Makes nothing yet; what `make` gives belongs to whoever has the stand-in."""
        made: StandIn = _Tensor._make_wrapper_subclass(
            cls, like.shape, dtype=like.dtype, device=like.device, requires_grad=False
        )
        return made

    def __init__(self, like: torch.Tensor, make: Callable[[], torch.Tensor]) -> None:  # noqa: ARG002
        self._make, self._made = make, None

    @property
    def is_made(self) -> bool:
        """Whether somebody has looked at its values, and may have changed them."""
        return self._made is not None

    def made(self) -> torch.Tensor:
        """The tensor itself."""
        if self._made is None:
            self._made = self._make()
        return self._made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _TOLD:
            # Not within a `with`, of which an interrupt may keep the thread from coming out.
            return torch._C._disabled_torch_function_impl(func, types, args, dict(kwargs or {}))
        return func(*_made(args), **_made(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return func(*_made(args), **_made(kwargs or {}))


def _made(tree: Any) -> Any:
    return tree_map_only(StandIn, StandIn.made, tree)
