"""Recommenders with TorchRec's tables, the ways to shard them, and their slices of the whole.

Everything here runs on each rank, where TorchRec is.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
import torchrec
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward as apply_optimizer
from torchrec.distributed import comm
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import (
    _get_parameter_sharding,
    _get_parameter_size_offsets,
    column_wise,
    construct_module_sharding_plan,
    data_parallel,
    row_wise,
    table_row_wise,
    table_wise,
)
from torchrec.distributed.types import ShardingEnv, ShardingPlan, ShardingType
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
from torchrec.optim import RowWiseAdagrad

from torch_warmstart.computing.boxes import Box

warnings.filterwarnings("ignore", category=FutureWarning)

BAGS, SEQUENCES, WIDTH = ("t0", "t1"), ("e0", "e1"), 8
FUSED = {"Adagrad": torch.optim.Adagrad, "RowWiseAdagrad": RowWiseAdagrad, "SGD": torch.optim.SGD}


class Recommender(nn.Module):
    """Tables that are pooled, tables that are not, and a layer above."""

    def __init__(self, rows: int = 7) -> None:
        super().__init__()
        self.ebc = torchrec.EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(
                    name=name, embedding_dim=WIDTH, num_embeddings=rows, feature_names=[name]
                )
                for name in BAGS
            ]
        )
        self.ec = torchrec.EmbeddingCollection(
            tables=[
                EmbeddingConfig(
                    name=name, embedding_dim=WIDTH, num_embeddings=rows, feature_names=[name]
                )
                for name in SEQUENCES
            ]
        )
        self.over = nn.Linear(WIDTH, 3)

    def forward(self, features: Any) -> torch.Tensor:
        """What the pooled tables give for a batch."""
        pooled: torch.Tensor = self.ebc(features).values()
        return pooled


def _world() -> int:
    return dist.get_world_size()


def _grid(
    parameter: nn.Parameter, local_size: int, world_size: int, device_type: str, sharder: Any
) -> Any:
    """Half the columns on each of two hosts, and there the rows on its ranks.

    TorchRec's own `grid_shard` cuts columns by 128, and has no argument for less.
    """
    kind = ShardingType.GRID_SHARD
    parts = _get_parameter_size_offsets(parameter, kind, local_size, world_size, WIDTH // 2)
    placed = [(size, offset, rank) for rank, (size, offset) in enumerate(parts)]
    return _get_parameter_sharding(parameter, kind.value, placed, local_size, device_type, sharder)


# How each table lies: of the bags' two, and of the sequences'.
WAYS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "row_wise": lambda: (row_wise(), row_wise()),
    "table_wise": lambda: (table_wise(rank=_world() - 1), table_wise(rank=0)),
    "column_wise": lambda: (column_wise(ranks=[0, _world() - 1]), table_wise(rank=0)),
    "table_row_wise": lambda: (table_row_wise(host_index=0), row_wise()),
    "grid": lambda: (_grid, row_wise()),
    "data_parallel": lambda: (data_parallel(), row_wise()),
}


def sharded(
    model: nn.Module, way: str, optimizer: str = "", *, is_dtensor: bool = False
) -> DistributedModelParallel:
    """A model of which TorchRec has spread the tables, with an optimizer in their kernels."""
    if optimizer:
        for module in (model.ebc, model.ec):
            apply_optimizer(FUSED[optimizer], module.parameters(), {"lr": 0.1})
    sharders = [EmbeddingBagCollectionSharder(), EmbeddingCollectionSharder()]
    of_bags, of_sequences = WAYS[way]()
    ranks_of_host = _world() // 2 if way == "grid" else _world()
    os.environ["LOCAL_WORLD_SIZE"] = str(ranks_of_host)  # by which TorchRec groups them, once
    comm._INTRA_PG = comm._CROSS_PG = None
    tables = {
        "ebc": dict(zip(BAGS, (of_bags, row_wise()), strict=True)),
        "ec": dict(zip(SEQUENCES, (of_sequences, table_wise(rank=0)), strict=True)),
    }
    plans = {
        name: construct_module_sharding_plan(
            getattr(model, name),
            tables[name],
            sharder=sharder,
            world_size=_world(),
            local_size=ranks_of_host,
            device_type="cpu",
        )
        for name, sharder in zip(tables, sharders, strict=True)
    }
    env = ShardingEnv(_world(), dist.get_rank(), dist.group.WORLD, output_dtensor=is_dtensor)
    return DistributedModelParallel(
        model, env=env, device=torch.device("cpu"), plan=ShardingPlan(plans), sharders=sharders
    )


def pieces(value: Any) -> Iterator[tuple[Box, torch.Tensor]]:
    """What is here of a tensor, as TorchRec says."""
    if hasattr(value, "local_shards"):
        for shard in value.local_shards():
            metadata = shard.metadata
            yield Box(tuple(metadata.shard_offsets), tuple(metadata.shard_sizes)), shard.tensor
    elif hasattr(value, "to_local") and hasattr(value.to_local(), "local_offsets"):
        local = value.to_local()
        for at, tensor in zip(local.local_offsets(), local.local_shards(), strict=False):
            yield Box(tuple(at), tuple(tensor.shape)), tensor
    else:
        yield Box.whole(value.shape), value


def assert_slices(model: DistributedModelParallel, whole: nn.Module) -> int:
    """Each part that is here is that slice of the whole, bit for bit; says how much there is."""
    count, expected = 0, whole.state_dict()
    found = model.state_dict()
    assert set(found) == set(expected)
    for name, value in found.items():
        assert tuple(value.shape) == tuple(expected[name].shape)
        for box, piece in pieces(value):
            wanted = box.of(expected[name])
            assert torch.equal(piece, wanted), f"{name} {box}: {piece} {wanted}"
            count += box.numel
    return count


def batch(rows: int = 7) -> Any:
    """Ids of each pooled feature, every row once."""
    values = torch.arange(rows).repeat(len(BAGS))
    lengths = torch.ones(rows * len(BAGS), dtype=torch.int32)
    return torchrec.KeyedJaggedTensor(keys=[*BAGS], values=values, lengths=lengths)


def same(make: Callable[[], nn.Module]) -> nn.Module:
    """A model, the same on each rank."""
    torch.manual_seed(3)
    return make()
