"""What a night costs: a vocabulary updated by a day's counts, and compared with the one before.

    python benchmarks/lifecycle.py --entries 10_000_000 --counted 2_000_000 --kind text

Entries are ids, or text of 17 bytes; nine of ten counted ones are known. Memory is what the process
itself holds beyond the old vocabulary, at the most, sampled every 10 ms; the counts are read from a
Parquet file, made by a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from watch import watched

import torch_warmstart as tws
from torch_warmstart.entries import Entries, Usage, Vocabulary

WIDTH = 17
DAY = 20_000
GROUP = 1 << 20  # rows of a row group


def ids_of(numbers: Any) -> Any:
    return numbers * 7919 % 1_000_000_007_993  # a prime: none is there twice


def text_of(ids: Any) -> Any:
    """`user-000000007919` and so on, one behind the other."""
    text = np.empty((len(ids), WIDTH), np.uint8)
    text[:, :5] = np.frombuffer(b"user-", np.uint8)
    rest = ids.copy()
    for column in range(WIDTH - 1, 4, -1):
        text[:, column] = rest % 10 + ord("0")
        rest //= 10
    return text.reshape(-1)


def old_vocabulary(count: int, kind: str) -> Vocabulary:
    ids = ids_of(np.arange(count))
    if kind == "ids":
        listed = Entries("made", "entry", ids=torch.from_numpy(ids))
    else:
        bounds = torch.arange(count + 1) * WIDTH
        listed = Entries("made", "entry", torch.from_numpy(text_of(ids)), bounds)
    last = torch.full((count,), DAY - 10, dtype=torch.int32)
    usage = Usage(torch.ones(count, dtype=torch.int64), last, torch.full_like(last, -1))
    return Vocabulary(listed, count, usage=usage)


def write_counts(path: str, count: int, counted: int, kind: str) -> None:
    import pyarrow
    from pyarrow import parquet

    draw = np.random.default_rng(1)
    known = np.unique(draw.integers(0, count, counted * 9 // 10))
    ids = ids_of(np.concatenate([known, np.arange(count, count + counted - len(known))]))
    draw.shuffle(ids)
    entry = pyarrow.int64() if kind == "ids" else pyarrow.large_binary()
    schema = pyarrow.schema([("entry", entry), ("count", pyarrow.int64())])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(ids), GROUP):
            part = ids[start : start + GROUP]
            column = pyarrow.array(part)
            if kind != "ids":
                bounds = pyarrow.py_buffer(np.arange(len(part) + 1) * WIDTH)
                buffers = [None, bounds, pyarrow.py_buffer(text_of(part))]
                column = pyarrow.Array.from_buffers(entry, len(part), buffers)
            counts = pyarrow.array(draw.integers(1, 50, len(part)))
            writer.write_table(pyarrow.Table.from_arrays([column, counts], schema=schema))


def measured(name: str, count: int, work: Callable[[], Any]) -> Any:
    began, cpu = time.perf_counter(), time.process_time()
    made, most = watched(work)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"{name}: {cpu:.1f} s of CPU, {took:.1f} s, {most / count:.1f} bytes an id", flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--counted", type=int, default=2_000_000)
    parser.add_argument("--kind", choices=("text", "ids"), default="text")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_counts(options.write, options.entries, options.counted, options.kind)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "counts.parquet")
        subprocess.run([sys.executable, *sys.argv, "--write", path], check=True)
        old = old_vocabulary(options.entries, options.kind)
        tws.update_vocabulary(["a"], {"b": 1}, today=DAY)  # what is imported, and threads
        new = measured(
            "update",
            options.entries,
            lambda: tws.update_vocabulary(old, path, min_count=2, expire_after=30, today=DAY),
        )
        measured("diff", options.entries, lambda: tws.diff_vocabularies(old, new))


if __name__ == "__main__":
    main()
