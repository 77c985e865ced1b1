"""Two processes with gloo train together after a warm start, and stay equal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks, started

pytest.importorskip("lightning")
pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    with started(2) as ranks:
        yield ranks


def with_lightning(folder: Path) -> dict[str, Any]:
    """On a rank: Lightning's DDP in a process group that is there already."""
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy
    from small_trainings import Lit, data, lightning_trainer, settings

    from torch_warmstart.integrations.lightning import WarmStart

    class Given(LightningEnvironment):
        creates_processes_externally = True

    rank = torch.distributed.get_rank()
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    torch.manual_seed(rank)  # each would draw other new rows
    model = Lit()
    callback = WarmStart(settings(folder / "in_net.pt", "net."), optimizer=True)
    environment = Given()
    environment.set_world_size(2)
    environment.set_global_rank(rank)
    strategy = DDPStrategy(cluster_environment=environment, process_group_backend="gloo")
    trainer = lightning_trainer(folder, callback, devices=2, strategy=strategy)
    trainer.fit(model, data())
    return {
        "world": trainer.world_size,
        "warm": model.was_warm,
        "slots": model.had_warm_slots,
        "first": model.first[0]["table.weight"].tolist(),
        "last": model.net.table.weight.tolist(),
    }


def with_accelerate(folder: Path) -> dict[str, Any]:
    """On a rank: Accelerate, which finds the process group."""
    from accelerate import Accelerator
    from small_trainings import Net, data, has_warm_slots, is_warm, settings

    from torch_warmstart.integrations.accelerate import warm_start

    rank = torch.distributed.get_rank()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # asked for, not used
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(rank)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    model, prepared, batches = accelerator.prepare(net, optimizer, data())
    old = folder / "plain.pt"
    warm_start(accelerator, model, settings(old), optimizer=prepared)
    answer = {"world": accelerator.num_processes, "warm": [is_warm(net)]}
    answer |= {"slots": [has_warm_slots(optimizer, net)], "first": net.table.weight.tolist()}
    for batch in batches:
        prepared.zero_grad()
        accelerator.backward((model(batch["ids"]) - batch["labels"]).square().mean())
        prepared.step()
    return {**answer, "last": net.table.weight.tolist()}


@pytest.mark.parametrize("job", [with_lightning, with_accelerate])
def test_all_start_warm_with_the_same_new_rows_and_train_together(two, tmp_path, job):
    from small_trainings import write_old

    write_old(tmp_path / "plain.pt")
    write_old(tmp_path / "in_net.pt", "net.")
    one, other = two.run(job, tmp_path)
    assert one == other
    assert (one["world"], one["warm"], one["slots"]) == (2, [True], [True])
    assert one["first"] != one["last"]
