"""Tensors that are made without a device lie on the CPU, whatever `torch.set_default_device` says.

What comes of files and vocabularies lies there, and so must what is worked out beside it. Code of
the caller's that is run meanwhile has the caller's default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_T = TypeVar("_T")
_callers: ContextVar[torch.device | None] = ContextVar("callers_device", default=None)


def on_cpu(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function within which the default device is the CPU."""

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        default = torch.get_default_device()
        if default.type == "cpu":
            return function(*args, **kwargs)
        token = _callers.set(default)
        try:
            with torch.device("cpu"):
                return function(*args, **kwargs)
        finally:
            _callers.reset(token)

    return run


def callers_device() -> torch.device:
    """The default device of who called, within `on_cpu` too."""
    return _callers.get() or torch.get_default_device()


@contextmanager
def as_the_caller() -> Iterator[None]:
    """Around code of the caller's: with the caller's default device."""
    default = _callers.get()
    if default is None:
        yield
    else:
        with torch.device(default):
            yield
