"""Tensors of which a process holds a part: as boxes of the global tensor, and who has the others.

What torch itself says is believed: `__create_chunk_list__` and `__get_tensor_shard__`, by which
torch.distributed.checkpoint knows DTensors and whatever else it can save, and the metadata of a
ShardedTensor. This is the only module that touches what is private of torch.distributed. Nothing of
it is imported unless somebody else has.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_warmstart.boxes import Box
from torch_warmstart.errors import UnsupportedError

_FSDP = ("torch.distributed.fsdp", "torch.distributed._composable.fsdp")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A box of a variable that is here, and its values, which share the variable's memory."""

    box: Box
    tensor: torch.Tensor


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of several processes, even if each of them has all of it."""
    return hasattr(tensor, "__create_chunk_list__") or _is_sharded_tensor(tensor)


def parts_of(tensor: torch.Tensor) -> tuple[Part, ...]:
    """The parts of a tensor that are here: one box if that is all of it, none if it has no share.

    Raises UnsupportedError if how it is divided is not known.
    """
    if not is_sharded(tensor):
        return (Part(Box.whole(tensor.shape), tensor.detach()),)
    why = why_not_in_boxes(tensor)
    if why is not None:
        raise UnsupportedError(f"A tensor of shape {list(tensor.shape)} {why}.")
    with torch.no_grad():
        found = [Part(box, local.detach()) for box, local in _pieces(tensor)]
    return tuple(part for part in found if part.box.numel or not math.prod(tensor.shape))


def local_tensors(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors without a distribution of their own that hold what is here of one."""
    if not is_sharded(tensor):
        return (tensor,)
    return tuple(part.tensor for part in parts_of(tensor))


def why_not_in_boxes(tensor: torch.Tensor) -> str | None:
    """Why a process's part of a sharded tensor is no box of it, to follow its name; None: it is."""
    placements = getattr(tensor, "placements", ())
    if any(placement.is_partial() for placement in placements):
        return "is a DTensor of partial sums, which are not yet its values"
    if any(_is_scattered(tensor, at) for at in range(len(placements))):
        return "is a DTensor whose rows on this process do not lie next to each other"
    return None


def sharded_like(like: torch.Tensor, local: Sequence[torch.Tensor]) -> torch.Tensor:
    """A tensor that is divided as another one is, over memory of its own.

    Args:
        like: A DTensor.
        local: What `parts_of` has for `like`, with other values.

    Raises UnsupportedError if it is something else, or has several boxes here.
    """
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


def home_of(tensor: torch.Tensor) -> torch.device:
    """Where a tensor is; for one on the meta device, where torch would make it."""
    if not tensor.is_meta:
        return tensor.device
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return torch.get_default_device()
    kind: str = mesh.device_type
    if kind == "cpu":
        return torch.device(kind)
    return torch.device(kind, torch.get_device_module(kind).current_device())


def shard_number(tensor: torch.Tensor) -> int:
    """The same number for processes that hold the same part of a tensor, and for no others."""
    return sum((at + 1) * offset for part in parts_of(tensor) for at, offset in _strides(part.box))


def _strides(box: Box) -> Iterator[tuple[int, int]]:
    return ((1_000_003**dim, offset) for dim, offset in enumerate(box.offsets))


# -- who takes part --------------------------------------------------------------------------------


def ranks_of_model(model: torch.nn.Module) -> frozenset[int]:
    """The global ranks that a model is spread over or copied to; none if it is this process's."""
    if "torch.distributed" not in sys.modules or not _is_initialised():
        return frozenset()
    tensors = [*model.parameters(), *model.buffers()]
    ranks = {rank for tensor in tensors for rank in _ranks_of_tensor(tensor)}
    for module in model.modules():
        if isinstance(module, torch.nn.parallel.DistributedDataParallel):
            ranks.update(torch.distributed.get_process_group_ranks(module.process_group))
    return frozenset(ranks)


def has_other_ranks() -> bool:
    """Whether this process is one of several, whatever they are for."""
    is_known = "torch.distributed" in sys.modules and _is_initialised()
    return is_known and torch.distributed.get_world_size() > 1


def ranks_of_group(group: Any) -> frozenset[int]:
    """The global ranks of a process group."""
    return frozenset(torch.distributed.get_process_group_ranks(group))


def shared_store() -> Any:
    """The store of torch of keys and values, which all processes reach that have initialised it."""
    return torch.distributed.distributed_c10d._get_default_store()


def show_shards(model: torch.nn.Module) -> None:
    """Makes FSDP2's modules show their shards, which a forward pass may have left gathered.

    What a gathered parameter is given would be lost: `state_dict()` does the same.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    if kind is not None:
        for module in model.modules():
            if isinstance(module, kind):
                module.reshard()


def is_of_fsdp(hook: Any) -> bool:
    """Whether a module's load hook is FSDP's own, which sees to its shards.

    FSDP2's have been shown before anything is planned, and are filled in place; the parameters of
    FSDP1 are filled only while they are whole. So it has nothing to do.
    """
    function = getattr(hook, "hook", hook)  # torch wraps those that get their module
    return str(getattr(function, "__module__", "")).startswith(_FSDP)


def take_new_shards(model: torch.nn.Module) -> None:
    """Makes FSDP2's modules look at their parameters again, which have been replaced."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    if kind is None:
        return
    for module in model.modules():
        if isinstance(module, kind):
            state: Any = module._get_fsdp_state()
            groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]
            for group in groups:
                for parameter in group.fsdp_params if group is not None else ():
                    parameter.reset_sharded_param()


def _ranks_of_tensor(tensor: torch.Tensor) -> Sequence[int]:
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is not None:
        ranks: list[int] = mesh.mesh.flatten().tolist()
        return ranks
    if _is_sharded_tensor(tensor):
        return torch.distributed.get_process_group_ranks(tensor._process_group)  # type: ignore[attr-defined]
    return ()


def _is_initialised() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


# -- how a tensor is divided -----------------------------------------------------------------------


def _pieces(tensor: Any) -> Iterable[tuple[Box, torch.Tensor]]:
    if _is_sharded_tensor(tensor):
        for shard in tensor.local_shards():
            metadata = shard.metadata
            yield Box(tuple(metadata.shard_offsets), tuple(metadata.shard_sizes)), shard.tensor
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
