"""The row that a module has for no input: zeros, as torch begins it, for it is never trained.

Whoever makes the other new rows: an initialiser of `tws.init` is asked behind `PaddingRows`, and
what a plain function has made of a whole tensor is emptied there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch

from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.mixture import Mixture
from torch_warmstart.new_rows.rows import NewRows

_BEGINS_AS = "zeros (padding_idx)"


@dataclass(frozen=True, eq=False, repr=False)
class PaddingRows(RowInitializer):
    """Sums of nothing for a module's `padding_idx`; asked before those that users name."""

    at: tuple[int, ...]
    name: ClassVar[str] = _BEGINS_AS

    def __call__(self, new: NewRows) -> Mixture:
        is_padding = torch.isin(new.rows, torch.tensor(self.at))
        nothing = torch.empty(0, dtype=torch.int64)
        offsets = torch.zeros(len(new) + 1, dtype=torch.int64)
        return Mixture(offsets, nothing, nothing.double(), is_padding)


def empty_padding(made: torch.Tensor, axis: int, rows: Iterable[int]) -> None:
    """Empties rows of what a plain function has made."""
    for row in rows:
        made.select(axis, row).zero_()


def padding_told(rows: Iterable[int]) -> str:
    """What is said of them behind such a function; nothing of none."""
    shown = ", ".join(map(str, rows))
    return f", row {shown} {_BEGINS_AS}" if shown else ""
