"""A vocabulary as a value: its entries, where they are, and how one is shown.

Entries stay where they are, as positions in one buffer. Where they come from is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Entries in order, either text (bytes) or integer ids, on any device."""

    origin: str  # for messages: the path, or what kind of sequence it was
    unit: str  # for messages: "line" of a file, "entry" of a sequence
    # Text: its bytes, uint8, and where each entry starts and one more would, int64. Between the end
    # of an entry and the start of the next are `gap` bytes.
    data: torch.Tensor | None = None
    bounds: torch.Tensor | None = None
    gap: int = 0
    ids: torch.Tensor | None = None  # int64
    may_be_blank: bool = True  # False where no entry is

    def __len__(self) -> int:
        if self.ids is not None:
            return len(self.ids)
        assert self.bounds is not None
        return len(self.bounds) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of its entries."""
        if self.ids is not None:
            return self.ids.nbytes
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
        """The bytes of a text vocabulary."""
        assert self.data is not None
        return self.data

    def places(self, at: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where entries of a text vocabulary start, and how long they are: int64."""
        assert self.bounds is not None
        if isinstance(at, slice):
            starts, following = self.bounds[:-1][at], self.bounds[1:][at]
        else:
            starts, following = (self.bounds.index_select(0, at + behind) for behind in (0, 1))
        return starts, following - starts - self.gap

    def entry(self, index: int) -> bytes | int:
        """One entry, for messages and for the rare cases that need it as a value."""
        if self.ids is not None:
            return int(self.ids[index])
        start, length = (int(place) for place in self.places(slice(index, index + 1)))
        return bytes(self.text[start : start + length].cpu().numpy())

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
        assert self.bounds is not None
        return replace(self, bounds=self.bounds[start : stop + 1])

    def to(self, device: torch.device) -> Vocabulary:
        """The same vocabulary on a device."""
        moved = {
            name: tensor.to(device)
            for name in ("data", "bounds", "ids")
            if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **moved)
