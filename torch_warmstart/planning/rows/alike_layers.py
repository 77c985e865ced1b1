"""An embedding and a linear layer of one shape, which may be of one vocabulary though not tied."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from torch_warmstart.model import TABLES, Variable


def is_looked_up(variable: Variable) -> bool | None:
    """Whether its rows are an embedding's, or a linear layer's outputs; None if neither."""
    for owner in variable.owners if len(variable.shape) == 2 else ():
        if isinstance(owner.module, TABLES):
            return True
        if isinstance(owner.module, nn.Linear):
            return False
    return None


def twins_of(
    moved: Iterable[Variable], left: Iterable[Variable], most: int = 0
) -> list[tuple[Variable, Variable]]:
    """What has its rows moved, and what has not and is most probably its twin.

    Args:
        moved: Variables whose rows go by entries; the first of a kind and shape is the twin.
        left: Others. One of which another of its kind and shape moves is none.
        most: How many rows an embedding has at least that is an output layer's twin: there are as
            few types of segments, or positions, as there may be classes.
    """
    by_side: dict[tuple[bool | None, tuple[int, ...]], Variable] = {}
    for variable in moved:
        by_side.setdefault((is_looked_up(variable), variable.shape), variable)
    found = []
    for other in left:
        side, shape = is_looked_up(other), other.shape
        one = by_side.get((not side, shape)) if side is not None else None
        may_be = not side or shape[0] >= most
        if one is not None and may_be and (side, shape) not in by_side:
            found.append((one, other))
    return found
