"""The command line: `torch-warmstart inspect` lists a checkpoint, `verify` proves a port.

The only module that prints. Output is plain text without colours, so that it may be piped anywhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from torch_warmstart.api import load_checkpoint
from torch_warmstart.cli.verify import add_verify
from torch_warmstart.display import render
from torch_warmstart.dtypes import dtype_name
from torch_warmstart.errors import SettingsError, WarmStartError, plural, printable
from torch_warmstart.formats import Checkpoint, TensorSpec
from torch_warmstart.proof import PortCheck

_OK, _FAILED = 0, 1  # argparse exits with 2 where it is called wrongly
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


def run() -> NoReturn:
    """The console script: a process of its own."""
    gc.disable()  # of a short run's 100,000 small objects, none is garbage: a third of the time
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, or 1 with a message on stderr."""
    options = _parser().parse_args(arguments)
    try:
        outcome = options.run(options)
        print(outcome)
        sys.stdout.flush()
        return _FAILED if isinstance(outcome, PortCheck) and not outcome.ok else _OK
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return _OK
    except (WarmStartError, OSError) as error:
        print(f"torch-warmstart: {error}", file=sys.stderr)
        return _FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch-warmstart", description="Warm-start PyTorch models from checkpoints."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    inspect = commands.add_parser(
        "inspect",
        help="list the tensors of a checkpoint",
        description="Lists the tensors of a checkpoint; reads its index, and no tensor.",
    )
    inspect.set_defaults(run=_inspect)
    _add_source(inspect)
    inspect.add_argument(
        "--pattern",
        metavar="REGEX",
        action="append",
        type=_regex,
        default=[],
        help="only keys in which this is found; may be repeated, for keys that match any of them",
    )
    inspect.add_argument("--sort", choices=("name", "size"), default="name")
    inspect.add_argument("--json", action="store_true", help="print one JSON document")
    inspect.add_argument("--values", metavar="KEY", help="print this tensor's first rows instead")
    inspect.add_argument(
        "--rows", metavar="START:STOP", type=_row_range, help="which rows of --values"
    )
    add_verify(commands)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="path or URL of a checkpoint or its directory")
    parser.add_argument("--format", help="what it is, instead of looking at its content")
    parser.add_argument("--entry", help="which mapping of a file that holds several: ema/model")
    parser.add_argument(
        "--no-verify", dest="verify", action="store_false", help="check no checksums of --values"
    )
    parser.add_argument(
        "--storage-option",
        metavar="KEY=VALUE",
        action="append",
        type=_storage_option,
        default=[],
        help="passed to the filesystem of a URL; values may be JSON (true, 5); may be repeated",
    )
    parser.add_argument("--filesystem", choices=("auto", "fsspec", "gfile"), default="auto")


def _inspect(options: argparse.Namespace) -> str:
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


# -- arguments -------------------------------------------------------------------------------------


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


def _row_range(text: str) -> slice:
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no range such as 0:5")
    start, stop = (int(bound) if bound else None for bound in match.groups())
    return slice(start, stop)


def _storage_option(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
