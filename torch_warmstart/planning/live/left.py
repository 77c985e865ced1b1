"""What has as many rows as a table of a live model that changes, and keeps them.

Of a Hugging Face model its config tells more, and is asked where its tokens are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from torch_warmstart.errors import Finding, Severity, listed, plural, the_same
from torch_warmstart.model import TABLES, Variable, model_variables, modules_of
from torch_warmstart.planning.live.tables import ChangedTable, TableChange, token_weights
from torch_warmstart.planning.rows import why_not_by_position

_Left = tuple[ChangedTable, TableChange, Variable]


def find_left(model: torch.nn.Module, tables: Sequence[ChangedTable]) -> Iterator[Finding]:
    """A warning of a linear layer of an embedding's shape, or the reverse; a note of all else.

    Tables of other features may have as many rows by chance, or as many as all may have at most.
    Only where that number is no width of the model.
    """
    if any(token_weights(module) != (None, None) for module in modules_of(model)):
        return
    variables = model_variables(model)
    changed = {id(table.variable.tensor) for table in tables}
    layers = {id(owner.module) for table in tables for owner in table.variable.owners}
    apart = [
        v
        for v in variables
        if id(v.tensor) not in changed and layers.isdisjoint(id(o.module) for o in v.owners)
    ]
    widths = {size for v in variables for size in v.shape[1:]}
    found: list[_Left] = []
    for table in tables:
        change = table.rows
        if change is not None and change.old_size not in widths and _differs(change):
            found += ((table, change, v) for v in apart if _is_as_high(v, change.old_size))
    twins = [left for left in found if _are_twins(left[0].variable, left[2], tables)]
    others = [left for left in found if not twins]
    if twins:
        yield _told("warning", twins)
    if others:
        yield _told("note", others)


def _differs(change: TableChange) -> bool:
    return change.new_size != change.old_size or change.remapping.takes_from_others


def _is_as_high(variable: Variable, size: int) -> bool:
    return variable.shape[:1] == (size,) and not why_not_by_position(variable, 0, size)


def _are_twins(one: Variable, other: Variable, tables: Sequence[ChangedTable]) -> bool:
    """Whether they are an embedding and a linear layer, of which no other one changes."""
    sides = _side(one), _side(other)
    if None in sides or sides[0] == sides[1] or one.shape != other.shape:
        return False
    return not any(
        table.variable.shape == one.shape and _side(table.variable) == sides[1] for table in tables
    )


def _side(variable: Variable) -> str | None:
    modules = [owner.module for owner in variable.owners if len(variable.shape) == 2]
    if any(isinstance(module, TABLES) for module in modules):
        return "in"
    return "out" if any(isinstance(module, torch.nn.Linear) for module in modules) else None


def _told(severity: Severity, left: Sequence[_Left]) -> Finding:
    table, change, first = left[0]
    names = list(dict.fromkeys(variable.name for _, _, variable in left))
    is_one_size = all(other.old_size == change.old_size for _, other, _ in left)
    same = the_same(exactly=is_one_size)
    others = f" {same} of {listed(map(repr, names[1:]))}." if names[1:] else ""
    text = (
        f"{first.name} has {plural(change.old_size, 'row')}, as many as {table.variable.name} had, "
        "whose rows go as its VocabInfo says, and keeps them: if they are of the same entries, "
        f"some are others' now.{others}"
    )
    hint = f"If they are, name {first.name!r} too."
    return Finding("table-left", severity, first.name, text, hint)
