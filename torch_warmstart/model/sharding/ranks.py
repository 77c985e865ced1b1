"""Which processes take part, and how they reach each other beside the model's own groups."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import torch

from torch_warmstart.errors import SettingsError, UnsupportedError
from torch_warmstart.model.modules import modules_of, tensors_of
from torch_warmstart.model.sharding.boxed import ranks_of_tensor
from torch_warmstart.model.sharding.torchrec import is_of_torchrec


def ranks_of_model(model: torch.nn.Module) -> frozenset[int]:
    """The global ranks that a model is spread over or copied to; none if it is this process's."""
    if "torch.distributed" not in sys.modules or not _is_initialised():
        return frozenset()
    tensors = [*tensors_of(model)]
    ranks = {rank for tensor in tensors for rank in ranks_of_tensor(tensor)}
    for module in modules_of(model):
        if is_of_torchrec(module):
            environment: Any = module._env
            ranks.update(ranks_of_group(environment.process_group))
        if isinstance(module, torch.nn.parallel.DistributedDataParallel):
            ranks.update(torch.distributed.get_process_group_ranks(module.process_group))
    return frozenset(ranks)


def has_other_ranks() -> bool:
    """Whether this process is one of several, whatever they are for."""
    is_known = "torch.distributed" in sys.modules and _is_initialised()
    return is_known and torch.distributed.get_world_size() > 1


def ranks_of_group(group: Any) -> frozenset[int]:
    """The global ranks of a process group; raises SettingsError if it is none, or another's."""
    here = torch.distributed.is_available() and torch.distributed.is_initialized()
    # What new_group() gives a process that is not in the group: a number.
    if here and isinstance(group, int) and group == torch.distributed.GroupMember.NON_GROUP_MEMBER:
        return frozenset()
    if not here or not isinstance(group, torch.distributed.ProcessGroup):
        raise SettingsError(
            "process_group is a group of torch.distributed, such as torch.distributed.group.WORLD "
            f"behind init_process_group(), not {type(group).__name__}."
        )
    return frozenset(torch.distributed.get_process_group_ranks(group))


def shared_store() -> Any:
    """The store of torch of keys and values, which all processes reach that have initialised it."""
    return torch.distributed.distributed_c10d._get_default_store()


def gloo_group(name: str, at: int, count: int, timeout: timedelta) -> Any:
    """A process group of its own for tensors on the CPU, whatever the others' backend is.

    It is known to nobody else, so what becomes of it is no matter to the model's own groups.

    Args:
        name: The same for its processes, and for no other group.
        at: Which of them this one is.
        count: How many they are.
        timeout: How long they wait for each other.

    Raises UnsupportedError: torch has been built without gloo.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    kind = getattr(torch.distributed, "ProcessGroupGloo", None)
    if kind is None:
        raise UnsupportedError(
            "What other ranks have in memory is sent by gloo, without which this torch was built. "
            "Save it by torch.distributed.checkpoint.save and pass the directory."
        )
    return kind(PrefixStore(name, shared_store()), at, count, timeout=timeout)


def _is_initialised() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
