"""The blocks of docs/distributed.md, with what a reader has beside them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import torch_warmstart as tws

OLD, NEW = list("abcdef"), list("fxabc")
INFO = tws.VocabInfo(NEW, -1, 1, OLD)


class Recommender(nn.Module):
    """A table, and a layer above."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.items = nn.Embedding(rows, 4)
        self.over = nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.over(self.items(ids))


def save_yesterday(folder: str) -> None:
    """As `yesterday.pt`, and as a directory under other names."""
    torch.manual_seed(1)
    state = Recommender(len(OLD)).state_dict()
    if dist.get_rank() == 0:
        torch.save(state, f"{folder}/yesterday.pt")
    dist.barrier()
    renamed = {f"old.{name}": tensor for name, tensor in state.items()}
    dcp.save(renamed, checkpoint_id=f"{folder}/directory")


def run(codes: list[str], folder: str) -> list[tuple[str, bool]]:
    """Runs blocks one after the other; of each, whether all models that it has are filled."""
    os.chdir(folder)
    torch.manual_seed(dist.get_rank())
    trained = fully_shard(Recommender(len(OLD)))
    tws.warm_start(trained, "yesterday.pt")
    names: dict[str, Any] = {
        "torch": torch,
        "tws": tws,
        "dist": dist,
        "dcp": dcp,
        "fully_shard": fully_shard,
        "init_device_mesh": init_device_mesh,
        "parallelize_module": parallelize_module,
        "RowwiseParallel": RowwiseParallel,
        "DistributedDataParallel": DistributedDataParallel,
        "Recommender": Recommender,
        "new": NEW,
        "old": OLD,
        "num_items": len(NEW) + 1,
        "infos": {"items.weight": INFO},
        "rules": {"items.": "old.items.", "over.": "old.over."},
        "reader": dcp.FileSystemReader("directory"),
        "trained": trained,
    }
    names["settings"] = tws.WarmStartSettings("yesterday.pt", ".*", names["infos"])
    expected = Recommender(len(NEW) + 1)
    tws.warm_start(expected, names["settings"])
    found = []
    for code in codes:
        names["model"] = fully_shard(Recommender(len(NEW) + 1))  # if it makes none of its own
        with _recording() as models:
            exec(code, names)
        models = models or [names["model"]]
        found.append((code, all(_is_filled(model, expected) for model in models)))
    return found


@contextlib.contextmanager
def _recording() -> Iterator[list[nn.Module]]:
    """Within, the models are kept that are warm-started."""
    models: list[nn.Module] = []
    fill = tws.warm_start

    def warm_start(model: nn.Module, *args: Any, **more: Any) -> Any:
        models.append(model)
        return fill(model, *args, **more)

    with mock.patch.object(tws, "warm_start", warm_start):
        yield models


def _is_filled(model: nn.Module, expected: nn.Module) -> bool:
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    whole = [getattr(p, "full_tensor", lambda p=p: p)() for p in plain.parameters()]
    return all(torch.equal(a, b) for a, b in zip(whole, expected.parameters(), strict=True))
