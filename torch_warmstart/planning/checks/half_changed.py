"""Rows that would not be moved alike: a weight's by a vocabulary, those of its bias or head not.

Where the sizes differ a plan fails by itself. Where a vocabulary has other entries in as many rows,
a bias that goes by position is others' bias.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from torch_warmstart.errors import Finding, Severity, plural, same_of
from torch_warmstart.layouts import (
    Original,
    Vector,
    attribute_of,
    is_torchs_own,
    is_untransposed_linear,
    original_of,
    output_axis,
    torch_layer_of,
    vector_of,
)
from torch_warmstart.layouts.tensorflow import STATISTICS
from torch_warmstart.model import TABLES
from torch_warmstart.new_rows import UNLESS_SAID, Mixed
from torch_warmstart.planning.plan import AxisChange, PlanItem
from torch_warmstart.planning.rows import is_looked_up, twins_of, why_not_by_position
from torch_warmstart.settings import VocabInfo
from torch_warmstart.vocabularies import Remapping

# Layers whose tensors have no place for a batch in front.
_LAYERS = (
    *(nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase),
    *(nn.MultiheadAttention, *TABLES),
)

_Pair = tuple[PlanItem, int, PlanItem, int]  # with the axis of each


def find_half_changed(items: Sequence[PlanItem]) -> list[Finding]:
    """An error for a layer that is known, a warning for a module that only has as many of both."""
    taken = [item for item in items if item.state != "kept" and item.variable.slot is None]
    moving = {id(o.module): o.module for i in taken if i.changes for o in i.variable.owners}
    layers: dict[int, dict[str, PlanItem]] = {module: {} for module in moving}
    for item in taken if moving else ():
        for owner in item.variable.owners:
            if id(owner.module) in layers:
                layers[id(owner.module)][owner.leaf] = item
    found = (_of_layer(moving[module], leaves) for module, leaves in layers.items())
    return list({finding.text: finding for finding in itertools.chain(*found)}.values())


def find_left_by_position(items: Sequence[PlanItem]) -> Iterator[Finding]:
    """What has as many rows as a vocabulary that moves, in another layer, and goes by position.

    It is no more than told, and once for all, and only where that number is no width of the model
    besides. A linear layer of an embedding's shape, or the reverse, is most probably its twin that
    is not tied to it.
    """
    taken = [item for item in items if item.state != "kept" and item.variable.slot is None]
    moving: dict[int, list[tuple[PlanItem, AxisChange]]] = {}
    for item in taken:
        for size, change in _vocabularies(item):
            moving.setdefault(size, []).append((item, change))
    widths = {size for i in items if moving and i.variable.slot is None for size in _widths(i)}
    known = {id(owner.module) for i in taken if i.changes for owner in i.variable.owners}
    by_size: dict[int, list[PlanItem]] = {}
    for item in taken:
        size = item.variable.shape[_rows_axis(item)] if item.variable.shape else 0
        if size in moving and size not in widths and _may_go_by_entries(item, known):
            by_size.setdefault(size, []).append(item)
    alike: list[tuple[PlanItem, PlanItem]] = []
    for size, left in sorted(by_size.items()):
        moved = [item for item, change in moving[size] if change.remapping.takes_from_others]
        twins = _twins(taken, moved, left)
        if twins:
            yield _by_position("warning", twins[0], [other for _, other in twins])
        elif moved:
            alike += ((moved[0], other) for other in left)
    if alike:
        yield _by_position("note", alike[0], [other for _, other in alike])


def _may_go_by_entries(item: PlanItem, known: Container[int]) -> bool:
    """Whether rows that go by position may be a vocabulary's: no gates, and in no layer of one."""
    variable, axis = item.variable, _rows_axis(item)
    is_apart = not any(id(owner.module) in known for owner in variable.owners)
    why_not = why_not_by_position(variable, axis, variable.shape[axis])
    return not item.changes and is_apart and not why_not


def _rows_axis(item: PlanItem) -> int:
    """The first axis that is more than a place for a batch: of a bias of `[1, n]` the second.

    Layers of torch's have none: what a head of one output has behind that are its inputs.
    """
    if any(isinstance(owner.module, _LAYERS) for owner in item.variable.owners):
        return 0
    return next((axis for axis, size in enumerate(item.variable.shape) if size != 1), 0)


def _twins(
    taken: Sequence[PlanItem], moved: Sequence[PlanItem], left: Sequence[PlanItem]
) -> list[tuple[PlanItem, PlanItem]]:
    """A linear layer and an embedding of one shape, of which one moves and the other does not."""
    items = {item.variable: item for item in taken}
    most = max((v.shape[0] for v in items if is_looked_up(v)), default=0)
    found = twins_of((i.variable for i in moved), (i.variable for i in left), most)
    return [(items[one], items[other]) for one, other in found]


def _vocabularies(item: PlanItem) -> Iterator[tuple[int, AxisChange]]:
    """What changes along each axis that has entries, by how many there are."""
    for change in item.changes:
        if isinstance(change.vocab, VocabInfo):
            yield item.variable.shape[change.axis], change


def _widths(item: PlanItem) -> Iterator[int]:
    """Sizes that are no vocabulary's: along axes behind that of its rows."""
    first, moved = _rows_axis(item), {change.axis for change in item.changes}
    shape = enumerate(item.variable.shape)
    yield from (n for axis, n in shape if axis > first and axis not in moved)


def _by_position(
    severity: Severity, pair: tuple[PlanItem, PlanItem], left: Sequence[PlanItem]
) -> Finding:
    """What is said of one that moves and the first of those that are left."""
    one, other = pair
    axis = _rows_axis(other)
    size = other.variable.shape[axis]
    is_one_size = all(item.variable.shape[_rows_axis(item)] == size for item in left)
    same = same_of((item.name for item in left[1:]), exactly=is_one_size)
    text = (
        f"{other.name} has {plural(size, 'row')}, as many as {one.name}, whose rows go as "
        "var_name_to_vocab_info says, and takes them by position: if they are of the same entries, "
        f"some are others' now.{same}"
    )
    of_axis = f"axis={axis}" * bool(axis)
    hint = (
        f"Give {other.name!r} the same VocabInfo{f' with {of_axis}' * bool(axis)}; "
        f"ClipOrPad({of_axis}) says that it goes by position."
    )
    return Finding("rows-by-position", severity, other.name, f"{text} {hint}", hint)


def _of_layer(module: nn.Module, leaves: Mapping[str, PlanItem]) -> Iterator[Finding]:
    is_own = is_torchs_own(module)
    is_known = is_own or torch_layer_of(module) is not None or is_untransposed_linear(module)
    vectors = {leaf: of for leaf in leaves if (of := vector_of(module, leaf)) is not None}
    known = [*_pairs(module, leaves, vectors)] if is_known else []
    for pair in known:
        if not _move_alike(*pair):
            yield _finding("error", pair)
    yield from _flattened(leaves, vectors)
    yield from _computed(module, leaves)
    yield from _grouped(module, leaves)
    said = {frozenset((id(one), id(other))) for one, _, other, _ in known}
    for pair in () if is_own else _alike(leaves):
        if frozenset((id(pair[0]), id(pair[2]))) not in said and not _move_alike(*pair):
            yield _finding("warning", pair)


def _finding(severity: Literal["error", "warning"], pair: _Pair) -> Finding:
    one, axis, other, _ = pair
    first, last = (one, other) if _along(one, axis) is not None else (other, one)
    text = (
        f"{first.name} takes its rows as var_name_to_vocab_info says, and {last.name}, of the same "
        "layer, as many by position: they would be those of others."
    )
    hint = "Give both the same, by the name of their module in var_name_to_vocab_info."
    if severity == "warning":
        text += f" Whether they belong together its class knows. {hint}"
    return Finding("rows-of-one-layer", severity, first.name, text, hint)


def _pairs(
    module: nn.Module, leaves: Mapping[str, PlanItem], vectors: Mapping[str, Vector]
) -> Iterator[_Pair]:
    """What in a layer that is known has a row for the same thing."""
    outputs = output_axis(module)
    is_whole = not outputs or getattr(module, "groups", 1) == 1  # else one of each group has a row
    parts: dict[str, list[PlanItem]] = {}
    for leaf in sorted(set(leaves) - set(vectors)):  # containers of parameters may have thousands
        parts.setdefault(attribute_of(leaf), []).append(leaves[leaf])
    of_norms = [leaves[leaf] for leaf in STATISTICS if leaf in leaves]
    for name, of_name in parts.items():
        for one, other in itertools.combinations(of_name, 2):
            yield from ((one, axis, other, axis) for axis in range(len(one.variable.shape)))
        if "weight" in name and is_whole:
            beside = [*parts.get(name.replace("weight", "bias"), ()), *of_norms]
            for one, other in itertools.product(of_name, beside):
                yield one, outputs, other, 0
    for leaf, vector in vectors.items():
        if vector.axis is not None:
            yield from ((o, vector.axis, leaves[leaf], 0) for o in parts.get(vector.weight, ()))


def _flattened(leaves: Mapping[str, PlanItem], vectors: Mapping[str, Vector]) -> Iterator[Finding]:
    """A norm's vector that has a number for each place along several axes, one of which moves."""
    outputs = {vector.weight: vector.axis for vector in vectors.values() if vector.axis is not None}
    for leaf, vector in vectors.items():
        for name in leaves if vector.axis is None else ():
            moved = [c for c in leaves[name].changes if c.axis != outputs.get(vector.weight)]
            is_of = name not in vectors and attribute_of(name) == vector.weight
            if is_of and any(change.remapping.takes_from_others for change in moved):
                text = (
                    f"{leaves[name].name} moves along axis {moved[0].axis}, and "
                    f"{leaves[leaf].name} has a number for each place along several of its axes, "
                    "by position: its norm would be estimated by those of others."
                )
                hint = (
                    "Leave the vectors of that norm out of vars_to_warm_start, and run the model "
                    "in training mode some times before it is used: that estimates them anew."
                )
                yield Finding("rows-of-one-layer", "error", leaves[name].name, text, hint)


def _computed(module: nn.Module, leaves: Mapping[str, PlanItem]) -> Iterator[Finding]:
    """What moves where a weight is computed from it, and would not be that weight's rows."""
    for leaf, item in leaves.items():
        original = original_of(module, leaf) if item.changes else None
        if original is None:
            continue
        changed = [c.axis for c in item.changes if item.patches or not _keeps_norms(c)]
        own = original.dim if original.part == "v" else None  # -1: one norm for all of it
        over = [axis for axis in changed if axis != own]
        if original.refusal is not None:
            yield _parametrized(item, original)
        elif over and original.part == "v":
            yield _scaled(item, over[0])
        elif over and original.is_divided:
            yield _divided(item, over[0])
        for change in item.changes:
            if change.axis == own and _has_zeros(change):
                yield _of_zeros(item)
            elif change.axis == own and isinstance(change.fill, Mixed):
                yield _mixed(item)


def _parametrized(item: PlanItem, original: Original) -> Finding:
    text = (
        f"{item.name} moves as var_name_to_vocab_info says, and a parametrization computes "
        f"{original.leaf!r} from it: whether that moves alike its class knows."
    )
    return Finding("rows-parametrized", "warning", item.name, text)


def _mixed(item: PlanItem) -> Finding:
    text = (
        f"{item.name}: new rows of a weight_norm's v are mixed by themselves, and scaled to norms "
        "that are: unless each is one old row, the weight's are other mixtures, and longer."
    )
    hint = "Warm-start the layer without weight_norm, and put that on afterwards."
    return Finding("rows-parametrized", "warning", item.name, f"{text} {hint}", hint)


def _divided(item: PlanItem, axis: int) -> Finding:
    text = (
        f"{item.name} is divided by its spectral norm, which is of what comes or goes along axis "
        f"{axis}, too: all else is scaled by another one than before."
    )
    hint = "Run the model in training mode some times before it is used: that estimates it anew."
    return Finding("norm-over-axis", "warning", item.name, f"{text} {hint}", hint)


def _scaled(item: PlanItem, axis: int) -> Finding:
    text = (
        f"{item.name} is scaled to the norms of a weight_norm, which are over what comes or goes "
        f"along axis {axis}: all else would be scaled with it."
    )
    hint = "Warm-start the layer without weight_norm, and put that on afterwards."
    return Finding("norm-over-axis", "error", item.name, text, hint)


def _of_zeros(item: PlanItem) -> Finding:
    text = (
        f"{item.name}: new rows would be zeros, which a weight_norm divides by their norm: the "
        "weight would be NaN there."
    )
    hint = (
        "Say what new rows begin with, for the layer: backup_initializer='keep' leaves those of "
        "the model."
    )
    return Finding("norm-of-zeros", "error", item.name, text, hint)


def _has_zeros(change: AxisChange) -> bool:
    """Whether new rows begin as zeros, as far as that is known."""
    fill = change.fill
    return fill == UNLESS_SAID or (isinstance(fill, Mixed) and fill.num_unanswered > 0)


def _keeps_norms(change: AxisChange) -> bool:
    """Whether all old cells along an axis stay, each once, and beside them are zeros only."""
    rows = change.remapping.rows
    taken = rows[rows >= 0]
    if len(taken) != change.old_size or len(torch.unique(taken)) != len(taken):
        return False
    return len(rows) == len(taken) or change.fill == UNLESS_SAID


def _grouped(module: nn.Module, leaves: Mapping[str, PlanItem]) -> Iterator[Finding]:
    """Channels of several groups of a convolution that come into one."""
    groups = module.groups if isinstance(module, nn.modules.conv._ConvNd) else 1
    weights = [i for leaf, i in leaves.items() if groups > 1 and attribute_of(leaf) == "weight"]
    for item in weights:
        for change in item.changes:
            if change.axis == 0 and _mixes_groups(change, groups):
                text = (
                    f"{item.name} takes rows of several of its layer's {groups} groups into one, "
                    "as var_name_to_vocab_info says: a group has channels of its own on the "
                    "layer's other side, so that some rows are for others now."
                )
                yield Finding("rows-of-parts", "warning", item.name, text)


def _mixes_groups(change: AxisChange, groups: int) -> bool:
    """Whether rows of several old groups are in a new one.

    There were as many groups, or groups as large: which, a checkpoint does not say.
    """
    parts = change.remapping.rows.reshape(groups, -1)
    sizes = [parts.shape[1], change.old_size // groups]
    may_be = [size for size in sizes if size and change.old_size % size == 0]
    return bool(may_be) and all(_are_mixed(parts, size) for size in may_be)


def _are_mixed(parts: torch.Tensor, size: int) -> bool:
    return any(len(torch.unique(part[part >= 0] // size)) > 1 for part in parts)


def _alike(leaves: Mapping[str, PlanItem]) -> Iterator[_Pair]:
    """What in a module of somebody's has as many rows as one that moves, and goes by position."""
    by_position = [item for item in leaves.values() if not item.changes]
    for one in leaves.values():
        for change in one.changes:
            yield from ((one, change.axis, other, _rows_axis(other)) for other in by_position)


def _move_alike(one: PlanItem, axis: int, other: PlanItem, other_axis: int) -> bool:
    """Whether rows that both take are each other's; the settings may say of both where they go."""
    shape, other_shape = one.variable.shape, other.variable.shape
    if len(shape) <= axis or len(other_shape) <= other_axis:
        return True
    both = (_along(one, axis), _along(other, other_axis))
    moved = [remapping for remapping in both if remapping is not None]
    if shape[axis] != other_shape[other_axis] or len(moved) != 1:
        return True
    return not moved[0].takes_from_others


def _along(item: PlanItem, axis: int) -> Remapping | None:
    return next((c.remapping for c in item.changes if c.axis == axis), None)
