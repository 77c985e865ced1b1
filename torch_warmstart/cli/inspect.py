"""The command `torch-warmstart inspect`: a checkpoint as a table, as JSON, or its values."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_warmstart.api import load_checkpoint
from torch_warmstart.display import render
from torch_warmstart.dtypes import dtype_name
from torch_warmstart.errors import SettingsError, plural, printable
from torch_warmstart.formats import Checkpoint, TensorSpec

_FIRST_ROWS = 5
_MAX_STRINGS = 1000  # as many elements as torch shows of a tensor
_COLUMNS = ("key", "dtype", "stored as", "shape", "bytes", "slices", "file")
_SAME_TYPE = {  # words of the formats that say no more than torch's
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "BF16": "bfloat16",
}
_LETTERS = {"I": "int", "U": "uint", "F": "float", "C": "complex"}  # of safetensors


@dataclass(frozen=True, slots=True)
class TensorRow:
    """What is told of one tensor."""

    key: str
    dtype: str | None  # torch's; None: strings, or not for torch
    stored_dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    files: tuple[str, ...]
    num_slices: int  # 0: in one piece


def inspect(options: argparse.Namespace) -> str:
    """Runs the command; the result is what is to be printed."""
    with load_checkpoint(
        options.url,
        format=options.format,
        entry=options.entry,
        verify=options.verify,
        storage_options=dict(options.storage_option),
        filesystem=options.filesystem,
    ) as checkpoint:
        if options.values is not None:
            return _values(checkpoint, options.values, options.rows)
        rows = _rows(checkpoint, options.pattern)
    rows.sort(key=_BY[options.sort])
    return _as_json(checkpoint, rows) if options.json else _as_table(checkpoint, rows)


_BY: dict[str, Callable[[TensorRow], Any]] = {
    "name": lambda row: row.key,
    "size": lambda row: (-row.bytes, row.key),
}


def _rows(checkpoint: Checkpoint, patterns: Sequence[re.Pattern[str]]) -> list[TensorRow]:
    wanted = (key for key in checkpoint if not patterns or any(p.search(key) for p in patterns))
    return [_row(checkpoint, checkpoint.spec(key)) for key in wanted]


def _row(checkpoint: Checkpoint, spec: TensorSpec) -> TensorRow:
    location = checkpoint.location(spec.key)
    return TensorRow(
        key=spec.key,
        dtype=None if spec.dtype is None else dtype_name(spec.dtype),
        stored_dtype=spec.stored_dtype,
        shape=spec.shape,
        elements=spec.numel,
        bytes=spec.nbytes,
        files=location.files,
        num_slices=location.num_slices,
    )


# -- as text ---------------------------------------------------------------------------------------


def _as_table(checkpoint: Checkpoint, rows: Sequence[TensorRow]) -> str:
    headline = printable(f"{checkpoint.url}: {checkpoint.format}")
    files = {row.files for row in rows}
    table = render(_COLUMNS, (_cells(row, len(files) > 1) for row in rows), ("bytes", "slices"))
    where = f"All in {printable(', '.join(*files))}\n" if len(files) == 1 else ""
    return "\n".join([headline, "", *([table, ""] if rows else []), where + _totals(rows)])


def _cells(row: TensorRow, with_files: bool) -> tuple[str, ...]:
    return (
        row.key,
        row.dtype or row.stored_dtype,
        _stored_as(row),
        str(list(row.shape)),
        f"{row.bytes:,}" if row.dtype else "",
        str(row.num_slices or ""),
        ", ".join(row.files) if with_files else "",
    )


def _stored_as(row: TensorRow) -> str:
    """The format's word for the type, where it is another type than torch's."""
    stored = _SAME_TYPE.get(row.stored_dtype, row.stored_dtype)
    if stored[:1] in _LETTERS and stored[1:].isdigit():
        stored = _LETTERS[stored[0]] + stored[1:]
    same = row.dtype is None or stored.lower() == row.dtype
    return "" if same else row.stored_dtype


def _totals(rows: Sequence[TensorRow]) -> str:
    size = sum(row.bytes for row in rows)
    counts = Counter[str]()
    for row in rows:
        counts[row.dtype or row.stored_dtype] += row.elements
    by_dtype = ", ".join(f"{count:,} {dtype}" for dtype, count in counts.most_common())
    total = f"{plural(len(rows), 'tensor')}, {plural(sum(counts.values()), 'element')}"
    return f"{total}, {plural(size, 'byte')}" + (f": {by_dtype}" if len(counts) > 1 else "")


# -- as JSON ---------------------------------------------------------------------------------------


def _as_json(checkpoint: Checkpoint, rows: Sequence[TensorRow]) -> str:
    document = {
        "url": checkpoint.url,
        "format": checkpoint.format,
        "tensors": [{name: getattr(row, name) for name in TensorRow.__slots__} for row in rows],
        "totals": {
            "tensors": len(rows),
            "elements": sum(row.elements for row in rows),
            "bytes": sum(row.bytes for row in rows),
            "by_dtype": _by_dtype(rows),
        },
    }
    return json.dumps(document, indent=1)


def _by_dtype(rows: Iterable[TensorRow]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for row in rows:
        total = totals.setdefault(
            row.dtype or row.stored_dtype, {"tensors": 0, "elements": 0, "bytes": 0}
        )
        total["tensors"] += 1
        total["elements"] += row.elements
        total["bytes"] += row.bytes
    return totals


# -- values ----------------------------------------------------------------------------------------


def _values(checkpoint: Checkpoint, key: str, rows: slice | None) -> str:
    spec = checkpoint.spec(key)
    chosen = None
    if spec.shape:
        start, stop, _ = (rows or slice(0, _FIRST_ROWS)).indices(spec.shape[0])
        chosen = torch.arange(start, max(start, stop))
    elif rows is not None:
        raise SettingsError(f"{key!r} is a scalar: it has no --rows.")
    values = checkpoint.get_tensor(key, chosen)
    shown = _strings(values) if isinstance(values, list) else str(values)
    which = "" if chosen is None or len(chosen) == spec.shape[0] else f", {_span(chosen)}"
    return f"{printable(key)}: {spec.stored_dtype} {list(spec.shape)}{which}\n{shown}"


def _strings(values: Sequence[bytes]) -> str:
    lines = [repr(value) for value in values[:_MAX_STRINGS]]
    more = len(values) - _MAX_STRINGS
    return "\n".join(lines + ([f"and {more:,} more"] if more > 0 else []))


def _span(rows: torch.Tensor) -> str:
    return f"rows {int(rows[0]):,} to {int(rows[-1]):,}" if len(rows) else "no rows"
