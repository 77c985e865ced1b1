"""Growth: the time and the memory of a row, from half a million rows to 32 million."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from case import OURS, Benchmark, Case, Sizes, Summary, Verdict, at_most

from suite import vocab

_ROWS = tuple(500_000 << doubling for doubling in range(7))
_QUICK = (10_000, 20_000)
_DIM = 8
_MOST_ROWS = {"polars": 8_000_000, "dict": 2_000_000}  # minutes above that
_FLAT = 1.5  # the dearest row against the cheapest


def _cases(sizes: Sizes) -> list[Case]:
    listed = sizes.rows or (_QUICK if sizes.quick else _ROWS)
    dim = sizes.dim or _DIM
    return [
        Case(
            f"{rows:,} rows",
            vocab.parameters(rows, dim),
            (OURS, *(peer for peer, most in _MOST_ROWS.items() if rows <= most)),
            folder=str(rows),
        )
        for rows in listed
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    if not {f"{_ROWS[0]:,} rows", f"{_ROWS[-1]:,} rows"} <= set(summaries):
        return []
    costs = [
        (seconds / summary.parameters["rows"], beyond / summary.parameters["rows"])
        for summary in summaries.values()
        if (seconds := summary.seconds(OURS)) and (beyond := summary.beyond(OURS))
    ]
    known = len(costs) == len(summaries)
    target = f"{_ROWS[0]:,} to {_ROWS[-1]:,} rows: the dearest at most {_FLAT} x the cheapest"
    return [
        at_most(f"{target}, time of a row", _spread([time for time, _ in costs], known), _FLAT),
        at_most(f"{target}, memory of a row", _spread([size for _, size in costs], known), _FLAT),
    ]


def _spread(costs: list[float], known: bool) -> float | None:
    return max(costs) / min(costs) if known else None


def _plot(summaries: Mapping[str, Summary], folder: Path) -> None:
    from plots import plot_growth

    plot_growth(list(summaries.values()), folder / "growth.png")


BENCHMARK = Benchmark(
    title="Growth",
    about=(
        f"The same warm start through a vocabulary change, {_DIM} columns unless said otherwise, "
        "from few to many rows. The peers run as far as they fit into the time."
    ),
    contenders={peer: vocab.CONTENDERS[peer] for peer in (OURS, *_MOST_ROWS)},
    cases=_cases,
    make=vocab.make,
    judge=_judge,
    toy=vocab.toy,
    plot=_plot,
    beyond="beyond the table",
)
