"""How a tensor's axes change between TensorFlow and torch: named pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from torch_warmstart.errors import SettingsError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A reversible change of axes; `to_torch` returns a view."""

    name: str
    rank: int | None  # of the tensors it applies to; None: any
    to_torch: Callable[[torch.Tensor], torch.Tensor]
    shape_in_torch: Callable[[Shape], Shape]

    def applies_to(self, shape: Shape) -> bool:
        return self.rank is None or self.rank == len(shape)


IDENTITY = Layout("identity", None, lambda tensor: tensor, lambda shape: shape)

# Dense keeps its kernel as [in, out] and computes x @ kernel (keras/src/layers/core/dense.py);
# nn.Linear keeps [out, in] and computes x @ weight.T.
TRANSPOSE = Layout("transpose", 2, lambda tensor: tensor.t(), lambda shape: shape[::-1])

LAYOUTS = {layout.name: layout for layout in (IDENTITY, TRANSPOSE)}


def find_layout(name: str) -> Layout:
    """A layout by name; raises SettingsError if there is none."""
    if name not in LAYOUTS:
        raise SettingsError(f"no layout is called {name!r}; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
