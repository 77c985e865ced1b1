"""Measures the row gather on a CUDA device, as a share of what the hardware copies.

    python benchmarks/gpu_gather.py --json gpu_gather.json

Bytes are those of the rows that are wanted: read once and written once on the device, sent once
from the host. Every result is compared with plain torch before it is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from torch_warmstart import gather_rows
from torch_warmstart.execution.gathering import gather

ROW_BYTES = (4, 16, 48, 64, 128, 200, 256, 260, 1024, 4096)
DENSITIES = (1.0, 0.8, 0.1, 0.001)
HOST_ROW_BYTES = (64, 256, 1024)
MOST_ROWS = 64 << 20  # so that tables of short rows do not take minutes
TARGET = 0.8  # of the copy's bandwidth, for rows of 64 bytes and more

Measured = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=2048, help="of each table")
    parser.add_argument("--repeats", type=int, default=9, help="the median is shown")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    console = Console(width=110)
    if not torch.cuda.is_available():
        console.print("No CUDA device here: there is nothing to measure.")
        return
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "table_mib": options.mib,
        "on_device": on_device(options.mib << 20, options.repeats),
        "from_host": from_host(options.mib << 20, options.repeats),
    }
    result["without_triton"] = [str(device) for device in gather._without_triton]
    console.print(f"{result['device']}, torch {result['torch']}, tables of {options.mib} MiB")
    show(console, "Source on the device", result["on_device"], "device copy")
    show(console, "Source on the host", result["from_host"], "pinned copy")
    if result["without_triton"]:
        console.print("Triton did not work here: torch's operations were measured instead.")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def on_device(table_bytes: int, repeats: int) -> Measured:
    """Gather of all rows, shuffled, and with one in five absent, by width."""
    source = torch.empty(table_bytes // 4, dtype=torch.int32, device="cuda").random_()
    out = torch.zeros_like(source)
    copy = 2 * table_bytes / seconds(lambda: out.copy_(source), repeats)
    cases = []
    for row_bytes in ROW_BYTES:
        rows, width = min(MOST_ROWS, table_bytes // row_bytes), row_bytes // 4
        old = source[: rows * width].view(rows, width)
        new = out[: rows * width].view(rows, width)
        for density in (1.0, 0.8):
            index = remapping(rows, density)
            check(old, index, new)
            moved = 2 * row_bytes * int((index >= 0).sum())
            ours = moved / seconds(lambda o=old, i=index, n=new: gather_rows(o, i, n), repeats)
            plain = moved / seconds(lambda o=old, i=index, n=new: plainly(o, i, n), repeats)
            cases.append(case(row_bytes, density, ours, plain, copy))
    return {"copy_gbps": copy / 1e9, "cases": cases}


def from_host(table_bytes: int, repeats: int) -> Measured:
    """Streaming of the wanted rows of an ordinary tensor in host memory."""
    pinned = torch.empty(min(table_bytes, 256 << 20) // 4, dtype=torch.int32, pin_memory=True)
    landed = torch.empty(len(pinned), dtype=torch.int32, device="cuda")
    copy = pinned.nbytes / seconds(lambda: landed.copy_(pinned, non_blocking=True), repeats)
    source = torch.empty(table_bytes // 4, dtype=torch.int32).random_()
    staging = pinned.nbytes / seconds(lambda: pinned.copy_(source[: len(pinned)]), repeats)
    cases = []
    for row_bytes in HOST_ROW_BYTES:
        old = source.view(-1, row_bytes // 4)
        for density in DENSITIES:
            index = remapping(len(old), density)
            new = torch.zeros(old.shape, dtype=old.dtype, device="cuda")
            check(old, index, new)
            moved = row_bytes * int((index >= 0).sum())
            ours = moved / seconds(lambda o=old, i=index, n=new: gather_rows(o, i, n), repeats)
            plain = moved / seconds(lambda o=old, i=index, n=new: plainly(o, i, n), repeats)
            cases.append(case(row_bytes, density, ours, plain, copy))
    return {"copy_gbps": copy / 1e9, "host_copy_gbps": staging / 1e9, "cases": cases}


def remapping(rows: int, density: float) -> torch.Tensor:
    torch.manual_seed(0)
    index = torch.randperm(rows, device="cuda")
    return index.where(torch.rand(rows, device="cuda") < density, -1)


def plainly(source: torch.Tensor, index: torch.Tensor, out: torch.Tensor) -> None:
    """What one writes by hand: the source to the device, then an index for what is there."""
    at = (index >= 0).nonzero().flatten()
    out[at] = source.to(out.device)[index[at]]


def check(source: torch.Tensor, index: torch.Tensor, out: torch.Tensor) -> None:
    out.fill_(7)
    expected = out.clone()
    plainly(source, index, expected)
    gather_rows(source, index, out)
    assert torch.equal(out, expected), "the gathered rows are not those of plain torch"


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of whole calls, the device's work included; two go before."""
    times = []
    for number in range(repeats + 2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if number >= 2:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def case(row_bytes: int, density: float, ours: float, plain: float, copy: float) -> Measured:
    return {
        "row_bytes": row_bytes,
        "density": density,
        "gbps": ours / 1e9,
        "share_of_copy": ours / copy,
        "times_plain": ours / plain,
    }


def show(console: Console, title: str, measured: Measured, copy: str) -> None:
    table = Table(title=f"{title}; {copy}: {measured['copy_gbps']:,.0f} GB/s")
    for heading in ("bytes a row", "wanted", "GB/s", f"of the {copy}", "x plain torch", "target"):
        table.add_column(heading, justify="right")
    for one in measured["cases"]:
        met = "-" if one["row_bytes"] < 64 else "met" if one["share_of_copy"] >= TARGET else "no"
        table.add_row(
            f"{one['row_bytes']:,}",
            f"{one['density']:g}",
            f"{one['gbps']:,.1f}",
            f"{one['share_of_copy']:.0%}",
            f"{one['times_plain']:.1f}",
            met,
        )
    console.print(table)
    if "host_copy_gbps" in measured:
        host = measured["host_copy_gbps"]
        console.print(f"The host copies into pinned memory at {host:,.0f} GB/s: more cannot come.")


if __name__ == "__main__":
    main()
