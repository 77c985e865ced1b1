"""The specification of a vocabulary change as slow loops: what every fast path must equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Entry = str | bytes | int


def remap(new: Sequence[Entry], old: Sequence[Entry]) -> list[int]:
    """For each new entry the old entry's index, -1 if there is none."""
    rows = []
    for entry in new:
        row = -1
        for index, candidate in enumerate(old):
            if candidate == entry:
                row = index
        rows.append(row)
    return rows


def lines(data: bytes) -> list[bytes]:
    """The entries of a vocabulary file, byte by byte."""
    entries, current = [], bytearray()
    for byte in data:
        if byte == 10:
            entries.append(bytes(current))
            current = bytearray()
        else:
            current.append(byte)
    if current and current != b"\r":  # what is behind the last newline, if it is anything
        entries.append(bytes(current))
    return [entry[:-1] if entry.endswith(b"\r") else entry for entry in entries]


def gather(
    source: torch.Tensor, remapping: Sequence[int], out: torch.Tensor, dim: int
) -> torch.Tensor:
    """What `out` holds after gather_rows, on a copy, row by row."""
    result = out.clone()
    for index, row in enumerate(remapping):
        if row >= 0:
            result.select(dim, index).copy_(source.select(dim, row))
    return result
