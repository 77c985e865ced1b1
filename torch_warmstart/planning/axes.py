"""Variables of which several axes change: which of them fills a cell, and what initialisers see.

A cell has an old value where it has an old row along every axis. One that is new along an axis is
filled as that axis says; one that is new along several, as the first of them in the list says that
does not make its rows of old ones: what `tws.init` makes of old rows is as wide as these.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_warmstart.computing import Box
from torch_warmstart.model import Shape, Variable
from torch_warmstart.new_rows import Mixed
from torch_warmstart.planning.fitting import ProblemError
from torch_warmstart.planning.plan import AxisChange
from torch_warmstart.settings import AnyVocabInfo, VocabInfo


def seen_shape(shape: Shape, axis: int, changes: Sequence[AxisChange]) -> Shape:
    """What a variable would be if its other axes had nothing but what has an old row.

    So wide are the rows along `axis` that initialisers see and make.
    """
    return seen_box(Box.whole(shape), axis, changes).sizes


def seen_box(box: Box, axis: int, changes: Sequence[AxisChange]) -> Box:
    """The same of a part of it."""
    offsets, sizes = list(box.offsets), list(box.sizes)
    for change in changes:
        if change.axis != axis:
            is_there, along = change.remapping.rows >= 0, box.along(change.axis)
            offsets[change.axis] = int(is_there[: along.start].sum())
            sizes[change.axis] = int(is_there[along].sum())
    return Box(tuple(offsets), tuple(sizes))


def filled_where_old(changes: Sequence[AxisChange], change: AxisChange) -> list[int]:
    """The axes along which what one axis fills has old rows: what has none, another one fills.

    That is the first in the list, but for rows that are made of old ones, which need old values.
    """
    if isinstance(change.fill, Mixed):
        return [other.axis for other in changes if other.axis != change.axis]
    before = changes[: [c.axis for c in changes].index(change.axis)]
    return [other.axis for other in before if not isinstance(other.fill, Mixed)]


def check_fallback(variable: Variable, infos: Sequence[AnyVocabInfo]) -> None:
    """Raises ProblemError where rows that are back would be of another width."""
    if infos[1:] and any(isinstance(info, VocabInfo) and info.fallback for info in infos):
        raise ProblemError(
            "fallback-with-axes",
            variable,
            f"{variable.name}: rows that are back (fallback) are taken where one axis changes, and "
            f"here {len(infos)} do. Leave fallback out, or change one axis in each of two starts.",
        )


def check_cells(variable: Variable, changes: Sequence[AxisChange]) -> None:
    """Raises ProblemError where nobody fills the cells that are new along several axes."""
    mixed = [change for change in changes if isinstance(change.fill, Mixed)]
    if mixed[1:]:
        first, second = mixed[:2]
        raise ProblemError(
            "cells-of-no-rows",
            variable,
            f"{variable.name}: what is new along axis {first.axis} and axis {second.axis} has "
            f"no old values, of which {first.fill} and {second.fill} could be made. Give one of "
            "both axes None (zeros), 'keep' or a function of torch.nn.init.",
        )
