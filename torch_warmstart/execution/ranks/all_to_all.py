"""Parts of tensors in memory that only other ranks have: who needs some asks, and they are sent.

Everything happens in rounds, which all ranks go through in one order. In a round each asks the
others for what it needs, or for nothing, and each sends what it was asked for, in as many chunks as
the one needs who needs most. A rank that needs something at once begins a round; what is needed
only when all is written is asked for in the last one of its own, and after that a rank only sends,
until nobody has anything left to ask. So it does not matter that one rank asks more often than
another.

    directory   once: which rank has which boxes of which tensor
    round       who asks again after it; what each asks of each; then chunk after chunk

A chunk is what a rank sends and what it gets at a time, both together of all ranks; what has come
is put where it belongs. Nobody ever has more of a tensor than what it has asked for. The last thing
before each of these is that all are there (`Agreement.meet`), so whoever fails is not waited for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import as_bits, as_bytes
from torch_warmstart.errors import UnsupportedError
from torch_warmstart.execution.ranks.agreement import Agreement
from torch_warmstart.execution.ranks.wants import Pieces, Want, is_here
from torch_warmstart.formats import Checkpoint
from torch_warmstart.values import frozen

CHUNK_BYTES = 64 << 20  # that a rank sends at a time, and that it gets
_POLL = (0.0001, 0.02)  # seconds between two looks whether something has come, first and at most
_ALL = -1  # in place of how many rows are wanted: the box as it is

_Numbers = npt.NDArray[np.int64]


@frozen(eq=False)
class _Ask:
    """What is asked of one rank, and where it belongs; who is asked does not know that."""

    want: Want
    into: torch.Tensor | None = None


@frozen(eq=False)
class _Unit:
    """A part of what is asked for that is sent at a time."""

    ask: _Ask
    inner: Box  # of what is wanted
    nbytes: int


class Exchange:
    """What the ranks of one warm start send each other of a checkpoint that they have in memory."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        keys: Sequence[str],
        agreement: Agreement,
        check: Callable[[int], None] = lambda _: None,
    ) -> None:
        """All ranks make one, of the same keys in the same order; it tells them who has what.

        Args:
            checkpoint: The tensors.
            keys: Those that may be asked for.
            agreement: The ranks.
            check: Is told how many bytes are kept of what comes; may raise.

        Raises WarmStartError: a rank cannot, or does not answer.
        """
        self._checkpoint, self._agreement, self._check = checkpoint, agreement, check
        self._numbers = {key: number for number, key in enumerate(keys)}
        self._keys = list(keys)
        specs = {key: checkpoint.spec(key) for key in keys}
        self._dtypes = {key: spec.dtype for key, spec in specs.items()}
        self._ndims = {key: len(spec.shape) for key, spec in specs.items()}
        self._pieces: dict[str, Pieces] = {
            key: pieces for key in keys if (pieces := checkpoint.pieces(key)) is not None
        }
        self._at, self._count = agreement.place
        self._later: list[tuple[Want, torch.Tensor]] = []
        self._kept = 0  # bytes
        agreement.meet()  # else who is gone would be waited for below
        try:
            self._group = agreement.process_group()
        except RuntimeError as error:
            agreement.broke_off(error)
        self._directory = self._told()

    def all_pieces(self) -> Iterator[tuple[Box, torch.Tensor]]:
        """What others may ask this rank for."""
        return itertools.chain.from_iterable(self._pieces.values())

    def lacks(self, want: Want) -> bool:
        """Whether others have what is wanted, and this rank has not all of it."""
        pieces = self._pieces.get(want.key)
        return pieces is not None and not is_here(pieces, want)

    def now(self, want: Want) -> torch.Tensor:
        """What is wanted; all ranks are in `now` or `settle` meanwhile.

        Raises UnsupportedError: no rank has it. WarmStartError: one cannot go on.
        """
        asks = self._asks_for(want, out := self._made(want))
        self._round(asks, goes_on=True)
        return out

    def later(self, want: Want) -> torch.Tensor:
        """The same, as a tensor that is filled by `settle`."""
        out = self._made(want)
        self._kept += out.nbytes
        self._check(self._kept)
        self._later.append((want, out))
        return out

    def settle(self) -> None:
        """Fills what is wanted later, and goes on sending until no rank needs anything.

        Raises as `now`.
        """
        later, self._later = self._later, []
        asks: list[list[_Ask]] = [[] for _ in range(self._count)]
        for want, out in later:
            for mine, more in zip(asks, self._asks_for(want, out), strict=True):
                mine.extend(more)
        while self._round(asks, goes_on=False):
            asks = [[] for _ in range(self._count)]
        self._agreement.meet()  # who lets go of the group now cuts nobody off
        self._group = None

    def _made(self, want: Want) -> torch.Tensor:
        return torch.empty(want.sizes, dtype=self._dtypes[want.key], device="cpu")

    # -- who has what ------------------------------------------------------------------------------

    def _told(self) -> _Numbers:
        """For each box of each rank a line: the key, the rank, offsets and sizes; sorted by key."""
        width = max(self._ndims.values(), default=0)
        lines = []
        for key, pieces in self._pieces.items():
            fill = [0] * (width - self._ndims[key])
            number = self._numbers[key]
            lines += [
                [number, self._at, *box.offsets, *fill, *box.sizes, *fill]
                for box, _ in pieces
                if box.numel
            ]
        mine = torch.tensor(lines, dtype=torch.int64, device="cpu").flatten()
        heard = torch.cat(self._spread([mine] * self._count)).numpy()
        found: _Numbers = heard.reshape(-1, 2 + 2 * width)
        found = found[np.argsort(found[:, 0], kind="stable")]
        self._check_apart(found)
        return found

    def _check_apart(self, directory: _Numbers) -> None:
        """Raises UnsupportedError where ranks do not have a tensor divided in one way."""
        starts = np.flatnonzero(np.diff(directory[:, 0], prepend=-1))
        for lines in np.split(directory, starts[1:]) if len(directory) else ():
            key = self._keys[int(lines[0, 0])]
            pair = _overlapping(*self._edges(lines, key)) if self._ndims[key] else None
            if pair is not None:
                one, other = map(_shown, pair)
                raise UnsupportedError(
                    f"{self._checkpoint.url}: tensor {key!r} is spread over processes, but not in "
                    f"one way: a rank has {one} of it, and another one {other}. Give all ranks the "
                    "state of one model."
                )

    def _edges(self, lines: _Numbers, key: str) -> tuple[_Numbers, _Numbers]:
        """Where the boxes of lines of the directory begin, and where they end."""
        ndim, width = self._ndims[key], (lines.shape[1] - 2) // 2
        offsets, sizes = lines[:, 2 : 2 + ndim], lines[:, 2 + width : 2 + width + ndim]
        return offsets, offsets + sizes

    def _boxes_of(self, key: str, box: Box) -> Iterator[tuple[Box, list[int]]]:
        """The boxes of a tensor that have something of a box, each once, and on which ranks."""
        number = self._numbers[key]
        first, behind = np.searchsorted(self._directory[:, 0], [number, number + 1])
        lines = self._directory[first:behind]
        starts, ends = self._edges(lines, key)
        is_common = np.maximum(starts, box.offsets) < np.minimum(ends, box.ends)
        ranks: dict[Box, list[int]] = {}
        for line in np.flatnonzero(is_common.all(axis=1)):
            outer = Box(tuple(starts[line].tolist()), tuple((ends[line] - starts[line]).tolist()))
            ranks.setdefault(outer, []).append(int(lines[line, 1]))
        yield from ranks.items()

    def _asks_for(self, want: Want, out: torch.Tensor) -> list[list[_Ask]]:
        """What to ask of each rank; what is here is put into its place."""
        asks: list[list[_Ask]] = [[] for _ in range(self._count)]
        found = 0
        for outer, ranks in self._boxes_of(want.key, want.box):
            part = want.of(outer)
            if part is None:
                continue
            inner, place = part
            found += place.numel
            if self._at in ranks:
                piece = next(tensor for box, tensor in self._pieces[want.key] if box == outer)
                _put(inner.taken_from(outer, piece), place.of(out))
            else:
                asks[ranks[self._at % len(ranks)]].append(_Ask(inner, place.of(out)))
        if found != out.numel():
            raise self._nowhere(want, found, out.numel())
        return asks

    def _nowhere(self, want: Want, found: int, count: int) -> UnsupportedError:
        return UnsupportedError(
            f"{self._checkpoint.url}: tensor {want.key!r} is spread over processes, and of the "
            f"{count:,} values of it that are needed here {found:,} lie on one that takes part in "
            "this warm start. Pass process_group= of all that have some to warm_start, on each, or "
            "save it, torch.distributed.checkpoint.save(state, checkpoint_id=directory), and pass "
            "the directory."
        )

    # -- a round -----------------------------------------------------------------------------------

    def _round(self, asks: list[list[_Ask]], *, goes_on: bool) -> bool:
        """Asks, and sends what others ask for; whether one of them goes on asking after it."""
        head = torch.tensor([int(goes_on)], device="cpu")
        letters = [torch.cat([head, *map(self._in_numbers, of_rank)]) for of_rank in asks]
        heard = self._spread(letters)
        asked = [self._from_numbers(letter[1:]) for letter in heard]
        partners = max(sum(map(bool, asks)), sum(map(bool, asked)))
        most = self._most(partners)
        if most:
            limit = max(1, CHUNK_BYTES // most)
            coming = [[*self._batches(of_rank, limit)] for of_rank in asks]
            going = [[*self._batches(of_rank, limit)] for of_rank in asked]
            count = max(map(len, (*coming, *going)))
            for number in range(self._most(count)):
                self._send([_at(of_rank, number) for of_rank in going], coming, number)
        return any(int(letter[0]) for letter in heard)

    def _in_numbers(self, ask: _Ask) -> torch.Tensor:
        want = ask.want
        count = _ALL if want.rows is None else len(want.rows)
        head = [self._numbers[want.key], want.dim, count, *want.box.offsets, *want.box.sizes]
        letter = torch.tensor(head, device="cpu")
        return letter if want.rows is None else torch.cat([letter, want.rows])

    def _from_numbers(self, letter: torch.Tensor) -> list[_Ask]:
        asks, at = [], 0
        while at < len(letter):
            number, dim, count = letter[at : at + 3].tolist()
            key = self._keys[number]
            ndim, at = self._ndims[key], at + 3
            box = letter[at : at + 2 * ndim].tolist()
            at += 2 * ndim
            rows = None if count == _ALL else letter[at : at + count]
            at += max(0, count)
            asks.append(_Ask(Want(key, Box(tuple(box[:ndim]), tuple(box[ndim:])), rows, dim)))
        return asks

    def _batches(self, asks: Sequence[_Ask], limit: int) -> Iterator[list[_Unit]]:
        """What is sent from one rank to another at a time: both know it from what was asked."""
        batch: list[_Unit] = []
        size = 0
        for unit in itertools.chain.from_iterable(self._units(ask, limit) for ask in asks):
            if batch and size + unit.nbytes > limit:
                yield batch
                batch, size = [], 0
            batch.append(unit)
            size += unit.nbytes
        if batch:
            yield batch

    def _units(self, ask: _Ask, limit: int) -> Iterator[_Unit]:
        dtype = self._dtypes[ask.want.key]
        assert dtype is not None  # it has been planned for
        for inner in _cut(ask.want.sizes, max(1, limit // dtype.itemsize)):
            yield _Unit(ask, inner, inner.numel * dtype.itemsize)

    def _send(self, going: list[list[_Unit]], coming: list[list[list[_Unit]]], number: int) -> None:
        """One chunk."""
        expected = [_at(of_rank, number) for of_rank in coming]
        sizes = [
            [sum(unit.nbytes for unit in batch) for batch in each] for each in (going, expected)
        ]
        sent, got = (torch.empty(sum(each), dtype=torch.uint8, device="cpu") for each in sizes)
        at = 0
        for unit in itertools.chain.from_iterable(going):
            values = self._values_of(unit)
            sent[at : at + unit.nbytes].view(*values.shape).copy_(values)
            at += unit.nbytes
        self._swap(sent, got, *sizes)
        at = 0
        for unit in itertools.chain.from_iterable(expected):
            assert unit.ask.into is not None  # it is this rank's
            place = as_bytes(unit.inner.of(unit.ask.into))
            place.copy_(got[at : at + unit.nbytes].view(place.shape))
            at += unit.nbytes

    def _values_of(self, unit: _Unit) -> torch.Tensor:
        """The bytes of what is sent."""
        want = unit.ask.want
        outer, piece = next(
            piece for piece in self._pieces[want.key] if piece[0].common(want.box) == want.box
        )
        return as_bytes(want.part(unit.inner).taken_from(outer, piece))

    # -- what all do together ----------------------------------------------------------------------

    def _most(self, number: int) -> int:
        """The highest number that a rank has."""
        heard = torch.empty(self._count, dtype=torch.int64, device="cpu")
        each = [1] * self._count
        self._swap(torch.full((self._count,), number, device="cpu"), heard, each, each)
        return int(heard.max())

    def _spread(self, letters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """A vector of int64 to each rank; what each has sent to this one."""
        sizes, each = (
            torch.tensor([len(letter) for letter in letters], device="cpu"),
            [1] * self._count,
        )
        heard = torch.empty_like(sizes)
        self._swap(sizes, heard, each, each)
        counts = heard.tolist()
        got = torch.empty(sum(counts), dtype=torch.int64, device="cpu")
        self._swap(torch.cat([*letters]), got, sizes.tolist(), counts)
        ends = itertools.accumulate(counts)
        return [got[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def _swap(
        self, sent: torch.Tensor, got: torch.Tensor, going: list[int], coming: list[int]
    ) -> None:
        """`all_to_all_single`, which nobody begins before all can."""
        self._agreement.meet()
        try:
            work = self._group.alltoall_base(got, sent, coming, going)
            pause = _POLL[0]
            while not work.is_completed():
                time.sleep(pause)
                pause = min(2 * pause, _POLL[1])
            work.wait()
        except RuntimeError as error:
            self._agreement.broke_off(error)


def _overlapping(starts: _Numbers, ends: _Numbers) -> tuple[_Numbers, _Numbers] | None:
    """Two different boxes that have an element in common: starts and ends, `[2, dims]` each.

    They are cut into groups between which a plane lies, as nearly all divisions can be; only what
    no plane divides is compared, each box with each.
    """
    groups = [np.unique(np.stack([starts, ends], axis=1), axis=0)]
    while groups:
        group = groups.pop()
        for dim in range(starts.shape[1] if len(group) > 1 else 0):
            group = group[np.argsort(group[:, 0, dim], kind="stable")]
            behind = np.maximum.accumulate(group[:, 1, dim])
            cuts = 1 + np.flatnonzero(group[1:, 0, dim] >= behind[:-1])
            if len(cuts):
                groups += np.split(group, cuts)
                break
        else:
            for at, box in enumerate(group[:-1]):
                others = group[at + 1 :]
                is_common = np.maximum(others[:, 0], box[0]) < np.minimum(others[:, 1], box[1])
                found = np.flatnonzero(is_common.all(axis=1))
                if len(found):
                    return box, others[found[0]]
    return None


def _shown(box: _Numbers) -> str:
    starts, ends = box.tolist()
    return f"[{', '.join(f'{start}:{end}' for start, end in zip(starts, ends, strict=True))}]"


def _put(values: torch.Tensor, place: torch.Tensor) -> None:
    as_bits(place).copy_(as_bits(values))


def _at(batches: Sequence[list[_Unit]], number: int) -> list[_Unit]:
    return batches[number] if number < len(batches) else []


def _cut(sizes: Sequence[int], limit: int) -> Iterator[Box]:
    """Boxes of so many elements at most that make up all, in order."""
    steps, left = [], limit
    for size in reversed(sizes):
        step = max(1, min(size, left))
        steps.append(step)
        left = left // step if step == size else 1
    starts = [range(0, size, step) for size, step in zip(sizes, reversed(steps), strict=True)]
    for offsets in itertools.product(*starts):
        yield Box(offsets, tuple(map(min, reversed(steps), map(int.__sub__, sizes, offsets))))
