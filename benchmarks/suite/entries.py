"""The join of entries that are not words: integers written out, long URLs, single letters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from case import Benchmark, Case, Parameters, Sizes, Summary, Verdict, at_least

from suite.join import CONTENDERS
from suite.vocab import OVERLAP

# What an entry is, by the number of its token.
_KINDS = {
    "integers written out": lambda token: b"%d" % (token * 7919),
    "URLs of 290 bytes": lambda token: b"https://example.org/%s?page=%012d" % (b"a" * 252, token),
    "single letters": lambda token: b"%c" % (33 + token),
}
_ROWS = {"integers written out": 2_000_000, "URLs of 290 bytes": 300_000, "single letters": 75}
_QUICK = 60
_FASTER = 1.5  # than the best of these
_BEST_OF = ("dict", "polars", "pyarrow")


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    from tokens import TokenChange, digest, new_vocab, old_vocab

    change = TokenChange(case["rows"], case["rows"], OVERLAP)
    spell = _KINDS[case["kind"]]
    for path, ids in ((old_vocab(folder), change.old), (new_vocab(folder), change.new)):
        path.write_bytes(b"".join(spell(token) + b"\n" for token in ids.tolist()))
    return {"sha256": digest(change.remapping)}


def _name(kind: str, rows: int) -> str:
    return f"{kind}, {rows:,} against {rows:,}"


def _cases(sizes: Sizes) -> list[Case]:
    rows = dict.fromkeys(_KINDS, _QUICK) if sizes.quick else _ROWS
    return [
        Case(_name(kind, rows[kind]), {"rows": rows[kind], "kind": kind}, (*CONTENDERS,), kind[:4])
        for kind in _KINDS
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    return [
        at_least(
            f"{kind}: at least {_FASTER} x faster than the best of dict, Polars, PyArrow",
            summaries[_name(kind, rows)].times_faster(*_BEST_OF),
            _FASTER,
        )
        for kind, rows in _ROWS.items()
        if _name(kind, rows) in summaries
    ]


BENCHMARK = Benchmark(
    title="The join of other entries",
    about="As the join alone, of other entries than words.",
    contenders=CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    toy=lambda case: {**case, "rows": 50},
)
