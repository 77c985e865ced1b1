"""Tensors of which a process holds a part: as boxes of the global tensor, and who has the others.

What torch itself says is believed: `__create_chunk_list__` and `__get_tensor_shard__`, by which
torch.distributed.checkpoint knows DTensors and whatever else it can save, and the metadata of a
ShardedTensor.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import PLAIN
from torch_warmstart.errors import UnsupportedError
from torch_warmstart.values import frozen


@frozen(eq=False)
class Part:
    """A box of a variable that is here, and its values, which share the variable's memory."""

    box: Box
    tensor: torch.Tensor


_DEPTH = 4  # of mappings in a container, in which sharded tensors are looked for


class Boxed(torch.Tensor):
    """A tensor of which boxes are here that a library keeps in its own way.

    It has a shape, a dtype and a device, and nothing can be done with it but to ask for its parts.
    """

    pieces: tuple[Part, ...]
    ranks: tuple[int, ...]  # the global ranks that have parts of it
    registered: torch.Tensor | None  # what a module has in its place: another tensor on each rank

    @staticmethod
    def __new__(
        cls,
        like: torch.Tensor,
        pieces: Sequence[Part],
        ranks: Sequence[int],
        registered: torch.Tensor | None = None,
    ) -> Boxed:
        with _quietly():
            made: Boxed = torch.Tensor._make_wrapper_subclass(
                cls, like.shape, dtype=like.dtype, device=_device_of(like, pieces, registered)
            )
            made.requires_grad_(registered is not None and registered.requires_grad)
        made.pieces, made.ranks, made.registered = tuple(pieces), tuple(ranks), registered
        return made

    def __init__(self, *_: Any) -> None:
        """All has been done."""

    def detach(self) -> Boxed:
        """Itself: no gradient goes through it."""
        return self

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Boxed(shape={list(self.shape)}, boxes={[part.box for part in self.pieces]})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise UnsupportedError(f"{func} of a tensor whose parts lie on several processes.")


def boxed(tensor: Any, registered: torch.Tensor | None = None) -> Boxed | None:
    """A ShardedTensor, or a DTensor of several boxes a process, as one that has parts.

    Args:
        tensor: Whatever a state_dict holds.
        registered: What the module has in its place.

    Returns None if it is neither of them.
    """
    with _quietly():
        if _is_sharded_tensor(tensor):
            shards = tensor.local_shards()
            boxes = [_box_of(shard.metadata) for shard in shards]
            local = [shard.tensor for shard in shards]
        elif (wrapper := _shards_wrapper(tensor)) is not None:
            local = wrapper.local_shards()
            offsets = wrapper.local_offsets() if local else ()  # of nothing it has one, too
            boxes = [Box(tuple(at), tuple(t.shape)) for at, t in zip(offsets, local, strict=True)]
        else:
            return None
        parts = [Part(box, one.detach()) for box, one in zip(boxes, local, strict=True)]
        return Boxed(tensor, parts, ranks_of_tensor(tensor), registered)


def boxed_like(
    like: Boxed,
    shape: Sequence[int],
    boxes: Sequence[Box],
    local: Sequence[torch.Tensor],
    dtype: torch.dtype | None = None,
) -> Boxed:
    """A tensor of boxes on the processes that another one is on, such as a slot of it.

    Args:
        like: The other one.
        shape: Its own.
        boxes: What of it is here.
        local: Their values.
        dtype: Its dtype, where nothing of it need be here.
    """
    known = dtype or (local[0].dtype if local else like.dtype)
    pieces = [Part(box, one.detach()) for box, one in zip(boxes, local, strict=True)]
    made = Boxed(torch.empty(tuple(shape), dtype=known, device="meta"), pieces, like.ranks, like)
    made.registered = None
    return made


def registered_of(tensor: torch.Tensor) -> torch.Tensor:
    """What a module, and so an optimizer, has for a variable's tensor."""
    registered = tensor.registered if isinstance(tensor, Boxed) else None
    return tensor if registered is None else registered


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of several processes, even if each of them has all of it."""
    if type(tensor) in PLAIN:  # nearly all: what follows costs more than all else of a plan
        return False
    return (
        isinstance(tensor, Boxed)
        or hasattr(tensor, "__create_chunk_list__")
        or _is_sharded_tensor(tensor)
    )


def written_to(tensor: torch.Tensor) -> torch.Tensor:
    """What is written to in a tensor's place: its memory, without what its class does to functions.

    That may raise, where nothing can be undone any more. What is sharded, or has no address, stays
    of its class.
    """
    if is_sharded(tensor):
        return tensor.detach()
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.detach()


def parts_of(tensor: torch.Tensor) -> tuple[Part, ...]:
    """The parts of a tensor that are here: one box if that is all of it, none if it has no share.

    Raises UnsupportedError if how it is divided is not known.
    """
    if not is_sharded(tensor):
        return (Part(Box.whole(tensor.shape), written_to(tensor)),)
    why = _why_not_placed(tensor)
    found = [] if why else _found(tensor)
    why = why or _why_unlike(found)
    if why is not None:
        raise UnsupportedError(f"A tensor of shape {list(tensor.shape)} {why}.")
    return tuple(part for part in found if part.box.numel or not math.prod(tensor.shape))


def _found(tensor: torch.Tensor) -> list[Part]:
    with torch.no_grad():
        return [Part(box, local.detach()) for box, local in _pieces(tensor)]


def local_tensors(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors without a distribution of their own that hold what is here of one."""
    if not is_sharded(tensor):
        return (tensor,)
    return tuple(part.tensor for part in parts_of(tensor))


def in_boxes(tree: Mapping[Any, Any], depth: int = _DEPTH) -> Mapping[Any, Any]:
    """A state_dict, or what holds some, with what is here of each sharded tensor in its place.

    What a process has all of becomes a plain tensor; what is in no boxes stays.
    """
    changed: dict[Any, Any] = {}
    known: dict[object, torch.Tensor] = {}  # tied ones stay one
    for key, value in tree.items():
        if isinstance(value, torch.Tensor) and is_sharded(value) and not isinstance(value, Boxed):
            if why_not_in_boxes(value) is None:
                changed[key] = known.setdefault(memory_of(value), _in_boxes(value))
        elif isinstance(value, Mapping) and depth:
            inner = in_boxes(value, depth - 1)
            changed.update({} if inner is value else {key: inner})
    if not changed:
        return tree
    made = copy.copy(tree) if isinstance(tree, dict) else dict(tree)
    made.update(changed)
    return made


def memory_of(tensor: Any) -> object:
    """The same for tied tensors, each of which `state_dict()` detaches; for no others.

    Told by the storage, not by an address: what is empty here has none, and is tied no less.
    """
    local = getattr(tensor, "_local_tensor", None)
    if local is None or _shards_wrapper(tensor) is not None:
        return id(tensor)
    place = (local.untyped_storage()._cdata, local.storage_offset(), local.dtype)
    return (*place, local.shape, local.stride(), tensor.shape, tuple(tensor.placements))


def _in_boxes(tensor: torch.Tensor) -> torch.Tensor:
    parts = parts_of(tensor)
    if len(parts) == 1 and _is_everywhere(tensor):
        return parts[0].tensor
    return Boxed(tensor, parts, ranks_of_tensor(tensor))


def _is_everywhere(tensor: Any) -> bool:
    """Whether each process there is has all of a tensor, which then is the same for all."""
    ranks = ranks_of_tensor(tensor)
    if len(ranks) < torch.distributed.get_world_size():
        return False
    placements = getattr(tensor, "placements", None)
    if placements is None or _shards_wrapper(tensor) is not None:
        return len(ranks) == 1
    return not any(
        tensor.device_mesh.size(at) > 1 and not placement.is_replicate()
        for at, placement in enumerate(placements)
    )


def why_not_in_boxes(tensor: torch.Tensor) -> str | None:
    """Why a process's part of a sharded tensor is no box of it, to follow its name; None: it is."""
    return _why_not_placed(tensor) or _why_unlike(_found(tensor))


def _why_not_placed(tensor: torch.Tensor) -> str | None:
    placements = getattr(tensor, "placements", ())
    if any(placement.is_partial() for placement in placements):
        return "is a DTensor of partial sums, which are not yet its values"
    if any(_is_scattered(tensor, at) for at in range(len(placements))):
        return "is a DTensor whose rows on this process do not lie next to each other"
    if placements and _shards_wrapper(tensor) is None and _is_out_of_order(tensor):
        return (
            "is a DTensor on a mesh whose ranks do not ascend, of which torch's offsets and its "
            "collectives say two different orders"
        )
    return None


_order: MutableMapping[Any, tuple[bool, ...]] = weakref.WeakKeyDictionary()  # by mesh and dimension


def _is_out_of_order(tensor: Any) -> bool:
    """Whether a dimension is cut along ranks that do not ascend: a group sorts them."""
    mesh = tensor.device_mesh
    if mesh not in _order:
        ranks = mesh.mesh
        _order[mesh] = tuple(bool((ranks.diff(dim=at) > 0).all()) for at in range(ranks.ndim))
    both = zip(tensor.placements, _order[mesh], strict=True)
    return any(not ascends and not placement.is_replicate() for placement, ascends in both)


def _why_unlike(parts: Iterable[Part]) -> str | None:
    """Why parts are not what their boxes say, as `from_local` lets them be."""
    for part in parts:
        shape = tuple(part.tensor.shape)
        if shape != part.box.sizes and (part.box.numel or part.tensor.numel()):
            return (
                f"is a DTensor of which {list(shape)} are on this process, where its placements "
                f"mean {list(part.box.sizes)}"
            )
    return None


def sharded_like(like: torch.Tensor, local: Sequence[torch.Tensor]) -> torch.Tensor:
    """A tensor that is divided as another one is, over memory of its own.

    Args:
        like: A DTensor, or one of boxes.
        local: What `parts_of` has for `like`, with other values.

    Raises UnsupportedError if it is something else, or has several boxes here.
    """
    if isinstance(like, Boxed):
        return boxed_like(like, like.shape, [part.box for part in parts_of(like)], local)
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is None or not isinstance(like, distributed.DTensor):
        raise UnsupportedError(f"No {type(like).__name__} can be made of its parts.")
    piece = local[0] if local else _nothing_of(like)
    made: torch.Tensor = distributed.DTensor.from_local(
        piece, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
    return made


def is_divided_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same boxes here."""
    return [part.box for part in parts_of(one)] == [part.box for part in parts_of(other)]


def shard_number(tensor: torch.Tensor) -> int:
    """The same number for processes that hold the same part of a tensor, and for no others."""
    return sum((at + 1) * offset for part in parts_of(tensor) for at, offset in _strides(part.box))


def _strides(box: Box) -> Iterator[tuple[int, int]]:
    return ((1_000_003**dim, offset) for dim, offset in enumerate(box.offsets))


# -- how a tensor is divided -----------------------------------------------------------------------


def ranks_of_tensor(tensor: torch.Tensor) -> Sequence[int]:
    """The global ranks that have parts of a tensor; none, if it is nobody else's."""
    if isinstance(tensor, Boxed):
        return tensor.ranks
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is not None:
        ranks: list[int] = mesh.mesh.flatten().tolist()
        return ranks
    if _is_sharded_tensor(tensor):
        return torch.distributed.get_process_group_ranks(tensor._process_group)  # type: ignore[attr-defined]
    return ()


def _pieces(tensor: Any) -> Iterable[tuple[Box, torch.Tensor]]:
    made = tensor if isinstance(tensor, Boxed) else boxed(tensor)
    if made is not None:
        yield from ((part.box, part.tensor) for part in made.pieces)
        return
    from torch.distributed.checkpoint.metadata import MetadataIndex

    for number, chunk in enumerate(tensor.__create_chunk_list__()):
        is_in_its_mesh = len(chunk.sizes) == tensor.ndim == len(chunk.offsets)
        if is_in_its_mesh:
            index = MetadataIndex("", chunk.offsets, number)
            box = Box(tuple(chunk.offsets), tuple(chunk.sizes))
            yield box, tensor.__get_tensor_shard__(index)


def _is_sharded_tensor(tensor: Any) -> bool:
    module = sys.modules.get("torch.distributed._shard.sharded_tensor")
    return module is not None and isinstance(tensor, module.ShardedTensor)


def _shards_wrapper(tensor: Any) -> Any:
    """What holds the boxes of a DTensor that has several of them here, or says so of one."""
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is None or not isinstance(tensor, distributed.DTensor):
        return None
    local = tensor._local_tensor
    return local if callable(getattr(local, "local_offsets", None)) else None


def _box_of(metadata: Any) -> Box:
    return Box(tuple(metadata.shard_offsets), tuple(metadata.shard_sizes))


def _device_of(
    like: torch.Tensor, pieces: Sequence[Part], registered: torch.Tensor | None
) -> torch.device:
    if pieces:
        return pieces[0].tensor.device
    if registered is not None:
        return registered.device
    mesh = getattr(like, "device_mesh", None)
    return torch.device("cpu" if mesh is None else mesh.device_type)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Within, torch does not say that ShardedTensor is deprecated, each time one is looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _is_scattered(tensor: Any, at: int) -> bool:
    """Whether a strided placement is another than that of FSDP over tensor parallelism.

    There a dimension is first cut by the mesh dimensions behind, and each piece by this one.
    """
    placement = tensor.placements[at]
    factor = getattr(placement, "split_factor", None)
    if factor is None:
        return False
    behind = [
        tensor.device_mesh.size(later)
        for later in range(at + 1, len(tensor.placements))
        if getattr(tensor.placements[later], "dim", None) == placement.dim
    ]
    return bool(factor != math.prod(behind))


def _nothing_of(like: Any) -> torch.Tensor:
    local: torch.Tensor = like.to_local().detach()
    return torch.empty_like(local)
