"""What differs between two checkpoints: names, shapes, dtypes, values.

Tensors are read one after another, and their values compared some at a time. A name that only one
side has is a renamed tensor if exactly one tensor of the other side has the same bytes, shape and
dtype; of several (biases that are all zero) nobody knows which is which.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Literal

import torch

from torch_warmstart.display import VERSION, Advance, Entry, Sheet, Shown, progress_bar
from torch_warmstart.dtypes import aligned, as_bytes
from torch_warmstart.errors import plural, printable
from torch_warmstart.formats import Checkpoint, TensorSpec
from torch_warmstart.values import frozen

# What happened to a tensor; one that differs in several ways has the first of them.
ChangeKind = Literal["added", "removed", "renamed", "shape", "dtype", "values", "unreadable"]
KINDS: tuple[ChangeKind, ...] = (
    "added",
    "removed",
    "renamed",
    "shape",
    "dtype",
    "values",
    "unreadable",
)
_BLOCK = 1 << 20  # elements that are compared together


@frozen
class TensorChange:
    """How a tensor differs. What one side does not have is None."""

    kind: ChangeKind
    key: str  # in the second checkpoint, or where it is not there, in the first
    old_key: str | None
    old_shape: tuple[int, ...] | None
    new_shape: tuple[int, ...] | None
    old_dtype: str | None
    new_dtype: str | None
    changed: int | None = None  # elements whose values differ
    old_norm: float | None = None
    new_norm: float | None = None
    norm_of_change: float | None = None  # of new - old
    max_change: float | None = None


@frozen(repr=False)
class CheckpointDiff(Shown):
    """What differs between two checkpoints; true if anything does. `print()` it.

    Args:
        old_url: Where the first is.
        new_url: Where the second is.
        changes: The tensors that differ, in the order of the second, removed ones last.
        num_equal: How many are the same on both sides: by name, shape, dtype and, if they were
            compared, values.
        values_compared: Whether values were.
    """

    old_url: str
    new_url: str
    changes: tuple[TensorChange, ...]
    num_equal: int
    values_compared: bool

    def __bool__(self) -> bool:
        return bool(self.changes)

    def count(self, kind: ChangeKind) -> int:
        """How many tensors differ in a way."""
        return sum(change.kind == kind for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that `json.dumps` takes, with `version` and `totals`."""
        return {
            "version": VERSION,
            "kind": "diff",
            "old": self.old_url,
            "new": self.new_url,
            "changes": [asdict(change) for change in self.changes],
            "values_compared": self.values_compared,
            "totals": {
                "changes": len(self.changes),
                "equal": self.num_equal,
                **{kind: self.count(kind) for kind in KINDS},
            },
        }

    @property
    def stat(self) -> str:
        """One line: how many tensors differ in which way."""
        counts = Counter(change.kind for change in self.changes)
        listed = ", ".join(f"{counts[kind]:,} {_SAID[kind]}" for kind in KINDS if counts[kind])
        tensors = plural(self.num_equal, "tensor")
        equal = f"{tensors} equal" + ("" if self.values_compared else " but for their values")
        return f"{listed}; {equal}" if listed else f"Nothing differs: {equal}"

    def _sheet(self) -> Sheet:
        return Sheet(
            f"{self.old_url} -> {self.new_url}",
            ("tensor", "was", "change", "shape", "dtype", "norm", "of change", "largest"),
            tuple(map(_entry, self.changes)),
            self.stat,
            noun="tensor",
            names=2,
            paths="was",
            state="change",
            right=frozenset({"of change", "largest"}),
        )

    def __str__(self) -> str:
        return self._sheet().as_text()

    def __repr__(self) -> str:
        return printable(f"<CheckpointDiff {self.old_url} -> {self.new_url}: {self.stat}>")


_SAID: dict[ChangeKind, str] = {
    "added": "added",
    "removed": "removed",
    "renamed": "renamed",
    "shape": "of another shape",
    "dtype": "of another dtype",
    "values": "of other values",
    "unreadable": "that could not be compared",
}


def diff_checkpoints(
    old: Checkpoint, new: Checkpoint, *, values: bool = True, progress: bool | None = None
) -> CheckpointDiff:
    """What differs between two open checkpoints."""
    both = [key for key in new if key in old]
    gone, come = [k for k in old if k not in new], [k for k in new if k not in old]
    work = sum(old.spec(key).nbytes for key in both) if values else 0
    with progress_bar(work, show=progress, title="Compare") as advance:
        compared = {key: _compare(old, new, key, values, advance) for key in both}
        renamed = dict(_renamed(old, new, gone, come)) if values else {}
    changes: list[TensorChange] = []
    for key in new:
        change = compared.get(key)
        if change is not None:
            changes.append(change)
        elif key not in compared:
            was = renamed.get(key)
            source = None if was is None else old.spec(was)
            changes.append(_change("renamed" if was else "added", source, new.spec(key)))
    moved = set(renamed.values())
    changes += [_change("removed", old.spec(key), None) for key in gone if key not in moved]
    equal = sum(change is None for change in compared.values())
    return CheckpointDiff(old.url, new.url, tuple(changes), equal, values)


def _change(
    kind: ChangeKind, old: TensorSpec | None, new: TensorSpec | None, **norms: Any
) -> TensorChange:
    some = new if new is not None else old
    assert some is not None  # a tensor is on one side at least
    return TensorChange(
        kind,
        some.key,
        None if old is None else old.key,
        None if old is None else old.shape,
        None if new is None else new.shape,
        None if old is None else old.dtype_name,
        None if new is None else new.dtype_name,
        **norms,
    )


def _compare(
    old: Checkpoint, new: Checkpoint, key: str, values: bool, advance: Advance
) -> TensorChange | None:
    """What differs of a tensor that both have; None: nothing."""
    one, other = old.spec(key), new.spec(key)
    if one.shape != other.shape:
        return _change("shape", one, other)
    kind: ChangeKind = "values" if one.dtype_name == other.dtype_name else "dtype"
    if not values:
        return None if kind == "values" else _change(kind, one, other)
    if not (_can_be_read(one) and _can_be_read(other)):
        return _change("unreadable", one, other)
    first, second = old.view_tensor(key), new.view_tensor(key)
    if isinstance(first, list) or isinstance(second, list):  # strings
        return None if first == second else _change(kind, one, other)
    norms = _norms(first, second)
    advance(key, one.nbytes)
    return None if kind == "values" and not norms["changed"] else _change(kind, one, other, **norms)


def _can_be_read(spec: TensorSpec) -> bool:
    return not spec.unreadable and (spec.dtype is not None or spec.stored_dtype == "string")


def _norms(old: torch.Tensor, new: torch.Tensor) -> dict[str, Any]:
    """How many elements differ, and by how much; in float64, some at a time."""
    changed, largest = 0, 0.0
    squares = [0.0, 0.0, 0.0]  # of old, new, and their difference
    for one, other in zip(_blocks(old), _blocks(new), strict=True):
        if old.dtype == new.dtype and torch.equal(as_bytes(one), as_bytes(other)):
            squares = [s + n for s, n in zip(squares, (_square(one), _square(one), 0), strict=True)]
            continue
        left, right = _as_numbers(one), _as_numbers(other)
        same = _same(one, other, left, right)
        difference = torch.where(same, torch.zeros_like(left), right - left)
        changed += int((~same).sum())
        largest = _largest(largest, float(difference.abs().max()))
        news = (_square(left), _square(right), _square(difference))
        squares = [s + n for s, n in zip(squares, news, strict=True)]
    norms = [math.sqrt(square) for square in squares]
    return {
        "changed": changed,
        "old_norm": norms[0],
        "new_norm": norms[1],
        "norm_of_change": norms[2],
        "max_change": largest,
    }


def _same(
    one: torch.Tensor, other: torch.Tensor, left: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """Which elements are equal; `left` and `right` are they as float64, which rounds integers."""
    equal = (left == right) | (left.isnan() & right.isnan())
    if _is_exact(one) and _is_exact(other):
        return equal & (one.to(torch.int64) == other.to(torch.int64))
    return equal


def _is_exact(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _largest(one: float, other: float) -> float:
    """The larger; what is no number is larger than all."""
    return other if math.isnan(other) or other > one else one


def _blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = tensor.detach().cpu().reshape(-1)
    for begin in range(0, flat.numel(), _BLOCK):
        yield aligned(flat[begin : begin + _BLOCK])


def _as_numbers(block: torch.Tensor) -> torch.Tensor:
    return block.to(torch.complex128 if block.is_complex() else torch.float64)


def _square(block: torch.Tensor) -> float:
    return float(_as_numbers(block).abs().square().sum())


# -- renamed tensors -------------------------------------------------------------------------------


def _renamed(
    old: Checkpoint, new: Checkpoint, gone: Iterable[str], come: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Pairs of a new name and the old one of the same tensor."""
    before, after = _by_form(old, gone), _by_form(new, come)
    for form in before.keys() & after.keys():
        was, now = _by_bytes(old, before[form]), _by_bytes(new, after[form])
        for digest in was.keys() & now.keys():
            if len(was[digest]) == len(now[digest]) == 1:
                yield now[digest][0], was[digest][0]


def _by_form(checkpoint: Checkpoint, keys: Iterable[str]) -> dict[tuple[Any, ...], list[str]]:
    """Names by shape and dtype; only what can be read and has an element."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for key in keys:
        spec = checkpoint.spec(key)
        if spec.dtype is not None and not spec.unreadable and spec.numel:
            found.setdefault((spec.shape, spec.dtype), []).append(key)
    return found


def _by_bytes(checkpoint: Checkpoint, keys: Iterable[str]) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for key in keys:
        digest = hashlib.blake2b(digest_size=32)
        for block in _blocks(checkpoint.view_tensor(key)):
            digest.update(as_bytes(block).reshape(-1).numpy().data)
        found.setdefault(digest.digest(), []).append(key)
    return found


# -- text ------------------------------------------------------------------------------------------


def _entry(change: TensorChange) -> Entry:
    was = change.old_key if change.kind == "renamed" else None
    norm = _pair(_number(change.old_norm), _number(change.new_norm))
    return Entry(
        (
            change.key,
            was or "",
            change.kind,
            _pair(_shape(change.old_shape), _shape(change.new_shape)),
            _pair(change.old_dtype or "", change.new_dtype or ""),
            norm,
            _number(change.norm_of_change),
            _number(change.max_change),
        )
    )


def _pair(old: str, new: str) -> str:
    return f"{old} -> {new}" if old and new and old != new else new or old


def _shape(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else str(list(shape))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
