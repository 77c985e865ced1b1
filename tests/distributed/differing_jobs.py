"""What the ranks do in tests of ranks that differ: in what they hold, state, or draw."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import torch_warmstart as tws
from torch_warmstart.model import local_tensors

SOON = 20.0  # seconds that a rank waits for another one, which comes


@functools.cache  # groups have threads of their own, and stay until the process ends
def mesh() -> DeviceMesh:
    """All ranks in a row."""
    return init_device_mesh("cpu", (dist.get_world_size(),))


def placed(tensor: torch.Tensor, *placements: Any) -> DTensor:
    """A tensor on all ranks."""
    return distribute_tensor(tensor, mesh(), placements)


def bits(model: nn.Module) -> list[torch.Tensor]:
    """What is here of a model."""
    tensors: list[Any] = [*model.parameters(), *model.buffers()]
    local = (t.to_local() if isinstance(t, DTensor) else t for t in tensors)
    return [tensor.detach().clone() for tensor in local]


def told(model: nn.Module, settings: tws.WarmStartSettings, **more: Any) -> str:
    """What a warm start raises; that nothing has been changed then, or "" that it is well."""
    before = bits(model)
    try:
        tws.warm_start(model, settings, timeout=SOON, **more)
    except tws.WarmStartError as error:
        assert all(map(torch.equal, before, bits(model))), "it has been changed"
        return f"{type(error).__name__}: {error}"
    return ""


def is_alike(tensor: torch.Tensor) -> bool:
    """Whether a plain tensor is the same on all ranks."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, tensor.detach())
    return all(torch.equal(found[0], other) for other in found)


# -- models on meta --------------------------------------------------------------------------------


class _Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 4)


def _by_rows_and_columns(model: _Layers) -> nn.Module:
    """The bias of a layer that is cut by columns is on all ranks."""
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    return parallelize_module(model, mesh(), plan)


def _but_for_a_bias(model: _Layers) -> Any:
    """A plain bias in a layer that is cut."""
    return fully_shard(model, ignored_params={model.down.bias})


def initialise_on_meta(how: str) -> None:
    """What all ranks have alike is initialised alike, and shards are not."""
    ways: dict[str, Any] = {"tensor parallel": _by_rows_and_columns, "ignored": _but_for_a_bias}
    with torch.device("meta"):
        model = ways[how](_Layers())
    torch.manual_seed(dist.get_rank())
    state = {"up.weight": torch.ones(8, 6), "up.bias": torch.ones(8)}
    tws.warm_start(model, tws.WarmStartSettings(state, [".*"], on_missing="keep"))
    down: Any = model.down
    (bias,), weight = local_tensors(down.bias), down.weight.full_tensor()
    assert is_alike(bias)
    assert len(weight.unique()) == weight.numel()
    assert 0 < weight.abs().max() <= 8**-0.5


# -- what lies on ranks ----------------------------------------------------------------------------


def fill_from_two_divisions() -> str:
    """The first rank has rows of a tensor, the others columns; as many elements as it has."""
    whole = torch.arange(1.0, 5.0).view(2, 2)
    if dist.get_rank():
        dim, here = 1, whole[:, 1:].contiguous()
    else:
        dim, here = 0, whole[:1].contiguous()
    state: dict[str, torch.Tensor] = {
        "weight": DTensor.from_local(here, mesh(), [Shard(dim)], shape=whole.shape, stride=(2, 1)),
        "other": placed(torch.zeros(2, 2, 2), Shard(0)),
    }
    model = nn.Linear(2, 2, bias=False)
    model.register_buffer("other", torch.ones(2, 2, 2))
    settings = tws.WarmStartSettings(state, [".*"])
    return told(model, settings, process_group=dist.group.WORLD)


def fill_uneven(is_source: bool) -> str:
    """Two rows on the first rank, where the placements mean four."""
    count = 2 if dist.get_rank() == 0 else 5
    local, shape = torch.zeros(count, 2), torch.Size([7, 2])
    odd = DTensor.from_local(local, mesh(), [Shard(0)], shape=shape, stride=(2, 1))
    model, state = nn.Linear(2, 7, bias=False), {"weight": torch.ones(7, 2)}
    if is_source:
        model.weight = nn.Parameter(placed(torch.zeros(7, 2), Shard(1)))
        state = {"weight": odd}
    else:
        model.weight = nn.Parameter(odd)
    return told(model, tws.WarmStartSettings(state, [".*"]))
