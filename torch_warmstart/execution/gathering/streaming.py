"""Rows from the host to a GPU: through pinned buffers, while the rows before them are placed.

Only rows that are wanted travel, packed by the host, or whole ranges of the source where nearly all
of a range is wanted. A few buffers take turns, so the source may be larger than the GPU's memory:

    host        fill a pinned buffer          | waits until its last copy is done
    copies      pinned buffer -> the GPU      | waits until the rows there before are placed
    caller      place the rows                | waits for the copy
    numbers     numbers of wanted rows -> host, one batch ahead

What is queued on the caller's stream is all that the result depends on, so it is ready for
whatever the caller queues next, and nobody has to wait for the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from torch_warmstart.dtypes import as_bits
from torch_warmstart.formats import Block
from torch_warmstart.values import frozen

BUFFERS = 4  # that the bytes on their way are divided into
_PACKING_BYTES = 32  # what packing a row costs beside its bytes, as bytes: its number, a call


Place = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], object]


class Event(Protocol):
    """A point in a stream that others can wait for."""

    def synchronize(self) -> None:
        """Makes the host wait for it."""


class Stream(Protocol):
    """Work that is done in the order it is queued in."""

    def record_event(self) -> Event:
        """An event after what is queued so far."""

    def wait_event(self, event: Any) -> None:
        """What is queued from now on waits for the event."""


@frozen
class Streams:
    """Where the parts of a transfer are queued."""

    caller: Stream
    copies: Stream
    numbers: Stream
    queue: Callable[[Stream, Callable[[], object]], None]  # some work, on one of them
    pinned: Callable[[Sequence[int], torch.dtype], torch.Tensor]  # host memory they can copy


def cuda_streams(device: torch.device) -> Streams:
    """The current stream of a GPU and two beside it."""

    def queue(stream: Any, work: Callable[[], object]) -> None:
        with torch.cuda.stream(stream):
            work()

    return Streams(
        caller=torch.cuda.current_stream(device),
        copies=torch.cuda.Stream(device),  # type: ignore[no-untyped-call]
        numbers=torch.cuda.Stream(device),  # type: ignore[no-untyped-call]
        queue=queue,
        pinned=lambda shape, dtype: torch.empty(*shape, dtype=dtype, pin_memory=True),
    )


@frozen
class Batch:
    """Rows that travel together.

    `wanted` says which of the wanted rows they are, in ascending order and each once; `places`,
    which entries of the sorted remapping they serve. All are of one block of the source. A batch
    that is not packed is a whole range of the block, from its row `start` on.
    """

    wanted: slice
    places: slice
    size: int  # rows that travel
    start: int | None = None
    block: int = 0


def plan_batches(
    wanted: Sequence[int], places: Sequence[int], num_rows: int, step: int, row_bytes: int
) -> list[Batch]:
    """What travels together of a block: ranges of `step` rows, whole or packed.

    Of ranges that are packed, several travel at once.

    Args:
        wanted: For the start of each range and the end of the last, how many wanted rows are less.
        places: The same, of the entries of the sorted remapping.
        num_rows: Of the block.
        step: The most rows a batch may have, and the rows of a range.
        row_bytes: Of the block.
    """
    batches: list[Batch] = []
    first = 0  # of the ranges whose rows are to be packed

    def pack(stop: int) -> None:
        if wanted[first] < wanted[stop]:
            rows = slice(wanted[first], wanted[stop])
            served = slice(places[first], places[stop])
            batches.append(Batch(rows, served, rows.stop - rows.start))

    for at in range(len(wanted) - 1):
        count = wanted[at + 1] - wanted[at]
        size = min(step, num_rows - at * step)
        if count * (row_bytes + _PACKING_BYTES) >= size * row_bytes:
            pack(at)
            rows, served = slice(wanted[at], wanted[at + 1]), slice(places[at], places[at + 1])
            batches.append(Batch(rows, served, size, start=at * step))
            first = at + 1
        elif wanted[at + 1] - wanted[first] > step:
            pack(at)
            first = at
    pack(len(wanted) - 1)
    return batches


def stream_rows(
    blocks: Sequence[Block],
    remapping: torch.Tensor,
    out: torch.Tensor,
    *,
    place: Place,
    buffer_bytes: int,
    streams: Streams,
) -> None:
    """Overwrites `out[i]` with the row `remapping[i]` of the source, wherever that is not negative.

    When it returns, the source has been read; `out` is written when the caller's stream gets there.

    Args:
        blocks: The source, on the host, in the order of its rows.
        remapping: int64, on the device of `out`; sorting it takes some times its memory there.
        out: On a device; its rows have the shape of those of `source`.
        place: `place(rows, index, out, places)` does `out[places] = rows[index]`, all of them on
            the device, on the current stream.
        buffer_bytes: The most that is in pinned memory at a time, and the same again on the device;
            but at least one row.
        streams: Of the device of `out`.
    """
    index = _Index(remapping)
    batches = _batches(blocks, index, buffer_bytes)
    transfer = _Transfer(blocks, out, index, batches, streams)
    try:
        transfer.fetch_numbers(0)
        for at in range(len(batches)):
            transfer.fetch_numbers(at + 1)
            transfer.stage(at)
            transfer.copy(at)
            transfer.place(at, place)
    finally:
        transfer.close()


class _Index:
    """A remapping sorted by source rows, so that those a batch serves lie together."""

    def __init__(self, remapping: torch.Tensor) -> None:
        self.rows, self.places = torch.sort(remapping)
        self.wanted, self.rank = torch.unique_consecutive(self.rows, return_inverse=True)


def _batches(blocks: Sequence[Block], index: _Index, buffer_bytes: int) -> list[Batch]:
    """What travels together. The host waits here, once, until the device has counted."""
    _, like = blocks[0]
    row_bytes = math.prod(like.shape[1:]) * like.element_size()
    step = max(1, buffer_bytes // BUFFERS // (row_bytes + index.wanted.element_size()))
    edges = [[*range(first, first + len(rows), step), first + len(rows)] for first, rows in blocks]
    numbers = index.wanted.new_tensor([edge for of_block in edges for edge in of_block])
    before = [torch.searchsorted(ordered, numbers) for ordered in (index.wanted, index.rows)]
    wanted, places = torch.stack(before).tolist()
    batches: list[Batch] = []
    at = 0
    for number, ((_, rows), of_block) in enumerate(zip(blocks, edges, strict=True)):
        part = slice(at, at + len(of_block))
        planned = plan_batches(wanted[part], places[part], len(rows), step, row_bytes)
        batches += [replace(batch, block=number) for batch in planned]
        at = part.stop
    return batches


class _Buffer:
    """Room for a batch in pinned memory and on the device, and until when it is in use."""

    def __init__(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, streams: Streams
    ) -> None:
        self.staged = streams.pinned(shape, dtype)
        self.landed = torch.empty(*shape, dtype=dtype, device=device)
        self.numbers = streams.pinned(shape[:1], torch.int64)
        self.numbered: Event | None = None  # the numbers of the rows to pack are here
        self.copied: Event | None = None  # what was staged has left
        self.placed: Event | None = None  # what landed is where it belongs


class _Transfer:
    """The steps that each batch takes, in a buffer that others had before it."""

    def __init__(
        self,
        blocks: Sequence[Block],
        out: torch.Tensor,
        index: _Index,
        batches: Sequence[Batch],
        streams: Streams,
    ) -> None:
        self._blocks, self._out, self._index = blocks, out, index
        self._batches, self._streams = batches, streams
        _, like = blocks[0]
        shape = (max((batch.size for batch in batches), default=0), *like.shape[1:])
        count = min(BUFFERS, len(batches))
        self._buffers = [_Buffer(shape, like.dtype, out.device, streams) for _ in range(count)]
        ready = streams.caller.record_event()  # the index is, and the memory on the device
        streams.copies.wait_event(ready)
        streams.numbers.wait_event(ready)

    def fetch_numbers(self, at: int) -> None:
        """Of rows to pack, to the host: a batch ahead, so in a buffer whose numbers it has used."""
        if at == len(self._batches) or self._batches[at].start is not None:
            return
        batch, buffer = self._at(at)
        numbers, rows = buffer.numbers[: batch.size], self._index.wanted[batch.wanted]
        self._streams.queue(self._streams.numbers, lambda: numbers.copy_(rows, non_blocking=True))
        buffer.numbered = self._streams.numbers.record_event()

    def stage(self, at: int) -> None:
        """The host's part: rows into pinned memory, once what was there has left."""
        batch, buffer = self._at(at)
        if buffer.copied is not None:
            buffer.copied.synchronize()
        staged = buffer.staged[: batch.size]
        first, rows = self._blocks[batch.block]
        if batch.start is not None:
            staged.copy_(rows[batch.start : batch.start + batch.size])
            return
        assert buffer.numbered is not None
        buffer.numbered.synchronize()
        numbers = buffer.numbers[: batch.size] - first
        torch.index_select(as_bits(rows), 0, numbers, out=as_bits(staged))

    def copy(self, at: int) -> None:
        """To the device, once what landed there before is where it belongs."""
        batch, buffer = self._at(at)
        landed, staged = buffer.landed[: batch.size], buffer.staged[: batch.size]
        if buffer.placed is not None:
            self._streams.copies.wait_event(buffer.placed)
        self._streams.queue(self._streams.copies, lambda: landed.copy_(staged, non_blocking=True))
        buffer.copied = self._streams.copies.record_event()

    def place(self, at: int, place: Place) -> None:
        """The rows that have landed to where they belong."""
        batch, buffer = self._at(at)
        assert buffer.copied is not None
        index, landed, out = self._index, buffer.landed[: batch.size], self._out
        if batch.start is None:
            rows, first = index.rank, batch.wanted.start
        else:
            rows, first = index.rows, self._blocks[batch.block][0] + batch.start

        def work() -> None:
            place(landed, rows[batch.places] - first, out, index.places[batch.places])

        self._streams.caller.wait_event(buffer.copied)
        self._streams.queue(self._streams.caller, work)
        buffer.placed = self._streams.caller.record_event()

    def close(self) -> None:
        """Whatever happened, nobody gets the device's memory while it is in use."""
        for stream in (self._streams.copies, self._streams.numbers):
            self._streams.caller.wait_event(stream.record_event())

    def _at(self, at: int) -> tuple[Batch, _Buffer]:
        return self._batches[at], self._buffers[at % len(self._buffers)]
