"""Text with one entry a line.

A vocabulary file is bytes. A line ends at a newline, exactly one carriage return before it is
dropped, and everything else is significant: no text mode, no splitlines(), no stripping
(tensorflow `core/lib/io/inputbuffer.cc`). Blank lines are errors (`refused_entries`). Entries
stay where they are, as places in one buffer: a copy of the file, of which others may make another
while the vocabulary is in use.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from torch_warmstart.computing import blocks, in_threads
from torch_warmstart.entries import LINE, Entries, Vector, as_vector, new_words, positions
from torch_warmstart.errors import VocabularyError
from torch_warmstart.vocabularies.loading.content import HEAD, is_header, what_else_it_is

_NEWLINE, _RETURN = 10, 13
_BLOCK = 1 << 20  # bytes searched for newlines at a time, so that they stay in the cache
_LOOKED_AT = 50  # lines behind the first


def entries_of_lines(data: torch.Tensor, origin: str, unit: str = LINE) -> Entries:
    """The lines of a file's bytes, uint8, of which there is at least one.

    Another `unit` is for files whose blank lines are entries.
    """
    data, bounds, may_be_blank = _split_lines(data)
    return Entries(origin, unit, data, bounds, gap=1, may_be_blank=may_be_blank)


def check_lines(vocabulary: Entries, *, is_said: bool = False) -> None:
    """Raises VocabularyError, with what a file is, unless it is lines of entries.

    `is_said`: the user says that it is.
    """
    if vocabulary.is_text and vocabulary.unit == LINE:
        head = vocabulary.text[:HEAD].cpu().numpy().tobytes()
        otherwise = what_else_it_is(head, is_said=is_said)
        if otherwise:
            raise VocabularyError(f"{vocabulary.origin} {otherwise}.")


def header_of(vocabulary: Entries) -> str:
    """That the first line looks like a header of the others, as a sentence's beginning; or ""."""
    if not vocabulary.is_text or vocabulary.unit != LINE:
        return ""
    first, *others = (
        e for e in vocabulary.values(slice(0, 1 + _LOOKED_AT)) if isinstance(e, bytes)
    )
    if not is_header(first, others):
        return ""
    return f"{vocabulary.show(0)} of {vocabulary.origin} looks like a header"


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
    unfinished = int(data[-1]) != _NEWLINE  # the newline that ends the file begins no line
    count = sum(len(scan.newlines) for scan in scans)
    bounds = new_words(1 + count + unfinished, data.device)
    starts, at = as_vector(bounds), 1
    starts[0], starts[-1] = 0, len(data) + 1
    for part, scan in zip(parts, scans, strict=True):
        starts[at : at + len(scan.newlines)] = scan.newlines + (part.start + 1)
        at += len(scan.newlines)
    return data, bounds, any(scan.may_have_blank for scan in scans)


class _Scan(NamedTuple):
    """What is in a part of a file."""

    newlines: Vector  # their places in the part
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
        return _Scan(newlines, bool((raw == _RETURN).any()), blank)

    return in_threads(scan, parts, data.device)


def _without_returns(data: torch.Tensor, parts: list[slice]) -> torch.Tensor:
    """The bytes without the one return that may end a line."""

    def keep(part: slice) -> torch.Tensor:
        here, following = data[part], data[part.start + 1 : part.stop + 1]
        kept = here != _RETURN
        kept[: len(following)] |= following != _NEWLINE
        return here[kept]

    kept = torch.cat(in_threads(keep, parts, data.device))
    # TensorFlow ends a file before a return that stands alone behind its last newline: it is no
    # line, so no blank one. A file of nothing else has no entry, which is a slip.
    return kept if len(kept) else data.new_tensor([_NEWLINE])
