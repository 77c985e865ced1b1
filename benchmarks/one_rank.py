"""What one rank of many does for its rows of a large table: time and memory.

    python benchmarks/one_rank.py --rows 10_000_000 --ranks 1_024 --vocabulary

The table is 64 float32 wide, sharded by rows, and read from a safetensors file on a local disk (a
sparse one: it takes no room). The other ranks are not there (torch's `fake` backend), and so
neither is what ranks tell each other. With --vocabulary nine of ten ids are known and all are
shuffled. Memory is what the process itself holds beyond the start, at the most, sampled every
10 ms; time is CPU time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from watch import watched

import torch_warmstart as tws
from torch_warmstart.execution.ranks import Agreement

WIDTH = 64


def write_table(path: Path, rows: int) -> None:
    """A safetensors file whose tensor is a hole."""
    nbytes = rows * WIDTH * 4
    about = {"0.weight": {"dtype": "F32", "shape": [rows, WIDTH], "data_offsets": [0, nbytes]}}
    header = json.dumps(about).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + nbytes)


def vocabularies(rows: int) -> tuple[Any, Any]:
    """Ids of the old and of the new table: nine of ten are known, both are shuffled."""
    draw = np.random.default_rng(0)
    old = draw.permutation(rows) * 7919 % 1_000_000_007_993  # a prime: none is there twice
    new = (draw.permutation(rows) + rows // 10) * 7919 % 1_000_000_007_993
    return old, new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ranks", type=int, default=1_024)
    parser.add_argument("--vocabulary", action="store_true")
    asked = parser.parse_args()
    Agreement.is_alone = property(lambda _: True)  # there is nobody to ask
    dist.init_process_group("fake", rank=0, world_size=asked.ranks, store=FakeStore())
    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(asked.rows, WIDTH))
    fully_shard(model)
    model.to_empty(device="cpu")
    infos = {}
    if asked.vocabulary:
        old, new = vocabularies(asked.rows)
        infos["0.weight"] = tws.VocabInfo(new, asked.rows, 0, old)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.safetensors"
        write_table(path, asked.rows)
        settings = tws.WarmStartSettings(path, var_name_to_vocab_info=infos)
        start = time.process_time()
        plan, peak_of_plan = watched(lambda: tws.plan_warm_start(model, settings))
        planned = time.process_time()
        _, peak = watched(lambda: tws.apply_plan(plan))
        filled = time.process_time()
    print(
        f"{asked.rows:,} rows, {asked.ranks:,} ranks, "
        f"{'with' if asked.vocabulary else 'without'} a vocabulary: plan {planned - start:.2f} s, "
        f"fill {filled - planned:.2f} s, {max(peak, peak_of_plan) / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
