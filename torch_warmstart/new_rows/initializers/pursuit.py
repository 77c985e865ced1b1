"""New rows by orthogonal matching pursuit in a donor's table.

A donor has rows for the new entries and for many old ones. A new entry's row there is written as a
combination of few rows of shared entries, and the same combination of the old table's rows becomes
the new row. Which atoms: greedily the one most alike to what is left, by its direction and not its
length. How much of each: least squares. It stops where nothing is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.dense import READ, are_vectors, device_for
from torch_warmstart.new_rows.mixture import Mixture, mixture_of
from torch_warmstart.new_rows.rows import NewRows, Table
from torch_warmstart.values import WhichRows

_BUDGET = 128 << 20  # bytes of similarities, and as many of atoms, at a time
_NULL = 1e-6  # of a target's length, or an atom's: nothing is left of it


@dataclass(frozen=True, eq=False, repr=False)
class Omp(RowInitializer):
    """Sparse combinations that a donor's table shows."""

    donor: Any
    k: int
    of: WhichRows
    name: ClassVar[str] = "omp"
    needs = "the donor's table"

    @property
    def tables(self) -> tuple[Any, ...]:
        return (self.donor,)

    def answers(self, new: NewRows) -> torch.Tensor:
        outside = new.old.outside
        answered = new.has_entry.clone()
        found = outside.find(new.entries(), outside.table(self.donor).vocabulary)
        answered[new.has_entry] = found >= 0
        return answered

    def __call__(self, new: NewRows) -> Mixture | torch.Tensor:
        outside, old = new.old.outside, new.old
        donor = outside.table(self.donor)
        places = old.find_in(donor.vocabulary)
        found = places >= 0
        shared = old.allowed(found, self.of)
        if not bool(shared.any()):
            why = old.why_no_anchor(found, "is", "in the donor's vocabulary")
            raise SettingsError(f"{new.name}: init.omp: {why}")
        rows = shared.nonzero().flatten()
        device = device_for(new)
        atoms = _read(donor, places[shared], device)  # of broken ones zeros, like which nothing is
        wanted = outside.find(new.entries(), donor.vocabulary)
        return _pursued(donor, wanted, atoms, rows, self.k)


def _pursued(
    donor: Table, wanted: torch.Tensor, atoms: torch.Tensor, old_rows: torch.Tensor, k: int
) -> Mixture:
    """The mixtures of all targets, block by block."""
    k = min(k, len(atoms))
    least = torch.finfo(atoms.dtype).tiny
    lengths = torch.linalg.vector_norm(atoms, dim=1).clamp(min=least)
    atoms = atoms / lengths[:, None]
    similarities = atoms.element_size() * len(atoms)
    step = max(1, min(_BUDGET // similarities, _BUDGET // (8 * k * donor.width)))
    rows, indices, weights = [], [], []
    for first in range(0, len(wanted), step):
        targets = _read(donor, wanted[first : first + step], atoms.device)
        chosen, factors = pursue(targets, atoms, k)
        factors = torch.where(chosen >= 0, factors / lengths[chosen.clamp(min=0)], 0)
        kept = (factors != 0).cpu()
        rows.append(kept.nonzero()[:, 0] + first)
        indices.append(old_rows[chosen.cpu()[kept]])
        weights.append(factors.cpu()[kept])
    return mixture_of(torch.cat(rows), torch.cat(indices), torch.cat(weights), len(wanted))


def pursue(targets: torch.Tensor, atoms: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which atoms make each target, at most `k`, and their factors.

    Args:
        targets: `[m, d]`.
        atoms: `[s, d]`, each of length 1, or 0.
        k: How many atoms a target may take.

    Returns:
        int64 of `[m, k]`, -1 where a target took fewer; and float64 of the same shape.
    """
    count, width = targets.shape
    left = targets.double()
    scale = torch.linalg.vector_norm(left, dim=1)
    basis = left.new_zeros(count, k, width)  # what the atoms taken span, orthonormal
    triangle = torch.eye(k, dtype=left.dtype, device=left.device).repeat(count, 1, 1)
    shares = left.new_zeros(count, k)
    chosen = torch.full((count, k), -1, dtype=torch.int64, device=left.device)
    active = scale > 0
    for step in range(k):
        if not bool(active.any()):
            break
        best = _most_alike(left, atoms, chosen[:, :step])
        atom = atoms[best].double()
        before = basis[:, :step]
        along = torch.einsum("mkd,md->mk", before, atom)
        rest = atom - torch.einsum("mk,mkd->md", along, before)
        again = torch.einsum("mkd,md->mk", before, rest)  # rounding, once more
        rest -= torch.einsum("mk,mkd->md", again, before)
        length = torch.linalg.vector_norm(rest, dim=1)
        active &= length > _NULL
        unit = torch.where(active[:, None], rest / length.clamp(min=_NULL)[:, None], 0)
        basis[:, step] = unit
        triangle[:, :step, step] = torch.where(active[:, None], along + again, 0)
        triangle[:, step, step] = torch.where(active, length, 1)
        shares[:, step] = (unit * left).sum(1)
        left -= shares[:, step, None] * unit
        chosen[:, step] = torch.where(active, best, -1)
        active &= torch.linalg.vector_norm(left, dim=1) > _NULL * scale
    factors = torch.linalg.solve_triangular(triangle, shares[:, :, None], upper=True)[:, :, 0]
    return chosen, torch.where(chosen >= 0, factors, 0)


def _most_alike(left: torch.Tensor, atoms: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    """The atom most alike to what is left of each target, of those that it has not taken."""
    alike = (left.to(atoms.dtype) @ atoms.T).abs_()
    if taken.shape[1]:
        alike.scatter_(1, taken.clamp(min=0), -1)
    return alike.argmax(1)


def _read(table: Table, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Rows of a table; zeros for those that are not finite."""
    out = torch.empty(len(rows), table.width, dtype=table.dtype, device=device)
    for first in range(0, len(rows), READ):
        part = slice(first, first + READ)
        here = table.read(rows[part]).to(device)
        out[part] = torch.where(are_vectors(here)[:, None], here, 0)
    return out
