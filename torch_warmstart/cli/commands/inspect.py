"""The command `torch-warmstart inspect`: a checkpoint as a table, as JSON, or its values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.api import load_checkpoint
from torch_warmstart.cli.answer import DIFFERENT, Answer
from torch_warmstart.cli.pages import check_free, write_page
from torch_warmstart.display import VERSION
from torch_warmstart.errors import (
    SettingsError,
    VocabularyError,
    did_you_mean,
    listed,
    plural,
    printable,
)
from torch_warmstart.formats import Checkpoint, TensorSpec, list_tensors
from torch_warmstart.storage import LOCAL
from torch_warmstart.vocabularies import (
    is_looked_beside,
    is_tokenizer_directory,
    sidecar_vocabularies,
)

_FIRST_ROWS = 5
_NUMBERED = re.compile(r"(\D*)(\d{0,18})")
_MAX_STRINGS = 1000  # as many elements as torch shows of a tensor


def inspect(options: argparse.Namespace) -> Answer:
    """Runs the command."""
    _check_together(options)
    check_free(options.html, force=options.force)
    with load_checkpoint(options.url, **opening(options)) as checkpoint:
        if options.values is not None:
            if options.json:
                return Answer("", document=_values_document(checkpoint, options))
            return Answer(_values(checkpoint, options.values, options.rows))
        patterns = options.pattern
        keys = matching(checkpoint, patterns)
        listing = list_tensors(checkpoint, list(checkpoint) if keys is None else keys)
        if keys is not None and not keys:
            return Answer(listing, code=DIFFERENT, aside=no_match(checkpoint, patterns))
        beside = tuple(_lying_beside(checkpoint))
    rows = tuple(sorted(listing.rows, key=_BY[options.sort]))
    listing = replace(listing, rows=rows, beside=beside)
    return Answer(listing, aside=write_page(listing, options))


def _check_together(options: argparse.Namespace) -> None:
    """Raises SettingsError for an option that the others would leave without effect."""
    if options.values is None and options.rows is not None:
        raise SettingsError("--rows chooses rows of --values, which is not given.")
    if options.values is not None and (options.html is not None or options.pattern):
        raise SettingsError("--html and --pattern are for the list of tensors, not for --values.")


def opening(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say of how a checkpoint is opened; of the rest a settings file may."""
    said = {
        "format": options.format,
        "entry": options.entry,
        "verify": options.verify,
        "storage_options": dict(options.storage_option) or None,
        "filesystem": options.filesystem,
    }
    return {name: value for name, value in said.items() if value is not None}


_BY: dict[str, Callable[[Any], Any]] = {
    "name": lambda row: _natural(row.key),
    "size": lambda row: (-row.bytes, _natural(row.key)),
}


def _natural(key: str) -> list[tuple[str, int]]:
    """An order in which layer 2 stands before layer 10."""
    parts = _NUMBERED.findall(key)
    return [(text, int(number or -1)) for text, number in parts]


def _lying_beside(checkpoint: Checkpoint) -> Iterator[str]:
    """What a `VocabInfo` without `old_vocab` finds in files beside a checkpoint."""
    if not is_looked_beside(checkpoint):
        return
    try:
        kept = sidecar_vocabularies(checkpoint.url, LOCAL)
    except VocabularyError as error:
        yield str(error)
        return
    if kept:
        yield f"vocabularies of {listed(kept)}"
    if checkpoint.directory and is_tokenizer_directory(checkpoint.directory, LOCAL):
        yield "a tokenizer"


def matching(checkpoint: Checkpoint, patterns: Sequence[Any]) -> list[str] | None:
    """The keys in which one of the patterns of `--pattern` is found; None: none is given."""
    if not patterns:
        return None
    return [key for key in checkpoint if any(pattern.search(key) for pattern in patterns)]


def no_match(checkpoint: Checkpoint, patterns: Sequence[Any]) -> str:
    """That no key matches, with near ones."""
    said = " or ".join(repr(pattern.pattern) for pattern in patterns)
    near = did_you_mean(patterns[0].pattern.strip("^$.*"), checkpoint)
    return f"None of {plural(len(checkpoint), 'tensor')} matches {said}.{near}"


# -- values ----------------------------------------------------------------------------------------


def _values(checkpoint: Checkpoint, key: str, rows: slice | None) -> str:
    spec = checkpoint.spec(key)
    chosen = _chosen_rows(spec, rows)
    values = checkpoint.get_tensor(key, chosen)
    shown = _strings(values) if isinstance(values, list) else str(values)
    which = "" if chosen is None or len(chosen) == spec.shape[0] else f", {_span(chosen)}"
    return f"{printable(key)}: {spec.dtype_name} {list(spec.shape)}{which}\n{shown}"


def _chosen_rows(spec: TensorSpec, rows: slice | None) -> torch.Tensor | None:
    if not spec.shape:
        if rows is not None:
            raise SettingsError(f"{spec.key!r} is a scalar: it has no --rows.")
        return None
    start, stop, _ = (rows or slice(0, _FIRST_ROWS)).indices(spec.shape[0])
    return torch.arange(start, max(start, stop))


def _values_document(checkpoint: Checkpoint, options: argparse.Namespace) -> dict[str, Any]:
    """The values for `--json`; strings as they are spelt in Python."""
    spec = checkpoint.spec(options.values)
    chosen = _chosen_rows(spec, options.rows)
    values = checkpoint.get_tensor(spec.key, chosen)
    return {
        "version": VERSION,
        "kind": "values",
        "key": spec.key,
        "dtype": spec.dtype_name,
        "stored_dtype": spec.stored_dtype,
        "shape": list(spec.shape),
        "rows": None if chosen is None else chosen.tolist(),
        "values": [*map(repr, values)] if isinstance(values, list) else _plain(values),
    }


def _plain(values: torch.Tensor) -> Any:
    return _spelt(values.tolist()) if values.is_complex() else values.tolist()


def _spelt(value: Any) -> Any:
    return [_spelt(one) for one in value] if isinstance(value, list) else str(value)


def _strings(values: Sequence[bytes]) -> str:
    lines = [repr(value) for value in values[:_MAX_STRINGS]]
    more = len(values) - _MAX_STRINGS
    return "\n".join(lines + ([f"and {more:,} more"] if more > 0 else []))


def _span(rows: torch.Tensor) -> str:
    return f"rows {int(rows[0]):,} to {int(rows[-1]):,}" if len(rows) else "no rows"
