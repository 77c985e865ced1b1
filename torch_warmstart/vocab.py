"""Vocabularies: where they come from, and the entries in them, as tensors.

A vocabulary file is bytes. A line ends at a newline, exactly one carriage return before it is
dropped, and everything else is significant: no text mode, no splitlines(), no stripping
(tensorflow `core/lib/io/inputbuffer.cc`). Blank lines are errors. A vocabulary may also be a
sequence of str, bytes or int. Entries stay where they are, as offsets into one buffer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from torch_warmstart.errors import VocabularyError, plural
from torch_warmstart.settings import ALL_ENTRIES, VocabSource
from torch_warmstart.storage import LOCAL, Bytes, Storage

WORD = 8  # bytes; entries are hashed and compared a word at a time
_NEWLINE, _RETURN = 10, 13
_SHOWN_CHARACTERS = 60
_LINE = "line"  # what an entry of a file is called


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Entries in order, either text (bytes) or integer ids, on any device."""

    origin: str  # for messages: the path, or what kind of sequence it was
    unit: str  # for messages: "line" of a file, "entry" of a sequence
    # Text: uint8 bytes with a word of zeros behind them, and each entry's place in them, int64.
    data: torch.Tensor | None = None
    starts: torch.Tensor | None = None
    lengths: torch.Tensor | None = None
    ids: torch.Tensor | None = None  # int64

    def __len__(self) -> int:
        entries = self.starts if self.ids is None else self.ids
        assert entries is not None
        return len(entries)

    @property
    def is_text(self) -> bool:
        return self.ids is None

    def text(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Bytes, starts and lengths of a text vocabulary."""
        assert self.data is not None
        assert self.starts is not None
        assert self.lengths is not None
        return self.data, self.starts, self.lengths

    def entry(self, index: int) -> bytes | int:
        """One entry, for messages and for the rare cases that need it as a value."""
        if self.ids is not None:
            return int(self.ids[index])
        data, starts, lengths = self.text()
        start = int(starts[index])
        return bytes(data[start : start + int(lengths[index])].cpu().numpy())

    def show(self, index: int) -> str:
        """An entry and its place: `'b' (line 2)`."""
        value = self.entry(index)
        text = (
            repr(value.decode("utf-8", "backslashreplace")) if isinstance(value, bytes) else value
        )
        shown = str(text)
        if len(shown) > _SHOWN_CHARACTERS:
            shown = shown[:_SHOWN_CHARACTERS] + "..."
        return f"{shown} ({self.unit} {index + 1:,})"

    def slice(self, start: int, stop: int) -> Vocabulary:
        """Entries `[start, stop)`; no bytes are copied."""
        if self.ids is not None:
            return replace(self, ids=self.ids[start:stop])
        _, starts, lengths = self.text()
        return replace(self, starts=starts[start:stop], lengths=lengths[start:stop])

    def to(self, device: torch.device) -> Vocabulary:
        """The same vocabulary on a device."""
        moved = {
            name: tensor.to(device)
            for name in ("data", "starts", "lengths", "ids")
            if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **moved)


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


def check_no_blanks(vocabulary: Vocabulary) -> None:
    """Raises VocabularyError, with the place, if a line is blank.

    In a file it is a slip. In a sequence it is an entry: Keras's `get_vocabulary()` begins with "".
    """
    if not vocabulary.is_text or vocabulary.unit != _LINE:
        return
    _, _, lengths = vocabulary.text()
    if int(lengths.min()) > 0:
        return
    blank = (lengths == 0).nonzero().flatten()
    raise VocabularyError(
        f"{vocabulary.origin}: {vocabulary.unit} {int(blank[0]) + 1:,} is blank"
        + (f" ({len(blank):,} are)" if len(blank) > 1 else "")
        + ". Every line of a vocabulary is an entry, and a blank one is most likely a slip."
    )


def _read_file(url: str, device: torch.device, storage: Storage) -> Vocabulary:
    try:
        raw = storage.read_all(url)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise VocabularyError(f"Vocabulary file {url} cannot be read: {error}") from error
    if not len(raw):
        raise VocabularyError(f"{url} is empty: a vocabulary needs at least one entry.")
    data = _padded(raw).to(device)
    starts, lengths = _split_lines(data, len(raw))
    return Vocabulary(url, _LINE, data, starts, lengths)


def _padded(raw: Bytes) -> torch.Tensor:
    data = torch.empty(len(raw) + WORD, dtype=torch.uint8)
    data[: len(raw)] = torch.from_numpy(raw)
    data[len(raw) :] = 0
    return data


def _split_lines(data: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and length of every line; the newline that ends the file begins no line."""
    ends = _find_byte(data[:size], _NEWLINE)
    if int(data[size - 1]) != _NEWLINE:
        ends = torch.cat([ends, ends.new_tensor([size])])
    starts = torch.cat([ends.new_zeros(1), ends[:-1] + 1])
    lengths = ends - starts
    if len(_find_byte(data[:size], _RETURN)):
        lengths -= ((lengths > 0) & (data[(ends - 1).clamp(min=0)] == _RETURN)).long()
    return starts, lengths


def _find_byte(data: torch.Tensor, byte: int) -> torch.Tensor:
    """Positions of a byte."""
    if data.device.type == "cpu":  # numpy compares bytes in a fifth of torch's time
        return torch.from_numpy(np.flatnonzero(data.numpy() == byte))
    return (data == byte).nonzero().flatten()


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
    kinds = {type(entry) for entry in entries}
    if kinds == {int}:
        return Vocabulary(origin, "entry", ids=torch.tensor(entries, dtype=torch.int64))
    if kinds == {str}:
        entries = [entry.encode("utf-8", "surrogateescape") for entry in entries]
    elif kinds != {bytes}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise VocabularyError(
            f"A vocabulary is all str, all bytes or all int; {origin} holds {names}."
        )
    data = _padded(np.frombuffer(bytearray(b"".join(entries)), dtype=np.uint8))
    lengths = torch.tensor([len(entry) for entry in entries], dtype=torch.int64)
    return Vocabulary(origin, "entry", data, lengths.cumsum(0) - lengths, lengths)


def _check_not_empty(entries: Any) -> None:
    if not len(entries):
        raise VocabularyError("A vocabulary needs at least one entry; an empty sequence was given.")
