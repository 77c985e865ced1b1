"""What a Hugging Face model says of its vocabulary besides: its size, and the rows of tokens.

Configs say it, and modules that keep a copy. A config that several modules share is about what the
outermost of them has; of one with a vocabulary for what goes in and another for what comes out,
tokens are of the latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from torch_warmstart.errors import Finding, PlanError
from torch_warmstart.model import Variable, model_variables, modules_of, padding_row
from torch_warmstart.planning.live import (
    CHANGE,
    SIZES_IN,
    SIZES_OUT,
    ChangedTable,
    TableChange,
    called_anew,
    is_as_high,
    token_weights,
)
from torch_warmstart.values import frozen

_TOKEN = ("_token_id", "_token_index")
_PAIRS = "forced_decoder_ids"  # of a position and a token
_BIASES = "sequence_bias"  # of tokens one after the other, and a number
# Tokens, or some one after the other, that are not to come out: those that are gone will not.
_FORBIDDEN = {"suppress_tokens", "begin_suppress_tokens", "bad_words_ids"}
_TOKENS = {
    *_FORBIDDEN,
    *("force_words_ids", _PAIRS, _BIASES),
    *("lang_to_id", "task_to_id"),  # Whisper's
    *("unk_index", "mask_index"),  # XLM's
}
_PADDING, _PAD = "padding_idx", "pad_token_id"
# What modules call what a config calls otherwise; the last two are XLM's.
_CALLED = {_PADDING: _PAD, "pad_index": _PAD, "eos_index": "eos_token_id"}
_LABEL_OF, _ROW_OF, _NUM_LABELS = "id2label", "label2id", "num_labels"  # of classes
_WIDTH = 4  # a size that more than one in so many tensors has is a width of the model
_BY_LAYER = ("vocab_size_per_layer_input", "embed_tokens_per_layer")  # Gemma's size and table

_Attributes: TypeAlias = "dict[str, Any]"


@frozen(eq=False)
class Said:
    """What is said somewhere, and what will be."""

    where: _Attributes
    name: str
    old: Any
    new: Any  # None: one of the tokens is gone, or all that were forbidden
    table: ChangedTable | None  # by which it moves; None: its own table stays as it is

    @property
    def stays(self) -> bool:
        """Whether nobody can say what it is to be."""
        return self.new is None and self.name not in _FORBIDDEN


def what_is_said(model: torch.nn.Module, tables: Sequence[ChangedTable]) -> list[Said]:
    """All of it, once each; raises PlanError where one config cannot say it for two of them."""
    found: dict[tuple[int, str], Said] = {}
    for module, going_in, coming_out in _with_tokens(model, tables):
        by_layer = next((t for t in tables if _BY_LAYER[1] in t.variable.name.split(".")), None)
        output = token_weights(module)[1]
        head = next((table for table in tables if table.variable.tensor is output), None)
        sizes = _sizes(module, (going_in, coming_out), by_layer, head)
        for said in (*sizes, *_rows(module, coming_out)):
            first = found.setdefault((id(said.where), said.name), said)
            if said.name == _PAD and None not in (first.new, said.new) and first.new != said.new:
                raise _apart(first, said)
    labels = (said for module in modules_of(model) for said in _labels(module, tables))
    return [*found.values(), *labels]


def tokens_left(all_said: Iterable[Said]) -> Iterator[Finding]:
    """Tokens that a config has a row of, and the new vocabulary has not."""
    for said in all_said:
        if said.stays and said.table is not None:
            hint = f"Set config.{said.name} before the model is used."
            text = (
                f"{said.name}={said.old} of the model's config is a token that the new vocabulary "
                f"of {said.table.variable.name} does not have; it stays as it is."
            )
            yield Finding("token-id-left", "warning", said.name, text, hint)


def tables_left(model: torch.nn.Module, tables: Sequence[ChangedTable]) -> Iterator[Finding]:
    """What has as many rows as a table that changes, and may be of the same tokens.

    Other embeddings, which may have some fewer or more; and heads, biases and scales that a model
    does not give as its output layer, if that number is no width of the model.
    """
    variables = model_variables(model)
    known = {id(table.variable.tensor) for table in tables}
    for module, table, _ in _with_tokens(model, tables):
        known |= {*map(id, token_weights(module)), id(_of_decoder(module))}
        if table is None or table.rows is None:
            continue
        size = table.rows.old_size
        parts = {id(part) for part in _of_config(module, vars(module)["config"])}
        left = [v for v in variables if id(v.tensor) not in known]
        is_width = _WIDTH * sum(size in v.shape for v in left) > len(left)
        for variable in left:
            axis = _axis_as_high(variable, size, is_width=is_width)
            if axis is None or parts.isdisjoint(id(owner.module) for owner in variable.owners):
                continue
            along = f" along axis {axis}" * bool(axis)
            hint = f"If they are of the same tokens, name {variable.name!r} too"
            text = (
                f"{variable.name} has {variable.shape[axis]:,} rows{along}, "
                f"{table.variable.name} had {size:,} and gets another vocabulary: {variable.name} "
                "keeps its rows."
            )
            hint += f", with axis={axis}." if axis else "."
            yield Finding("table-left", "warning", variable.name, text, hint)


def _axis_as_high(variable: Variable, size: int, *, is_width: bool) -> int | None:
    """Along which axis a variable may have a row for each token, and has none for places."""
    shape = variable.shape
    if "position" in variable.name or not shape:
        return None
    is_table = any(isinstance(owner.module, torch.nn.Embedding) for owner in variable.owners)
    if is_table and is_as_high(shape[0], size):
        return 0
    return shape.index(size) if size in shape and not is_width else None


def _apart(first: Said, second: Said) -> PlanError:
    tables = [said.table for said in (first, second) if said.table is not None]
    name = tables[0].variable.name
    text = (
        f"{name}: one config says {_PAD}={first.old} for two vocabularies, in which that token "
        f"would have the rows {first.new} and {second.new}: give it one row in both."
    )
    found = Finding("token-in-two-rows", "error", name, text)
    return PlanError.of(CHANGE, [found])


def _with_tokens(
    model: torch.nn.Module, tables: Sequence[ChangedTable]
) -> Iterator[tuple[torch.nn.Module, ChangedTable | None, ChangedTable | None]]:
    """Modules with a config, and the tables that change for what goes in, and for its tokens."""
    changed = {id(table.variable.tensor): table for table in tables if table.rows is not None}
    for module in modules_of(model):
        source, target = token_weights(module)
        if _is_of_two(module) and target is None:
            target = _of_decoder(module)
        going_in, coming_out = changed.get(id(source)), changed.get(id(target))
        if not _is_of_two(module) or target is source:
            going_in = coming_out = going_in or coming_out
        is_half = _is_of_two(module) and source is not None and len(source.shape) == 2
        if going_in or coming_out or is_half:  # a half that stays may share its config
            yield module, going_in, coming_out


def _is_of_two(module: torch.nn.Module) -> bool:
    """Whether it may have a vocabulary for each of its halves."""
    return bool(getattr(vars(module).get("config"), "is_encoder_decoder", False))


def _of_decoder(module: Any) -> torch.Tensor | None:
    """The table for what goes into the half that makes tokens."""
    try:
        weight = module.get_decoder().get_input_embeddings().weight
    except Exception:  # theirs: a model may have none, and says so in its own way
        return None
    return weight if isinstance(weight, torch.Tensor) else None


def _configs(module: torch.nn.Module) -> list[Any]:
    """A module's config, and that part of it that is about text, which may be the same."""
    config = vars(module)["config"]
    of_text = None if _is_of_two(module) else getattr(config, "get_text_config", None)
    parts = [config, of_text() if callable(of_text) else None]
    return [*{id(part): part for part in parts if hasattr(part, "__dict__")}.values()]


def _sizes(
    module: torch.nn.Module,
    in_and_out: tuple[ChangedTable | None, ChangedTable | None],
    by_layer: ChangedTable | None,
    head: ChangedTable | None,
) -> Iterator[Said]:
    """Of configs and modules; of a head with fewer rows than what goes in, the head's."""
    going_in, coming_out = in_and_out
    of_modules = ((SIZES_IN[0], going_in), (_BY_LAYER[0], by_layer))
    places = [(vars(module), name, table) for name, table in of_modules]
    known = dict.fromkeys(SIZES_IN, going_in) | dict.fromkeys(SIZES_OUT, coming_out)
    known |= {_BY_LAYER[0]: by_layer}
    for config in _configs(module):
        called: Mapping[str, str] = getattr(config, "attribute_map", None) or {}
        for name, table in known.items():
            kept = called.get(name, name)  # FSMT has `vocab_size` stand for what comes out
            places.append((vars(config), kept, known.get(kept, table)))
    for where, name, table in places:
        size = where.get(name)
        if table is None or table.rows is None:
            yield Said(where, name, size, size, None)
            continue
        for each in (table, head) if table is going_in else (table,):
            if each is not None and each.rows is not None and size == each.rows.old_size:
                yield Said(where, name, size, each.rows.new_size, each)
                break


def _rows(module: torch.nn.Module, table: ChangedTable | None) -> Iterator[Said]:
    """The rows of tokens that configs and modules say."""
    rows = None if table is None else table.rows
    for where, name, value in (*_tokens(module), *_copied_tokens(module)):
        move = _MOVES.get(name, _moved)
        yield Said(where, name, value, value if rows is None else move(rows, value), table)


def _tokens(module: torch.nn.Module) -> Iterator[tuple[_Attributes, str, Any]]:
    for config in (*_configs(module), vars(module).get("generation_config")):
        for name, value in vars(config).items() if hasattr(config, "__dict__") else ():
            is_row = isinstance(value, int | list) and not isinstance(value, bool)
            is_listed = name in _TOKENS and (is_row or isinstance(value, dict))
            if is_listed or (name.endswith(_TOKEN) and is_row):
                yield vars(config), name, value


def _copied_tokens(module: torch.nn.Module) -> Iterator[tuple[_Attributes, str, int]]:
    """The same that modules keep as attributes of their own, as CLIP's does of the end of text."""
    said = {name: value for _, name, value in _tokens(module) if isinstance(value, int)}
    said |= {name: said[of] for name, of in _CALLED.items() if of in said}
    for part in _of_config(module, vars(module)["config"]):
        attributes = vars(part)
        for name in said.keys() & attributes.keys():
            is_own = name != _PADDING or padding_row(part) is None  # of an embedding it is its row
            if is_own and attributes[name] == said[name]:
                yield attributes, name, said[name]


def _of_config(module: torch.nn.Module, config: Any) -> Iterator[torch.nn.Module]:
    """A module and those within it that have no other config."""
    yield module
    for child in module._modules.values():
        if child is not None and vars(child).get("config", config) is config:
            yield from _of_config(child, config)


# -- classes ---------------------------------------------------------------------------------------


def _labels(module: torch.nn.Module, tables: Sequence[ChangedTable]) -> Iterator[Said]:
    """What a model with a class head calls its classes, and how many there are."""
    config, count = vars(module).get("config"), vars(module).get(_NUM_LABELS)
    names = vars(config).get(_LABEL_OF) if hasattr(config, "__dict__") else None
    if not isinstance(names, dict) or set(names) != set(range(len(names))) or count != len(names):
        return
    inside = {id(part) for part in modules_of(module) if isinstance(part, torch.nn.Linear)}
    for table in tables:
        owners = [owner for owner in table.variable.owners if id(owner.module) in inside]
        if table.rows is None or table.rows.old_size != count or len(table.variable.shape) != 2:
            continue
        if owners:
            called = called_anew(table.rows, names)
            by_name = {name: row for row, name in called.items()}
            yield Said(vars(config), _LABEL_OF, names, called, table)
            yield Said(vars(config), _ROW_OF, vars(config).get(_ROW_OF), by_name, table)
            yield Said(vars(module), _NUM_LABELS, count, len(called), table)
            return


# -- rows ------------------------------------------------------------------------------------------


def _moved(change: TableChange, value: Any) -> Any:
    """A row, or lists or names of them, by their new numbers; None if one of them is gone."""
    if isinstance(value, list):
        moved = [_moved(change, row) for row in value]
        return None if None in moved else moved
    if isinstance(value, dict):
        rows = _moved(change, list(value.values()))
        return None if rows is None else dict(zip(value, rows, strict=True))
    if not isinstance(value, int) or not 0 <= value < change.old_size:
        return value  # it was no row before: -1, or the default of a larger vocabulary
    return change.row_of(value)


def _moved_but_gone(change: TableChange, value: Any) -> Any:
    """The members of a list that are there still, each a row or several one after the other.

    None if none is left: an empty list of bad words is an error of `generate`'s.
    """
    if not isinstance(value, list):
        return _moved(change, value)
    moved = (_moved(change, member) for member in value)
    return [member for member in moved if member is not None] or None


def _moved_pairs(change: TableChange, value: Any) -> Any:
    """Pairs of a position, which stays, and a token."""
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return value
    rows = [_moved(change, token) for _, token in value]
    is_gone = any(
        row is None and token is not None for row, (_, token) in zip(rows, value, strict=True)
    )
    return None if is_gone else [[at, row] for (at, _), row in zip(value, rows, strict=True)]


def _moved_biases(change: TableChange, value: Any) -> Any:
    """Tokens one after the other, and a number, which stays: a mapping, or pairs as in JSON."""
    pairs = [*value.items()] if isinstance(value, dict) else value
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        return value
    if not all(isinstance(tokens, list | tuple) for tokens, _ in pairs):
        return value
    moved = [(_moved(change, list(tokens)), bias) for tokens, bias in pairs]
    if any(tokens is None for tokens, _ in moved):
        return None
    if isinstance(value, dict):
        return {tuple(tokens): bias for tokens, bias in moved}
    return [[tokens, bias] for tokens, bias in moved]


_MOVES = {_PAIRS: _moved_pairs, _BIASES: _moved_biases} | dict.fromkeys(_FORBIDDEN, _moved_but_gone)
