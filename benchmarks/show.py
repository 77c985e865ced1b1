"""The tables that are printed: medians of the runs, and how many times the first contender's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from inputs import Inputs
from rich.table import Table

Run = dict[str, Any]

# Field of a run, and the heading of its column.
MEMORY = {
    "peak_rss": "peak",
    "above_start": "above start",
    "anonymous_above_start": "anonymous",
    "beyond_table": "beyond the table",
}


def show_machine(machine: dict[str, str]) -> str:
    """Processor, memory and versions in a line."""
    return "; ".join(f"{name}: {value}" for name, value in machine.items())


def show_inputs(inputs: Inputs, made: dict[str, str]) -> str:
    """What everybody was given, in a line."""
    return (
        f"{inputs.rows:,} rows x {inputs.dim} float32 ({inputs.table_bytes / 2**20:,.0f} MiB), "
        f"{inputs.shared:,} tokens shared, checkpoint by {made['checkpoint_by']}"
    )


def show_seconds(runs: dict[str, list[Run]]) -> Table:
    """Wall time of every contender."""
    table = _table("Seconds", "", "median", "min", "max", "ratio")
    base = 0.0
    for peer, of_peer in runs.items():
        seconds = [run["seconds"] for run in of_peer]
        base = base or statistics.median(seconds)
        table.add_row(peer, *_spread(seconds), f"{statistics.median(seconds) / base:.1f}x")
    return table


def show_memory(runs: dict[str, list[Run]]) -> Table:
    """Peak memory of every contender."""
    table = _table("Memory, MiB (medians)", "", *MEMORY.values())
    bases: dict[str, float] = {}
    for peer, of_peer in runs.items():
        table.add_row(peer, *(_memory_cell(of_peer, field, bases) for field in MEMORY))
    return table


def show_stages(runs: Sequence[Run]) -> Table:
    """The parts of our own time; these runs are not those of the comparison."""
    table = _table("Stages of ours, seconds", "", "median", "min", "max")
    for stage in runs[0]["stages"]:
        table.add_row(stage, *_spread([run["stages"][stage] for run in runs]))
    return table


def _memory_cell(runs: Sequence[Run], field: str, bases: dict[str, float]) -> str:
    """`612 (2.4x)`; the first contender's value becomes the base."""
    if any(run.get(field) is None for run in runs):
        return "unknown"
    size = statistics.median(run[field] for run in runs) / 2**20
    base = bases.setdefault(field, size)
    return f"{size:,.0f} ({size / base:.1f}x)" if base >= 1 else f"{size:,.0f}"


def _spread(seconds: Sequence[float]) -> list[str]:
    """Median, least and most."""
    return [f"{f(seconds):.3f}" for f in (statistics.median, min, max)]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table
