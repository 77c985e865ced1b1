"""What a rank asks of the storage, and how much memory it takes for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import torch.distributed as dist
from fsspec.implementations.memory import MemoryFileSystem
from sharded_models import SHARDINGS, Tower, assert_slices, fill_both
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode

import torch_warmstart as tws
from torch_warmstart.formats.tensorflow.bundle import BundleCheckpoint
from torch_warmstart.model.sharding import parts_of

WORDS = 4_096
WIDTH = 64


class Table(nn.Module):
    """Nothing but a table, and a layer as wide."""

    def __init__(self, rows: int = WORDS) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, WIDTH)
        self.up = nn.Linear(WIDTH, 512, bias=False)


def table_state() -> dict[str, torch.Tensor]:
    """What its file holds."""
    torch.manual_seed(3)
    return {name: tensor.clone() for name, tensor in Table().state_dict().items()}


@contextmanager
def _requests(path: str) -> Iterator[tuple[str, list[int]]]:
    """The files of a prefix behind a URL, and how many bytes are asked of them."""
    asked: list[int] = []
    original = MemoryFileSystem.cat_ranges

    def cat_ranges(self: Any, paths: Any, starts: Any, ends: Any, **options: Any) -> Any:
        asked.extend(end - start for start, end in zip(starts, ends, strict=True))
        return original(self, paths, starts, ends, **options)

    for file in Path(path).parent.glob(f"{Path(path).name}*"):
        fsspec.filesystem("memory").pipe(f"memory://ranks/{file.name}", file.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_ranges", cat_ranges)
        yield f"memory://ranks/{Path(path).name}", asked


class _Allocations(TorchDispatchMode):
    """The largest tensor that an operation makes memory for."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        schema = func._schema
        is_new = not any(result.alias_info is not None for result in schema.returns)
        if isinstance(out, torch.Tensor) and is_new and not out.is_meta:
            self.largest = max(self.largest, out.nbytes)
        return out


def read_shares(how: str, path: str, layouts: Any = None) -> tuple[int, int, int]:
    """Bytes asked of the storage, of this rank's shares, and of the largest tensor made."""
    torch.manual_seed(1)
    model = SHARDINGS[how](Table())
    with _requests(path) as (url, asked), _Allocations() as allocations:
        settings = tws.WarmStartSettings(url, ".*", var_name_to_layout=layouts)
        report = tws.warm_start(model, settings)
    expected = Table()
    expected.load_state_dict(table_state())
    assert_slices(model, expected)
    share = sum(part.tensor.nbytes for t in model.parameters() for part in parts_of(t))
    assert report.bytes_read == share
    return sum(asked), share, allocations.largest


def read_rows(path: str) -> tuple[int, int]:
    """Bytes asked of the storage for a vocabulary a quarter of whose rows are known, and theirs."""
    model = fully_shard(Table())
    new = [number if number % 4 == 0 else WORDS + number for number in range(WORDS)]
    info = {"table.weight": tws.VocabInfo(new, -1, 0, list(range(WORDS)))}
    with _requests(path) as (url, asked):
        settings = tws.WarmStartSettings(url, "table", info, max_gap=0)
        tws.warm_start(model, settings)
    expected = Table()
    tws.warm_start(expected, tws.WarmStartSettings(table_state(), "table", info))
    whole = expected.state_dict()["table.weight"]
    here = parts_of(model.table.weight)
    assert all(torch.equal(part.tensor, part.box.of(whole)) for part in here)
    return sum(asked), sum(part.tensor.nbytes for part in here) // 4


def save_with_dcp(folder: str) -> None:
    """A directory of DCP's, in which each tensor is cut as FSDP2 shards it."""
    model = fully_shard(Tower())
    from jobs import old_state

    tws.warm_start(model, tws.WarmStartSettings(old_state(), [".*"]))
    dcp.save(model.state_dict(), checkpoint_id=folder)


def fill_from_dcp(how: str, folder: str) -> None:
    """That in another sharding, with and without a vocabulary."""
    from jobs import NEW_WORDS, OLD_WORDS

    fill_both(how, Tower, tws.WarmStartSettings(folder, [".*"]))
    info = {"table.weight": tws.VocabInfo(NEW_WORDS, -1, 1, OLD_WORDS)}
    fill_both(how, lambda: Tower(10), tws.WarmStartSettings(folder, ".*", info))
    dist.barrier()


def checked_keys(path: str, own_copy: str) -> int:
    """How many checksums this rank checks, of the files or of a copy of its own."""
    prefix = Path(path)
    if own_copy:
        folder = Path(own_copy) / f"rank {dist.get_rank()}"
        folder.mkdir()
        for file in prefix.parent.glob(f"{prefix.name}*"):
            (folder / file.name).write_bytes(file.read_bytes())
        prefix = folder / prefix.name
    checked = []
    verify = BundleCheckpoint.verify
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BundleCheckpoint, "verify", lambda self, key: checked.append(key))
        layouts = {"table.weight": "identity", "up.weight": "identity"}
        settings = tws.WarmStartSettings(str(prefix), ".*", var_name_to_layout=layouts)
        tws.warm_start(fully_shard(Table()), settings)
    assert verify is BundleCheckpoint.verify
    return len(checked)
