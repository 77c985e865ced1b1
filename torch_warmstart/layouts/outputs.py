"""Along which axis torch's layers, and one of transformers', have their outputs."""

from __future__ import annotations

from torch import nn

_OUTPUTS_BEHIND = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# GPT-2's linear layer keeps its weight as TensorFlow does, where it was the kernel of a convolution
# of width 1. It is known by name, so that transformers need not be imported.
_UNTRANSPOSED_LINEAR = "transformers.pytorch_utils.Conv1D"


def is_untransposed_linear(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, or made from it, which computes `x @ weight + bias`."""
    names = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__)
    return _UNTRANSPOSED_LINEAR in names


def output_axis(module: nn.Module) -> int:
    """The axis of a layer's weight along which it has its outputs, as its bias has them."""
    return 1 if isinstance(module, _OUTPUTS_BEHIND) or is_untransposed_linear(module) else 0
