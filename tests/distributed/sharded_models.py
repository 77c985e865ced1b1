"""Models, the ways to shard them, and what a warm start of the whole one makes of each part.

Everything here runs on each rank: the unsharded model is filled beside the sharded one, and every
shard is compared with its slice of it, bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import torch_warmstart as tws
from torch_warmstart.model.sharding import parts_of


class Tower(nn.Module):
    """A table, layers, a norm with buffers, and a head tied to nothing."""

    def __init__(self, rows: int = 7, width: int = 6) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, width)
        self.up = nn.Linear(width, 10)
        self.norm = nn.BatchNorm1d(10)
        self.down = nn.Linear(10, 3, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.down(self.norm(self.up(self.table(ids))).relu())


@functools.cache  # groups have threads of their own, and stay until the process ends
def _world(*shape: int) -> Any:
    names = ("outer", "inner")[-len(shape) :]
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def fsdp(model: nn.Module) -> nn.Module:
    """One shard a rank, along dimension 0: uneven, and for small layers empty."""
    fully_shard(model.up)
    return fully_shard(model)


def fsdp_of_columns(model: nn.Module) -> nn.Module:
    """Along dimension 1 where that can be divided."""
    world = dist.get_world_size()

    def place(parameter: nn.Parameter) -> Shard:
        is_even = parameter.ndim > 1 and parameter.shape[1] % world == 0
        return Shard(1) if is_even else Shard(0)

    return fully_shard(model, shard_placement_fn=place)


def hsdp(model: nn.Module) -> nn.Module:
    """Copies of shards: a mesh of two dimensions."""
    half = max(1, dist.get_world_size() // 2)
    return fully_shard(model, mesh=_world(dist.get_world_size() // half, half))


def tensor_parallel(model: nn.Module) -> nn.Module:
    """Columns of one layer, rows of the next, a table by rows."""
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    parallelize_module(model, _world(dist.get_world_size()), plan)
    return _distributed(model, {"table.weight": [Shard(0)]})


def replicated(model: nn.Module) -> nn.Module:
    """Every rank has all of it, as DTensors."""
    return _distributed(model, {name: [Replicate()] for name, _ in model.named_parameters()})


def columns(model: nn.Module) -> nn.Module:
    """Each matrix by its second dimension, unevenly."""
    names = [name for name, tensor in model.named_parameters() if tensor.ndim > 1]
    return _distributed(model, {name: [Shard(1)] for name in names})


def fsdp_over_tensor_parallel(model: nn.Module) -> nn.Module:
    """Two dimensions of a mesh, both of which cut the same dimension of a layer."""
    half = max(1, dist.get_world_size() // 2)
    mesh = _world(dist.get_world_size() // half, half)
    parallelize_module(model, mesh["inner"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return fully_shard(model, mesh=mesh["outer"])


def data_parallel(model: nn.Module) -> nn.Module:
    """A copy on each rank."""
    return nn.parallel.DistributedDataParallel(model)


def _distributed(model: nn.Module, placements: dict[str, list[Any]]) -> nn.Module:
    mesh = _world(dist.get_world_size())
    for name, placement in placements.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        whole = getattr(module, leaf).detach()
        setattr(module, leaf, nn.Parameter(distribute_tensor(whole, mesh, placement)))
    return model


SHARDINGS: dict[str, Callable[[nn.Module], nn.Module]] = {
    function.__name__: function
    for function in (
        fsdp,
        fsdp_of_columns,
        hsdp,
        tensor_parallel,
        replicated,
        columns,
        fsdp_over_tensor_parallel,
        data_parallel,
    )
}


def assert_slices(sharded: nn.Module, whole: nn.Module) -> int:
    """Each part that is here is that slice of the whole, bit for bit; says how much there is."""
    expected = whole.state_dict()
    return sum(
        _assert_slice(name, tensor, expected[_bare(name)])
        for name, tensor in sharded.state_dict().items()
    )


def assert_slots(sharded: torch.optim.Optimizer, whole: torch.optim.Optimizer) -> int:
    """The same of two optimizers' states."""
    both = zip(_parameters(sharded), _parameters(whole), strict=True)
    count = 0
    for mine, its in both:
        assert {*sharded.state[mine]} == {*whole.state[its]}
        for name, value in sharded.state[mine].items():
            count += _assert_slice(name, value, whole.state[its][name])
    return count


def _assert_slice(name: str, tensor: torch.Tensor, whole: torch.Tensor) -> int:
    assert tensor.shape == whole.shape
    for part in parts_of(tensor):
        wanted = part.box.of(whole)
        assert torch.equal(part.tensor, wanted), f"{name} {part.box}: {part.tensor} {wanted}"
    return sum(part.box.numel for part in parts_of(tensor))


def _bare(name: str) -> str:
    return name.removeprefix("module.").replace("_checkpoint_wrapped_module.", "")


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [tensor for group in optimizer.param_groups for tensor in group["params"]]


def fill_both(
    how: str,
    make: Callable[[], nn.Module],
    settings: tws.WarmStartSettings,
    *,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    seed: int = 2,
    of_sharded: tws.WarmStartSettings | None = None,
    **more: Any,
) -> tuple[nn.Module, Any]:
    """A sharded model, filled and compared with a whole one that was; and the report.

    Args:
        how: Which of SHARDINGS.
        make: Makes the model; the same each time.
        settings: What to do.
        optimizer: Makes one of parameters.
        seed: Of random numbers while the sharded one is filled, on this rank.
        of_sharded: What to do with that one, if it differs on this rank.
        more: For `warm_start` of the sharded one.
    """
    torch.manual_seed(1)
    whole = make()
    torch.manual_seed(1)
    sharded = SHARDINGS[how](make())
    theirs = None if optimizer is None else optimizer(whole.parameters())
    ours = None if optimizer is None else optimizer(sharded.parameters())
    torch.manual_seed(2)
    expected = tws.warm_start(whole, settings, optimizer=theirs)
    torch.manual_seed(seed)
    more.setdefault("timeout", 120)  # a rank may have failed before
    report = tws.warm_start(sharded, of_sharded or settings, optimizer=ours, **more)
    assert assert_slices(sharded, whole) > 0
    if ours is not None and theirs is not None:
        assert assert_slots(ours, theirs) > 0
    assert [a.state for a in report.variables] == [a.state for a in expected.variables]
    assert [a.rows for a in report.variables] == [a.rows for a in expected.variables]
    return sharded, report
