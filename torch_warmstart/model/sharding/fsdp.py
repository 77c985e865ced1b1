"""FSDP's modules: their parameters are shards now, or whole for a while, and must be seen anew."""

from __future__ import annotations

import sys
from typing import Any

import torch

from torch_warmstart.model.modules import modules_of

_OF_SHARDING = (
    "torch.distributed.fsdp",
    "torch.distributed._composable.fsdp",
    "torchrec.distributed",
)


def show_shards(model: torch.nn.Module) -> None:
    """Makes FSDP2's modules show their shards, which a forward pass may have left gathered.

    What a gathered parameter is given would be lost: `state_dict()` does the same.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    if kind is not None:
        for module in modules_of(model):
            if isinstance(module, kind):
                module.reshard()


def is_whole_of_fsdp1(module: Any) -> bool:
    """Whether the parameters of a module of FSDP1's are gathered, to be written back."""
    is_empty = getattr(module, "_handle", None) is None
    return is_empty or getattr(module.training_state, "name", "") == "SUMMON_FULL_PARAMS"


def is_of_sharding(hook: Any) -> bool:
    """Whether a module's load hook is FSDP's or TorchRec's own, which sees to its shards.

    FSDP2's have been shown before anything is planned, and TorchRec's found: both are filled in
    place. The parameters of FSDP1 are filled only while they are whole. So it has nothing to do.
    """
    function = getattr(hook, "hook", hook)  # torch wraps those that get their module
    return str(getattr(function, "__module__", "")).startswith(_OF_SHARDING)


def take_new_shards(model: torch.nn.Module) -> None:
    """Makes FSDP2's modules look at their parameters again, which have been replaced."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    if kind is None:
        return
    for module in modules_of(model):
        if isinstance(module, kind):
            state: Any = module._get_fsdp_state()
            groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]
            for group in groups:
                for parameter in group.fsdp_params if group is not None else ():
                    parameter.reset_sharded_param()
