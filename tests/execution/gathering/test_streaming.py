"""Rows that travel through pinned buffers: what travels, and that nothing waits for too little.

Streams are played by queues that hold work back. A player decides which queue goes on, so work is
done as late, as early or as mixed up as its events allow: whoever forgets to wait for something
gets wrong rows.
"""

from __future__ import annotations

import random
from collections import deque

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart import gather_rows
from torch_warmstart.execution.gathering import gather, streaming
from torch_warmstart.execution.gathering.gather import _place
from torch_warmstart.execution.gathering.streaming import Batch, Streams, plan_batches, stream_rows


class PlayedEvent:
    def __init__(self, player, stream):
        self.player, self.stream, self.is_over = player, stream, False

    def synchronize(self):
        self.player.play_until(self)


class PlayedStream:
    def __init__(self, player):
        self.player, self.queue = player, deque()

    def record_event(self):
        event = PlayedEvent(self.player, self)
        self.queue.append(event)
        self.player.play_some()
        return event

    def wait_event(self, event):
        self.queue.append(("wait", event))

    @property
    def can_go_on(self):
        if not self.queue:
            return False
        head = self.queue[0]
        return not isinstance(head, tuple) or head[1].is_over

    def go_on(self):
        head = self.queue.popleft()
        if isinstance(head, PlayedEvent):
            head.is_over = True
        elif not isinstance(head, tuple):
            head()


class Player:
    """Three streams. `haste` is how likely one goes on before somebody has to wait for it."""

    def __init__(self, seed, haste):
        self.random, self.haste = random.Random(seed), haste
        self.streams = [PlayedStream(self) for _ in range(3)]
        self.pinned_bytes = 0

    def as_streams(self):
        return Streams(*self.streams, queue=self._queue, pinned=self._pinned)

    def _queue(self, stream, work):
        stream.queue.append(work)

    def _pinned(self, shape, dtype):
        tensor = torch.full((torch.Size(shape).numel() * dtype.itemsize,), 0xA5, dtype=torch.uint8)
        self.pinned_bytes += tensor.numel()
        return tensor.view(dtype).reshape(shape)

    def play_some(self):
        while self.random.random() < self.haste and self._go_on():
            pass

    def play_until(self, event):
        """Late: only what the event needs. Otherwise anything, in any order."""
        while not event.is_over:
            if self.random.random() < self.haste:
                self._go_on()
            else:
                self._needed_by(event).go_on()

    def _go_on(self):
        able = [stream for stream in self.streams if stream.can_go_on]
        if able:
            self.random.choice(able).go_on()
        return bool(able)

    def _needed_by(self, event):
        stream = event.stream
        while not stream.can_go_on:
            assert stream.queue, "a wait for what nobody has queued"
            stream = stream.queue[0][1].stream
        return stream


def table(rows, *shape, start=0):
    count = rows * torch.Size(shape).numel()
    return torch.arange(start, start + count, dtype=torch.float32).reshape(rows, *shape)


def play(source, remapping, out, player, buffer_bytes, place=_place):
    stream_rows(
        [(0, source)],
        torch.tensor(remapping),
        out,
        place=place,
        buffer_bytes=buffer_bytes,
        streams=player.as_streams(),
    )


def finish(player):
    """The caller waits for its own stream; nothing is left elsewhere then."""
    player.streams[0].record_event().synchronize()
    assert not any(stream.queue for stream in player.streams)


@given(
    rows=st.integers(1, 40),
    shape=st.sampled_from([(), (3,), (2, 3), (70,)]),
    data=st.data(),
    buffer_bytes=st.sampled_from([1, 200, 1000, 4000, 1 << 20]),
    seed=st.integers(0, 1 << 20),
    haste=st.sampled_from([0.0, 0.3, 0.7, 0.95]),
    cast=st.booleans(),
)
def test_rows_arrive_whatever_order_the_streams_work_in(
    rows, shape, data, buffer_bytes, seed, haste, cast
):
    crowd = data.draw(st.sampled_from([rows, max(1, rows // 8)]))
    index = st.one_of(st.just(-1), st.integers(0, crowd - 1), st.integers(0, rows - 1))
    remapping = data.draw(st.lists(index, min_size=1, max_size=60))
    source = table(rows, *shape)
    out = table(len(remapping), *shape, start=1000).to(torch.float64 if cast else torch.float32)
    expected = oracle.gather(source, remapping, out, 0)
    given_source = source.clone()
    player = Player(seed, haste)
    play(given_source, remapping, out, player, buffer_bytes)
    given_source.fill_(-1)  # it has been read: the caller may do with it as it likes
    finish(player)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("packed", [False, True])
def test_every_buffer_is_used_again_and_never_too_early(packed):
    remapping = list(range(0, 400, 10 if packed else 1))
    random.Random(0).shuffle(remapping)
    source, out = table(400, 64), torch.zeros(len(remapping), 64)
    for seed in range(40):
        player = Player(seed, haste=seed % 4 / 4)
        play(source, remapping, out.zero_(), player, streaming.BUFFERS * 4 * (256 + 8))
        finish(player)
        assert torch.equal(out, source[torch.tensor(remapping)])


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_begins_before_what_the_caller_has_queued(packed):
    player, done = Player(0, haste=0.9), []
    player.streams[0].queue.append(lambda: done.append("the caller's work"))
    player.haste, streams = 0.0, player.as_streams()

    def queue(stream, work):
        stream.queue.append(lambda: (done.append("ours"), work()))

    remapping = torch.arange(0, 400, 50 if packed else 1)
    stream_rows(
        [(0, table(400, 8))],
        remapping,
        torch.zeros(len(remapping), 8),
        place=_place,
        buffer_bytes=1 << 20,
        streams=Streams(
            streams.caller, streams.copies, streams.numbers, queue=queue, pinned=streams.pinned
        ),
    )
    for stream in reversed(player.streams):  # each as far as it gets, the caller's last
        while stream.can_go_on:
            stream.go_on()
    finish(player)
    assert done[0] == "the caller's work"


def test_what_is_pinned_stays_within_the_knob():
    source, out = table(1000, 6), torch.zeros(1000, 6)
    for buffer_bytes in (4 * 32, 1000, 7777):
        player = Player(0, haste=0.5)
        play(source, list(range(1000)), out.zero_(), player, buffer_bytes)
        assert player.pinned_bytes <= buffer_bytes
        finish(player)
        assert torch.equal(out, source)


def test_small_work_takes_a_small_buffer():
    player = Player(0, haste=0.5)
    play(table(1000, 6), [5, 900], torch.zeros(2, 6), player, 1 << 20)
    assert player.pinned_bytes == 2 * (24 + 8)


def test_a_row_larger_than_the_knob_travels_by_itself():
    source, out, player = table(3, 100), torch.zeros(2, 100), Player(0, haste=0.5)
    play(source, [2, 0], out, player, buffer_bytes=8)
    finish(player)
    assert torch.equal(out, source[[2, 0]])


def test_only_rows_that_are_wanted_travel_and_each_once():
    travelled = []

    def place(rows, index, out, places):
        travelled.append(len(rows))
        _place(rows, index, out, places)

    source, player = table(1000, 16), Player(0, haste=0.5)
    remapping = [10, 990, 500, 10, 10, 500, -1]
    out = torch.zeros(7, 16)
    play(source, remapping, out, player, 40 * streaming.BUFFERS * 72, place)
    finish(player)
    assert sum(travelled) == 3
    assert torch.equal(out[:6], source[torch.tensor(remapping[:6])])


def test_after_an_error_the_streams_are_still_waited_for():
    player, out = Player(0, haste=0.0), torch.zeros(40, 8)

    def fail(rows, index, out, places):
        raise RuntimeError("no more memory")

    with pytest.raises(RuntimeError, match="no more memory"):
        play(table(40, 8), list(range(40)), out, player, 200, fail)
    player.streams[0].queue = deque(
        entry for entry in player.streams[0].queue if not callable(entry)
    )
    finish(player)


def test_ranges_that_are_nearly_all_wanted_travel_whole_and_others_packed_together():
    # Six ranges of 10 rows of 256 bytes; the last is short. Wanted: 10, 2, 0, 9, 1, and 3 of 4.
    wanted, places = [0, 10, 12, 12, 21, 22, 25], [3, 13, 25, 25, 34, 35, 38]
    batches = plan_batches(wanted, places, 54, step=10, row_bytes=256)
    assert batches == [
        Batch(slice(0, 10), slice(3, 13), 10, start=0),
        Batch(slice(10, 12), slice(13, 25), 2),
        Batch(slice(12, 21), slice(25, 34), 10, start=30),
        Batch(slice(21, 25), slice(34, 38), 4),
    ]


def test_packed_ranges_fill_a_buffer_and_never_more():
    wanted = [0, 4, 8, 11, 11, 14, 18]
    batches = plan_batches(wanted, wanted, 60, step=10, row_bytes=320)
    assert [batch.size for batch in batches] == [8, 10]
    assert all(batch.start is None for batch in batches)


@given(
    counts=st.lists(st.integers(0, 10), min_size=1, max_size=30),
    last=st.integers(1, 10),
    row_bytes=st.sampled_from([1, 4, 64, 300, 5000]),
)
def test_every_wanted_row_is_in_one_batch(counts, last, row_bytes):
    counts[-1] = min(counts[-1], last)
    wanted = [sum(counts[:at]) for at in range(len(counts) + 1)]
    num_rows = 10 * (len(counts) - 1) + last
    batches = plan_batches(wanted, wanted, num_rows, step=10, row_bytes=row_bytes)
    served = [at for batch in batches for at in range(batch.wanted.start, batch.wanted.stop)]
    assert served == list(range(wanted[-1]))
    assert all(1 <= batch.size <= 10 for batch in batches)
    for batch in batches:
        if batch.start is not None:
            assert batch.start + batch.size <= num_rows
    # No more bytes travel than the packing rule allows for.
    travelled = sum(batch.size for batch in batches) * row_bytes
    assert travelled <= wanted[-1] * (row_bytes + 32)


@pytest.fixture
def small_buffers(monkeypatch):
    monkeypatch.setattr(gather, "CHUNK_BYTES", 1 << 16)
    monkeypatch.setattr(gather, "KERNEL_BYTES", 0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("density", [1.0, 0.8, 0.1, 0.001])
def test_a_gpu_gets_its_rows_on_whatever_stream_is_current(density, small_buffers):
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(100_000, 16, generator=generator)
    remapping = torch.randperm(100_000, generator=generator)
    remapping[torch.rand(100_000, generator=generator) >= density] = -1
    expected = torch.where(remapping[:, None] >= 0, source[remapping.clamp(min=0)], 7.0)
    out = torch.full((100_000, 16), 7.0, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # what is queued before must not be overtaken
        gather_rows(source, remapping.cuda(), out)
        source.fill_(-1)
        doubled = out * 2
    stream.synchronize()
    assert torch.equal(doubled.cpu(), expected * 2)
    assert not gather._without_triton
