"""The plan: a frozen list of what will happen to every variable, and its text.

It is made from names, shapes, dtypes and vocabularies alone; no tensor byte is read for it.
`print(plan)` is the dry run. `planner` makes it, `execute` carries it out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from torch_warmstart.display import fold, fold_endings, render, shorten_apart
from torch_warmstart.dtypes import dtype_name
from torch_warmstart.errors import Finding, plural
from torch_warmstart.formats import Checkpoint, TensorSpec
from torch_warmstart.layouts import IDENTITY, Layout
from torch_warmstart.model import Owner, Shape, Variable
from torch_warmstart.names import bare_name
from torch_warmstart.new_rows import Constant, Fill, Keep
from torch_warmstart.settings import AnyVocabInfo, WarmStartSettings
from torch_warmstart.vocabularies import Remapping

# In this order of strength; a variable is in exactly one state.
#   remapped   rows were moved through a vocabulary change
#   converted  the layout or the dtype changed
#   renamed    another name in the checkpoint, nothing else
#   copied     same name, same everything
#   kept       left as it was; `reason` says why
State = Literal["remapped", "converted", "renamed", "copied", "kept"]
NOT_SELECTED = "not selected"  # the reason of what the settings do not ask for
STATES: tuple[State, ...] = ("remapped", "converted", "renamed", "copied", "kept")


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """A change of dtype between floating types, or a widening of integers."""

    source: torch.dtype
    target: torch.dtype
    lossy: bool

    def __str__(self) -> str:
        change = f"{dtype_name(self.source)} -> {dtype_name(self.target)}"
        return change + (" (lossy)" if self.lossy else "")


@dataclass(frozen=True, slots=True)
class RowAccount:
    """What became of the rows of a remapped variable; up to `left`, and `vacant`, they add up."""

    total: int  # rows of the new variable along its axis
    copied: int  # from the old row of the same entry
    oov_copied: int  # OOV rows from old OOV rows
    initialised: int  # entries without an old row, filled by the backup initializer
    oov_initialised: int  # OOV rows, filled by the backup initializer
    left: int  # rows without an old row that stay as the model had them ("keep")
    dropped: int  # old entries that the new vocabulary does not have
    old_unused: int  # old rows beyond the old vocabulary
    vacant: int = 0  # rows that stand for no entry (gaps, padding), filled by the initializer

    def __str__(self) -> str:
        new = {
            "copied": self.copied,
            "oov copied": self.oov_copied,
            "initialised": self.initialised,
            "oov initialised": self.oov_initialised,
            "without an entry": self.vacant,
            "left as they are": self.left,
        }
        old = {"dropped": self.dropped, "old rows unused": self.old_unused}
        listed = [
            ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
            for counts in (new, old)
        ]
        return "; ".join(text for text in listed if text)


@dataclass(frozen=True, slots=True, eq=False)
class PlanItem:
    """What happens to one variable."""

    variable: Variable
    state: State
    reason: str  # how the source was found, or why the variable is kept
    sources: tuple[TensorSpec, ...] = ()  # what the layout takes
    owner: Owner | None = None  # under whose name the sources were found
    layout: Layout = IDENTITY
    part: int = 0  # which of the layout's results becomes the variable
    cast: Cast | None = None
    scale: float = 1.0  # a slot's values are multiplied by it
    vocab: AnyVocabInfo | None = None
    remapping: Remapping | None = None
    axis: int = 0  # of the variable, counted from 0
    fill: Fill | None = None  # what rows without an old one get; None: there are none
    old_size: int = 0  # of the old tensor along the axis, in torch's layout
    is_inferred: bool = False  # from names that are not the variable's own, or a suggestion

    @property
    def name(self) -> str:
        return self.variable.name

    @property
    def old_rows_unused(self) -> int:
        """Rows of the old tensor beyond those that its vocabulary describes."""
        remapping = self.remapping
        known = remapping.num_old if remapping else self.old_size
        return max(0, self.old_size - known)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of what is read for it."""
        return tuple(spec.key for spec in self.sources)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that the variable is made of, in memory."""
        return sum(spec.nbytes for spec in self.sources)

    @property
    def shape_change(self) -> str:
        """`[5, 2]`, or `[4, 2] -> [5, 2]` where the old tensor's shape differs."""
        new = _shape(self.variable.shape)
        old = " + ".join(_shape(spec.shape) for spec in self.sources) or new
        return new if old == new else f"{old} -> {new}"

    @property
    def change(self) -> str:
        """Layout, dtype and scale, where they change."""
        layout = self.layout.name if self.layout is not IDENTITY else ""
        scale = f"x {self.scale:g}" if self.scale != 1 else ""
        return ", ".join(part for part in (layout, scale, str(self.cast or "")) if part)

    @property
    def rows(self) -> RowAccount | None:
        """What becomes of the rows of a remapped variable."""
        remapping = self.remapping
        if remapping is None:
            return None
        oov_without = remapping.num_oov - remapping.num_oov_copied
        keeps = isinstance(self.fill, Keep)
        return RowAccount(
            total=len(remapping.rows),
            copied=remapping.num_present,
            oov_copied=remapping.num_oov_copied,
            initialised=0 if keeps else remapping.num_new,
            oov_initialised=0 if keeps else oov_without,
            vacant=0 if keeps else remapping.num_vacant,
            left=remapping.num_without_old_row if keeps else 0,
            dropped=remapping.num_dropped,
            old_unused=self.old_rows_unused,
        )


@dataclass(frozen=True, slots=True)
class Audit:
    """Something to compare with the original program."""

    modules: tuple[str, ...]  # all those it is about, in the model's order
    problem: str  # what torch does, and what TensorFlow does by default
    change: str  # the line to change, where the original had TensorFlow's default

    def __str__(self) -> str:
        first, *others = self.modules
        more = f" and {plural(len(others), 'other layer')}" if others else ""
        return f"{first}{more}: {self.problem} {self.change}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class WarmStartPlan:
    """What a warm start will do. `print()` it; `apply_plan()` it."""

    model: torch.nn.Module
    checkpoint: Checkpoint
    settings: WarmStartSettings
    items: tuple[PlanItem, ...]  # one a variable, in the model's order
    unused_keys: tuple[str, ...]  # of the checkpoint
    missing: tuple[str, ...]  # selected variables that the checkpoint does not have
    mismatched: tuple[tuple[str, Shape, Shape], ...]  # name, old, new shape
    notes: tuple[Finding, ...]
    audits: tuple[Audit, ...]  # what weights alone do not carry over
    seconds: float  # that planning took

    @property
    def inferred(self) -> tuple[str, ...]:
        """The variables whose tensors are not certain: `reason` of their items says what they are.

        A scope was skipped, a number taken for a name, a suggestion nobody has looked at. Certain
        is what a rule of the user's says, what is called the same, and TensorFlow's names for the
        leaf in a layer of that type.
        """
        return tuple(item.name for item in self.items if item.is_inferred)

    @property
    def bytes_to_read(self) -> int:
        """Bytes of the tensors that will be read, each key once."""
        used = [spec for item in self.items if item.state != "kept" for spec in item.sources]
        return sum(spec.nbytes for spec in {spec.key: spec for spec in used}.values())

    def __str__(self) -> str:
        shown = self._shown_keys()
        rows = fold((_cells(item, shown) for item in self.items), names=2)
        table = render(_COLUMNS, fold_endings(rows, names=2, joined=_COLUMNS.index("shape")))
        headline = f"Warm start from {self.checkpoint.url} ({self.checkpoint.format})"
        states = count_states([item.state for item in self.items])
        totals = f"{states}; {_bytes(self.bytes_to_read)} to read"
        notes = [f"{note.severity.capitalize()}: {note}" for note in self.notes]
        audits = [f"Compare: {audit}" for audit in self.audits]
        return "\n".join([headline, "", table, "", totals, *notes, *audits])

    def _shown_keys(self) -> dict[str, str]:
        """What each key is shown as: by what the tensor is called, if that is one tensor's."""
        keys = dict.fromkeys(key for item in self.items for key in item.keys)
        called = {key: bare_name(key) for key in keys}
        if any(self.checkpoint.name_kind(key) == "storage" for key in keys):
            called.update(_own_names(self.checkpoint, keys))
        short = shorten_apart(called.values())
        return {key: short[name] for key, name in called.items()}

    __repr__ = __str__  # what an interactive session shows


def _own_names(checkpoint: Checkpoint, keys: Collection[str]) -> dict[str, str]:
    """A name of its own for each key that has one, the longest: it says most."""
    found: dict[str, str] = {}
    for name, of in checkpoint.full_names().items():
        if len(of) == 1 and of[0] in keys and checkpoint.name_kind(name) == "own":
            found[of[0]] = max(found.get(of[0], ""), name, key=len)
    return found


_COLUMNS = ("variable", "from", "shape", "change", "rows", "decision", "why")


def _cells(item: PlanItem, shown: Mapping[str, str]) -> tuple[str, ...]:
    key = " + ".join(shown[key] for key in item.keys)
    shape, rows = item.shape_change, _rows(item)
    why = f"inferred: {item.reason}" if item.is_inferred else item.reason
    return item.name, key, shape, item.change, rows, item.state, why


def _rows(item: PlanItem) -> str:
    """The account of its rows, and what fills the new ones where that is not TensorFlow's zeros."""
    account = str(item.rows or "")
    is_plain = item.fill in (None, Keep(), Constant(0.0))  # Keep is said by the account
    return account if is_plain else f"{account}; new rows: {item.fill}"


def count_states(states: list[State]) -> str:
    """`5 variables: 1 remapped, 4 renamed`."""
    counts = {state: states.count(state) for state in STATES}
    listed = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    return f"{plural(len(states), 'variable')}: {listed}"


def _shape(shape: tuple[int, ...]) -> str:
    return "scalar" if not shape else f"[{', '.join(str(size) for size in shape)}]"


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
