"""The block of docs/distributed.md about TorchRec, where TorchRec is."""

from __future__ import annotations

import os
from typing import Any

import torch
import torchrec
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.optim import _apply_optimizer_in_backward as apply_optimizer
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.types import ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.optim import RowWiseAdagrad

import torch_warmstart as tws

OLD, NEW = list("abcdef"), list("fxabc")


class Recommender(nn.Module):
    """One table, and a layer above."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        songs = EmbeddingBagConfig(
            name="songs", embedding_dim=8, num_embeddings=rows, feature_names=["songs"]
        )
        self.ebc = torchrec.EmbeddingBagCollection(tables=[songs])
        self.over = nn.Linear(8, 1)


def spread(model: nn.Module, device: torch.device) -> DistributedModelParallel:
    """By rows, with row-wise Adagrad in the kernels: so small a table would be copied instead."""
    apply_optimizer(RowWiseAdagrad, model.ebc.parameters(), {"lr": 0.1})
    sharder = EmbeddingBagCollectionSharder()
    plan = construct_module_sharding_plan(
        model.ebc,
        {"songs": row_wise()},
        sharder=sharder,
        world_size=2,
        local_size=2,
        device_type=device.type,
    )
    return DistributedModelParallel(
        model, device=device, plan=ShardingPlan({"ebc": plan}), sharders=[sharder]
    )


def run(code: str, folder: str) -> dict[str, str]:
    """Runs it on what another model has saved; what is said of each variable."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        return _run(code)
    finally:
        os.chdir(before)


def _run(code: str) -> dict[str, str]:
    device = torch.device("cpu")
    old = spread(Recommender(len(OLD)), device)
    ids = torchrec.KeyedJaggedTensor.from_lengths_sync(
        keys=["songs"], values=torch.arange(len(OLD)), lengths=torch.ones(len(OLD)).int()
    )
    old.module.ebc(ids).wait().values().sum().backward()
    state = {"model": old.state_dict(), "optimizer": old.fused_optimizer.state_dict()}
    dcp.save(state, checkpoint_id="yesterday")
    reports: list[Any] = []

    class Recorded:
        """The package, which remembers its reports."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tws, name)

        def warm_start(self, *args: Any, **more: Any) -> None:
            reports.append(tws.warm_start(*args, **more))

    names = {
        "DistributedModelParallel": spread,
        "recommender": Recommender(len(NEW)),
        "device": device,
        "new": NEW,
        "old": OLD,
        "tws": Recorded(),
    }
    exec(code, names)
    (report,) = reports
    return {account.name: f"{account.state}, {account.rows}" for account in report.variables}
