"""A table of TorchRec's whose module keeps which id has which row (ZCH), on several ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torchrec import EmbeddingBagCollection, KeyedJaggedTensor
from torchrec.distributed.mc_embeddingbag import ManagedCollisionEmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.types import ShardingEnv, ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.mc_embedding_modules import ManagedCollisionEmbeddingBagCollection
from torchrec.modules.mc_modules import (
    DistanceLFU_EvictionPolicy,
    ManagedCollisionCollection,
    MCHManagedCollisionModule,
)

ROWS, WIDTH = 12, 4


def _module() -> nn.Module:
    table = EmbeddingBagConfig(
        name="t", embedding_dim=WIDTH, num_embeddings=ROWS, feature_names=["f"]
    )
    ids = MCHManagedCollisionModule(
        ROWS,
        torch.device("cpu"),
        eviction_policy=DistanceLFU_EvictionPolicy(),
        eviction_interval=1,
        input_hash_size=1_000,
    )
    collection = ManagedCollisionCollection({"t": ids}, embedding_configs=[table])
    return ManagedCollisionEmbeddingBagCollection(EmbeddingBagCollection([table]), collection)


def _sharded() -> Any:
    model = nn.ModuleDict({"mc": _module()})
    sharder = ManagedCollisionEmbeddingBagCollectionSharder()
    count = dist.get_world_size()
    plan = construct_module_sharding_plan(
        model["mc"],
        {"t": row_wise()},
        sharder=sharder,
        world_size=count,
        local_size=count,
        device_type="cpu",
    )
    env = ShardingEnv.from_process_group(dist.group.WORLD)
    return DistributedModelParallel(
        model,
        env=env,
        device=torch.device("cpu"),
        plan=ShardingPlan({"mc": plan}),
        sharders=[sharder],
        init_data_parallel=False,
    )


def _seen(ids: list[int]) -> Any:
    return KeyedJaggedTensor(
        ["f"], torch.tensor(ids), lengths=torch.ones(len(ids), dtype=torch.int32)
    )


def train_and_save(folder: str, ids: list[int]) -> dict[int, int]:
    """Lets a table see ids and saves it; the row that it then has for each of them."""
    model = _sharded()
    keeps_rows = model.module["mc"]._managed_collision_collection
    for _ in range(4):
        keeps_rows(_seen(ids)).wait()
    dcp.save(model.state_dict(), checkpoint_id=folder)
    model.eval()
    return dict(zip(ids, keeps_rows(_seen(ids)).wait().values().tolist(), strict=True))
