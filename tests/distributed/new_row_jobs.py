"""New rows that are made of old ones, over several ranks."""

from __future__ import annotations

import functools
from typing import Any

import torch
from jobs import NEW_WORDS, OLD_WORDS, Tower, old_state, seed_of_this_rank
from sharded_models import fill_both

import torch_warmstart as tws
from torch_warmstart import init
from torch_warmstart.new_rows import composing
from torch_warmstart.new_rows.initializers import distribution, vectors

PIECES = {"new": ["w1", "w2"], "newer": ["w0", "w3", "w5"]}


def drawn(new: tws.NewRows) -> torch.Tensor:
    """A user's, which draws from torch's own generator."""
    return torch.randn(len(new), new.width)


def initializers() -> dict[str, Any]:
    """One of each kind: a mixture, a mean, random rows, mapped rows, a function."""
    generator = torch.Generator().manual_seed(0)
    outside = ([*NEW_WORDS, "w4"], torch.randn(10, 5, generator=generator))
    return {
        "subword": init.subword(PIECES) | init.normal(),
        "mean": init.alias({"newest": "w4"}) + init.noise(0.1) | init.mean() + init.noise(0.1),
        "normal": init.normal("diagonal"),
        "vectors": init.vectors(outside, ridge=0.1) | init.mean(),
        "similar": init.similar(outside, k=3) | init.mean(),
        "function": init.subword(PIECES) | drawn,
    }


def fill_new_rows(how: str, which: str, run: int) -> tuple[tuple[str, int], ...]:
    """A table's rows and a layer's columns; seeds are unequal. Says who answered."""
    for module in (composing, distribution, vectors):
        module.TOGETHER = run  # so that of few rows a rank makes a part
    state = old_state()
    torch.manual_seed(6)
    state["up.weight"] = torch.rand(10, 7)
    infos = {
        name: tws.VocabInfo(
            NEW_WORDS, -1, 1, OLD_WORDS, axis=axis, backup_initializer=initializers()[which]
        )
        for name, axis in (("table.weight", 0), ("up.weight", 1))
    }
    settings = tws.WarmStartSettings(state, "(table|up).weight", infos)
    make = functools.partial(_Wide, rows=10)
    _, report = fill_both(how, make, settings, seed=seed_of_this_rank())
    account = report.variables[0]
    answered: tuple[tuple[str, int], ...] = report[account.name].new_rows.answered
    return answered


class _Wide(Tower):
    """Its first layer takes as many features as the table has rows."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.up = torch.nn.Linear(rows, 10)
