"""Where tensors lie in memory: which of them overlap, and which cannot be written to at all.

Two parameters may lie on the same bytes without being the same object (`Parameter(a.weight.data)`,
views of one buffer, a numpy array under both), and a checkpoint's tensor may lie on the model's.
What counts are addresses, not storages: a numpy array makes a storage of its own each time.
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch

from torch_warmstart.dtypes import (
    has_its_memory,
    has_own_dispatch,
    has_own_functions,
    span_of,
)
from torch_warmstart.model.sharding import local_tensors
from torch_warmstart.values import frozen

T = TypeVar("T")

_HERE = "cpu"

_MAPS = "/proc/self/maps"  # Linux; elsewhere a file that is mapped twice is not noticed
_MAPPED = re.compile(r"^(\w+)-(\w+) (\S\S-\S) \w+ (\w+:\w+ [1-9]\d*) +(.*)$", re.MULTILINE)


class Extent(NamedTuple):  # of every tensor several are made and sorted
    """The bytes from a tensor's first to its last, on a device."""

    device: str
    start: int
    stop: int

    def touches(self, other: Extent | None) -> bool:
        """Whether another one, if there is any, has a byte of it."""
        if other is None or other.device != self.device:
            return False
        return self.start < other.stop and other.start < self.stop


def extent_of(tensor: torch.Tensor) -> Extent | None:
    """Where a tensor lies; None where it has no element, or no address."""
    if torch.nn.parameter.is_lazy(tensor) or tensor.layout is not torch.strided:
        return None
    if tensor.is_meta or not tensor.numel():
        return None
    try:
        start = tensor.data_ptr()
    except RuntimeError:  # a subclass without bytes of its own
        return None
    if not start:
        return None
    device = _HERE if tensor.is_cpu else str(tensor.device)
    if tensor.is_contiguous():
        return Extent(device, start, start + tensor.nbytes)
    return Extent(device, start, start + span_of(tensor) * tensor.element_size())


class Extents(Generic[T]):
    """What lies where, for many tensors: asked which of them another one touches."""

    def __init__(self, tensors: Iterable[tuple[torch.Tensor, T]]) -> None:
        found: dict[str, list[tuple[int, int, int]]] = {}
        self._of: list[T] = []
        for number, (tensor, of) in enumerate(tensors):
            extent = extent_of(tensor)
            self._of.append(of)
            if extent is not None:
                found.setdefault(extent.device, []).append((extent.start, extent.stop, number))
        self._on = {device: _Sorted(known) for device, known in found.items()}

    def touching(self, extent: Extent | None) -> Iterator[T]:
        """Those that have a byte of an extent between their first and their last."""
        if extent is not None and extent.device in self._on:
            for number in self._on[extent.device].touching(extent.start, extent.stop):
                yield self._of[number]


class _Sorted:
    """Extents of one device, in lists of numbers: those are nothing for the collector to visit."""

    def __init__(self, known: list[tuple[int, int, int]]) -> None:
        known.sort()
        self._starts = [start for start, _, _ in known]
        self._stops = [stop for _, stop, _ in known]
        self._numbers = [number for _, _, number in known]
        self._longest = max(stop - start for start, stop, _ in known)

    def touching(self, start: int, stop: int) -> Iterator[int]:
        first = bisect.bisect_left(self._starts, start - self._longest)
        last = bisect.bisect_left(self._starts, stop)
        return (self._numbers[at] for at in range(first, last) if self._stops[at] > start)


def overlapping(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    """Which of the tensors lie upon each other: groups of two or more, by their positions."""
    found = [(extent_of(tensor), at) for at, tensor in enumerate(tensors)]
    ordered = sorted((extent, at) for extent, at in found if extent is not None)
    groups: list[list[int]] = []
    device, stop = "", 0
    for extent, at in ordered:
        if extent.device != device or extent.start >= stop:
            groups.append([])
            stop = 0
        groups[-1].append(at)
        device, stop = extent.device, max(stop, extent.stop)
    return [sorted(group) for group in groups if len(group) > 1]


def lies_on(tensor: torch.Tensor, others: Sequence[torch.Tensor]) -> bool:
    """Whether writing to others, which can be written to, writes to every byte of a tensor.

    Several may do so together. What lies on a part of a tensor with gaps is not seen.
    """
    mine = extent_of(tensor)
    if mine is None:
        return False
    if any(_place(other) == _place(tensor) for other in others):
        return True
    found = (extent_of(other) for other in others if span_of(other) == other.numel())
    left = mine.start
    for extent in sorted(extent for extent in found if extent is not None):
        if extent.device == mine.device and extent.start <= left:
            left = max(left, extent.stop)
    return left >= mine.stop


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    return extent_of(tensor), tensor.element_size(), tensor.shape, tensor.stride()


def share_elements(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have a byte in common; columns of one matrix lie between each other."""
    a, b = extent_of(one), extent_of(other)
    if a is None or b is None or a.device != b.device or a.stop <= b.start or b.stop <= a.start:
        return False
    if one.is_contiguous() and other.is_contiguous():
        return True
    start, stop = min(a.start, b.start), max(a.stop, b.stop)
    taken = torch.zeros(stop - start, dtype=torch.uint8)
    _bytes_at(taken, one, a.start - start).fill_(1)
    return bool(_bytes_at(taken, other, b.start - start).any())


def _bytes_at(memory: torch.Tensor, tensor: torch.Tensor, offset: int) -> torch.Tensor:
    """The bytes of a tensor in a flat tensor that stands for memory."""
    size = tensor.element_size()
    strides = [stride * size for stride in tensor.stride()]
    return memory.as_strided((*tensor.shape, size), (*strides, 1), offset)


def why_unwritable(tensors: Iterable[torch.Tensor]) -> str | None:
    """Why values cannot be put in place into one of the parts of a variable; None: they can."""
    return next(filter(None, map(_why_unwritable, tensors)), None)


def _why_unwritable(tensor: torch.Tensor) -> str | None:
    if tensor.layout is not torch.strided:
        return f"is {str(tensor.layout).removeprefix('torch.')}, whose values have no fixed place"
    return next((why for is_so, why in _UNWRITABLE if is_so(tensor)), None)


def is_frozen_by_inference(tensor: torch.Tensor) -> bool:
    """Whether torch refuses to change a tensor because of the mode that it was made in."""
    return tensor.is_inference() and not tensor.is_meta and not torch.is_inference_mode_enabled()


def mode_of(tensor: torch.Tensor) -> torch.inference_mode:
    """Within it tensors are made that can be trained, if this one can, whoever calls.

    What is made under `torch.inference_mode()` may be changed under it only, and never trained.
    """
    found = any(local.is_inference() for local in local_tensors(tensor))
    return torch.inference_mode(found and torch.is_inference_mode_enabled())


def has_no_address(tensor: torch.Tensor) -> bool:
    """Whether only a tensor's class can write to it, and so as a whole: torchao's, fake ones."""
    if tensor.is_meta or not tensor.numel() or torch.nn.parameter.is_lazy(tensor):
        return False
    return has_own_dispatch(tensor) and extent_of(tensor) is None


def _refuses_values(tensor: torch.Tensor) -> bool:
    """Whether its class raises where plain values are put into such a tensor: tried on a copy."""
    if tensor.is_meta or not (has_no_address(tensor) or has_own_functions(tensor)):
        return False
    try:
        with torch.no_grad():
            tensor.detach().clone().copy_(torch.zeros(tensor.shape, dtype=tensor.dtype))
    except Exception:  # whatever the class raises
        return True
    return False


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    if tensor.is_meta or not tensor.numel() or tensor.is_contiguous():
        return False
    if extent_of(tensor) is None:
        return False
    reach = 0
    dims = zip(tensor.stride(), tensor.shape, strict=True)
    for stride, size in sorted(dim for dim in dims if dim[1] > 1):
        if stride == 0:
            return True
        if stride <= reach:  # not clearly apart: counted
            taken = torch.zeros(span_of(tensor), dtype=torch.uint8)
            taken.as_strided(tensor.shape, tensor.stride()).fill_(1)
            return int(taken.sum()) < tensor.numel()
        reach += (size - 1) * stride
    return False


_UNWRITABLE: tuple[tuple[Callable[[torch.Tensor], bool], str], ...] = (
    (lambda tensor: not has_its_memory(tensor), "has no memory: its storage has been freed"),
    (lambda tensor: tensor.is_quantized, "is quantised: its values are made of others"),
    (
        is_frozen_by_inference,
        "was made under torch.inference_mode() and cannot be changed outside of it",
    ),
    (
        lambda tensor: tensor.is_conj() or tensor.is_neg(),
        "is a view that conjugates or negates what lies in memory",
    ),
    (_refuses_values, "is of a class that refuses plain values"),
    (_overlaps_itself, "is expanded: several of its elements are one number in memory"),
)


class WrittenMemory:
    """The memory that is going to be written: asked whether a source lies in it.

    It does by its address, or because both are mappings of one file, of which the written one is
    shared (`numpy.memmap(mode="r+")`): what is written then shows in the other.
    """

    def __init__(self, targets: Iterable[torch.Tensor]) -> None:
        self._targets = Extents((target, number) for number, target in enumerate(targets))
        found = [*_mappings()]
        locked = (mapping.extent for mapping in found if not mapping.is_writable)
        # A target in a file that is mapped to be read only: to write there ends the process.
        self.locked: int | None = next(
            (number for extent in locked for number in self._targets.touching(extent)), None
        )
        shared = [mapping for mapping in found if mapping.is_shared]
        written = [mapping for mapping in shared if self._touches(mapping.extent)]
        self._inodes = frozenset(mapping.inode for mapping in written)
        self.files: frozenset[str] = frozenset(mapping.path for mapping in written)

    def holds(self, source: torch.Tensor) -> bool:
        """Whether a source may change while the targets are written."""
        extent = extent_of(source)
        if extent is None:
            return False
        if self._touches(extent):
            return True
        return bool(self._inodes) and any(
            mapping.inode in self._inodes and mapping.extent.touches(extent)
            for mapping in _mappings()
        )

    def _touches(self, extent: Extent) -> bool:
        return any(True for _ in self._targets.touching(extent))


@frozen
class _Mapping:
    """A file in the memory of this process."""

    extent: Extent  # where it is
    is_writable: bool
    is_shared: bool  # what is written there is written to the file
    inode: str  # with its device
    path: str


def _mappings() -> Iterator[_Mapping]:
    """Those that are not of programs, as Linux tells them; elsewhere none."""
    if not os.path.exists(_MAPS):
        return
    with open(_MAPS, errors="surrogateescape") as maps:
        for start, stop, rights, inode, path in _MAPPED.findall(maps.read()):
            extent = Extent(_HERE, int(start, 16), int(stop, 16))
            yield _Mapping(extent, rights[1] == "w", rights.endswith("s"), inode, path)
