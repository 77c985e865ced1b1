"""Models whose parameters are pieces of others, or lie elsewhere, as only a library knows.

What is written into such a one is lost, or stands for something else. Each is told by what its
library writes on modules and parameters, so that nothing of it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.model.modules import named_modules
from torch_warmstart.model.sharding import is_whole_of_fsdp1


def check_own_shapes(model: torch.nn.Module) -> None:
    """Raises UnsupportedError, with the line that works, if parameters are not what they seem."""
    for find in _STRANGERS:
        text = find(model)
        if text is not None:
            raise UnsupportedError(text)


def _fsdp1(model: torch.nn.Module) -> str | None:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FullyShardedDataParallel", None)
    if kind is None:
        return None
    for name, module in named_modules(model):
        if isinstance(module, kind) and not is_whole_of_fsdp1(module):
            return (
                f"{name or 'The model'} is wrapped by FullyShardedDataParallel (FSDP1), whose "
                "flat parameters are no variables. Fill it while they are whole, on every rank: "
                "`with FullyShardedDataParallel.summon_full_params(model): "
                "tws.warm_start(model, settings)`; or shard it by fully_shard (FSDP2)."
            )
    return None


def _parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """As `named_parameters`, tied ones as often as they are there, which costs a third of it."""
    for path, module in named_modules(model):
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{path}.{leaf}" if path else leaf, parameter


def _zero_3(model: torch.nn.Module) -> str | None:
    for name, parameter in _parameters(model):
        status = getattr(parameter, "ds_status", None)
        if hasattr(parameter, "ds_id") and getattr(status, "name", "") != "AVAILABLE":
            return (
                f"{name} is partitioned by DeepSpeed's ZeRO stage 3 and holds nothing by itself. "
                "Fill it while it is gathered: `with deepspeed.zero.GatheredParameters("
                "list(model.parameters()), modifier_rank=0):` and within it, on rank 0, "
                "`tws.warm_start(model, settings)`; or before deepspeed.initialize()."
            )
    return None


def _megatron(model: torch.nn.Module) -> str | None:
    state: Any = sys.modules.get("megatron.core.parallel_state")
    if state is None or state.get_tensor_model_parallel_world_size() < 2:
        return None
    for name, parameter in _parameters(model):
        if getattr(parameter, "tensor_model_parallel", False):
            return (
                f"{name} is a piece of a parameter of Megatron-LM's tensor parallelism, which does "
                "not say where in it. Warm-start the model of one rank (tensor_model_parallel_size="
                "1) and save it; Megatron's tools/checkpoint/convert.py cuts what was saved."
            )
    return None


def _offloaded(model: torch.nn.Module) -> str | None:
    if "accelerate.hooks" not in sys.modules:
        return None
    for name, module in named_modules(model):
        hook: Any = getattr(module, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            if getattr(one, "weights_map", None) is not None and one.offload:
                return (
                    f"{name or 'The model'} is offloaded by accelerate, which at each forward pass "
                    "puts what it keeps elsewhere in the place of what the model has. Warm-start "
                    "the model before cpu_offload, disk_offload or dispatch_model; load one that "
                    "from_pretrained offloads without device_map, or with one for real devices."
                )
    return None


_STRANGERS: tuple[Callable[[torch.nn.Module], str | None], ...] = (
    _fsdp1,
    _zero_3,
    _megatron,
    _offloaded,
)
