"""Objects that have a vocabulary: tokenizers, known by the module that their class comes from.

And what is special to pandas: an index, which may hold the entries of the rows beside it.

Nothing is imported for them: whoever passes one has imported its library.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from torch_warmstart.entries import ROW_COLUMN, Vocabulary
from torch_warmstart.errors import VocabularyError, is_whole
from torch_warmstart.vocabularies.loading.arrays import from_mapping
from torch_warmstart.vocabularies.loading.keras_layers import from_keras_layer, is_keras_lookup
from torch_warmstart.vocabularies.loading.sentencepiece import read_model
from torch_warmstart.vocabularies.loading.tokenizer_files import roles_of, unknown_of, with_roles
from torch_warmstart.vocabularies.numbering import (
    FIRST,
    as_whole,
    is_numbering,
    may_begin_numbers,
    may_number,
)

_COUNTED = "count"  # what pandas calls what `value_counts()` returns


def from_object(source: Any) -> Vocabulary | None:
    """The vocabulary of a tokenizer or a lookup layer; None if it is neither."""
    if is_keras_lookup(source):
        return from_keras_layer(source)
    libraries = _libraries(source)
    for library, method, read in _TOKENIZERS:
        if library in libraries and hasattr(source, method):
            return read(source)
    return None


def _libraries(source: Any) -> set[str]:
    return {cls.__module__.partition(".")[0] for cls in type(source).__mro__}


def are_text(labels: Any) -> bool:
    """Whether the labels of a Series of pandas' are texts, which number no lines.

    So they are where some are missing, beside which pandas calls texts mixed.
    """
    inner = getattr(labels, "categories", labels)  # of which each label is one
    kind = getattr(inner, "inferred_type", "")
    return (inner.dropna().inferred_type if kind == "mixed" else kind) in ("string", "bytes")


def from_labels(source: Any) -> Vocabulary | None:
    """A Series of pandas' whose labels are entries and whose values are their rows, as of a dict.

    None for one that is something else: its values are no numbers, or do not number the labels.
    Raises VocabularyError: they are counts, or a label is there twice or has no number.
    """
    if "pandas" not in _libraries(source) or getattr(source, "ndim", 0) != 1:
        return None
    if not are_text(getattr(source, "index", None)):
        return None
    numbers = _numbers_of(source)
    if not len(numbers):
        return None
    origin = f"{_origin(source)} of {len(source):,} labels and their numbers"
    if source.name == _COUNTED:
        raise VocabularyError(
            f"{origin} says how often there is an entry, not which row it has: pass its labels, "
            "series.index, where they are in the order of the rows."
        )
    if not is_numbering(numbers):
        return None
    if len(numbers) < len(source):
        raise VocabularyError(
            f"{origin} has a label without a number: leave it out, series.dropna(), or, if the "
            "numbers are the entries, pass series.tolist() with None where a row has none."
        )
    if not source.index.is_unique:
        raise VocabularyError(f"{origin} has a label twice, which would have two rows.")
    return from_mapping(dict(zip(source.index, numbers.tolist(), strict=True)), origin)


def _numbers_of(source: Any) -> npt.NDArray[Any]:
    """The integers of a Series of pandas', whatever it holds them in; of anything else none."""
    categories = getattr(source.dtype, "categories", None)
    kind = getattr(source.dtype if categories is None else categories.dtype, "kind", "")
    numbers: npt.NDArray[Any] = np.zeros(0, dtype=np.int64)
    are_integers = kind in ("i", "u")
    if are_integers and categories is None:
        return source.dropna().to_numpy()  # type: ignore[no-any-return]
    values = source.dropna().tolist() if are_integers or holds_ints(source) else []
    if all(map(is_whole, values)):
        with contextlib.suppress(OverflowError):  # beyond 64 bits they number nothing
            numbers = np.array(values, dtype=np.int64)
    return numbers


def holds_ints(source: Any) -> bool:
    """A Series of pandas' of Python's integers: what has no sign it does not export of them."""
    if "pandas" not in _libraries(source) or getattr(source, "ndim", 0) != 1:
        return False
    if not isinstance(source.dtype, np.dtype) or source.dtype.kind != "O":
        return False
    entries = (one for one in source.to_numpy() if isinstance(one, str | bytes | int | np.integer))
    first = next(entries, None)
    return isinstance(first, int | np.integer) and not isinstance(first, bool)


def without_index(source: Any, column: str | int | None) -> tuple[Any, str | int | None]:
    """A table of pandas' with what of it is looked at; anything else as it is. And which column.

    Pandas exports its index as one more column, and all columns or none. One without a name is what
    sorting or choosing has left; one that somebody has named is a column.
    """
    if "pandas" not in _libraries(source) or getattr(source, "ndim", 0) != 2:
        return source, column
    names = list(source.columns)
    is_only = column is None and len(names) == 1 and source.index.inferred_type == "integer"
    is_named = isinstance(column, str) and names.count(column) == 1
    number = names.index(column) if is_named else 0 if is_only else column
    if not isinstance(number, int) or not 0 <= number < len(names):
        is_none = isinstance(column, int) or not (names or any(source.index.names))
        # Its index is none of its columns, by whatever number.
        return (source.reset_index(drop=True) if is_none else source), column
    others = (at for at, name in enumerate(names) if at != number and isinstance(name, str))
    beside = [at for at in others if names[at] == ROW_COLUMN or _may_say_rows(source.iloc[:, at])]
    picked = _with_unsigned(source.iloc[:, [number, *beside]])
    name = source.index.name
    if not isinstance(name, str) or name in names or source.index.inferred_type != "integer":
        return picked.reset_index(drop=True), 0
    return picked.reset_index(), 1


def _with_unsigned(picked: Any) -> Any:
    """The same, the first column as what has no sign if it is of such integers of Python's."""
    ids = picked.iloc[:, 0]
    there = ids[ids.notna()] if holds_ints(ids) else ()
    are_ints = all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in there)
    if not len(there) or not are_ints or min(there) < 0 or not 1 << 63 <= max(there) < 1 << 64:
        return picked
    others = picked.iloc[:, 1:]
    return type(picked)({picked.columns[0]: ids.astype("UInt64")}, index=picked.index).join(others)


def _may_say_rows(column: Any) -> bool:
    """Whether a column may number all rows, by its bounds: what may not is not exported."""
    if not len(column) or not may_begin_numbers(_whole_numbers_of(column.iloc[:FIRST])):
        return False
    numbers = _whole_numbers_of(column)
    if not len(numbers) or len(numbers) < len(column):
        return False
    return may_number(int(numbers.min()), int(numbers.max()), len(numbers))


def _whole_numbers_of(column: Any) -> npt.NDArray[Any]:
    """The integers of a column, and floating numbers that are all whole; of anything else none."""
    if getattr(column.dtype, "kind", "") != "f":
        return _numbers_of(column)
    numbers = as_whole(column.dropna().to_numpy())
    return np.zeros(0, dtype=np.int64) if numbers is None else numbers


def _origin(source: Any) -> str:
    return f"the {type(source).__name__}"


def _from_transformers(tokenizer: Any) -> Vocabulary:
    """Hugging Face's, fast and slow: all tokens by id, the added ones too."""
    rows = {**tokenizer.get_vocab(), **tokenizer.get_added_vocab()}
    vocabulary = from_mapping(rows, _origin(tokenizer), is_padded=True)
    named = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return with_roles(vocabulary, roles_of(named), rows)


def _from_tokenizers(tokenizer: Any) -> Vocabulary:
    rows = tokenizer.get_vocab(with_added_tokens=True)
    vocabulary = from_mapping(rows, _origin(tokenizer), is_padded=True)
    model = tokenizer.model
    if hasattr(model, "unk_token"):
        unknown = model.unk_token
    else:  # a unigram model only writes it
        unknown = unknown_of(json.loads(model.__getstate__()))
    padding = (tokenizer.padding or {}).get("pad_token")
    return with_roles(vocabulary, {"unk_token": unknown, "pad_token": padding}, rows)


def _from_sentencepiece(processor: Any) -> Vocabulary:
    return read_model(processor.serialized_model_proto(), _origin(processor))


def _from_tiktoken(encoding: Any) -> Vocabulary:
    """Tokens as bytes, special ones as they are written; ids that none has are gaps."""
    tokens = encoding.token_byte_values()
    rows = {token: encoding.encode_single_token(token) for token in tokens}
    for text in sorted(encoding.special_tokens_set):
        rows.setdefault(text.encode(), encoding.encode_single_token(text))
    return from_mapping(rows, f"tiktoken's {encoding.name}", is_padded=True)


_TOKENIZERS: tuple[tuple[str, str, Callable[[Any], Vocabulary]], ...] = (
    ("transformers", "get_vocab", _from_transformers),
    ("tokenizers", "get_vocab", _from_tokenizers),
    ("sentencepiece", "serialized_model_proto", _from_sentencepiece),
    ("tiktoken", "token_byte_values", _from_tiktoken),
)
