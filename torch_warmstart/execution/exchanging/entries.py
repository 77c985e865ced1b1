"""Where the tensors of a model stand, and what else says how many rows they have.

All of it are entries of dicts and lists: to write one runs nobody's code, so that it cannot fail.
Only the mapping that a user passes as a copy of the model may be of a class that refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from torch_warmstart.execution.exchanging.tokens import Said
from torch_warmstart.execution.exchanging.twins import Twin
from torch_warmstart.model import place_of
from torch_warmstart.planning.live import ChangedTable, padding_rows
from torch_warmstart.slots import OptimizerTwin
from torch_warmstart.values import frozen

_ABSENT: Any = object()
# What a module calls the size of its weight along an axis. The last is transformers' own.
_SIZES: tuple[tuple[str, dict[int, str]], ...] = (
    ("Embedding", {0: "num_embeddings", 1: "embedding_dim"}),
    ("EmbeddingBag", {0: "num_embeddings", 1: "embedding_dim"}),
    ("Linear", {0: "out_features", 1: "in_features"}),
    ("Bilinear", {0: "out_features", 1: "in1_features", 2: "in2_features"}),
    ("Conv1D", {0: "nx", 1: "nf"}),
)


@frozen(eq=False)
class Entry:
    """A place in a dict or list, what stands there, and what will."""

    where: Any
    key: Any
    new: Any
    old: Any

    def put(self) -> None:
        """Writes the new value; a second time makes no difference."""
        _write(self.where, self.key, self.new)

    def undo(self) -> None:
        """Writes the old one, unless it stands there; the same."""
        if _at(self.where, self.key) is not self.old:
            _write(self.where, self.key, self.old)


def _write(where: Any, key: Any, value: Any) -> None:
    if value is _ABSENT:
        where.pop(key, None)
    else:
        where[key] = value


def entry(where: Any, key: Any, new: Any) -> Entry:
    """An entry, with what stands there now."""
    return Entry(where, key, new, _at(where, key))


def _at(where: Any, key: Any) -> Any:
    is_there = isinstance(where, list) or key in where
    return where[key] if is_there else _ABSENT


def entries_of_model(
    model: torch.nn.Module, twin: Twin, all_said: Iterable[Said]
) -> Iterator[Entry]:
    """Of a module: its tensors, and what modules and configs say of their sizes."""
    for table, new in zip(twin.tables, twin.new, strict=True):
        for owner in table.variable.owners:
            module, leaf = place_of(model, owner)
            yield entry(_register(module, leaf), leaf, new)
            yield from _size(module, leaf, table)
        for module, change, row in padding_rows(table):
            yield entry(vars(module), "padding_idx", change.row_of(row))
    for said in all_said:
        if not said.stays and said.new != said.old:
            yield entry(said.where, said.name, said.new)


def _register(module: torch.nn.Module, leaf: str) -> dict[str, Any]:
    return module._parameters if leaf in module._parameters else module._buffers


def _size(module: torch.nn.Module, leaf: str, table: ChangedTable) -> Iterator[Entry]:
    kinds = {cls.__name__ for cls in type(module).__mro__}
    for kind, names in _SIZES if leaf == "weight" else ():
        for change in table.changes if kind in kinds else ():
            name = names.get(change.axis, "")
            if vars(module).get(name) == change.old_size:
                yield entry(vars(module), name, change.new_size)


def entries_of_mapping(mapping: Any, twin: Twin) -> Iterator[Entry]:
    """Of a mapping of names to tensors."""
    for table, new in zip(twin.tables, twin.new, strict=True):
        for owner in table.variable.owners:
            yield entry(mapping, owner.name, new)


def entries_of_optimizer(twin: OptimizerTwin) -> Iterator[Entry]:
    """The new parameters in the param groups, and their state; groups stay the same objects."""
    new = {id(successor.old): successor.new for successor in twin.successors}
    for group in twin.real.param_groups:
        for at, tensor in enumerate(group["params"]):
            if id(tensor) in new:
                yield entry(group["params"], at, new[id(tensor)])
    for successor in twin.successors:
        if successor.old in twin.real.state:
            state = twin.twin.state.get(successor.new, {})
            yield entry(twin.real.state, successor.new, state)
            yield entry(twin.real.state, successor.old, _ABSENT)
