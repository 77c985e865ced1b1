"""Keras' initialisers by name, as functions that fill a torch matrix: same distributions.

Only those that make sense for the rows of an embedding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch

from torch_warmstart.errors import SettingsError, did_you_mean
from torch_warmstart.settings import Initializer


def find_initializer(name: str) -> Initializer:
    """An initialiser by Keras' name of its class, or of its function."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if snake not in INITIALIZERS:
        raise SettingsError(
            f"No initialiser is called {name!r} here; there are {', '.join(INITIALIZERS)}."
            f"{did_you_mean(snake, INITIALIZERS)} Any function of torch.nn.init does too."
        )
    return INITIALIZERS[snake]


def _uniform(tensor: torch.Tensor, generator: torch.Generator | None = None) -> None:
    tensor.uniform_(-0.05, 0.05, generator=generator)


def _normal(tensor: torch.Tensor, generator: torch.Generator | None = None) -> None:
    tensor.normal_(0.0, 0.05, generator=generator)


def _truncated_normal(
    tensor: torch.Tensor, generator: torch.Generator | None = None, std: float = 0.05
) -> None:
    """As TensorFlow has it: nothing beyond two deviations of the normal that is cut off there."""
    torch.nn.init.trunc_normal_(tensor, 0.0, std, -2 * std, 2 * std, generator=generator)


def _zeros(tensor: torch.Tensor, generator: torch.Generator | None = None) -> None:  # noqa: ARG001
    tensor.zero_()


def _ones(tensor: torch.Tensor, generator: torch.Generator | None = None) -> None:  # noqa: ARG001
    tensor.fill_(1.0)


def _scaled(scale: float, fan: Callable[[int, int], float], *, uniform: bool) -> Initializer:
    """Keras' VarianceScaling, of a matrix [rows, dim].

    To Keras the rows are the inputs and dim the outputs; torch.nn.init takes them the other way
    round, and its normal ones are not cut off, so these are written out.
    """

    def fill(tensor: torch.Tensor, generator: torch.Generator | None = None) -> None:
        std = math.sqrt(scale / max(1.0, fan(*tensor.shape)))
        if uniform:
            bound = math.sqrt(3.0) * std
            tensor.uniform_(-bound, bound, generator=generator)
        else:
            _truncated_normal(tensor, generator, std / _STD_OF_CUT_OFF_NORMAL)

    return fill


def _fan_in(rows: int, _: int) -> float:
    return rows


def _fan_avg(rows: int, dim: int) -> float:
    return (rows + dim) / 2


_STD_OF_CUT_OFF_NORMAL = 0.87962566103423978  # the standard normal's, cut off at two deviations

INITIALIZERS: dict[str, Initializer] = {
    "uniform": _uniform,
    "random_uniform": _uniform,
    "normal": _normal,
    "random_normal": _normal,
    "truncated_normal": _truncated_normal,
    "zeros": _zeros,
    "ones": _ones,
    "glorot_uniform": _scaled(1.0, _fan_avg, uniform=True),
    "glorot_normal": _scaled(1.0, _fan_avg, uniform=False),
    "he_uniform": _scaled(2.0, _fan_in, uniform=True),
    "he_normal": _scaled(2.0, _fan_in, uniform=False),
    "lecun_uniform": _scaled(1.0, _fan_in, uniform=True),
    "lecun_normal": _scaled(1.0, _fan_in, uniform=False),
}
