"""The row that a module has for no input: zeros, as torch begins it, for it is never trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.mixture import Mixture
from torch_warmstart.new_rows.rows import NewRows


@dataclass(frozen=True, eq=False, repr=False)
class PaddingRows(RowInitializer):
    """Sums of nothing for a module's `padding_idx`; asked before those that users name."""

    at: tuple[int, ...]
    name: ClassVar[str] = "zeros (padding_idx)"

    def __call__(self, new: NewRows) -> Mixture:
        is_padding = torch.isin(new.rows, torch.tensor(self.at))
        nothing = torch.empty(0, dtype=torch.int64)
        offsets = torch.zeros(len(new) + 1, dtype=torch.int64)
        return Mixture(offsets, nothing, nothing.double(), is_padding)
