"""Rows moved on a GPU in one pass, by Triton: each wanted row is read once and written once.

Rows are moved as words, the widest integers that their addresses allow, so that every dtype is one
case. Imported only where there are CUDA tensors to move; torch does the same job without Triton.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

_WORDS = {1: (tl.int8, 1), 2: (tl.int16, 1), 4: (tl.int32, 1), 8: (tl.int64, 1), 16: (tl.int64, 2)}
_UNITS = 512  # that a program moves: four for each of its threads, all on their way at once
_LONGEST_PIECE = 64  # units; of longer rows a program takes pieces, so few lanes stay idle
_THREADS = 128
_HAS_FLOATS = False  # Triton 3.9 warns whoever does not say whether they may be rounded once


def move_rows(
    source: torch.Tensor,
    rows: torch.Tensor,
    out: torch.Tensor,
    places: torch.Tensor | None = None,
) -> bool:
    """Overwrites `out[i]` with `source[rows[i]]` wherever `rows[i] >= 0`.

    Args:
        source: Read along its first dimension.
        rows: int64, contiguous, each less than the length of `source`.
        out: Of the dtype of `source`, on its device, not overlapping it.
        places: int64 as long as `rows`, contiguous, no entry twice: `out[places[i]]` is written
            instead of `out[i]`.

    Returns:
        Whether it was done: False, with nothing changed, if the elements of a row do not lie side
        by side in memory or rows of `out` overlap.
    """
    if not (_has_whole_rows(source) and _has_whole_rows(out)) or _overlaps(out):
        return False
    unit = bytes_of_words(source, out)
    word, words = _WORDS[unit]
    units = out[0].numel() * out.element_size() // unit
    piece = min(_LONGEST_PIECE, triton.next_power_of_2(units))
    pieces = triton.cdiv(units, piece)
    grid = (triton.cdiv(len(rows), _UNITS // piece) * pieces,)
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]  # where Triton launches
        _KERNEL[grid](
            triton.reinterpret(source, word),
            rows,
            triton.reinterpret(out, word),
            rows if places is None else places,
            len(rows),
            units,
            pieces,
            source.stride(0) * source.element_size() // unit,
            out.stride(0) * out.element_size() // unit,
            WORDS=words,
            SCATTERED=places is not None,
            ROWS=_UNITS // piece,
            COLUMNS=piece * words,
            num_warps=_THREADS // 32,
            enable_fp_fusion=_HAS_FLOATS,
        )
    return True


def bytes_of_words(source: torch.Tensor, out: torch.Tensor) -> int:
    """The widest unit, at most 16 bytes, that rows consist of and begin at multiples of."""
    strides = (tensor.stride(0) * tensor.element_size() for tensor in (source, out))
    row_bytes = out[0].numel() * out.element_size()
    return math.gcd(16, row_bytes, *strides, source.data_ptr(), out.data_ptr())


def _has_whole_rows(tensor: torch.Tensor) -> bool:
    return tensor[0].is_contiguous()


def _overlaps(tensor: torch.Tensor) -> bool:
    return len(tensor) > 1 and tensor.stride(0) < tensor[0].numel()


def _move_rows(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    source,
    rows,
    out,
    places,
    num_rows,
    units,
    pieces,
    source_stride,  # in units, as the next
    out_stride,
    WORDS: tl.constexpr,  # noqa: N803  that a unit has
    SCATTERED: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803  of a program, and the words of each
    COLUMNS: tl.constexpr,  # noqa: N803
):
    block = tl.program_id(0) // pieces
    row = block.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    word = (tl.program_id(0) % pieces).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = row < num_rows
    wanted = tl.load(rows + row, mask=inside, other=-1)
    place = tl.load(places + row, mask=inside, other=0) if SCATTERED else row
    # A stride is a multiple of WORDS words, and written so: 16-byte loads need to know it.
    read = source + (wanted * source_stride * WORDS)[:, None] + word[None, :]
    write = out + (place * out_stride * WORDS)[:, None] + word[None, :]
    mask = (wanted >= 0)[:, None] & (word < units * WORDS)[None, :]
    tl.store(write, tl.load(read, mask=mask), mask=mask)


_NUMBERS = ["num_rows", "units", "pieces", "source_stride", "out_stride"]
_KERNEL = triton.jit(_move_rows, do_not_specialize=_NUMBERS)  # of one shape for all tables
