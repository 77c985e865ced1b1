"""Which axes of a slot are which of its parameter's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch_warmstart.model import Shape

FLAT = -1  # an axis of all elements of the parameter


def is_flat(parameter: Shape, slot: Shape) -> bool:
    """Whether a slot has all elements of its parameter, but along one axis."""
    return len(parameter) > 1 and slot == (math.prod(parameter),)


def axes_in_slot(
    parameter: Shape,
    slot: Shape,
    axes: Sequence[int],
    told: Sequence[int | None] | None = None,
) -> tuple[int | None, ...] | None:
    """Where a slot has some of its parameter's axes; None for one that it has not.

    None at all if it has one of them twice, or the sizes leave open which axes these are: where the
    optimizer does not tell, a slot may have the shape of its parameter but for axes of size 1, or
    lack axes, as a number for each row does.

    Args:
        parameter: Its shape.
        slot: Its shape.
        axes: Of the parameter.
        told: Of each axis of the slot, which it is; None where that is not known.

    Example: of a [4, 3] parameter a slot of shape [4] has axis 0 as its axis 0, and not axis 1.
    """
    ways: set[tuple[int | None, ...]]
    if told is not None and len(told) == len(slot) and shape_along(told, parameter, slot) == slot:
        ways = {tuple(told)}
    elif math.prod(slot) == 1:
        ways = {(None,) * len(slot)}
    else:
        ways = _ways(parameter, slot)
    if not ways or any(way.count(axis) > 1 for way in ways for axis in (*axes, FLAT)):
        return None
    if any(FLAT in way for way in ways):
        return None
    found = {tuple(way.index(axis) if axis in way else None for axis in axes) for way in ways}
    return found.pop() if len(found) == 1 else None


def _ways(parameter: Shape, slot: Shape) -> set[tuple[int | None, ...]]:
    """What the axes of a slot can be, by their sizes."""
    if len(slot) == len(parameter):
        pairs = list(enumerate(zip(slot, parameter, strict=True)))
        fits = all(size in (1, whole) for _, (size, whole) in pairs)
        return (
            {tuple(a if size == whole else None for a, (size, whole) in pairs)} if fits else set()
        )
    chosen = itertools.combinations(range(len(parameter)), len(slot))
    return {way for way in chosen if tuple(parameter[axis] for axis in way) == slot}


def shape_along(axes: Sequence[int | None], parameter: Shape, slot: Shape) -> Shape:
    """The shape of a slot with these axes of its parameter; others are as long as they are."""
    sizes = dict(enumerate(parameter)) | {FLAT: math.prod(parameter)}
    return tuple(
        size if axis is None else sizes[axis] for axis, size in zip(axes, slot, strict=True)
    )
