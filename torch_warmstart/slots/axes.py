"""Which axes of a slot are which of its parameter's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch_warmstart.model import Shape


def axes_in_slot(
    parameter: Shape, slot: Shape, axes: Sequence[int]
) -> tuple[int | None, ...] | None:
    """Where a slot has some of its parameter's axes; None for one that it has not.

    A slot may have the shape of its parameter but for axes of size 1, or lack axes: a number for
    each row. None at all if the sizes leave open which axes these are.

    Example: of a [4, 3] parameter a slot of shape [4] has axis 0 as its axis 0, and not axis 1.
    """
    if len(slot) == len(parameter):
        return tuple(axis if slot[axis] == parameter[axis] else None for axis in axes)
    ways = itertools.combinations(range(len(parameter)), len(slot))
    fitting = [way for way in ways if tuple(parameter[axis] for axis in way) == slot]
    found = {tuple(way.index(axis) if axis in way else None for axis in axes) for way in fitting}
    if len(found) > 1:
        return None
    return found.pop() if found else (None,) * len(axes)
