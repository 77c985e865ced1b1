"""Lookup tables: `<path>/.ATTRIBUTES/table-keys` and `-values`; without objects `<name>-keys`.

(tensorflow `python/ops/lookup_ops.py:MutableHashTable`, `DenseHashTable`.) A table of entry to
row, or of row to entry, is a vocabulary; one of entry to count is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from torch_warmstart.entries import (
    ENTRY,
    LOOKUPS,
    Entries,
    Lookup,
    Vocabulary,
    entries_of_bytes,
    placed,
)
from torch_warmstart.formats.base import TABLE_SUFFIX, Checkpoint, TensorSpec
from torch_warmstart.formats.class_names import snake_case
from torch_warmstart.formats.tensorflow.objects import Metadata
from torch_warmstart.formats.tensorflow.saved_model import Column, filled_tables

_KEYS, _VALUES = "-keys", "-values"
_OF_ROWS = (torch.int32, torch.int64)
_COUNTS = ("token_counts", "token_document_counts")  # what Keras's layers count while they adapt
# What tables are called in Keras's layers, and layers in layers; the layer is what is asked for.
_OF_LAYER = ("/lookup_table", "/_lookup_layer", "/_table", "/table")
_MOST_IN_FRONT = 2  # rows before those of a lookup that is turned round (`invert=True`)
_IN_KERAS = "/lookup_table"  # of a layer of Keras: it goes from entries to rows


def table_vocabularies(checkpoint: Checkpoint) -> dict[str, Vocabulary]:
    """The vocabularies by the paths of their tables; by that of their layer, if it has one."""
    return _with_layers(dict(_tables_of(checkpoint)))


def filled_vocabularies(data: bytes, origin: str) -> dict[str, Vocabulary]:
    """The vocabularies of a SavedModel's tables that constants fill, by the same names."""
    found = {}
    for path, columns in filled_tables(data).items():
        keys, values = map(_as_read, columns)
        made = _vocabulary_of(keys, values, path, f"{origin}[{path}]")
        if made is not None:
            found[path] = made
    return _with_layers(found)


def _as_read(column: Column) -> Any:
    is_text = isinstance(column[0], bytes)
    return column if is_text else torch.tensor(column, dtype=torch.int64)


def _with_layers(found: dict[str, Vocabulary]) -> dict[str, Vocabulary]:
    """With the names of the layers whose tables they are, where these have one only."""
    for path, vocabulary in list(found.items()):
        short = _shortened(path)
        if short and sum(_shortened(other) == short for other in found) == 1:
            found.setdefault(short, vocabulary)
    return found


def lookups_in_metadata(
    metadata: Metadata, entries_at: Callable[[Sequence[str]], Mapping[str, Sequence[Any]]]
) -> list[Lookup]:
    """The lookup layers that tf_keras tells of in a SavedModel, each once.

    Args:
        metadata: What it says of each object, by path.
        entries_at: The entries of the tables of layers, by the layers' paths.
    """
    found: dict[str, tuple[str, Lookup]] = {}
    for path, about in metadata.items():
        if path.endswith("._lookup_layer"):  # within a layer that is told of, too
            continue
        kind, options = about.get("class_name"), about.get("config")
        name = options.get("name") if isinstance(options, dict) else None
        if isinstance(kind, str) and isinstance(name, str) and snake_case(kind) in LOOKUPS:
            made = Lookup(name, snake_case(kind), options if isinstance(options, dict) else {})
            found.setdefault(name, (path, made))
    entries = entries_at([path for path, _ in found.values()]) if found else {}
    return [lookup._replace(entries=entries.get(path)) for path, lookup in found.values()]


def _shortened(path: str) -> str:
    for ending in (*_OF_LAYER, *_OF_LAYER):
        path = path.removesuffix(ending)
    return path


def _tables_of(checkpoint: Checkpoint) -> Iterator[tuple[str, Vocabulary]]:
    for key in checkpoint:
        table = key.removesuffix(_KEYS)
        path, of_values = table.removesuffix(TABLE_SUFFIX), table + _VALUES
        if table == key or of_values not in checkpoint or path.endswith(_COUNTS):
            continue
        if not all(_may_be_told(checkpoint.spec(column)) for column in (key, of_values)):
            continue
        made = _vocabulary_of(
            checkpoint.get_tensor(key),
            checkpoint.get_tensor(of_values),
            path,
            f"{checkpoint.url}[{path}]",
        )
        if made is not None:
            yield path, made


def _vocabulary_of(keys: Any, values: Any, path: str, origin: str) -> Vocabulary | None:
    rows, entries = (values, keys) if _is_rows(values) else (keys, values)
    if not _is_rows(rows) or len(entries) != len(rows):
        return None
    rows = rows.to(torch.int64)
    if isinstance(entries, torch.Tensor):
        if not _is_rows(entries):
            return None
        ids, rows = _without_empty(entries.flatten().to(torch.int64), rows.flatten())
        if not path.endswith(_IN_KERAS) and _may_be_turned_round(ids, rows):
            return None
        return placed(Entries(origin, ENTRY, ids=ids), rows)
    texts, rows = _without_empty_texts(entries, rows.flatten())
    return placed(entries_of_bytes(texts, origin), rows) if texts else None


def _may_be_told(spec: TensorSpec) -> bool:
    """Whether a column is text, or a whole number each: rows of floats are not read to see it."""
    return math.prod(spec.shape[1:]) == 1 and (spec.dtype is None or spec.dtype in _OF_ROWS)


def _is_rows(values: Any) -> bool:
    is_tensor = isinstance(values, torch.Tensor)
    return is_tensor and values.numel() == len(values) and values.dtype in _OF_ROWS


def _may_be_turned_round(keys: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether numbers may be rows with an id each, as well as ids with a row each.

    Rows count up from 0, or behind a mask and an OOV row, which ids seldom do. What is read alike
    either way does not matter.
    """
    order = torch.argsort(keys)
    if not len(keys) or not 0 <= int(keys[order[0]]) <= _MOST_IN_FRONT or not _count_up(keys):
        return False
    if int(keys[order[0]]):  # then values without gaps are rows, too
        return not _count_up(values)
    by_key = values[order]
    is_permutation = _count_up(values) and int(values.min()) == 0
    return not is_permutation or not torch.equal(by_key[by_key], torch.arange(len(keys)))


def _count_up(numbers: torch.Tensor) -> bool:
    """Whether numbers are, in some order, one run without gaps."""
    ordered = torch.sort(numbers)[0]
    return bool((ordered.diff() == 1).all())


def _without_empty(ids: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Without the key that stands for an empty place, as a dense table has many of."""
    _, inverse, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    kept = counts[inverse] == 1
    return ids[kept], rows[kept]


def _without_empty_texts(
    texts: Sequence[bytes], rows: torch.Tensor
) -> tuple[list[bytes], torch.Tensor]:
    counts: dict[bytes, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    kept = [at for at, text in enumerate(texts) if counts[text] == 1]
    return [texts[at] for at in kept], rows[kept]
