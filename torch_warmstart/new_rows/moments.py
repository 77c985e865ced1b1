"""Means and deviations of an old table, block by block, summed in float64."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from torch_warmstart.computing import in_threads
from torch_warmstart.errors import SettingsError
from torch_warmstart.values import frozen

BLOCK = 65536  # rows
_SUMMED = 256  # rows
_CACHE = 4 << 20  # bytes: shorter pieces of work leave threads waiting for the GIL
_NEAR_ZERO = 0.01  # of the median norm of the rows that are not zero
# Why no row of a table can be gone by, and what to do.
NONE_TRAINED = "all are near zero, reserved, or not finite"
ALL_NEVERTHELESS = 'of="all" takes them nevertheless.'


class Values(Protocol):
    """The old table's values; rows are flat, whatever the variable's axis and rank."""

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """Some of its rows: float32, or float64 where the old table or the new is, on the CPU."""

    def blocks(self, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        """All rows that its vocabulary describes, in blocks, with the number of the first."""


@frozen(eq=False)
class Survey:
    """What one pass over a table tells."""

    lengths: torch.Tensor  # of the rows: float64 of `[size]`
    total: torch.Tensor  # of the rows: float64 of `[width]`


def survey_of(values: Values, size: int) -> Survey:
    """One pass over all rows."""
    lengths = torch.zeros(size, dtype=torch.float64)
    total: torch.Tensor | None = None
    for first, block in values.blocks(BLOCK):
        found = in_threads(_sum_and_norms, _cached(block), block.device)
        lengths[first : first + len(block)] = torch.cat([norms for _, norms in found])
        for here, _ in found:
            total = here if total is None else total.add_(here)
    total = torch.zeros(1, dtype=torch.float64) if total is None else total
    return Survey(lengths, total)


def _cached(block: torch.Tensor) -> Sequence[torch.Tensor]:
    """Pieces that the cache holds while they are looked at twice."""
    row_bytes = max(1, block.shape[1] * block.element_size())
    step = max(1, _CACHE // row_bytes // _SUMMED) * _SUMMED
    return [block[start : start + step] for start in range(0, len(block), step)]


def _sum_and_norms(piece: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of a piece's rows, and how long each is."""
    values = piece.numpy()
    return _sum(piece), torch.from_numpy(np.sqrt(_dots(values, values)))


# Of each row with itself; numpy 1 has only the slower way.
_dots = getattr(np, "vecdot", functools.partial(np.einsum, "ij,ij->i"))


def untrained(survey: Survey, rows: torch.Tensor) -> torch.Tensor:
    """Which rows cannot be what training has made: bool of `[size]`.

    Those that are not finite, and those of a hundredth of the median length of those of a mask, or
    less, which have never been trained. Of rows of one number none is too short: a bias may be.
    """
    broken = ~survey.lengths.isfinite()
    if len(survey.total) == 1:
        return broken
    there = survey.lengths[rows & ~broken & (survey.lengths > 0)]
    if not len(there):
        return torch.ones_like(rows)
    return broken | (survey.lengths <= _NEAR_ZERO * there.median())


def mean_of(survey: Survey, values: Values, rows: torch.Tensor, name: str) -> torch.Tensor:
    """Of the rows of a mask: float64 of `[width]`; raises SettingsError if it is none.

    What is left out is taken from the total, so that the table is not read again; a total that is
    not finite has nothing to be taken from.
    """
    count = int(rows.sum())
    if not count:
        raise SettingsError(
            f"{name}: none of the old rows looks trained: {NONE_TRAINED}. Is this the table that "
            f"was trained? {ALL_NEVERTHELESS}"
        )
    if not bool(survey.total.isfinite().all()):
        total = torch.zeros_like(survey.total)
        for _, block in _chosen(values, rows):
            total += _sum(block)
        return total / count
    total = survey.total.clone()
    left_out = (~rows).nonzero().flatten()
    for first in range(0, len(left_out), BLOCK):
        part = left_out[first : first + BLOCK]
        total -= _sum(values.read(part))
    return total / count


def std_of(values: Values, rows: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the rows of a mask about their mean: float64 of `[width]`."""
    squares = torch.zeros_like(mean)
    for _, block in _chosen(values, rows):
        squares += _sum((block - mean.to(block.dtype)).square_())
    return (squares / int(rows.sum())).sqrt()


def root_of_covariance(values: Values, rows: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """The symmetric root of the rows' covariance: float64 of `[width, width]`.

    By eigenvalues, of which those below zero are rounding: a covariance of less than full rank has
    a root too. The symmetric one does not depend on the eigenvectors' signs.
    """
    width = len(mean)
    total = torch.zeros(width, width, dtype=torch.float64)
    for _, block in _chosen(values, rows):
        centred = block - mean.to(block.dtype)
        total += (centred.T @ centred).double()
    lengths, directions = torch.linalg.eigh(total / int(rows.sum()))
    root: torch.Tensor = (directions * lengths.clamp(min=0).sqrt()) @ directions.T
    return root


def _sum(block: torch.Tensor) -> torch.Tensor:
    """The sum of a block's rows in float64: of few rows each in their own dtype, which is quick."""
    values, parts = block.numpy(), len(block) // _SUMMED
    whole = parts * _SUMMED
    sums = values[:whole].reshape(parts, _SUMMED, block.shape[1]).sum(1)
    total = sums.sum(0, dtype=np.float64) + values[whole:].sum(0, dtype=np.float64)
    return torch.from_numpy(total)


def _chosen(values: Values, rows: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """The rows of a mask, in blocks small enough to be held in float64 too."""
    for first, block in values.blocks(max(1, BLOCK // 8)):
        here = rows[first : first + len(block)]
        if bool(here.all()):
            yield first, block
        elif bool(here.any()):
            yield first, block[here]
