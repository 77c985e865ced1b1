"""A part of a tensor that is needed, and whether it is here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import as_bits
from torch_warmstart.values import frozen

Pieces = Sequence[tuple[Box, torch.Tensor]]  # of one tensor, and where they lie in it


@frozen(eq=False)
class Want:
    """A part of a tensor of a checkpoint."""

    key: str
    box: Box
    rows: torch.Tensor | None = None  # int64, ascending, each once: only these of the box
    dim: int = 0  # along which they are; the box has all of it

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of what is wanted."""
        sizes = list(self.box.sizes)
        if self.rows is not None:
            sizes[self.dim] = len(self.rows)
        return tuple(sizes)

    def of(self, outer: Box) -> tuple[Want, Box] | None:
        """What of it lies in another box, and which box of what is wanted that is; None: nothing.

        The numbers of its rows still count from the tensor's first.
        """
        common = self.box.common(outer)
        if common is None:
            return None
        within = common.within(self.box)
        if self.rows is None:
            return Want(self.key, common), within
        edges = self.rows.new_tensor([common.offsets[self.dim], common.ends[self.dim]])
        start, stop = torch.searchsorted(self.rows, edges).tolist()
        if start == stop:
            return None
        offsets, sizes = list(within.offsets), list(within.sizes)
        offsets[self.dim], sizes[self.dim] = start, stop - start
        part = Want(self.key, common, self.rows[start:stop], self.dim)
        return part, Box(tuple(offsets), tuple(sizes))

    def part(self, inner: Box) -> Want:
        """A box of what is wanted as a want of its own."""
        if self.rows is None:
            return Want(self.key, _shifted(inner, self.box))
        rows = self.rows[inner.along(self.dim)]
        box = _shifted(inner.spread(self.dim, self.box.sizes[self.dim]), self.box)
        return Want(self.key, box, rows, self.dim)

    def taken_from(self, outer: Box, piece: torch.Tensor) -> torch.Tensor:
        """What is wanted, from a piece that has all of it: a view, or a copy of its rows."""
        box = self.box.within(outer).of(piece)
        if self.rows is None:
            return box
        rows = (self.rows - self.box.offsets[self.dim]).to(piece.device)
        return as_bits(box).index_select(self.dim, rows).view(piece.dtype)


def _shifted(inner: Box, outer: Box) -> Box:
    return Box(tuple(map(int.__add__, inner.offsets, outer.offsets)), inner.sizes)


def is_here(pieces: Pieces, want: Want) -> bool:
    """Whether this rank has all that is wanted, so that it can be read in place.

    Rows along the first dimension are in place where their pieces have them whole; of others all
    that lies between them is read.
    """
    if want.dim:
        return is_here(pieces, Want(want.key, want.box))
    found = [part[1] for box, _ in pieces if (part := want.of(box)) is not None]
    if want.rows is not None:
        found = [place for place in found if place.sizes[1:] == want.sizes[1:]]
    return sum(place.numel for place in found) == math.prod(want.sizes)
