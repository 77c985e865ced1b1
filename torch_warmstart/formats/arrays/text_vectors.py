"""Embedding tables as text: word2vec's and GloVe's `token 0.1 -0.2 ...`, one line an entry.

The tensor is called `vectors`, and its rows are those of `checkpoint.vocabulary`:

    with load_checkpoint("glove.6B.300d.txt") as glove:
        info = VocabInfo(new_vocab, new_vocab_size, 0, glove.vocabulary)

word2vec writes a line `count dimension` first, GloVe does not. Tokens are bytes, and may have
spaces in them: the last fields of a line are its numbers. Opening a file finds its lines; numbers
are read when they are asked for, whole blocks of lines at a time, and only the lines asked for.

The family is "torch": a table of vectors has no layout to change.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.errors import CorruptCheckpointError, plural, shown_entry
from torch_warmstart.formats.base import Checkpoint, Family, TensorSpec
from torch_warmstart.formats.place import Place
from torch_warmstart.storage import Bytes, ByteSource

KEY = "vectors"
HEADER = re.compile(rb"(\d{1,18})[ \t]+(\d{1,9})[ \t]*\r?")  # without the newline

_NEWLINE, _RETURN, _SPACE = 10, 13, 32
_HEAD = 256 << 10  # bytes looked at to tell the format and the dimension
_SNIFFED_LINES = 20
_MIN_DIMENSION = 2
_BLOCK = 16 << 20  # bytes of text read at a time
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FRACTION = re.compile(rb"[.eE]")
_IN_NUMBERS = np.zeros(256, dtype=bool)
_IN_NUMBERS[list(b"0123456789+-.eE ")] = True

Places = npt.NDArray[np.int64]  # offsets of bytes


def sniff(place: Place) -> str | None:
    """Whether the first lines are a token and the same number of numbers each."""
    try:
        _guess(place.head(_HEAD), whole=place.is_file and place.source.size <= _HEAD)
    except ValueError as error:
        return str(error)
    return None


def open_place(place: Place) -> TextVectors:
    """Opens a file."""
    return TextVectors(place.url, place.source)


class VectorTable(Checkpoint):
    """A checkpoint of one table whose rows have names."""

    family: Family = "torch"
    _shape: tuple[int, int]

    @property
    def vocabulary(self) -> list[bytes]:
        """The name of each row, as `VocabInfo.old_vocab` takes it."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return iter((KEY,))

    def _find(self, key: str) -> TensorSpec | None:
        return TensorSpec(key, self._shape, torch.float32, "float32") if key == KEY else None


class TextVectors(VectorTable):
    """A table as text."""

    format = "text file of vectors"

    def __init__(self, url: str, source: ByteSource) -> None:
        """Finds the lines and the dimension; raises CorruptCheckpointError."""
        self.url: str = url
        self._source = source
        try:
            guess = _guess(source.read(0, min(_HEAD, source.size)).tobytes(), source.size <= _HEAD)
        except ValueError as error:
            raise CorruptCheckpointError(f"{url} is no text file of vectors: {error}.") from error
        self._first_line = 1 if guess.count is None else 2
        self._raw = source.read(0, source.size)
        self._starts, self._ends = _find_lines(self._raw, guess.offset)
        if guess.count not in (None, len(self._starts)):
            raise CorruptCheckpointError(
                f"{url}: its first line promises {plural(guess.count or 0, 'vector')}, but it has "
                f"{len(self._starts):,}."
            )
        self._shape = (len(self._starts), guess.dimension)

    @functools.cached_property
    def vocabulary(self) -> list[bytes]:
        return [token for block in self._blocks() for token in self._tokens(*block)]

    def _blocks(self) -> Iterator[tuple[Bytes, Places, Places, Places]]:
        """Runs of lines: their bytes, where each begins and ends in them, and which they are."""
        first, count = 0, len(self._starts)
        while first < count:
            limit = self._starts[first] + _BLOCK
            last = max(first + 1, int(np.searchsorted(self._ends, limit, side="right")))
            base = self._starts[first]
            raw = self._raw[base : self._ends[last - 1]]
            lines = np.arange(first, last)
            yield raw, self._starts[first:last] - base, self._ends[first:last] - base, lines
            first = last

    def _picked(self, lines: Places) -> tuple[Bytes, Places, Places, Places]:
        """As a block, some lines put together."""
        pieces = [self._raw[self._starts[i] : self._ends[i]] for i in lines.tolist()]
        lengths = self._ends[lines] - self._starts[lines]
        ends = np.cumsum(lengths + 1) - 1  # with a newline between them
        raw = np.frombuffer(
            bytearray(b"\n".join(piece.tobytes() for piece in pieces)), dtype=np.uint8
        )
        return raw, ends - lengths, ends, lines

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        if rows is None:
            out = np.empty(spec.shape, dtype=np.float32)
            for block in self._blocks():
                out[block[3]] = self._numbers(*block)
            return torch.from_numpy(out)
        if not len(rows):
            return torch.empty(0, self._shape[1], dtype=torch.float32)
        ordered, inverse = torch.unique(rows, return_inverse=True)
        step = max(1, _BLOCK // (8 * self._shape[1]))  # about a block's worth of text
        parts = [self._numbers(*self._picked(part.numpy())) for part in ordered.split(step)]
        return torch.from_numpy(np.concatenate(parts))[inverse]

    def _tokens(self, raw: Bytes, starts: Places, ends: Places, lines: Places) -> list[bytes]:
        stops = self._token_ends(raw, starts, ends, lines)
        data = raw.tobytes()
        return [data[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]

    def _numbers(
        self, raw: Bytes, starts: Places, ends: Places, lines: Places
    ) -> npt.NDArray[np.float32]:
        """The vectors of some lines. Each token is blanked out, and numpy reads all the rest."""
        stops = self._token_ends(raw, starts, ends, lines)
        text = np.where(_inside(len(raw), stops, ends), raw, _SPACE).astype(np.uint8)
        if not _IN_NUMBERS[text].all():
            raise self._bad_line(raw, starts, ends, lines)
        try:
            numbers = np.fromstring(text.tobytes(), dtype=np.float32, sep=" ")
        except (ValueError, DeprecationWarning):  # it stops before the end; of old, it warns
            raise self._bad_line(raw, starts, ends, lines) from None
        if len(numbers) != len(lines) * self._shape[1] or not np.isfinite(numbers).all():
            raise self._bad_line(raw, starts, ends, lines)
        return numbers.reshape(len(lines), self._shape[1])

    def _token_ends(self, raw: Bytes, starts: Places, ends: Places, lines: Places) -> Places:
        """Where each line's token ends: at the space before its last `dimension` fields."""
        spaces = np.flatnonzero(raw == _SPACE)
        before, behind = np.searchsorted(spaces, starts), np.searchsorted(spaces, ends)
        chosen = behind - self._shape[1]
        if (chosen < before).any():
            line = int(np.flatnonzero(chosen < before)[0])
            raise self._bad_field_count(int(lines[line]), int(behind[line] - before[line]))
        stops: Places = spaces[chosen]
        for line in np.flatnonzero(chosen > before).tolist():  # few: tokens with spaces in them
            last = raw[starts[line] : stops[line]].tobytes().split(b" ")[-1]
            vector = raw[stops[line] + 1 : ends[line]].tobytes().split(b" ")
            if _is_one_of(last, vector):
                raise self._bad_field_count(int(lines[line]), int(behind[line] - before[line]))
        return stops

    def _bad_line(
        self, raw: Bytes, starts: Places, ends: Places, lines: Places
    ) -> CorruptCheckpointError:
        """The error of the first line that does not hold numbers."""
        for start, end, line in zip(starts.tolist(), ends.tolist(), lines.tolist(), strict=True):
            fields = raw[start:end].tobytes().rsplit(b" ", self._shape[1])
            for field in fields[1:]:
                if not _is_number(field):
                    shown = field[:40].decode("utf-8", "backslashreplace")
                    return self._corrupt(line, f"{shown_entry(shown)} is no finite number")
        raise AssertionError("numpy and we disagree about what a number is")

    def _bad_field_count(self, line: int, found: int) -> CorruptCheckpointError:
        expected = self._shape[1]
        if self._starts[line] == self._ends[line]:
            return self._corrupt(line, "it is blank")
        return self._corrupt(line, f"{plural(expected, 'number')} are expected, {found:,} found")

    def _corrupt(self, line: int, fact: str) -> CorruptCheckpointError:
        return CorruptCheckpointError(f"{self.url}: line {line + self._first_line:,}: {fact}.")

    def _close(self) -> None:
        self._source.close()


class _Guess:
    """What the first lines tell."""

    def __init__(self, offset: int, count: int | None, dimension: int) -> None:
        self.offset = offset  # of the first vector's line
        self.count, self.dimension = count, dimension


def _guess(head: bytes, whole: bool) -> _Guess:
    """Reads the dimension off the first lines; raises ValueError if they are no vectors."""
    lines = head.split(b"\n")
    if not whole or not lines[-1]:
        lines.pop()  # cut off, or nothing behind the last newline
    header = HEADER.fullmatch(lines[0]) if lines else None
    fields = [_stripped(line).split(b" ") for line in lines[bool(header) :][:_SNIFFED_LINES]]
    if not fields:
        raise ValueError("it has no line of text")
    if any(b"\0" in word for words in fields for word in words):
        raise ValueError("it is not text")
    dimension = int(header[2]) if header else _dimension(fields)
    if dimension < _MIN_DIMENSION and not header:  # no vectors; or a line of them is damaged
        dimension = min(map(len, fields)) - 1
    if dimension < _MIN_DIMENSION:
        raise ValueError("its lines are not a token and two or more numbers each")
    for number, words in enumerate(fields, 2 if header else 1):
        if len(words) <= dimension or not all(_is_number(w) for w in words[-dimension:]):
            raise ValueError(f"line {number} is not a token and {dimension} numbers")
    offset = len(lines[0]) + 1 if header else 0
    return _Guess(offset, int(header[1]) if header else None, dimension)


def _dimension(fields: list[list[bytes]]) -> int:
    """How many numbers the lines end with: the fewest, as tokens may end with numbers.

    Where the others cannot be tokens of that kind, a short line is damaged, and most lines tell.
    """
    counts = [_count_numbers(words) for words in fields]
    least = min(counts)
    if least and any(
        count > least and _is_one_of(words[-least - 1], words[-least:])
        for count, words in zip(counts, fields, strict=True)
    ):
        return max(sorted(set(counts)), key=counts.count)
    return least


def _is_number(field: bytes) -> bool:
    if not _NUMBER.fullmatch(field):
        return False
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float32(float(field))))


def _is_one_of(word: bytes, vector: list[bytes]) -> bool:
    """Whether a word before a vector looks like one more number of it.

    A whole number is part of the token, as in `Apollo 13`, if the vector's are written otherwise.
    """
    if word.isdigit() and all(_FRACTION.search(number) for number in vector):
        return False
    return bool(_NUMBER.fullmatch(word))


def _count_numbers(words: list[bytes]) -> int:
    """How many numbers a line ends with, its first word aside."""
    numbers = itertools.takewhile(_is_number, reversed(words[1:]))
    return sum(1 for _ in numbers)


def _stripped(line: bytes) -> bytes:
    """Without a carriage return, and the space that word2vec writes after the last number."""
    return line.removesuffix(b"\r").removesuffix(b" ")


def _find_lines(raw: Bytes, offset: int) -> tuple[Places, Places]:
    """Where lines begin and end, as `_stripped` has them; the last newline begins no line."""
    ends = offset + np.flatnonzero(raw[offset:] == _NEWLINE)
    if len(raw) > offset and raw[-1] != _NEWLINE:
        ends = np.append(ends, len(raw))
    starts = np.concatenate([[offset], ends[:-1] + 1]).astype(np.int64)[: len(ends)]
    for byte in (_RETURN, _SPACE):
        last = raw[np.maximum(ends - 1, 0)]
        ends = ends - ((ends > starts) & (last == byte))
    return starts, ends


def _inside(size: int, starts: Places, ends: Places) -> npt.NDArray[Any]:
    """For each byte, whether it is in one of the spans; they are in order and apart."""
    edges = np.zeros(size + 1, dtype=np.int8)
    edges[starts] += 1
    edges[ends] -= 1
    return np.cumsum(edges[:-1], dtype=np.int8).view(bool)
