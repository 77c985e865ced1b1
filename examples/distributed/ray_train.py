"""Ray Train's workers are ranks: each warm-starts what it has of the model, then trains.

    pip install "ray[train]"
    python examples/distributed/ray_train.py

Two workers on this machine go on from yesterday's model, whose vocabulary was another one. Its
`train_loop` is the recipe of docs/distributed.md.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")  # of a busy machine

import ray
import ray.train.torch
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import nn

import torch_warmstart as tws

YESTERDAY = [f"song {number}" for number in range(1_000)]
TODAY = [f"song {number}" for number in range(999, 99, -1)] + [f"new {n}" for n in range(200)]


def train_loop(config: dict[str, Any]) -> None:
    """What each worker does."""
    model = nn.Sequential(nn.EmbeddingBag(len(TODAY), 16), nn.Linear(16, 1))
    model = ray.train.torch.prepare_model(model)  # DistributedDataParallel
    songs = tws.VocabInfo(TODAY, -1, 0, YESTERDAY, backup_initializer=nn.init.normal_)
    settings = tws.WarmStartSettings(config["checkpoint"], ".*", {"0.weight": songs})
    report = tws.warm_start(model, settings, timeout=600)  # on every worker
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    heard = torch.arange(64).view(8, 8)
    loss = model(heard).square().mean()
    loss.backward()
    optimizer.step()
    rank = ray.train.get_context().get_world_rank()
    table = model.module[0].weight.detach()
    torch.save((str(report["0.weight"].rows), table), f"{config['folder']}/rank{rank}.pt")


def main() -> None:
    # The dashboard is of no use to it, and costs a process.
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        old = nn.Sequential(nn.EmbeddingBag(len(YESTERDAY), 16), nn.Linear(16, 1))
        torch.save(old.state_dict(), f"{folder}/yesterday.pt")
        config = {"checkpoint": f"{folder}/yesterday.pt", "folder": folder}
        trainer = TorchTrainer(
            train_loop,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(storage_path=folder, name="warm"),
        )
        trainer.fit()
        told = [torch.load(f"{folder}/rank{rank}.pt") for rank in range(2)]
    ray.shutdown()
    for rank, (rows, _) in enumerate(told):
        print(f"worker {rank}: {rows}")
    first, second = (table for _, table in told)
    seen, rest = slice(0, 64), slice(64, 900)
    old_rows = old[0].weight.detach().flip(0)[:900]
    print("the workers have the same rows:", torch.equal(first, second))
    print("untrained rows are yesterday's:", torch.equal(first[rest], old_rows[rest]))
    print("trained rows are not:", not torch.equal(first[seen], old_rows[seen]))


if __name__ == "__main__":
    main()
