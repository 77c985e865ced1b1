"""New rows that a user's function draws from elsewhere than torch does, on ranks with copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from fault_jobs import Scene
from jobs import NEW_WORDS, OLD_WORDS, old_state

import torch_warmstart as tws


def whole(tensor: torch.Tensor) -> None:
    """As `torch.nn.init` has them."""
    tensor.copy_(torch.from_numpy(np.random.standard_normal(tensor.shape)))


def of_rows(new: tws.NewRows) -> torch.Tensor:
    """Only those that are new."""
    return torch.from_numpy(np.random.standard_normal((len(new), new.width))).float()


def of_columns(tensor: torch.Tensor) -> None:
    """One number of one row is another one on each rank."""
    torch.nn.init.ones_(tensor)
    tensor[-1, -1] = 1 + dist.get_rank()


def of_old_rows(new: tws.NewRows) -> tws.Mixture:
    """Another old row on each rank."""
    count = len(new)
    at = torch.full((count,), dist.get_rank())
    every = torch.ones(count, dtype=torch.bool)
    return tws.Mixture(torch.arange(count + 1), at, torch.ones(count), every)


INITIALIZERS: dict[str, Callable[..., Any]] = {
    "whole": whole,
    "of rows": tws.init.alias({"newest": "w4"}) | of_rows,
    "one number": of_columns,
    "old rows": of_old_rows,
}


def draw(how: str, which: str, is_seeded: bool) -> tuple[str, str]:
    """What is raised where each rank has a seed of its own, or all have one."""
    np.random.seed(0 if is_seeded else dist.get_rank())
    info = tws.VocabInfo(NEW_WORDS, -1, 1, OLD_WORDS, backup_initializer=INITIALIZERS[which])
    settings = tws.WarmStartSettings(old_state(), "table.weight", {"table.weight": info})
    return Scene(how, 10).told(settings)
