"""Entries one after another: where they are, and how one is shown.

They stay where they are, as places in one buffer. Where they come from is not known here, nor which
row each has: that is a `Vocabulary`'s.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import replace

import torch

from torch_warmstart.entries.words import Vector, as_tensor, as_vector, counted, repeated
from torch_warmstart.errors import shown_entry
from torch_warmstart.values import frozen

LINE, ENTRY = "line", "entry"  # what messages call one of a text file, and one of a sequence
_UNSIGNED = 1 << 64
_NEWLINE = b"\n"
_BEYOND_ASCII = 0x80
_HIGHEST_BITS, _GOES_ON = 0xC0, 0x80  # of a byte of UTF-8 that begins no character
_SEARCHED = 1 << 20  # bytes that are looked through for a piece
_SPREAD = 4  # times the bytes of some entries that are copied to have them as values
_SOME = 5_000  # entries that are looked at to tell how a vocabulary is written


def bytes_of(text: str) -> bytes:
    """What a text is as an entry; raises UnicodeEncodeError for half of a surrogate pair.

    What was no UTF-8 has been decoded by `surrogateescape`, as Python does with what it reads.
    """
    return str.encode(text, "utf-8", "surrogateescape")


def casefolded(entry: bytes) -> bytes:
    """An entry as one of other case has it; what is no UTF-8 has no case."""
    try:
        return entry.decode().casefold().encode()
    except UnicodeDecodeError:
        return entry


@frozen(eq=False)
class Entries:
    """Entries in order, either text (bytes) or integer ids, on any device."""

    origin: str  # for messages: the path, or what kind of sequence it was
    unit: str  # for messages: `LINE`, `ENTRY`, or the "row" of a table
    # Text: its bytes, uint8, and where each entry starts and one more would, int64. Between the end
    # of an entry and the start of the next are `gap` bytes.
    data: torch.Tensor | None = None
    bounds: torch.Tensor | None = None
    gap: int = 0
    ids: torch.Tensor | None = None  # int64
    may_be_blank: bool = True  # False where no entry is
    # Of text whose entries do not lie one behind the other: how long each is, int64. `bounds` then
    # has no place beyond the last.
    lengths: torch.Tensor | None = None
    is_unsigned: bool = False  # whether ids below zero stand for those from 2**63 on

    def __len__(self) -> int:
        if self.ids is not None:
            return len(self.ids)
        assert self.bounds is not None
        return len(self.bounds) - (self.lengths is None)

    @property
    def nbytes(self) -> int:
        """Bytes of its entries."""
        if self.ids is not None:
            return self.ids.nbytes
        if self.lengths is not None:
            return int(self.lengths.sum())
        assert self.bounds is not None
        return int(self.bounds[-1] - self.bounds[0])

    @property
    def is_text(self) -> bool:
        return self.ids is None

    @property
    def device(self) -> torch.device:
        """Where the entries are."""
        entries = self.bounds if self.ids is None else self.ids
        assert entries is not None
        return entries.device

    @property
    def text(self) -> torch.Tensor:
        """The bytes of text entries."""
        assert self.data is not None
        return self.data

    @property
    def is_ascii(self) -> bool:
        """Whether no text entry has a byte beyond ASCII's; what lies between them counts, too."""
        span = self._span()
        return not len(span) or int(span.max()) < _BEYOND_ASCII

    @property
    def is_utf8(self) -> bool:
        """Whether each text entry is UTF-8; False, too, where what lies between them is not."""
        decoder, span = codecs.getincrementaldecoder("utf-8")(), self._span()
        try:
            for start in range(0, len(span), _SEARCHED):
                decoder.decode(as_tensor(span[start : start + _SEARCHED]).cpu().numpy().tobytes())
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        # All of it may be UTF-8, and cut within a character.
        text, (starts, lengths) = as_vector(self.text), self.places_of(slice(None))
        cuts = (at[at < len(text)] for at in (starts, starts + lengths))
        return not any(bool((text[at] & _HIGHEST_BITS == _GOES_ON).any()) for at in cuts)

    def may_have(self, pieces: Sequence[bytes]) -> bool:
        """Whether a text entry may have one of some pieces in it: surely not, or perhaps."""
        span = self._span()
        if len(span) > _SEARCHED:
            return True
        raw = as_tensor(span).cpu().numpy().tobytes()
        # To look for one byte first takes a tenth of the time, and mostly is enough.
        return any(piece[:1] in raw and piece in raw for piece in pieces)

    def _span(self) -> Vector:
        """The bytes that all text entries lie in."""
        if not len(self):
            return as_vector(self.text[:0])
        if self.lengths is not None:  # in any order
            return as_vector(self.text)
        assert self.bounds is not None
        bounds = as_vector(self.bounds)
        return as_vector(self.text)[int(bounds[0]) : int(bounds[-1])]

    def places(self, at: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where text entries start, and how long they are: int64."""
        starts, lengths = self.places_of(at if isinstance(at, slice) else as_vector(at))
        return as_tensor(starts), as_tensor(lengths)

    def places_of(self, at: slice | Vector) -> tuple[Vector, Vector]:
        """The same as vectors."""
        assert self.bounds is not None
        bounds = as_vector(self.bounds)
        if self.lengths is not None:
            return bounds[at], as_vector(self.lengths)[at]
        starts = bounds[:-1][at]
        lengths = bounds[1:][at] - starts
        return starts, lengths - self.gap if self.gap else lengths

    def entry(self, index: int) -> bytes | int:
        """One entry, for messages and for the rare cases that need it as a value."""
        if self.ids is not None:
            return int(self.ids[index]) % _UNSIGNED if self.is_unsigned else int(self.ids[index])
        start, length = (int(place) for place in self.places(slice(index, index + 1)))
        return bytes(self.text[start : start + length].cpu().numpy())

    def show(self, index: int) -> str:
        """An entry and its place: `'b' (line 2)`."""
        return f"{shown_entry(self.entry(index))} ({self.unit} {index + 1:,})"

    def values(self, at: slice) -> Sequence[bytes | int]:
        """Some of them as Python's values."""
        if self.ids is not None:
            ids: list[int] = self.ids[at].tolist()
            return [number % _UNSIGNED for number in ids] if self.is_unsigned else ids
        if self.gap == len(_NEWLINE) and self.lengths is None:
            lines = self._lines(at)
            if lines is not None:
                return lines
        starts, lengths = self.places(at)
        if not len(lengths):
            return []
        ends = starts + lengths
        first, last = int(starts.min()), int(ends.max())
        if last - first > _SPREAD * (int(lengths.sum()) + len(lengths)):  # far from each other
            data, lengths = self.packed(at)
            ends = lengths.cumsum(0)
            starts, first, last = ends - lengths, 0, len(data)
        else:
            data = self.text[first:last]
        raw = data.cpu().numpy().tobytes()
        places = zip((starts - first).tolist(), (ends - first).tolist(), strict=True)
        return [raw[start:stop] for start, stop in places]

    def _lines(self, at: slice) -> list[bytes] | None:
        """Some of them, where there are lines; None if these are others, or one has a newline."""
        start, stop, step = at.indices(len(self))
        if step != 1 or start >= stop:
            return None
        assert self.bounds is not None
        bounds = as_vector(self.bounds)
        first, last = int(bounds[start]), int(bounds[stop]) - self.gap
        lines = self.text[first:last].cpu().numpy().tobytes().split(_NEWLINE)
        return lines if len(lines) == stop - start else None

    def packed(self, at: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Bytes of some of them with nothing between, and how long each is."""
        starts, lengths = self.places_of(at)
        if not len(lengths):
            return self.text[:0], as_tensor(lengths)
        ends = starts + lengths
        if bool((starts[1:] == ends[:-1]).all()):
            return self.text[int(starts[0]) : int(ends[-1])], as_tensor(lengths)
        shifts = starts - (lengths.cumsum(0) - lengths)
        places = repeated(shifts, lengths)
        places += counted(0, len(places), places)
        return as_tensor(as_vector(self.text)[places]), as_tensor(lengths)

    def slice(self, start: int, stop: int) -> Entries:
        """Entries `[start, stop)`; no bytes are copied."""
        if not start and stop == len(self):
            return self
        if self.ids is not None:
            return replace(self, ids=self.ids[start:stop])
        assert self.bounds is not None
        if self.lengths is not None:
            return replace(self, bounds=self.bounds[start:stop], lengths=self.lengths[start:stop])
        return replace(self, bounds=self.bounds[start : stop + 1])

    def take(self, at: torch.Tensor) -> Entries:
        """The entries of these numbers, in this order; no bytes are copied."""
        if self.ids is not None:
            return replace(self, ids=self.ids.index_select(0, at))
        starts, lengths = self.places(at)
        return replace(self, bounds=starts, lengths=lengths, gap=0)

    def some(self) -> list[bytes]:
        """Some thousands of its entries of text, from all over it; of few, all."""
        at = torch.arange(0, len(self), max(1, len(self) // _SOME), device=self.device)
        return [one for one in self.take(at).values(slice(None)) if isinstance(one, bytes)]

    def to(self, device: torch.device) -> Entries:
        """The same entries on a device."""
        if device == self.device:
            return self
        moved = {
            name: tensor.to(device)
            for name in ("data", "bounds", "ids", "lengths")
            if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **moved)
