"""New rows from the old ones whose entries have similar vectors elsewhere.

FOCUS, WECHSEL and CLP are settings of this one: which vectors, which old rows count, and how
similarities become weights. Similarities are cosines, made block by block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from torch_warmstart.dtypes import summed_in
from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.dense import (
    BUDGET,
    READ,
    Likeness,
    are_vectors,
    device_for,
    only_alike,
)
from torch_warmstart.new_rows.mixture import Mixture, mixture_of
from torch_warmstart.new_rows.rows import NewRows, Table
from torch_warmstart.values import Anchors, VectorWeights, WhichRows

_FIRST = 64  # of the most similar that sparsemax looks at first
_HALF = 0.5  # of a length that is 1, or 0


@dataclass(frozen=True, eq=False, repr=False)
class Similar(RowInitializer):
    """Weighted sums of the rows of the nearest entries."""

    vectors: Any
    k: int | None
    weights: VectorWeights
    temperature: float
    anchors: Anchors
    old_vectors: Any
    of: WhichRows
    name: ClassVar[str] = "similar"
    needs = "the vectors"

    @property
    def tables(self) -> tuple[Any, ...]:
        return tuple(t for t in (self.vectors, self.old_vectors) if t is not None)

    def answers(self, new: NewRows) -> torch.Tensor:
        outside = new.old.outside
        found = outside.find(new.entries(), outside.table(self.vectors).vocabulary)
        answered = new.has_entry.clone()
        answered[new.has_entry] = found >= 0
        return answered

    def __call__(self, new: NewRows) -> Mixture | torch.Tensor:
        made = self.rows(new)
        return made.of(new.old).rows if isinstance(made, Likeness) else made

    def rows(self, new: NewRows) -> Mixture | Likeness:
        outside, old = new.old.outside, new.old
        table = outside.table(self.vectors)
        of_old = table if self.old_vectors is None else outside.table(self.old_vectors)
        if table.width != of_old.width:
            raise SettingsError(
                f"{new.name}: init.similar: the new entries' vectors have {table.width} numbers "
                f"and the old ones' {of_old.width}; they must lie in one space."
            )
        places = old.find_in(of_old.vocabulary)
        anchors = self._anchors(new, places >= 0)
        device = device_for(new)
        space = torch.empty(0, dtype=summed_in(table.dtype, of_old.dtype), device=device)
        known = _unit_rows(of_old, places[anchors], space)
        is_vector = known.square().sum(1) > _HALF
        if not bool(is_vector.all()):
            known, anchors = known[is_vector], anchors[is_vector.cpu()]
        if not len(anchors):
            raise SettingsError(
                f"{new.name}: init.similar: the vectors of all old entries are zeros or not finite."
            )
        wanted = outside.find(new.entries(), table.vocabulary)
        mine = _unit_rows(table, wanted, space)
        if self.k is None and self.weights == "proportional":
            return Likeness(mine, known, anchors)
        return self._mix(mine, known, anchors, len(new))

    def _anchors(self, new: NewRows, has_vector: torch.Tensor) -> torch.Tensor:
        """The old rows that new ones are made of; raises SettingsError where there are none."""
        found = has_vector & self._counts(new)
        anchors = new.old.allowed(found, self.of).nonzero().flatten()
        if not len(anchors):
            what = "a vector" if self.anchors == "old" else "a vector and a new row"
            why = new.old.why_no_anchor(found, "has", what)
            raise SettingsError(f"{new.name}: init.similar: {why}")
        return anchors

    def _counts(self, new: NewRows) -> torch.Tensor:
        """Which old rows count, trained or not: a mask."""
        if self.anchors == "old":
            return new.old.named
        shared = torch.zeros(new.old.size, dtype=torch.bool)
        remapped = new.remapping[new.remapping >= 0]
        shared[remapped[remapped < new.old.size]] = True
        return shared

    def _mix(
        self, mine: torch.Tensor, known: torch.Tensor, anchors: torch.Tensor, count: int
    ) -> Mixture:
        rows, indices, weights = [], [], []
        step = max(1, BUDGET // (known.element_size() * len(known)))
        for first in range(0, count, step):
            block = mine[first : first + step]
            near, weight = self._weigh(block @ known.T)
            weight[block.square().sum(1) < _HALF] = 0  # a vector of zeros is like nothing
            kept = weight != 0
            rows.append(kept.nonzero()[:, 0].cpu() + first)
            indices.append(anchors[near[kept].cpu()])
            weights.append(weight[kept].cpu())
        return mixture_of(torch.cat(rows), torch.cat(indices), torch.cat(weights), count)

    def _weigh(self, alike: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest of each row and their weights, from similarities to all."""
        if self.weights == "sparsemax":
            return _sparsemax_of(alike, self.temperature, self.k)
        assert self.k is not None
        top, near = torch.topk(alike, min(self.k, alike.shape[1]), dim=1)
        top = top.double()  # as tables may be: weights sum to 1 in their precision
        if self.weights == "softmax":
            return near, torch.softmax(top / self.temperature, dim=1)
        top = only_alike(top)
        return near, top / top.sum(1, keepdim=True).clamp(min=torch.finfo(top.dtype).tiny)


def _sparsemax_of(
    alike: torch.Tensor, temperature: float, k: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sparsemax of all similarities of a row: of so many of the largest that no other has weight.

    With `k` it is that of the `k` largest.
    """
    count = min(k or _FIRST, alike.shape[1])
    while True:
        top, near = torch.topk(alike, count, dim=1)
        weights = sparsemax(top / temperature)
        if k is not None or count == alike.shape[1] or not bool((weights[:, -1] > 0).any()):
            return near, weights
        count = min(2 * count, alike.shape[1])


def sparsemax(scores: torch.Tensor) -> torch.Tensor:
    """The nearest point of the simplex, of each row; rows are sorted, largest first.

    A row's scores less a threshold, where that is positive: the threshold at which they sum to 1.
    """
    scores = scores.double()
    scores = scores - scores[:, :1]
    totals = torch.cumsum(scores, dim=1)
    counts = torch.arange(1, scores.shape[1] + 1, device=scores.device, dtype=torch.float64)
    has_weight = 1 + counts * scores > totals
    size = has_weight.sum(1, keepdim=True)
    threshold = (totals.gather(1, size - 1) - 1) / size
    return (scores - threshold).clamp(min=0)


def _unit_rows(table: Table, rows: torch.Tensor, space: torch.Tensor) -> torch.Tensor:
    """Rows of a table, each made of length 1; zeros where it has no length, or is not finite.

    They are of the dtype and on the device of `space`.
    """
    out = space.new_empty(len(rows), table.width)
    for first in range(0, len(rows), READ):
        part = slice(first, first + READ)
        here = torch.nn.functional.normalize(table.read(rows[part]).to(space), dim=1)
        here[~are_vectors(here)] = 0
        out[part] = here
    return out
