"""What has as many rows as a table of a live model that changes, and keeps them.

Of a Hugging Face model its config tells more, and is asked where its tokens are.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import torch

from torch_warmstart.errors import Finding, Severity, plural, same_of
from torch_warmstart.model import Variable, model_variables, modules_of
from torch_warmstart.planning.live.tables import ChangedTable, TableChange, token_weights
from torch_warmstart.planning.rows import twins_of, why_not_by_position

_Left = tuple[ChangedTable, Variable]


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
    goes = {t.variable: t for t in tables if t.rows is not None and _goes_on(t.rows, widths)}
    left = [(t, v) for t in goes.values() for v in apart if _is_as_high(v, t.variable.shape[0])]
    others = dict.fromkeys(variable for _, variable in left)
    moved = (*goes, *(table.variable for table in tables if table.variable not in goes))
    twins = [(goes[one], other) for one, other in twins_of(moved, others) if one in goes]
    if twins:
        yield _told("warning", twins)
    elif left:
        yield _told("note", left)


def _goes_on(change: TableChange, widths: Container[int]) -> bool:
    """Whether what goes by position beside it may have rows of others."""
    if change.old_size in widths:
        return False
    return change.new_size != change.old_size or change.remapping.takes_from_others


def _is_as_high(variable: Variable, size: int) -> bool:
    return variable.shape[:1] == (size,) and not why_not_by_position(variable, 0, size)


def _told(severity: Severity, left: Sequence[_Left]) -> Finding:
    table, first = left[0]
    size = first.shape[0]
    others = dict.fromkeys(variable.name for _, variable in left if variable is not first)
    same = same_of(others, exactly=all(variable.shape[0] == size for _, variable in left))
    text = (
        f"{first.name} has {plural(size, 'row')}, as many as {table.variable.name} had, whose rows "
        "go as its VocabInfo says, and keeps them: if they are of the same entries, some are "
        f"others' now.{same}"
    )
    hint = f"If they are, name {first.name!r} too."
    return Finding("table-left", severity, first.name, text, hint)
