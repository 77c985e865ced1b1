"""Vocabularies as people hold them become a `Vocabulary`.

A vocabulary file is bytes. A line ends at a newline, exactly one carriage return before it is
dropped, and everything else is significant: no text mode, no splitlines(), no stripping
(tensorflow `core/lib/io/inputbuffer.cc`). Blank lines are errors. A vocabulary may also be a
sequence of str, bytes or int. Entries stay where they are, as places in one buffer; a local file
is mapped, not copied.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from torch_warmstart.entries import Vocabulary, blocks, in_blocks, in_threads, new_words, positions
from torch_warmstart.errors import VocabularyError, plural
from torch_warmstart.settings import ALL_ENTRIES, VocabSource
from torch_warmstart.storage import LOCAL, Storage
from torch_warmstart.vocabularies.content import HEAD, what_else_it_is

_NEWLINE, _RETURN = 10, 13
_BLOCK = 1 << 20  # bytes searched for newlines at a time, so that they stay in the cache
_LINE = "line"  # what an entry of a file is called


def read_vocabulary(
    source: VocabSource, device: torch.device | str = "cpu", storage: Storage = LOCAL
) -> Vocabulary:
    """Reads a vocabulary, whole.

    Raises:
        VocabularyError: it is empty, not there, or mixes kinds of entries.
    """
    if isinstance(source, str | os.PathLike):
        return _read_file(os.fspath(source), torch.device(device), storage)
    if isinstance(source, torch.Tensor | np.ndarray):
        return _from_array(source).to(torch.device(device))
    return _from_sequence(source).to(torch.device(device))


def used_entries(vocabulary: Vocabulary, size: int, setting: str) -> Vocabulary:
    """The first `size` entries (-1: all), none of them blank; VocabularyError otherwise."""
    if size > len(vocabulary):
        raise VocabularyError(
            f"{setting}={size:,}, but {vocabulary.origin} has only "
            f"{plural(len(vocabulary), vocabulary.unit)}."
        )
    used = vocabulary if size == ALL_ENTRIES else vocabulary.slice(0, size)
    check_no_blanks(used)
    return used


def check_lines(vocabulary: Vocabulary) -> None:
    """Raises VocabularyError, with what a file is, unless it is lines of entries."""
    if vocabulary.is_text and vocabulary.unit == _LINE:
        otherwise = what_else_it_is(vocabulary.text[:HEAD].cpu().numpy().tobytes())
        if otherwise:
            raise VocabularyError(f"{vocabulary.origin} {otherwise}.")


def check_no_blanks(vocabulary: Vocabulary) -> None:
    """Raises VocabularyError, with the place, if a line is blank.

    In a file it is a slip. In a sequence it is an entry: Keras's `get_vocabulary()` begins with "".
    """
    if not vocabulary.is_text or vocabulary.unit != _LINE or not vocabulary.may_be_blank:
        return

    def blanks_in(block: slice) -> torch.Tensor:
        _, lengths = vocabulary.places(block)
        if int(lengths.min()) > 0:
            return lengths.new_empty(0)
        at: torch.Tensor = positions(lengths == 0) + block.start
        return at

    blank = torch.cat(in_blocks(blanks_in, len(vocabulary), vocabulary.device))
    if not len(blank):
        return
    raise VocabularyError(
        f"{vocabulary.origin}: {vocabulary.unit} {int(blank[0]) + 1:,} is blank"
        + (f" ({len(blank):,} are)" if len(blank) > 1 else "")
        + ". Every line of a vocabulary is an entry, and a blank one is most likely a slip."
    )


def _read_file(url: str, device: torch.device, storage: Storage) -> Vocabulary:
    try:
        raw = storage.read_all(url)
    except OSError as error:
        why = error if error.errno is None else OSError(error.errno, error.strerror, url)
        raise VocabularyError(f"Vocabulary file {url} cannot be read: {why}") from error
    if not len(raw):
        raise VocabularyError(f"{url} is empty: a vocabulary needs at least one entry.")
    data, bounds, may_be_blank = _split_lines(torch.from_numpy(raw).to(device))
    return Vocabulary(url, _LINE, data, bounds, gap=1, may_be_blank=may_be_blank)


def _split_lines(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """The bytes without returns that end lines, and where each line starts and one more would.

    And whether a line may be blank. Where no line ends in a return, which is the rule, nothing is
    copied.
    """
    parts = blocks(len(data), data.device, _BLOCK)
    scans = _scan(data, parts)
    if any(scan.has_return for scan in scans):
        data = _without_returns(data, parts)
        parts = blocks(len(data), data.device, _BLOCK)
        scans = _scan(data, parts)
    newlines = [scan.newlines for scan in scans]
    counts = [len(found) for found in newlines]
    unfinished = int(data[-1]) != _NEWLINE  # the newline that ends the file begins no line
    bounds = new_words(1 + sum(counts) + unfinished, data.device)
    bounds[0], bounds[-1] = 0, len(data) + 1
    starts = bounds[1 : 1 + sum(counts)].split_with_sizes(counts)
    for part, found, here in zip(parts, newlines, starts, strict=True):
        torch.add(found, part.start + 1, out=here)
    return data, bounds, any(scan.may_have_blank for scan in scans)


class _Scan(NamedTuple):
    """What is in a part of a file."""

    newlines: torch.Tensor  # their places in the part
    has_return: bool
    may_have_blank: bool  # a blank line that ends in the part


def _scan(data: torch.Tensor, parts: list[slice]) -> list[_Scan]:
    """What is in each part."""

    def scan(part: slice) -> _Scan:
        here = data[part]
        if here.device.type != "cpu":
            return _Scan(positions(here == _NEWLINE), bool((here == _RETURN).any()), True)
        raw = here.numpy()  # which numpy compares in a fifth of torch's time
        newlines = np.flatnonzero(raw == _NEWLINE)
        begins = part.start == 0 or int(data[part.start - 1]) == _NEWLINE  # a line, with the part
        blank = (begins and raw[0] == _NEWLINE) or bool((np.diff(newlines) == 1).any())
        return _Scan(torch.from_numpy(newlines), bool((raw == _RETURN).any()), blank)

    return in_threads(scan, parts, data.device)


def _without_returns(data: torch.Tensor, parts: list[slice]) -> torch.Tensor:
    """The bytes without the one return that may end a line."""

    def keep(part: slice) -> torch.Tensor:
        here, following = data[part], data[part.start + 1 : part.stop + 1]
        kept = here != _RETURN
        kept[: len(following)] |= following != _NEWLINE
        return here[kept]

    pieces = in_threads(keep, parts, data.device)
    if int(data[-1]) == _RETURN:  # it ended a line, if only a blank one
        pieces.append(data.new_tensor([_NEWLINE]))
    return torch.cat(pieces)


def _from_array(array: Any) -> Vocabulary:
    ids = torch.as_tensor(array)
    if (
        ids.ndim != 1
        or ids.dtype.is_floating_point
        or ids.dtype.is_complex
        or ids.dtype == torch.bool
    ):
        raise VocabularyError(
            f"A vocabulary given as a tensor is a vector of integer ids, not {ids.dtype} of shape "
            f"{tuple(ids.shape)}."
        )
    _check_not_empty(ids)
    return Vocabulary("the tensor of ids", "entry", ids=ids.to(torch.int64))


def _from_sequence(entries: Sequence[Any]) -> Vocabulary:
    _check_not_empty(entries)
    origin = f"the {type(entries).__name__} of length {len(entries):,}"
    kinds = {_kind(cls) for cls in set(map(type, entries))}
    if kinds == {int}:
        return Vocabulary(origin, "entry", ids=_ids(entries, origin))
    if kinds == {str}:
        entries = [entry.encode("utf-8", "surrogateescape") for entry in entries]
    elif kinds != {bytes}:
        names = ", ".join(sorted({cls.__name__ for cls in set(map(type, entries))}))
        raise VocabularyError(
            f"A vocabulary is all str, all bytes or all int; {origin} holds {names}."
        )
    data = torch.frombuffer(bytearray(b"".join(entries) or bytes(1)), dtype=torch.uint8)
    bounds = torch.zeros(len(entries) + 1, dtype=torch.int64)
    torch.cumsum(torch.tensor([*map(len, entries)]), 0, out=bounds[1:])
    return Vocabulary(origin, "entry", data, bounds)


def _kind(cls: type) -> type:
    """What an entry's class counts as: str, bytes or int, and what is derived from them."""
    if issubclass(cls, bool | np.bool_):
        return cls
    if issubclass(cls, int | np.integer):
        return int
    return next((kind for kind in (str, bytes) if issubclass(cls, kind)), cls)


def _ids(entries: Sequence[Any], origin: str) -> torch.Tensor:
    try:
        return torch.tensor([int(entry) for entry in entries], dtype=torch.int64, device="cpu")
    except (OverflowError, RuntimeError, ValueError) as error:
        raise VocabularyError(
            f"{origin} holds an id beyond 64 bits with a sign: {error}."
        ) from error


def _check_not_empty(entries: Any) -> None:
    if not len(entries):
        raise VocabularyError("A vocabulary needs at least one entry; an empty sequence was given.")
