"""Tensors in which equal parts lie one after the other: gates, projections, directions, groups.

Where such a tensor has another size, rows by position would be taken for those of another part.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from torch_warmstart.model import Owner, Variable
from torch_warmstart.values import frozen

_GATES = re.compile(r"\b(?:weight|bias)_[ih]h")
_OF_LATER_LAYER = re.compile(r"\bweight_ih_l[1-9]")
_Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


@frozen
class _Parts:
    """What lies one after the other along an axis."""

    what: str  # "gates"
    count: int
    names: str = ""  # a letter each, if they have names
    are_whole: bool = True  # rather than made of parts of their own, such as heads

    def __str__(self) -> str:
        return f"{self.count} {self.what}" + (f" ({', '.join(self.names)})" if self.names else "")

    def recipe(self, new: int, old: int, axis: int) -> str:
        """What says which rows are whose, for `new` and `old` rows of each part."""
        names = repr(self.names) if self.names else f"map(str, range({self.count}))"
        return (
            f"SegmentInfo({{part: VocabInfo(range({new}), old_vocab=range({old})) for part in "
            f"{names}}}, dict.fromkeys({names}, {old}), axis={axis})"
        )


def why_not_by_position(variable: Variable, axis: int, old_size: int) -> str:
    """Why rows along an axis are not those of the same position, and what is right; or "".

    So it is for the slots of such a variable, too.
    """
    owner = (variable.slot.parameter if variable.slot else variable).owners[0]
    found = (find(owner, axis, variable.shape[axis], old_size) for find in _FINDERS)
    parts = next(filter(None, found), None)
    if parts is None:
        return ""
    size, count = variable.shape[axis], parts.count
    text = (
        f"{variable.name} has {parts} one after the other along axis {axis}, and rows by position "
        f"would be taken for those of another: it has {size:,}, and the checkpoint {old_size:,}."
    )
    if size % count or old_size % count or not parts.are_whole:
        return f"{text} Say which are whose by a SegmentInfo(axis={axis})."
    recipe = parts.recipe(size // count, old_size // count, axis)
    return f"{text} Say which are whose: {recipe}."


def _gates(owner: Owner, axis: int, size: int, old_size: int) -> _Parts | None:  # noqa: ARG001
    if axis or not _GATES.search(owner.leaf):
        return None
    if isinstance(owner.module, nn.LSTM | nn.LSTMCell):
        return _Parts("gates", 4, "ifgo")
    return _Parts("gates", 3, "rzn") if isinstance(owner.module, nn.GRU | nn.GRUCell) else None


def _directions(owner: Owner, axis: int, size: int, old_size: int) -> _Parts | None:  # noqa: ARG001
    is_both = isinstance(owner.module, nn.RNNBase) and owner.module.bidirectional
    if axis != 1 or not is_both or not _OF_LATER_LAYER.search(owner.leaf):
        return None
    return _Parts("directions", 2, "fb")


def _projections(owner: Owner, axis: int, size: int, old_size: int) -> _Parts | None:  # noqa: ARG001
    is_one = isinstance(owner.module, nn.MultiheadAttention) and "in_proj_" in owner.leaf
    return _Parts("projections", 3, "qkv", are_whole=False) if is_one and not axis else None


def _groups(owner: Owner, axis: int, size: int, old_size: int) -> _Parts | None:
    """Groups of other sizes: where they are as large as they were, there are more or fewer."""
    if axis or not isinstance(owner.module, _Conv | _Transposed) or owner.module.groups < 2:
        return None
    groups = owner.module.groups
    return _Parts("groups", groups) if old_size % max(size // groups, 1) else None


_FINDERS: tuple[Callable[[Owner, int, int, int], _Parts | None], ...]
_FINDERS = (_gates, _directions, _projections, _groups)
