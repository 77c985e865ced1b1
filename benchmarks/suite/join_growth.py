"""Growth of the join alone: time and memory of a row, from half a million to 100 million."""

from __future__ import annotations

from collections.abc import Mapping

from case import OURS, Benchmark, Case, Sizes, Summary, Verdict, at_most

from suite import join, vocab

_ROWS = (500_000, 4_000_000, 20_000_000, 100_000_000)
_QUICK = (10_000, 20_000)
_PEER, _MOST_ROWS = "polars", 20_000_000  # it needs 300 bytes a row
_FLAT = 1.5  # the dearest row against the cheapest
_LONG = 20_000_000  # rows from which one run has to do


def _cases(sizes: Sizes) -> list[Case]:
    return [
        Case(
            f"{rows:,} against {rows:,}",
            {"rows": rows, "overlap": vocab.OVERLAP},
            (OURS, *([_PEER] if rows <= _MOST_ROWS else [])),
            folder=str(rows),
            runs=1 if rows >= _LONG else None,
        )
        for rows in sizes.rows or (_QUICK if sizes.quick else _ROWS)
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    if not {f"{rows:,} against {rows:,}" for rows in _ROWS} <= set(summaries):
        return []
    costs = [
        beyond / summary.parameters["rows"]
        for summary in summaries.values()
        if (beyond := summary.beyond(OURS)) is not None
    ]
    spread = max(costs) / min(costs) if len(costs) == len(summaries) else None
    target = f"{_ROWS[0]:,} to {_ROWS[-1]:,} rows: the dearest at most {_FLAT} x the cheapest"
    return [at_most(f"{target}, memory of a row", spread, _FLAT)]


BENCHMARK = Benchmark(
    title="Growth of the join",
    about=(
        "As the join alone, from few to many rows; memory counts the remapping, 8 bytes a row. "
        "Polars runs as far as it fits into memory."
    ),
    contenders={peer: join.CONTENDERS[peer] for peer in (OURS, _PEER)},
    cases=_cases,
    make=join.BENCHMARK.make,
    judge=_judge,
    toy=vocab.toy,
)
