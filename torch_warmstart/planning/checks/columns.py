"""Columns that would be taken for another feature's, as the names of the tables beside show.

A model that reads features has a table for each. Where one of them is new and another has gone, the
first layer behind their concatenation may well have the shape it had, and other columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from torch_warmstart.errors import Finding, listed, printable
from torch_warmstart.formats import TensorSpec
from torch_warmstart.model import TABLES
from torch_warmstart.planning.locating import Located
from torch_warmstart.planning.plan import PlanItem
from torch_warmstart.values import frozen


@frozen(eq=False)
class _Table:
    """The table of a feature, and its tensor in the checkpoint, if that has one."""

    feature: str
    width: int
    spec: TensorSpec | None


def find_other_columns(items: Sequence[PlanItem], located: Located) -> Iterator[Finding]:
    """A warning for a layer that may read other features by the same columns."""
    used = {spec.key for table in _all_tables(items, located) for spec in [table.spec] if spec}
    layers = [item for item in items if _takes_columns_by_position(item)]
    for tables in _beside_each_other(items, located):
        new = [table for table in tables if table.spec is None]
        if not new or len(new) == len(tables):
            continue
        gone = _gone([table for table in tables if table.spec is not None], used, located)
        total = sum(table.width for table in tables)
        fitting = [one for one in layers if total <= one.variable.shape[1] < 2 * total]
        if fitting and sum(gone.values()) == sum(table.width for table in new):
            layer = min(fitting, key=lambda one: one.variable.shape[1])
            yield _finding(layer, [table.feature for table in new], list(gone))


def _finding(layer: PlanItem, new: list[str], gone: list[str]) -> Finding:
    text = (
        f"{layer.name} takes its columns by position, but of the tables beside each other "
        f"{_listed(new)} {'is' if len(new) == 1 else 'are'} new, and {_listed(gone)} of the "
        f"checkpoint {'has' if len(gone) == 1 else 'have'} gone, as wide. If it reads features one "
        "after the other, its columns are those of others now."
    )
    hint = (
        f"Say which they are: var_name_to_vocab_info={{{layer.name!r}: SegmentInfo(new_segments, "
        "old_segments)}."
    )
    return Finding("columns-of-others", "warning", layer.name, f"{text} {hint}", hint)


def _listed(features: list[str]) -> str:
    return listed(repr(printable(name)) for name in features)


def _takes_columns_by_position(item: PlanItem) -> bool:
    owner = item.owner
    if item.state == "kept" or owner is None or item.variable.slot is not None:
        return False
    is_weight = isinstance(owner.module, torch.nn.Linear) and len(item.variable.shape) == 2
    return is_weight and all(change.axis != 1 for change in item.changes)


def _all_tables(items: Iterable[PlanItem], located: Located) -> Iterator[_Table]:
    for tables in _beside_each_other(items, located):
        yield from tables


def _beside_each_other(items: Iterable[PlanItem], located: Located) -> Iterator[list[_Table]]:
    """Tables of one parent, several of them."""
    parents: dict[str, list[_Table]] = {}
    for variable in (item.variable for item in items):
        owner = variable.owners[0]
        if isinstance(owner.module, TABLES) and variable.slot is None and owner.leaf == "weight":
            parent, _, feature = owner.path.rpartition(".")
            source = located.source(variable)
            spec = None if source is None else source.specs[0]
            parents.setdefault(parent, []).append(_Table(feature, variable.shape[1], spec))
    yield from (tables for tables in parents.values() if tables[1:])


def _gone(tables: Iterable[_Table], used: set[str], located: Located) -> dict[str, int]:
    """The features that have a table in the checkpoint only, by its name, and their widths."""
    templates: dict[tuple[str, str], None] = {}
    for table in tables:
        assert table.spec is not None
        before, name, after = table.spec.key.rpartition(table.feature)
        if name:
            templates[before, after] = None
    checkpoint = located.finder.checkpoint
    found: dict[str, int] = {}
    for key in checkpoint if templates else ():
        for before, after in templates:
            inner = key[len(before) : len(key) - len(after)]
            is_like = key.startswith(before) and key.endswith(after)
            if is_like and key not in used and inner and not {*inner} & {"/", "."}:
                shape = checkpoint.spec(key).shape
                found |= {inner: shape[1]} if len(shape) == 2 else {}
    return found
