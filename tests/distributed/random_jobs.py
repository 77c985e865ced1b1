"""Tensors that lie anyhow on the ranks, moved to where others of theirs lie anyhow."""

from __future__ import annotations

import functools
import random
from typing import Any

import torch
import torch.distributed as dist
from sent_jobs import watched
from sharded_models import assert_slices
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import torch_warmstart as tws

SMALL = (64, 200, 1 << 20)  # bytes of a chunk


class _Tensors(nn.Module):
    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()
        for number, tensor in enumerate(tensors):
            setattr(self, f"w{number}", nn.Parameter(tensor))


def fill_at_random(seeds: list[int]) -> int:
    """Some models, one a seed; how many bytes were sent for all of them."""
    return sum(map(_fill, seeds))


def _fill(seed: int) -> int:
    draw = random.Random(seed)  # the same on all ranks
    torch.manual_seed(seed)
    shapes = [[draw.randint(1, 9) for _ in range(draw.randint(1, 3))] for _ in range(3)]
    whole = [torch.rand(shape) for shape in shapes]
    source = [_placed(tensor, draw) for tensor in whole]
    infos: dict[str, Any] = {}
    for number, shape in enumerate(shapes[1:], 1):  # the first stays as large as it is
        axis = draw.randrange(len(shape))
        old = [f"old{row}" for row in range(shape[axis])]
        others = [*old[1:], *(f"new{row}" for row in range(5))]
        new = [old[0], *draw.sample(others, draw.randint(0, len(others)))]
        draw.shuffle(new)
        infos[f"w{number}"] = tws.VocabInfo(
            new, -1, 0, old, axis=axis, backup_initializer=nn.init.ones_
        )
        shape[axis] = len(new)
    expected = _Tensors([torch.zeros(shape) for shape in shapes])
    model = _Tensors([_placed(torch.zeros(shape), draw) for shape in shapes])

    def settings(tensors: list[torch.Tensor]) -> tws.WarmStartSettings:
        return tws.WarmStartSettings(_Tensors(tensors).state_dict(), ".*", infos)

    tws.warm_start(expected, settings(whole))
    with watched(draw.choice(SMALL)) as seen:
        tws.warm_start(model, settings(source), staging=draw.choice(["none", "memory"]))
    assert_slices(model, expected)
    return sum(got for _, got in seen)


@functools.cache  # groups have threads of their own, and stay until the process ends
def _mesh(*sizes: int) -> DeviceMesh:
    return init_device_mesh("cpu", sizes)


def _placed(tensor: torch.Tensor, draw: random.Random) -> torch.Tensor:
    """A tensor cut, or copied, along each dimension of a mesh."""
    count = dist.get_world_size()
    sizes = draw.choice([(count,), (2, count // 2)])
    ways = [Replicate(), *map(Shard, range(tensor.ndim))]
    mesh = _mesh(*sizes)
    return distribute_tensor(tensor, mesh, [draw.choice(ways) for _ in sizes])
