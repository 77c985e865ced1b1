"""What fills the rows of a variable that have no old row: one value, decided while planning.

The executor carries it out and decides nothing; the plan's text shows it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from torch_warmstart.settings import KEEP, AnyVocabInfo, Initializer


@dataclass(frozen=True, slots=True)
class Keep:
    """They stay as the model has them."""

    def __str__(self) -> str:
        return "as the model has them"


@dataclass(frozen=True, slots=True)
class Constant:
    """The same number everywhere: zeros, as TensorFlow has it, or what an optimizer begins with."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Initialised:
    """What an initialiser makes there of a tensor of the variable's full shape."""

    initializer: Initializer
    generator: torch.Generator | None = None

    def __str__(self) -> str:
        function = self.initializer
        while isinstance(function, functools.partial):
            function = function.func
        return str(getattr(function, "__name__", type(function).__name__))


Fill = Keep | Constant | Initialised


def fill_of_variable(info: AnyVocabInfo) -> Fill:
    """What fills new rows of a parameter or buffer: what its `backup_initializer` says."""
    initializer = info.backup_initializer
    if callable(initializer):
        return Initialised(initializer, info.generator)
    return Keep() if initializer == KEEP else Constant(0.0)


def fill_of_slot(info: AnyVocabInfo, start: float | None) -> Fill | None:
    """What fills new rows of an optimizer's slot; None: nobody knows.

    They are never kept: they begin as the optimizer would begin them, unless an initialiser is
    given for the very slot.

    Args:
        info: The slot's own, or its parameter's without the initialiser.
        start: What the optimizer begins with, if that is known.
    """
    initializer = info.backup_initializer
    if callable(initializer):
        return Initialised(initializer, info.generator)
    return None if start is None else Constant(start)
