"""What is worked out is the same whatever the caller's default device and `torch.autocast`.

Tensors that are made without a device lie on the CPU, whatever `torch.set_default_device` says:
what comes of files and vocabularies lies there, and so must what is worked out beside it. And
nothing is computed in half precision because the call stands in somebody's autocast. Code of the
caller's that is run meanwhile has both as the caller has them. And a call within what torch.compile
makes of a function is run, not traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_T = TypeVar("_T")
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")  # each of these has its own


class _Surroundings(NamedTuple):
    """What a call stands in."""

    device: torch.device
    autocast: tuple[tuple[str, torch.dtype], ...]  # where it is on, and to what


_callers: ContextVar[_Surroundings | None] = ContextVar("callers_surroundings", default=None)


def on_cpu(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function within which the default device is the CPU, and autocast is off."""

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if torch.compiler.is_dynamo_compiling():
            untraced: Callable[_P, _T] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
            return untraced(*args, **kwargs)
        callers = _surroundings()
        if callers.device.type == "cpu" and not callers.autocast:
            return function(*args, **kwargs)
        token = _callers.set(callers)
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.device("cpu"))
                for kind, _ in callers.autocast:
                    stack.enter_context(torch.autocast(kind, enabled=False))
                return function(*args, **kwargs)
        finally:
            _callers.reset(token)

    return run


def _surroundings() -> _Surroundings:
    is_on = (kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind))
    autocast = tuple((kind, torch.get_autocast_dtype(kind)) for kind in is_on)
    return _Surroundings(torch.get_default_device(), autocast)


def _callers_device() -> torch.device:
    """The default device of who called, within `on_cpu` too."""
    callers = _callers.get()
    return torch.get_default_device() if callers is None else callers.device


@contextmanager
def as_the_caller() -> Iterator[None]:
    """Around code of the caller's: with the caller's default device and autocast."""
    callers = _callers.get()
    with ExitStack() as stack:
        if callers is not None:
            stack.enter_context(torch.device(callers.device))
            for kind, dtype in callers.autocast:
                stack.enter_context(torch.autocast(kind, dtype=dtype))
        yield


def home_of(tensor: torch.Tensor) -> torch.device:
    """Where a tensor is; for one on the meta device, where torch would make it."""
    if not tensor.is_meta:
        return tensor.device
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        default = _callers_device()
        return torch.device("cpu") if default.type == "meta" else default
    kind: str = mesh.device_type
    if kind == "cpu":
        return torch.device(kind)
    return torch.device(kind, torch.get_device_module(kind).current_device())
