"""Where the tensors of a model stand, and what else says how many rows they have.

All of it are entries of dicts and lists: to write one runs nobody's code, so that it cannot fail.
Only the mapping that a user passes as a copy of the model may be of a class that refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from torch_warmstart.errors import Finding
from torch_warmstart.execution.exchanging.twins import Twin
from torch_warmstart.model import padding_row, place_of
from torch_warmstart.planning.live import (
    ChangedTable,
    TableChange,
    padding_rows,
    token_weights,
)
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
_TOKEN = ("_token_id", "_token_index")
_TOKENS = {
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids"),
    *("unk_index", "mask_index"),  # XLM's
}
_PADDING = "padding_idx"
# What modules call what a config calls otherwise; the last two are XLM's.
_CALLED = {_PADDING: "pad_token_id", "pad_index": "pad_token_id", "eos_index": "eos_token_id"}


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


def entries_of_model(model: torch.nn.Module, twin: Twin) -> Iterator[Entry]:
    """Of a module: its tensors, and what modules and configs say of their sizes."""
    for table, new in zip(twin.tables, twin.new, strict=True):
        for owner in table.variable.owners:
            module, leaf = place_of(model, owner)
            yield entry(_register(module, leaf), leaf, new)
            yield from _size(module, leaf, table)
        for module, change, row in padding_rows(table):
            yield entry(vars(module), _PADDING, change.row_of(row))
    yield from _of_tokens(model, twin.tables)


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


# -- Hugging Face's --------------------------------------------------------------------------------


def _of_tokens(model: torch.nn.Module, tables: Sequence[ChangedTable]) -> Iterator[Entry]:
    """What a Hugging Face model says of its vocabulary besides: its size, and rows of tokens."""
    for module, _, change in _with_tokens(model, tables):
        sizes = [(vars(module), "vocab_size"), *map(_size_in, _configs(module))]
        sizes += [(vars(config), "decoder_vocab_size") for config in _configs(module)]
        for where, name in sizes:
            if where.get(name) == change.old_size:
                yield entry(where, name, change.new_size)
        for where, name, value in (*_tokens(module), *_copied_tokens(module)):
            moved = _moved(change, value)
            if moved is not None:
                yield entry(where, name, moved)


def _size_in(config: Any) -> tuple[dict[str, Any], str]:
    """Where a config says its vocab_size, which some call otherwise."""
    named = getattr(config, "attribute_map", None) or {}
    return vars(config), named.get("vocab_size", "vocab_size")


def tokens_left(model: torch.nn.Module, tables: Sequence[ChangedTable]) -> Iterator[Finding]:
    """Tokens that a config has a row of, and the new vocabulary has not."""
    for module, table, change in _with_tokens(model, tables):
        for _, name, value in _tokens(module):
            if _moved(change, value) is None:
                hint = f"Set config.{name} before the model is used."
                text = (
                    f"{name}={value} of the model's config is a token that the new vocabulary of "
                    f"{table.variable.name} does not have; it stays as it is."
                )
                yield Finding("token-id-left", "warning", name, text, hint)


def _with_tokens(
    model: torch.nn.Module, tables: Sequence[ChangedTable]
) -> Iterator[tuple[torch.nn.Module, ChangedTable, TableChange]]:
    """The modules whose config is about a table that changes, each with it and its rows."""
    changed = {id(t.variable.tensor): (t, t.rows) for t in tables if t.rows is not None}
    for module in model.modules():
        found = (changed.get(id(weight)) for weight in token_weights(module) if weight is not None)
        first = next((one for one in found if one is not None), None)
        if first is not None:
            yield module, *first


def _configs(module: torch.nn.Module) -> list[Any]:
    """A module's config, and that part of it that is about text, which may be the same."""
    config = vars(module)["config"]
    of_text = getattr(config, "get_text_config", None)
    parts = [config, of_text() if callable(of_text) else None]
    return [*{id(part): part for part in parts if hasattr(part, "__dict__")}.values()]


def _tokens(module: torch.nn.Module) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """The rows of tokens that a module's configs say, and where."""
    for config in (*_configs(module), vars(module).get("generation_config")):
        for name, value in vars(config).items() if hasattr(config, "__dict__") else ():
            is_row = isinstance(value, int | list) and not isinstance(value, bool)
            if (name.endswith(_TOKEN) or name in _TOKENS) and is_row:
                yield vars(config), name, value


def _copied_tokens(module: torch.nn.Module) -> Iterator[tuple[dict[str, Any], str, int]]:
    """The same that modules keep as attributes of their own, as CLIP's does of the end of text."""
    said = {name: value for _, name, value in _tokens(module) if isinstance(value, int)}
    said |= {name: said[of] for name, of in _CALLED.items() if of in said}
    for part in module.modules():
        attributes = vars(part)
        for name in said.keys() & attributes.keys():
            is_own = name != _PADDING or padding_row(part) is None  # of an embedding it is its row
            if is_own and attributes[name] == said[name]:
                yield attributes, name, said[name]


def _moved(change: TableChange, value: Any) -> Any:
    """A row, or lists of them, by their new numbers; None if one of them is gone."""
    if isinstance(value, list):
        moved = [_moved(change, row) for row in value]
        return None if None in moved else moved
    if not isinstance(value, int) or not 0 <= value < change.old_size:
        return value  # it was no row before: -1, or the default of a larger vocabulary
    return change.row_of(value)
