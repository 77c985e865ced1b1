"""Which tensors of a checkpoint are a keyed table's, by their names.

DeepRec's EmbeddingVariable (embedding_var_ckpt_data.cc, docs/docs_en/Embedding-Variable-Export-
Format.md): `emb-keys`, `emb-values`, `emb-freqs`, `emb-versions`, with partitions
`emb/part_0-keys`; what came since the last full one, `emb-sparse_incr_keys` and so on, counts
later. TFRA in a bundle (cuckoo_hashtable_ops.py, dynamic_embedding_variable.py):
`emb_mht_1of2-keys`, `-values`; in an object graph `path/.ATTRIBUTES/table-keys`, `-values`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from torch_warmstart.formats.base import TABLE_SUFFIX, MalformedError
from torch_warmstart.values import frozen

_PART = re.compile(r"/part_([0-9]{1,9})(?=/|$)")
PART_OF_TFRA = r"(?s:(?P<table>.+))_mht_(?P<number>[0-9]{1,9})of(?P<count>[0-9]{1,9})"
_TFRA = re.compile(PART_OF_TFRA)
_KEYS, _VALUES = "keys", "values"
# How the column behind a name is spelt; what comes later replaces what comes before.
_ENDINGS = _WHOLE, _LATER = ("-", "-sparse_incr_")
_ENDING_OF_DYNAMICEMB = "_"
_COLUMNS = {"freqs": "frequency", "versions": "version"}
MOST_PARTS = 100_000  # of a table
_MOST_NAME = 1024  # of a table that has slots
# What TensorFlow's optimizers call their slots, behind a table's name and a `/`; behind `_` and
# `-`, with which other tables are called too (`user_m`, `user-v2`), what names an optimizer.
_OPTIMIZER = r"(adam(async|w|_?decay|ax)?|adagrad(_?decay)?(_?v2)?|ftrl|momentum|rmsprop|adadelta)"
_WORD = r"(shadow_|slot_)?(m|v|vhat|accumulator|linear|momentum|exp_avg|exp_avg_sq)"
_SLOT = {
    "/": re.compile(
        rf"(?i)({_OPTIMIZER}|sgd|gradient_descent)(_\d+)?(/.*)?|(.*[/_-])?{_WORD}(_\d+)?"
    ),
    "_": re.compile(rf"(?i){_OPTIMIZER}(_\d+|[/_]\w+)?"),
    "-": re.compile(rf"(?i)(.*[/_-])?(shadow_\w+|{_OPTIMIZER}([/_-].*)?)"),
}


@frozen
class Part:
    """A piece of a table: the keys of its tensors."""

    keys: str
    values: str
    columns: Mapping[str, str]  # "frequency", "version": key
    is_later: bool = False  # whether its rows replace those of others
    offsets: str = ""  # where a part is made of sub-parts: the key of where these begin


def parts_in(keys: Iterable[str]) -> dict[str, list[Part]]:
    """The tables by name, each with its parts in order.

    Raises MalformedError: a part of one is missing.
    """
    there = set(keys)
    found: dict[str, dict[tuple[int, int], Part]] = {}
    counts: dict[str, int] = {}
    for key in there:
        for order, ending in enumerate(_ENDINGS):
            stem = key.removesuffix(ending + _KEYS)
            if stem == key or stem + ending + _VALUES not in there:
                continue
            name, number, count = _named(stem)
            counts[name] = max(counts.get(name, 0), count, number + 1)
            if counts[name] > MOST_PARTS:
                raise MalformedError(f"table {name!r} claims {counts[name]:,} parts")
            part = _part(stem, ending, there)
            if found.setdefault(name, {}).setdefault((order, number), part) is not part:
                raise MalformedError(f"part {number} of table {name!r} is there twice")
    return {name: _whole(name, parts, counts[name]) for name, parts in sorted(found.items())}


def keys_beside(values: str) -> Iterator[tuple[str, str]]:
    """Of what may be the values of a table: where its keys would be, and what it is called."""
    for ending in (*_ENDINGS, _ENDING_OF_DYNAMICEMB):
        stem = values.removesuffix(ending + _VALUES)
        if stem != values:
            yield stem + ending + _KEYS, values if ending == _ENDING_OF_DYNAMICEMB else stem


def _named(stem: str) -> tuple[str, int, int]:
    """The table that a stem is of, which part it is, and how many there are if that is told."""
    told = _TFRA.fullmatch(stem)
    if told:
        number, count = int(told["number"]), int(told["count"])
        if not 1 <= number <= count:
            raise MalformedError(f"{stem!r} is part {number} of {count}")
        return told["table"], number - 1, count
    if stem.endswith(TABLE_SUFFIX):
        return stem.removesuffix(TABLE_SUFFIX), 0, 1
    parts = _PART.findall(stem)
    if len(parts) == 1:
        return _PART.sub("", stem), int(parts[0]), 0
    return stem, 0, 1


def _part(stem: str, ending: str, there: set[str]) -> Part:
    columns = {
        name: stem + ending + word
        for word, name in _COLUMNS.items()
        if stem + ending + word in there
    }
    word = "-partition_offset" if ending == _WHOLE else "-incr_partition_offset"
    offsets = stem + word if stem + word in there else ""
    keys, values = stem + ending + _KEYS, stem + ending + _VALUES
    return Part(keys, values, columns, is_later=ending == _LATER, offsets=offsets)


def _whole(name: str, parts: Mapping[tuple[int, int], Part], count: int) -> list[Part]:
    """The parts in order, those that came later behind the others."""
    orders = {order for order, _ in parts}
    numbers = {number for order, number in parts if order == min(orders)}  # what came since is less
    missing = [number for number in range(count) if number not in numbers]
    if missing:
        raise MalformedError(f"of table {name!r} part {missing[0]} of {count} is missing")
    return [parts[place] for place in sorted(parts)]


def slots_by_table(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Which tables are slots of which: table to name of a slot to its table."""
    ordered = sorted(names)
    found: dict[str, dict[str, str]] = {name: {} for name in ordered}
    lengths = {len(name) for name in ordered}
    for name in ordered:
        ends = (at for at in range(1, min(len(name), _MOST_NAME)) if at in lengths)
        owner = next((name[:at] for at in ends if name[:at] in found and _is_slot(name[at:])), None)
        if owner is not None:
            found[owner][name[len(owner) + 1 :]] = name
    of_others = {name for slots in found.values() for name in slots.values()}
    return {name: slots for name, slots in found.items() if name not in of_others}


def _is_slot(rest: str) -> bool:
    found = _SLOT.get(rest[:1]) if len(rest) < _MOST_NAME else None
    return found is not None and found.fullmatch(rest[1:]) is not None
