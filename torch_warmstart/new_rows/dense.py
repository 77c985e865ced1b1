"""New rows that are no sparse mixtures: made at once, and which of those asked for they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torch_warmstart.new_rows.moments import Values
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.new_rows.rows import NewRows

BUDGET = 64 << 20  # bytes of similarities at a time
READ = 8192  # rows read at a time


@frozen(eq=False)
class Some:
    """Some of the rows that were asked for; the others are left to the next initialiser.

    Args:
        rows: `[m, width]`; what stands in those that are not answered is nothing.
        answered: bool of `[m]`.
    """

    rows: torch.Tensor
    answered: torch.Tensor


def device_for(new: NewRows) -> torch.device:
    """Where rows are compared with each other: on the GPU that the table is on, or the CPU."""
    return new.device if new.device.type == "cuda" else torch.device("cpu")


def are_vectors(rows: torch.Tensor) -> torch.Tensor:
    """Which rows are of finite numbers throughout, bool of `[m]`: others count as none."""
    return rows.isfinite().all(1)


def only_alike(cosines: torch.Tensor) -> torch.Tensor:
    """What is unlike counts as nothing, in place, or sums near 0 would explode."""
    return cosines.clamp_(min=0)


@frozen(eq=False)
class Likeness:
    """New rows as sums of all anchors, in proportion to how like to them they are.

    As a mixture it is one for all tables that belong together, but its weights would be as many as
    new rows times old ones. So it keeps what they are made of, and makes them block by block.

    Args:
        mine: The new rows' vectors, of length 1 or zeros.
        known: The anchors' vectors, too.
        anchors: int64, the anchors' old rows.
    """

    mine: torch.Tensor
    known: torch.Tensor
    anchors: torch.Tensor

    def of(self, values: Values) -> Some:
        """A table's rows. Who is like none of the anchors is not answered."""
        starts = range(0, len(self.anchors), READ)
        read = [values.read(self.anchors[first : first + READ]) for first in starts]
        old = torch.cat(read).to(self.mine.device)
        out = torch.empty(len(self.mine), old.shape[1], dtype=old.dtype, device=old.device)
        answered = torch.zeros(len(self.mine), dtype=torch.bool)
        size = max(old.element_size(), self.known.element_size())
        step = max(1, BUDGET // (size * len(self.known)))
        for first in range(0, len(self.mine), step):
            part = slice(first, first + step)
            alike = only_alike(self.mine[part] @ self.known.T).to(old.dtype)
            total = alike.sum(1, keepdim=True)
            answered[part] = (total[:, 0] > 0).cpu()
            out[part] = alike @ old / total.clamp(min=torch.finfo(old.dtype).tiny)
        return Some(out, answered)
