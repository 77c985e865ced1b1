"""New rows that are vectors from elsewhere, brought into the old table's space.

How vectors become rows is fitted on the entries that have both: least squares with a little ridge
(any two widths), or the nearest rotation and scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.dense import READ, Some, are_vectors
from torch_warmstart.new_rows.mixture import Mixture
from torch_warmstart.new_rows.rows import TOGETHER, NewRows, Table
from torch_warmstart.values import Alignment, WhichRows, frozen


@dataclass(frozen=True, eq=False, repr=False)
class Vectors(RowInitializer):
    """Rows from a table elsewhere, mapped by what shared entries show."""

    vectors: Any
    align: Alignment | None
    ridge: float
    of: WhichRows
    name: ClassVar[str] = "vectors"
    needs = "the vectors, and the rows of shared entries"
    makes_runs = True

    @property
    def tables(self) -> tuple[Any, ...]:
        return (self.vectors,)

    def answers(self, new: NewRows) -> torch.Tensor:
        outside = new.old.outside
        table = outside.table(self.vectors)
        answered = new.has_entry.clone()
        if self.align is None and table.width != new.width:
            if new.role == "bias":
                return torch.zeros_like(answered)
            raise SettingsError(
                f"{new.name}: its rows have {new.width} numbers and init.vectors' {table.width}: "
                'align="ridge" maps them.'
            )
        answered[new.has_entry] = outside.find(new.entries(), table.vocabulary) >= 0
        return answered

    def can_make(self, new: NewRows) -> torch.Tensor:
        parts = [are_vectors(vectors) for vectors in self._read(new)]
        return torch.cat([torch.empty(0, dtype=torch.bool), *parts])

    def __call__(self, new: NewRows) -> Mixture | torch.Tensor:
        return self.rows(new).rows

    def rows(self, new: NewRows) -> Some:
        table = new.old.outside.table(self.vectors)
        mapping = self._fitted(table, new) if self.align else None
        out = torch.empty(len(new), new.width, dtype=new.made_dtype)
        is_vector = torch.empty(len(new), dtype=torch.bool)
        for number, vectors in enumerate(self._read(new)):
            part = slice(number * TOGETHER, (number + 1) * TOGETHER)
            is_vector[part] = are_vectors(vectors)
            out[part] = vectors if mapping is None else mapping(vectors)
        return Some(out, is_vector)

    def _read(self, new: NewRows) -> Iterator[torch.Tensor]:
        """The new rows' vectors, run by run."""
        outside = new.old.outside
        table = outside.table(self.vectors)
        wanted = outside.find(new.entries(), table.vocabulary)
        for first in range(0, len(new), TOGETHER):
            yield table.read(wanted[first : first + TOGETHER])

    def _fitted(self, table: Table, new: NewRows) -> _Affine:
        old = new.old
        places = old.find_in(table.vocabulary)
        found = places >= 0
        shared = old.allowed(found, self.of)
        if not bool(shared.any()):
            raise SettingsError(
                f"{new.name}: init.vectors: {old.why_no_anchor(found, 'has', 'a vector')}"
            )
        if int(shared.sum()) < 2:
            raise SettingsError(
                f"{new.name}: init.vectors: 1 of the old entries has a vector and a trained row, "
                "which is too little to fit on. Do both write their entries alike?"
            )
        sums = _Sums.of(table, places[shared], new, shared.nonzero().flatten())
        fit = _ridge(sums, self.ridge) if self.align == "ridge" else _procrustes(sums)
        return _Affine(sums.mean_from, fit, sums.mean_to)


@frozen(eq=False)
class _Affine:
    """`(x - mean_from) @ matrix + mean_to`."""

    mean_from: torch.Tensor
    matrix: torch.Tensor
    mean_to: torch.Tensor

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows.double() - self.mean_from) @ self.matrix + self.mean_to


@frozen(eq=False)
class _Sums:
    """What a linear fit needs of two tables' rows: float64, about their means."""

    mean_from: torch.Tensor
    mean_to: torch.Tensor
    square: torch.Tensor  # [from, from]
    cross: torch.Tensor  # [from, to]

    @classmethod
    def of(cls, table: Table, places: torch.Tensor, new: NewRows, old_rows: torch.Tensor) -> _Sums:
        """Of the rows at some places and the old rows of the same entries."""
        count = 0
        square = torch.zeros(table.width, table.width, dtype=torch.float64)
        cross = torch.zeros(table.width, new.width, dtype=torch.float64)
        sum_from, sum_to = square.new_zeros(table.width), square.new_zeros(new.width)
        origin: torch.Tensor | None = None  # near the vectors: of those all alike nothing is left
        for first in range(0, len(places), READ):
            part = slice(first, first + READ)
            given = table.read(places[part]).double()
            wanted = new.old.read(old_rows[part]).double()
            whole = are_vectors(given) & are_vectors(wanted)
            given, wanted, count = given[whole], wanted[whole], count + int(whole.sum())
            origin = given[0].clone() if origin is None and len(given) else origin
            given = given if origin is None else given - origin
            square += given.T @ given
            cross += given.T @ wanted
            sum_from += given.sum(0)
            sum_to += wanted.sum(0)
        if origin is None or count < 2:
            raise SettingsError(f"{new.name}: init.vectors: the shared vectors are not finite.")
        mean_from, mean_to = sum_from / count, sum_to / count
        square -= count * torch.outer(mean_from, mean_from)
        cross -= count * torch.outer(mean_from, mean_to)
        return cls(mean_from + origin, mean_to, square, cross)


def _ridge(sums: _Sums, ridge: float) -> torch.Tensor:
    """Least squares, with a penalty in proportion to the vectors' mean square.

    Of vectors that are all alike nothing can be told: each is as their mean.
    """
    scale = sums.square.diagonal().mean()
    if not scale > 0:
        return torch.zeros_like(sums.cross)
    penalty = max(ridge, torch.finfo(torch.float64).eps)
    regular = sums.square / scale + penalty * torch.eye(len(sums.square), dtype=torch.float64)
    matrix: torch.Tensor = torch.linalg.solve(regular, sums.cross / scale)
    return matrix


def _procrustes(sums: _Sums) -> torch.Tensor:
    """The rotation (of unequal widths: the isometry) and the scale that fit best."""
    left, lengths, right = torch.linalg.svd(sums.cross, full_matrices=False)
    rotation = left @ right
    spread = (rotation * (sums.square @ rotation)).sum()
    matrix: torch.Tensor = rotation * (
        lengths.sum() / spread.clamp(min=torch.finfo(torch.float64).tiny)
    )
    return matrix
