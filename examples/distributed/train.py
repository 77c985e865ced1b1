"""A sharded recommender goes on from yesterday's model, though its vocabulary has changed.

    torchrun --nproc-per-node 2 examples/distributed/train.py

The model is made on the meta device, sharded by FSDP2 and filled in place: no rank ever has all of
the table. What it becomes is saved by torch.distributed.checkpoint, and loaded again by a planner
into a model that is sharded otherwise.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import torch_warmstart as tws

YESTERDAY = [f"song {number}" for number in range(1_000)]
TODAY = [f"song {number}" for number in range(999, 99, -1)] + [f"new {n}" for n in range(200)]


class Recommender(nn.Module):
    """Scores songs for a listener: the table's rows are songs."""

    def __init__(self, songs: int) -> None:
        super().__init__()
        self.songs = nn.Embedding(songs, 16)
        self.listener = nn.Linear(16, 16)

    def forward(self, heard: torch.Tensor) -> torch.Tensor:
        return self.listener(self.songs(heard).mean(1)) @ self.songs.weight.T


def main() -> None:
    dist.init_process_group("gloo")
    with shared_folder() as folder:
        yesterday(f"{folder}/yesterday.pt")
        model = today(f"{folder}/yesterday.pt")
        losses = [step(model) for _ in range(3)]
        dcp.save(model.state_dict(), checkpoint_id=f"{folder}/today")
        tomorrow(f"{folder}/today", model)
    if dist.get_rank() == 0:
        print(f"trained on: {losses[0]:.2f} -> {losses[-1]:.2f}")
    # The threads of gloo let go of tensors behind the barrier before, and need Python for that.
    dist.barrier()
    dist.destroy_process_group()


def yesterday(path: str) -> None:
    """An ordinary state_dict, as one process saves it."""
    if dist.get_rank() == 0:
        torch.manual_seed(0)
        torch.save(Recommender(len(YESTERDAY)).state_dict(), path)
    dist.barrier()


def today(path: str) -> nn.Module:
    """A model that exists only sharded: made on meta, filled by what each rank reads."""
    with torch.device("meta"):
        model = fully_shard(Recommender(len(TODAY)))
    songs = tws.VocabInfo(TODAY, -1, 0, YESTERDAY, backup_initializer=nn.init.normal_)
    settings = tws.WarmStartSettings(path, ".*", {"songs.weight": songs})
    report = tws.warm_start(model, settings, timeout=60)
    rows = report["songs.weight"].rows
    here = model.songs.weight.to_local()
    for rank in range(dist.get_world_size()):
        dist.barrier()
        if rank == dist.get_rank():
            read = f"{report.bytes_read:,} bytes read"
            print(f"rank {rank}: {rows}; {len(here):,} of {len(TODAY):,} rows here, {read}")
    return model


def step(model: nn.Module) -> float:
    """One step of training, the same on all ranks."""
    torch.manual_seed(1)
    heard, next_one = torch.randint(0, 1_000, (32, 4)), torch.randint(0, 1_000, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(model(heard), next_one)
    loss.backward()
    optimizer.step()
    return loss.item()


def tomorrow(folder: str, trained: nn.Module) -> None:
    """Half of the songs go, and torch.distributed.checkpoint reads the rest, by columns."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = fully_shard(
        Recommender(500),
        mesh=mesh,
        shard_placement_fn=lambda p: torch.distributed.tensor.Shard(p.ndim - 1),
    )
    songs = tws.VocabInfo(TODAY[::2][:500], -1, 0, TODAY)
    settings = tws.WarmStartSettings(None, ".*", {"songs.weight": songs})
    planner = tws.load_planner(model, settings)
    dcp.load(model.state_dict(), checkpoint_id=folder, planner=planner)
    old = trained.songs.weight.full_tensor()[::2][:500]
    assert torch.equal(model.songs.weight.full_tensor(), old)
    if dist.get_rank() == 0:
        print(f"by columns: {planner.report()['songs.weight'].rows}")


@contextmanager
def shared_folder() -> Iterator[str]:
    """One folder for all ranks, gone in the end."""
    name = [tempfile.mkdtemp() if dist.get_rank() == 0 else ""]
    dist.broadcast_object_list(name)
    yield name[0]
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(name[0])


if __name__ == "__main__":
    main()
