"""Results as Markdown: ratios to the first contender, memory, targets, and what was left out."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from case import MIB

_LOAD = "load before"  # differs from run to run on one machine

Record = dict[str, Any]  # of a benchmark, as its JSON file has it
_MET = {True: "yes", False: "**no**", None: "-"}


def show_all(folder: Path, names: Sequence[str]) -> str:
    """One page of all benchmarks that have left their JSON in a folder."""
    paths = [folder / f"{name}.json" for name in names]
    records = [json.loads(path.read_text()) for path in paths if path.exists()]
    targets = [
        [record["title"], target["target"], target["measured"], _MET[target["met"]]]
        for record in records
        for target in record["targets"]
    ]
    parts = [_table(["", "target", "measured", "met"], targets)] if targets else []
    before = None
    for record in records:
        machine = _machine_line(record)
        if machine != before:
            parts.append(f"{machine}\n")
        parts.append(_section(record))
        before = machine
    return "\n".join(parts)


def show_benchmark(record: Record) -> str:
    """One benchmark, and what it was measured on."""
    return f"{_machine_line(record)}\n\n{_section(record)}"


def _machine_line(record: Record) -> str:
    known = record["machine"].items()
    return "; ".join(f"{name}: {value}" for name, value in known if name != _LOAD)


def _section(record: Record) -> str:
    """What was measured, the table, targets, and what was left out."""
    rows = [row for case in record["cases"] for row in _case_rows(record, case)]
    lines = [f"### {record['title']}", "", record["about"], ""]
    if rows:
        lines.append(_table(["", "", "time", "least to most", "peak", record["beyond"]], rows))
    lines += [f"- {line}" for line in _remarks(record)]
    return "\n".join(lines) + "\n"


def _case_rows(record: Record, case: dict[str, Any]) -> list[list[str]]:
    base = next(iter(_medians(case, "seconds").values()), None)
    resident, beyond = _medians(case, "peak_resident"), _medians(case, "beyond_result")
    rows = []
    for peer, runs in case["runs"].items():
        rows.append(
            [
                "" if rows else case["name"],
                record["labels"][peer],
                *_ratios([run["seconds"] for run in runs], base),
                _mebibytes(resident.get(peer)),
                _mebibytes(beyond.get(peer)),
            ]
        )
    return rows


def _medians(case: dict[str, Any], field: str) -> dict[str, float]:
    return {
        peer: statistics.median(run[field] for run in runs)
        for peer, runs in case["runs"].items()
        if runs and all(run.get(field) is not None for run in runs)
    }


def _ratios(seconds: Sequence[float], base: float | None) -> list[str]:
    """Median, least and most, in times of the first contender's median."""
    if not base:
        return ["", ""]
    low, middle, high = (_ratio(f(seconds) / base) for f in (min, statistics.median, max))
    return [f"{middle} x", f"{low} to {high}"]


def _ratio(value: float) -> str:
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _mebibytes(size: float | None) -> str:
    return "" if size is None else f"{size / MIB:,.0f} MiB"


def _remarks(record: Record) -> list[str]:
    remarks = [
        f"Target: {target['target']}. Measured: {target['measured']}. Met: {_MET[target['met']]}"
        for target in record["targets"]
    ]
    left_out: dict[str, list[str]] = {}  # why: who
    for case in record["cases"]:
        for peer, why in case["left_out"].items():
            left_out.setdefault(why, []).append(record["labels"].get(peer, peer))
        if not case["results_equal"]:
            remarks.append(f"**The results of {case['name']} are not what they should be.**")
    for why, peers in left_out.items():
        remarks.append(f"Left out, {why}: {', '.join(dict.fromkeys(peers))}")
    counts = {len(runs) for case in record["cases"] for runs in case["runs"].values()}
    number = " or ".join(str(count) for count in sorted(counts))
    load = record["machine"][_LOAD]
    return [*remarks, f"Runs of each: {number or 'none'}, medians shown; load before: {load}"]


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is aligned as plain text too."""
    widths = [max(len(row[at]) for row in (heading, *rows)) for at in range(len(heading))]
    rule = ["-" * width for width in widths]
    return "".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        + " |\n"
        for row in (heading, rule, *rows)
    )
