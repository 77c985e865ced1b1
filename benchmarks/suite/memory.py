"""Memory when the old table grows: the last one is larger than all memory there is.

The destination and the vocabularies stay as they are while the old table becomes wider. Its file is
a TensorFlow checkpoint with holes: it takes next to no room on the disk, but reading it brings as
many pages into memory as any other file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from case import (
    MIB,
    OURS,
    Benchmark,
    Case,
    Contender,
    LeftOutError,
    Parameters,
    Prepared,
    Sizes,
    Summary,
    Verdict,
    at_most,
)
from machine import memory_limit

from suite.vocab import KEY, OVERLAP

_OLD_ROWS = 200_000
_DESTINATION = 256 * MIB
_SHARES = (1 / 16, 1 / 4, 5 / 4)  # of the memory there is
_QUICK = (8 * MIB, 64 * MIB)
_QUICK_ROWS, _QUICK_DESTINATION = 2_000, MIB
_GIVEN_COLUMNS = 16  # of a row that are not zeros
_MOST, _GROWTH = 300e6, 1.2  # bytes beyond the destination; the largest table against the smallest
_KEEPS_PAGES = ("tmpfs", "ramfs")  # a file there takes memory that cannot be had back


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    import checkpoints
    import numpy as np
    from tokens import TokenChange, digest

    kind = _filesystem(folder)
    if kind in _KEEPS_PAGES:
        raise LeftOutError(f"{folder} is on a {kind}, whose files stay in memory: use --work-dir")
    change = TokenChange(case["old_rows"], case["new_rows"], OVERLAP)
    change.write(folder)
    rng = np.random.default_rng(change.seed)
    head = rng.standard_normal((case["new_rows"], _GIVEN_COLUMNS), dtype=np.float32)
    known = change.remapping >= 0
    rows = {int(change.remapping[at]): head[at] for at in np.flatnonzero(known)}
    shape = (case["old_rows"], case["dim"])
    checkpoints.write_sparse_table(folder, KEY, shape, rows)
    expected = np.zeros((case["new_rows"], case["dim"]), np.float32)
    expected[known, :_GIVEN_COLUMNS] = head[known]
    return {"filesystem": kind, "sha256": digest(expected)}


def _filesystem(folder: Path) -> str:
    """What kind of filesystem a folder is on, or nothing."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    above = [(len(at), kind) for _, at, kind, *_ in mounts if folder.is_relative_to(at)]
    return max(above, default=(0, ""))[1]


def _prepare_ours(case: Parameters, folder: Path) -> Prepared:
    import checkpoints
    import torch
    from tokens import digest, new_vocab, old_vocab

    import torch_warmstart as tws

    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(case["new_rows"], case["dim"])})
    info = tws.VocabInfo(new_vocab(folder), case["new_rows"], 0, old_vocab(folder))

    def run() -> None:
        settings = tws.WarmStartSettings(
            checkpoints.prefix(folder),
            var_name_to_vocab_info={"table.weight": info},
            var_name_to_prev_var_name={"table.weight": KEY},
        )
        tws.warm_start(model, settings)

    weight = model["table"].weight.detach()
    # The table itself is not read before: it would not stay in the page cache.
    files = [new_vocab(folder), old_vocab(folder)]
    return Prepared(run, lambda: digest(weight.numpy()), files)


_CONTENDERS = {OURS: Contender("ours", _prepare_ours)}


def _cases(sizes: Sizes) -> list[Case]:
    memory = memory_limit()
    old_rows, destination = _OLD_ROWS, _DESTINATION
    tables = [int(memory * share) for share in _SHARES]
    if sizes.quick:
        old_rows, destination, tables = _QUICK_ROWS, _QUICK_DESTINATION, list(_QUICK)
    if sizes.mebibytes:
        tables = [sizes.mebibytes * MIB // 8, sizes.mebibytes * MIB]
    return [_case(table, memory, old_rows, destination) for table in tables]


def _case(table: int, memory: int, old_rows: int, destination: int) -> Case:
    row_bytes = table // old_rows // 4 * 4
    name = f"{row_bytes * old_rows / 2**30:,.2f} GiB"
    if memory:
        name += f" ({table / memory:.2g} x memory)"
    shape = {"old_rows": old_rows, "new_rows": destination // row_bytes, "dim": row_bytes // 4}
    return Case(
        name, {**shape, "table": row_bytes * old_rows, "memory": memory}, (OURS,), name, runs=1
    )


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    by_table = sorted(summaries.values(), key=lambda summary: summary.parameters["table"])
    if not by_table or by_table[-1].parameters["table"] <= by_table[-1].parameters["memory"]:
        return []
    small, large = by_table[0].beyond(OURS), by_table[-1].beyond(OURS)
    growth = large / small if small and large else None
    return [
        at_most(
            f"a table larger than memory: at most {_MOST / 1e6:.0f} MB beyond the destination",
            None if large is None else large / 1e6,
            _MOST / 1e6,
            "MB",
        ),
        at_most(f"that is at most {_GROWTH} x that of the smallest table", growth, _GROWTH),
    ]


def _plot(summaries: Mapping[str, Summary], folder: Path) -> None:
    from plots import plot_memory

    plot_memory(list(summaries.values()), folder / "memory.png")


BENCHMARK = Benchmark(
    title="Memory, with a table larger than memory as the source",
    about=(
        "A warm start through a vocabulary change, checksums verified, into a destination of one "
        f"size ({_DESTINATION // MIB} MiB) from ever wider tables of {_OLD_ROWS:,} rows, of which "
        "the last listed is larger than the memory of the machine (or of the cgroup). The tables "
        "are files with holes, whose pages take memory as any others do. One run of each; times "
        "are of that case alone."
    ),
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    toy=lambda case: case | {"old_rows": 1_000, "new_rows": 100, "dim": _GIVEN_COLUMNS},
    plot=_plot,
    beyond="beyond the destination",
)
