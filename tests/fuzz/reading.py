"""Reads everything that can be read from a case, as a patient and suspicious user would."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from fuzz.cases import Case
from fuzz.seeds import VOCABULARY
from torch_warmstart import WarmStartSettings
from torch_warmstart.api import (
    latest_checkpoint,
    load_checkpoint,
    plan_warm_start,
    warm_start,
)
from torch_warmstart.errors import WarmStartError
from torch_warmstart.formats.base import Checkpoint
from torch_warmstart.formats.keyed import KeyedTable
from torch_warmstart.vocabularies.loading import read_vocabulary, used_rows
from torch_warmstart.vocabularies.refused_entries import check_no_blank_lines

_MOST_KEYS = 200  # of one case
_MOST_ROWS = 1000

Values = Mapping[str, Any]  # by key: a tensor, or strings


class WrongValueError(Exception):
    """A tensor was read without complaint, but its values are not those that were written."""


def read_case(case: Case, url: str, expected: Values) -> bool:
    """Opens and reads a case; whether it could be opened. Raises what is not a refusal."""
    try:
        if case.format == VOCABULARY:
            _read_vocabulary(url)
            return True
        if os.path.isdir(url):
            _refusable(latest_checkpoint, url)
        with load_checkpoint(url) as checkpoint:
            values = read_everything(checkpoint)
    except WarmStartError as error:
        check_printable(str(error))
        return False
    _refusable(_warm_start, url)
    _refusable(_plan, url)
    check_values(case, values, expected)
    return True


def read_everything(checkpoint: Checkpoint) -> dict[str, Any]:
    """Every tensor that can be read; refusals of single ones are fine."""
    try:
        keys = list(checkpoint)[:_MOST_KEYS]
    except WarmStartError:
        keys = []  # some may be found by name nevertheless; there is nothing to list them from
    _refusable(checkpoint.full_names)
    _refusable(checkpoint.metadata)
    _refusable(repr, checkpoint)
    _refusable(checkpoint.spec, "no such tensor")
    _refusable(checkpoint.prefetch, keys)
    _refusable(_read_tables, checkpoint)
    values = {}
    for key in keys:
        _refusable(checkpoint.location, key)
        try:
            values[key] = _read_tensor(checkpoint, key)
        except WarmStartError:
            continue
    return values


def _read_tables(checkpoint: Checkpoint) -> None:
    """Ids, columns and slots of tables that keep them."""
    for table in list(checkpoint.tables().values())[:_MOST_KEYS]:
        for one in (table, *table.slots.values()):
            _refusable(_read_ids, one)
            check_printable(repr(one))


def _read_ids(table: KeyedTable) -> None:
    keys = table.keys
    assert len(keys) == table.shape[0], (len(keys), table.shape)
    list(keys.entries[: min(len(keys), _MOST_ROWS)])
    for column in (table.frequencies, table.versions):
        assert column is None or len(column) == len(keys.listed), table.name


def _read_tensor(checkpoint: Checkpoint, key: str) -> Any:
    spec = checkpoint.spec(key)
    _refusable(checkpoint.verify, key)
    _refusable(checkpoint.get_tensor, key, torch.empty(0, dtype=torch.int64))
    tensor = checkpoint.get_tensor(key)
    if isinstance(tensor, torch.Tensor):
        assert tuple(tensor.shape) == spec.shape, (key, tensor.shape, spec)
        assert tensor.dtype == spec.dtype, (key, tensor.dtype, spec)
        if tensor.numel():
            tensor.flatten()[-1].clone()  # the last byte is there
    else:
        assert len(tensor) == spec.numel, (key, len(tensor), spec)
    if spec.shape and spec.shape[0]:
        _check_rows(checkpoint, key, tensor, spec.shape)
    return tensor


def _check_rows(checkpoint: Checkpoint, key: str, tensor: Any, shape: tuple[int, ...]) -> None:
    """The last row, the first, and the last again are those of the whole tensor."""
    rows = torch.tensor([shape[0] - 1, 0, shape[0] - 1])
    picked = checkpoint.get_tensor(key, rows)
    if isinstance(tensor, torch.Tensor):
        size = tensor[0].numel()
        if size <= _MOST_ROWS and not _same_bits(picked, tensor[rows.tolist()]):
            raise WrongValueError(f"rows of {key!r} are not those of the tensor")
        return
    per_row = len(tensor) // shape[0]
    first, last = tensor[:per_row], tensor[len(tensor) - per_row :]
    if list(picked) != [*last, *first, *last]:
        raise WrongValueError(f"rows of {key!r} are not those of the tensor")


def check_values(case: Case, values: Values, expected: Values) -> None:
    """Raises WrongValueError where a tensor that was not touched has changed."""
    keys: Iterable[str] = values if case.same is None else case.same & set(values)
    for key in keys:
        if key not in expected:
            raise WrongValueError(f"the file never held a tensor {key!r}")
        if not _same(values[key], expected[key]):
            raise WrongValueError(f"{key!r} reads as other values than were written")


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.shape == right.shape and left.dtype == right.dtype and _same_bits(left, right)
    return bool(left == right) if not isinstance(left, torch.Tensor) else False


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal to the bit: NaN is itself, and -0 is not 0."""
    if left.dtype.is_complex:
        left, right = torch.view_as_real(left), torch.view_as_real(right)
    flat = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (left, right)]
    return torch.equal(*flat)


def _warm_start(url: str) -> None:
    """A small model with names that the seeds use."""
    model = torch.nn.Module()
    model.dense = torch.nn.Linear(4, 3)
    model.table = torch.nn.Embedding(6, 2)
    model.layer = torch.nn.Linear(4, 3)
    warm_start(model, url, progress=False)


def _plan(url: str) -> None:
    """What is printed of a plan in which nothing must be found."""
    settings = WarmStartSettings(url, [".*"], on_missing="keep", on_mismatch="keep")
    check_printable(str(plan_warm_start(torch.nn.Sequential(torch.nn.Linear(2, 3)), settings)))


def check_printable(text: str) -> None:
    """Raises WrongValueError where a file's text would steer a terminal, or break a line."""
    steering = [c for c in text if not c.isprintable() and c not in "\n"]
    if steering:
        raise WrongValueError(f"printed raw: {steering[0]!r} in {text[:200]!r}")


def _read_vocabulary(url: str) -> None:
    whole = read_vocabulary(url)
    check_no_blank_lines(whole.listed)
    used_rows(whole, min(2, len(whole)), "new_vocab_size")
    vocabulary = whole.listed
    entries = [vocabulary.entry(at) for at in range(min(len(vocabulary), _MOST_ROWS))]
    for at in (0, len(vocabulary) - 1):
        vocabulary.show(at)
    if len(vocabulary) <= _MOST_ROWS:
        check_entries(Path(url).read_bytes(), entries)


def check_entries(data: bytes, entries: list[Any]) -> None:
    """Compares with the rule, said another way: lines by newline, one return dropped."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    expected = [line.removesuffix(b"\r") for line in lines]
    if entries != expected:
        raise WrongValueError("the entries are not the lines of the file")


def _refusable(function: Any, *arguments: Any) -> None:
    try:
        function(*arguments)
    except WarmStartError as error:
        check_printable(str(error))
