"""Rows of one layer that would not be moved alike: its weight's by a vocabulary, its bias's not.

Where the sizes differ a plan fails by itself. Where a vocabulary has other entries in as many rows,
a bias that goes by position is others' bias.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from torch_warmstart.errors import Finding
from torch_warmstart.layouts import vector_of
from torch_warmstart.model import is_untransposed_linear, output_axis
from torch_warmstart.planning.plan import PlanItem

_PART = re.compile(r"parametrizations\.(\w+)\.original\d*|(\w+)_(?:g|v|orig|mask)")  # of a weight
_PARAMETRIZE = "torch.nn.utils.parametrize"  # which makes a class of its own of a layer's
_OF_NORMS = ("running_mean", "running_var")  # beside a weight

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


def _of_layer(module: nn.Module, leaves: Mapping[str, PlanItem]) -> Iterator[Finding]:
    classes = [c for c in type(module).__mro__ if c.__module__ != _PARAMETRIZE]
    is_known = _is_torchs(classes) or is_untransposed_linear(module)
    known = [*_pairs(module, leaves)] if is_known else []
    for pair in known:
        if not _move_alike(*pair):
            yield _finding("error", pair)
    said = {frozenset((id(one), id(other))) for one, _, other, _ in known}
    for pair in () if _is_torchs(classes[:1]) else _alike(leaves):
        if frozenset((id(pair[0]), id(pair[2]))) not in said and not _move_alike(*pair):
            yield _finding("warning", pair)


def _is_torchs(classes: Sequence[type]) -> bool:
    return any(c.__module__.startswith("torch.") and c is not nn.Module for c in classes)


def _finding(severity: Literal["error", "warning"], pair: _Pair) -> Finding:
    one, axis, other, _ = pair
    first, last = (one, other) if _rows(one, axis) is not None else (other, one)
    text = (
        f"{first.name} takes its rows as var_name_to_vocab_info says, and {last.name}, of the same "
        "layer, as many by position: they would be those of others."
    )
    hint = "Give both the same, by the name of their module in var_name_to_vocab_info."
    if severity == "warning":
        text += f" Whether they belong together its class knows. {hint}"
    return Finding("rows-of-one-layer", severity, first.name, text, hint)


def _pairs(module: nn.Module, leaves: Mapping[str, PlanItem]) -> Iterator[_Pair]:
    """What in a layer that is known has a row for the same thing."""
    outputs = output_axis(module)
    is_whole = not outputs or getattr(module, "groups", 1) == 1  # else one of each group has a row
    vectors = {leaf: of for leaf in leaves if (of := vector_of(module, leaf)) is not None}
    parts: dict[str, list[PlanItem]] = {}
    for leaf in sorted(set(leaves) - set(vectors)):  # containers of parameters may have thousands
        parts.setdefault(_attribute(leaf), []).append(leaves[leaf])
    of_norms = [leaves[leaf] for leaf in _OF_NORMS if leaf in leaves]
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


def _attribute(leaf: str) -> str:
    """The layer's attribute that a tensor is, or that is computed from it."""
    match = _PART.fullmatch(leaf)
    return next(filter(None, match.groups())) if match else leaf


def _alike(leaves: Mapping[str, PlanItem]) -> Iterator[_Pair]:
    """What in a module of somebody's has as many rows as one that moves, and goes by position."""
    by_position = [item for item in leaves.values() if not item.changes]
    for one in leaves.values():
        if one.changes:
            yield from ((one, 0, other, 0) for other in by_position)


def _move_alike(one: PlanItem, axis: int, other: PlanItem, other_axis: int) -> bool:
    """Whether rows that both take are each other's; the settings may say of both where they go."""
    shape, other_shape = one.variable.shape, other.variable.shape
    if len(shape) <= axis or len(other_shape) <= other_axis:
        return True
    moved = [rows for rows in (_rows(one, axis), _rows(other, other_axis)) if rows is not None]
    if shape[axis] != other_shape[other_axis] or len(moved) != 1:
        return True
    by_position = torch.arange(shape[axis], device=moved[0].device)
    return not bool(((moved[0] != by_position) & (moved[0] >= 0)).any())


def _rows(item: PlanItem, axis: int) -> torch.Tensor | None:
    return next((c.remapping.rows for c in item.changes if c.axis == axis), None)
