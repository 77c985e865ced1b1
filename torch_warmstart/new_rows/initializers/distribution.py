"""New rows from how all old rows are distributed: their mean, or a normal of their covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.drawing import draw_normals
from torch_warmstart.new_rows.mixture import Mixture
from torch_warmstart.new_rows.moments import root_of_covariance, std_of
from torch_warmstart.new_rows.rows import TOGETHER, NewRows
from torch_warmstart.values import Covariance, WhichRows


@dataclass(frozen=True, eq=False, repr=False)
class Mean(RowInitializer):
    """The mean of old rows."""

    of: WhichRows
    name: ClassVar[str] = "mean"
    needs = "one pass over the old rows"
    makes_runs = True

    def equals(self, count: int) -> int:
        return count if count > 1 else 0

    def __call__(self, new: NewRows) -> Mixture | torch.Tensor:
        mean = new.old.mean if self.of == "trained" else new.old.mean_of_all
        return mean.expand(len(new), -1)


@dataclass(frozen=True, eq=False, repr=False)
class Normal(RowInitializer):
    """Draws from a normal with the mean and the covariance of old rows."""

    cov: Covariance
    scale: float
    of: WhichRows
    name: ClassVar[str] = "normal"
    needs = "passes over the old rows"
    is_random = True
    makes_runs = True

    def __call__(self, new: NewRows) -> Mixture | torch.Tensor:
        old = new.old
        which = old.allowed(old.named, self.of)
        mean = old.mean if self.of == "trained" else old.mean_of_all
        if not bool(mean.isfinite().all()):
            raise SettingsError(
                f'{new.name}: init.normal: some old rows are not finite, which of="all" takes too.'
            )
        if self.cov == "full":
            spread = root_of_covariance(old, which, mean)
        else:
            spread = std_of(old, which, mean)
        dtype = new.made_dtype
        spread, mean = (spread * self.scale).to(dtype), mean.to(dtype)
        out = torch.empty(len(new), new.width, dtype=dtype)
        for first in range(0, len(new), TOGETHER):
            part = slice(first, first + TOGETHER)
            stream, numbers = f"{new.name}/normal", new.ordinals[part]
            drawn = draw_normals(new.seed, stream, numbers, new.width).to(dtype)
            out[part] = mean + (drawn @ spread if self.cov == "full" else drawn * spread)
        return out
