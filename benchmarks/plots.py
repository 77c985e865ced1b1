"""Plots of time and memory against size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from case import MIB, OURS, Summary


def plot_growth(summaries: Sequence[Summary], path: Path) -> None:
    """Time of a row (ours at the first size is 1) and its memory, against rows."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    first = summaries[0].seconds(OURS)
    base = first / summaries[0].parameters["rows"] if first else 1.0
    _lines(left, summaries, lambda found, peer: found.seconds(peer), base)
    _lines(right, summaries, lambda found, peer: found.beyond(peer), 1.0)
    left.set(title="Time of a row, ours with the fewest rows = 1", yscale="log")
    right.set(title="Anonymous memory of a row beyond the table, bytes", ylim=(0, None))
    for axes in (left, right):
        axes.set(xlabel="rows", xscale="log")
        axes.grid(alpha=0.3)
    left.legend()
    _save(figure, path)


def plot_memory(summaries: Sequence[Summary], path: Path) -> None:
    """Our memory beyond the destination, against the size of the old table."""
    known = [
        (found.parameters["table"] / 2**30, beyond / MIB)
        for found in summaries
        if (beyond := found.beyond(OURS)) is not None
    ]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(*zip(*known, strict=True) if known else ([], []), "o-", label="ours")
    memory = summaries[0].parameters["memory"] / 2**30
    if memory <= max((table for table, _ in known), default=0):
        axes.axvline(memory, color="grey", linestyle="--", label="memory of the machine")
    axes.set(xlabel="old table, GiB", ylabel="anonymous memory beyond the destination, MiB")
    axes.set(xscale="log")
    axes.set_ylim(0, 1.2 * max((beyond for _, beyond in known), default=1))
    axes.minorticks_off()
    axes.set_xticks([table for table, _ in known], [f"{table:.3g}" for table, _ in known])
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def _lines(
    axes: Any,
    summaries: Sequence[Summary],
    figure_of: Callable[[Summary, str], float | None],
    base: float,
) -> None:
    """One line for each contender: its figure for a row, against rows."""
    for peer in dict.fromkeys(peer for found in summaries for peer in found.runs):
        points = [
            (found.parameters["rows"], value / found.parameters["rows"] / base)
            for found in summaries
            if (value := figure_of(found, peer)) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", label=peer)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=120)
    plt.close(figure)
