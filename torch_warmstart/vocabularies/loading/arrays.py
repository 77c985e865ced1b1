"""Entries in memory: sequences, arrays of numpy's, tensors, mappings of entry to row.

What numpy holds as an array of its own kinds is turned into bytes by vectors of code points,
without a Python object for any entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from torch_warmstart.dtypes import has_its_memory, has_own_dispatch
from torch_warmstart.entries import (
    ENTRY,
    MOST_ROWS,
    Entries,
    Vocabulary,
    bytes_of,
    entries_of_bytes,
    text_entries,
    vocabulary_of,
)
from torch_warmstart.errors import VocabularyError, cause_of, shown_entry

if TYPE_CHECKING:
    import numpy.typing as npt

_STRIDE = 1 << 18  # entries turned into bytes at a time
_SPREAD = 4  # times the room of its letters that text of any width is given, at one width
_HIGHEST = 1 << 63  # an id from here on has no sign
_IDS = {  # what torch has values of; of fewer bits it has names only
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
}
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = (0xDC80, 0xDCFF)  # what a byte that is no UTF-8 is decoded as by `surrogateescape`


def from_tensor(tensor: torch.Tensor) -> Vocabulary:
    """Integer ids of any width."""
    dtype, kind = tensor.dtype, _kind_of_tensor(tensor)
    if kind:
        raise VocabularyError(
            f"A vocabulary given as a tensor is a plain vector of integer ids; {kind}."
        )
    if tensor.ndim != 1 or dtype not in _IDS:
        raise VocabularyError(
            f"A vocabulary given as a tensor is a vector of integer ids, not {dtype} of shape "
            f"{tuple(tensor.shape)}."
        )
    plain = tensor.detach().as_subclass(torch.Tensor)
    if dtype == torch.uint64:
        return _from_ids(plain.cpu().numpy(), "the tensor of ids")
    _check_not_empty(plain)
    ids = plain.to(torch.int64, copy=True)  # theirs may change
    return vocabulary_of(Entries("the tensor of ids", ENTRY, ids=ids))


def _kind_of_tensor(tensor: torch.Tensor) -> str:
    """What is special about one that is no plain vector, and what to do; "" for a plain one."""
    if tensor.is_meta or not has_its_memory(tensor):
        where = "on the meta device" if tensor.is_meta else "whose storage has been freed"
        return f"a tensor {where} has no values: pass the one that has them"
    if tensor.is_nested:
        return "a nested tensor is several vectors: pass one of them, tensor.unbind()[0]"
    if tensor.is_quantized:
        return "a quantized tensor holds fractions: pass its ids, tensor.int_repr().long()"
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        return f"one of layout {layout} leaves some out: pass tensor.to_dense()"
    if has_own_dispatch(tensor):
        return f"a {type(tensor).__name__} is more than its values: pass a plain tensor of its ids"
    return ""


def from_numpy(array: npt.NDArray[Any], origin: str = "") -> Vocabulary:
    """An array of str, bytes, integers or objects: a vector. `origin`: the file that had it."""
    if array.ndim != 1:
        raise VocabularyError(
            f"A vocabulary given as an array is a vector of entries, not {array.dtype} of shape "
            f"{array.shape}{origin and ', as in '}{origin}. Pass one column of it."
        )
    _check_not_empty(array, origin)
    kind, origin = array.dtype.kind, origin or origin_of(array)
    if kind == "O":
        return from_sequence(array.tolist(), origin)
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        kept = ~np.ma.getmaskarray(array)
        return with_gaps(from_numpy(np.asarray(array)[kept], origin), kept, origin)
    if kind in "iu":
        return _from_ids(np.ascontiguousarray(array), origin)
    if kind in "US":
        return vocabulary_of(_from_fixed(array, origin))
    if kind == "T":
        return _from_string_dtype(array, origin)
    raise VocabularyError(
        f"A vocabulary is str, bytes or integers; {origin} is neither, but {array.dtype}. Convert "
        "it first: array.astype(str), or .astype('int64')."
    )


def origin_of(array: npt.NDArray[Any]) -> str:
    """What messages call it."""
    return f"the {array.dtype} array of length {len(array):,}"


def _from_ids(array: npt.NDArray[Any], origin: str) -> Vocabulary:
    _check_not_empty(array)
    wide = np.uint64 if array.dtype.kind == "u" and array.dtype.itemsize == 8 else np.int64
    own = array.astype(wide)  # a copy: theirs may change
    is_unsigned = wide is np.uint64 and bool((own >= np.uint64(_HIGHEST)).any())
    ids = own.view(np.int64)
    entries = Entries(origin, ENTRY, ids=torch.from_numpy(ids), is_unsigned=is_unsigned)
    return vocabulary_of(entries)


# -- text of numpy's -------------------------------------------------------------------------------


def _from_fixed(array: npt.NDArray[Any], origin: str) -> Entries:
    """Text of one width, filled up with zeros: S is bytes, U code points of four bytes."""
    if array.dtype.kind == "U" and (plain := _from_ascii(array, origin)) is not None:
        return plain
    encoded: list[_Encoded] = []
    for start in range(0, len(array), _STRIDE):
        step = np.ascontiguousarray(array[start : start + _STRIDE])
        lengths = np.char.str_len(step).astype(np.int64)  # without the zeros
        if step.dtype.kind == "S":
            starts = np.arange(len(step), dtype=np.int64) * step.dtype.itemsize
            encoded.append((step.view(np.uint8), starts, lengths))
        else:
            encoded.append(_encode_text(step, lengths, origin))
    return _gathered(encoded, origin)


def _from_ascii(array: npt.NDArray[Any], origin: str) -> Entries | None:
    """Code points below 128, each a byte, with the zeros behind; None: there are others."""
    width = array.dtype.itemsize // 4
    if not width:
        return None
    data = np.empty((len(array), width), dtype=np.uint8)
    lengths = np.empty(len(array), dtype=np.int64)
    for start in range(0, len(array), _STRIDE):
        step = np.ascontiguousarray(array[start : start + _STRIDE])
        codes = step.astype(step.dtype.newbyteorder("="), copy=False).view(np.uint32)
        if int(codes.max()) >= 0x80:
            return None
        part = data[start : start + len(step)]
        part[:] = codes.reshape(part.shape)  # in bytes, of which there are a quarter
        lengths[start : start + len(step)] = np.char.str_len(part.view(f"S{width}")[:, 0])
    bounds = np.arange(len(array), dtype=np.int64) * width
    flat, places = torch.from_numpy(data.reshape(-1)), torch.from_numpy(bounds)
    return Entries(origin, ENTRY, flat, places, lengths=torch.from_numpy(lengths))


# Bytes, where in them each entry starts, and how long it is.
_Encoded: TypeAlias = "tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]"


def _gathered(steps: Sequence[_Encoded], origin: str) -> Entries:
    """Entries of several steps in one buffer."""
    ends = np.cumsum([0, *(len(data) for data, _, _ in steps)])
    starts = [starts + end for (_, starts, _), end in zip(steps, ends, strict=False)]
    data = np.concatenate([np.zeros(0, np.uint8), *(data for data, _, _ in steps)])
    nothing = np.zeros(0, dtype=np.int64)
    return Entries(
        origin,
        ENTRY,
        torch.from_numpy(data if len(data) else np.zeros(1, dtype=np.uint8)),
        torch.from_numpy(np.concatenate([nothing, *starts])),
        lengths=torch.from_numpy(np.concatenate([nothing, *(lengths for _, _, lengths in steps)])),
    )


def _encode_text(step: npt.NDArray[Any], lengths: npt.NDArray[np.int64], origin: str) -> _Encoded:
    """Text of one width, of which so many code points count."""
    codes = step.astype(step.dtype.newbyteorder("="), copy=False).view(np.uint32)
    codes = codes.reshape(len(step), -1)
    if not codes.size or int(codes.max()) < 0x80:
        starts = np.arange(len(step), dtype=np.int64) * codes.shape[1]
        return codes.astype(np.uint8).reshape(-1), starts, lengths
    flat = codes[np.arange(codes.shape[1]) < lengths[:, None]]
    data, sizes = _utf8(flat, origin)
    in_bytes = np.zeros(len(flat) + 1, dtype=np.int64)
    np.cumsum(sizes, out=in_bytes[1:])
    ends = np.cumsum(lengths)
    begins = in_bytes[ends - lengths]
    return data, begins, in_bytes[ends] - begins


def _utf8(
    codes: npt.NDArray[np.uint32], origin: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Code points as UTF-8, and how many bytes each takes."""
    if len(codes) and int(codes.max()) > _LAST_CHARACTER:
        raise VocabularyError(f"{origin} holds numbers that no character has: it is damaged.")
    escaped = (codes >= _SURROGATES[0]) & (codes <= _SURROGATES[1])
    if bool((((codes >= 0xD800) & (codes <= 0xDFFF)) & ~escaped).any()):
        raise VocabularyError(f"{origin} holds half of a surrogate pair, which is no text.")
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    sizes[escaped] = 1
    starts = np.cumsum(sizes) - sizes
    data = np.empty(int(sizes.sum()), dtype=np.uint8)
    for size in range(1, 5):
        at = np.flatnonzero(sizes == size)
        here, places = codes[at], starts[at]
        if size == 1:
            data[places] = here & 0xFF  # of an escaped byte the byte itself: U+DC80 stands for 0x80
            continue
        lead = (0xF00 >> size) & 0xFF
        data[places] = lead | (here >> 6 * (size - 1))
        for number in range(1, size):
            data[places + number] = 0x80 | ((here >> 6 * (size - 1 - number)) & 0x3F)
    return data, sizes


def _from_string_dtype(array: npt.NDArray[Any], origin: str) -> Vocabulary:
    """Numpy's text of any width, by way of the width that each step of it needs."""
    missing = np.zeros(len(array), dtype=bool)
    if hasattr(array.dtype, "na_object"):
        missing = _is_missing(array)
        array = array[~missing]
    encoded = []
    for start in range(0, len(array), _STRIDE):
        # With a letter behind each, as numpy counts no zeros at an end, which here belong to it.
        step = np.strings.add(array[start : start + _STRIDE], ".")
        encoded.append(_encode_any_width(step, np.strings.str_len(step) - 1, origin))
    found = _gathered(encoded, origin)
    return with_gaps(vocabulary_of(found), ~missing, origin)


def _encode_any_width(
    step: npt.NDArray[Any], lengths: npt.NDArray[np.int64], origin: str
) -> _Encoded:
    """Text of so many code points, and one more that does not count.

    Where some are much longer than others, it is made of two parts.
    """
    width = int(lengths.max()) + 1
    if width * len(step) > _SPREAD * (int(lengths.sum()) + _STRIDE):
        return _in_two(step, lengths, lengths > width // 2, origin)
    try:
        codes = step.astype(f"S{width}")
        starts = np.arange(len(step), dtype=np.int64) * width
        return codes.view(np.uint8), starts, lengths
    except UnicodeError:  # numpy makes bytes of ASCII only
        return _encode_text(step.astype(f"U{width}"), lengths, origin)


def _in_two(
    step: npt.NDArray[Any],
    lengths: npt.NDArray[np.int64],
    is_long: npt.NDArray[np.bool_],
    origin: str,
) -> _Encoded:
    starts, sizes, parts, end = np.empty_like(lengths), np.empty_like(lengths), [], 0
    for which in (~is_long, is_long):
        data, places, in_bytes = _encode_any_width(step[which], lengths[which], origin)
        starts[which], sizes[which] = places + end, in_bytes
        parts.append(data)
        end += len(data)
    return np.concatenate(parts), starts, sizes


def _is_missing(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    nothing = array.dtype.na_object  # type: ignore[attr-defined]
    if isinstance(nothing, str):
        is_nothing: npt.NDArray[np.bool_] = array == nothing
        return is_nothing
    missing: npt.NDArray[np.bool_] = np.isnan(array)  # of what is like NaN, as pandas' NA is
    blank = np.flatnonzero(~array.astype(bool))  # texts without a letter, and None
    is_none = (entry is nothing for entry in array[blank].tolist())
    missing[blank] |= np.fromiter(is_none, dtype=np.bool_, count=len(blank))
    return missing


def with_gaps(vocabulary: Vocabulary, kept: npt.NDArray[np.bool_], origin: str) -> Vocabulary:
    """Entries in the rows that are kept; the others stand for nothing."""
    if kept.all():
        return vocabulary
    if not kept.any():
        raise VocabularyError(f"{origin} holds no entry at all.")
    rows = torch.from_numpy(np.flatnonzero(kept)).index_select(0, vocabulary.entry_rows)
    return Vocabulary(vocabulary.listed, len(kept), at=rows)


# -- Python's own ----------------------------------------------------------------------------------


def from_sequence(entries: Sequence[Any], origin: str = "") -> Vocabulary:
    """str, bytes or int, one for each row; None for a row without an entry."""
    _check_not_empty(entries)
    origin = origin or f"the {type(entries).__name__} of length {len(entries):,}"
    if type(entries) not in (list, tuple, range):
        entries = _read_once(entries, origin)
    classes = set(map(type, entries))
    if type(None) in classes and len(classes) > 1:
        kept = np.array([entry is not None for entry in entries])
        given = [entry for entry in entries if entry is not None]
        return with_gaps(from_sequence(given, origin), kept, origin)
    kinds = {_kind(cls) for cls in classes}
    if kinds == {int}:
        return vocabulary_of(_of_ints(entries, origin))
    if kinds == {str}:
        return vocabulary_of(_of_texts(entries, origin))
    if kinds == {bytes}:
        return vocabulary_of(entries_of_bytes(entries, origin))
    names = ", ".join(sorted({cls.__name__ for cls in classes}))
    is_nan = any(entry != entry for entry in entries if isinstance(entry, float))  # noqa: PLR0124
    raise VocabularyError(
        f"A vocabulary is all str, all bytes or all int; {origin} holds {names}."
        + (" Where a row has no entry, it is None, not NaN." if is_nan else "")
    )


def _read_once(entries: Sequence[Any], origin: str) -> Sequence[Any]:
    """What a sequence of somebody's own has, which may be something else when asked again."""
    count, found = len(entries), list(entries)
    if len(found) != count:
        raise VocabularyError(f"{origin} gives {len(found):,} entries: which are meant is unclear.")
    return found


def _of_texts(entries: Sequence[str], origin: str) -> Entries:
    """Texts; those of ASCII are encoded all at once."""
    joined = "".join(entries)
    if not joined.isascii():
        return entries_of_bytes([_encoded(entry, origin) for entry in entries], origin)
    data = np.frombuffer(bytearray(joined.encode()), dtype=np.uint8)
    lengths = map(str.__len__, entries)  # not what classes derived from it may say
    return text_entries(data, np.fromiter(lengths, np.int64, len(entries)), origin)


def from_mapping(mapping: Mapping[Any, Any], origin: str = "", **more: Any) -> Vocabulary:
    """Entry to row; rows that no entry has are gaps."""
    _check_not_empty(mapping)
    origin = origin or f"the mapping of {len(mapping):,} entries"
    if isinstance(mapping, Counter):
        raise VocabularyError(
            f"{origin} is a Counter, which says how often there is an entry, not which row it has: "
            "pass its entries as a sequence, in the order of their rows."
        )
    numbers = set(map(type, mapping.values()))
    if not all(issubclass(cls, int | np.integer) and cls is not bool for cls in numbers):
        names = ", ".join(sorted(cls.__name__ for cls in numbers))
        is_turned = all(issubclass(cls, str | bytes) for cls in numbers)  # as `id2label` is
        turn = " Turn it round: {entry: row for row, entry in mapping.items()}."
        raise VocabularyError(
            f"A mapping that is a vocabulary leads from an entry to its row; {origin} leads to "
            f"{names}.{turn if is_turned and set(map(type, mapping)) == {int} else ''}"
        )
    low, high = int(min(mapping.values())), int(max(mapping.values()))
    if low < 0 or high >= MOST_ROWS:
        raise VocabularyError(
            f"{origin} has row {low if low < 0 else high:,}: rows are counted from 0, and "
            f"{'none is below that' if low < 0 else 'no table has that many'}."
        )
    rows = torch.tensor([int(row) for row in mapping.values()], device="cpu")
    order = torch.argsort(rows)
    rows = rows[order]
    keys = list(mapping)
    same = (rows.diff() == 0).nonzero().flatten()
    if len(same):
        first, second = (keys[int(order[int(same[0]) + behind])] for behind in (0, 1))
        raise VocabularyError(
            f"{origin} has two entries of row {int(rows[same[0]]):,}: {shown_entry(first)} and "
            f"{shown_entry(second)}."
        )
    listed = from_sequence([keys[number] for number in order.tolist()], origin).listed
    if len(listed) < len(keys):
        raise VocabularyError(f"{origin} holds None, which is no entry.")
    return Vocabulary(listed, int(rows[-1]) + 1, at=None if _is_range(rows) else rows, **more)


def _is_range(rows: torch.Tensor) -> bool:
    return int(rows[0]) == 0 and int(rows[-1]) == len(rows) - 1


def _encoded(entry: str, origin: str) -> bytes:
    try:
        return bytes_of(entry)
    except UnicodeEncodeError as error:
        raise VocabularyError(
            f"{origin} holds half of a surrogate pair, which is no text: {shown_entry(entry)}."
        ) from cause_of(error)


def _kind(cls: type) -> type:
    """What an entry's class counts as: str, bytes or int, and what is derived from them."""
    if issubclass(cls, bool | np.bool_):
        return cls
    if issubclass(cls, int | np.integer):
        return int
    return next((kind for kind in (str, bytes) if issubclass(cls, kind)), cls)


def _of_ints(entries: Sequence[Any], origin: str) -> Entries:
    numbers = [int(entry) for entry in entries]
    low, high = min(numbers), max(numbers)
    if low < -_HIGHEST or high >= 2 * _HIGHEST or (low < 0 and high >= _HIGHEST):
        raise VocabularyError(
            f"{origin} holds ids from {shown_entry(low)} to {shown_entry(high)}, beyond 64 bits "
            "with or without a sign."
        )
    if high >= _HIGHEST:
        return _from_ids(np.array(numbers, dtype=np.uint64), origin).listed
    return Entries(origin, ENTRY, ids=torch.tensor(numbers, dtype=torch.int64, device="cpu"))


def _check_not_empty(entries: Any, origin: str = "") -> None:
    if not len(entries):
        given = f"{origin} is empty" if origin else "an empty sequence was given"
        raise VocabularyError(f"A vocabulary needs at least one entry; {given}.")
