"""The plan: a frozen list of what will happen to every variable, and its text.

It is made from names, shapes, dtypes and vocabularies alone; no tensor byte is read for it, but of
ids that a table keeps, copies of a tied weight, and rows that tell whose a saved vocabulary is.
`print(plan)` is the dry run. `planner` makes it, `execute` carries it out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, field, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, SupportsIndex

import torch

from torch_warmstart.computing import count_in_place
from torch_warmstart.display import VERSION, Shown
from torch_warmstart.dtypes import dtype_name
from torch_warmstart.errors import Finding, SettingsError, plural, printable
from torch_warmstart.layouts import IDENTITY, Layout
from torch_warmstart.model import Outline, Owner, Shape, Variable
from torch_warmstart.names import BY_HOOK, bare_name
from torch_warmstart.new_rows import UNLESS_SAID, Fill, Keep
from torch_warmstart.settings import AnyVocabInfo, VocabInfo, WarmStartSettings
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies import Remapping

if TYPE_CHECKING:
    from torch_warmstart.display import Entry, Sheet
    from torch_warmstart.formats import Checkpoint, TensorSpec
    from torch_warmstart.new_rows import NewRowsAccount

# In this order of strength; a variable is in exactly one state.
#   remapped   rows were moved through a vocabulary change
#   converted  the layout or the dtype changed
#   renamed    another name in the checkpoint, nothing else
#   copied     same name, same everything
#   kept       left as it was; `reason` says why
State = Literal["remapped", "converted", "renamed", "copied", "kept"]
NOT_SELECTED = "not selected"  # the reason of what the settings do not ask for
NO_COUNTERPART = "TensorFlow has no counterpart"
LAYER_HAS_NONE = "TensorFlow's layer has none"
LAYER_FINDS_IT = "not in the checkpoint; the layer counts or estimates it anew"
SHARES_MEMORY = "shares its memory with"  # others, which are written
# How reasons begin that a variable is kept for whatever the checkpoint holds.
NEVER_TAKEN = (NOT_SELECTED, NO_COUNTERPART, LAYER_HAS_NONE, LAYER_FINDS_IT)
STATES: tuple[State, ...] = ("remapped", "converted", "renamed", "copied", "kept")


Purpose = Literal["warm start", "vocabulary change"]  # what a plan is for


@frozen
class Words:
    """What plans and reports of a purpose say of themselves; where it is from stands behind."""

    planned: str
    done: str
    as_subject: str


WORDS: Mapping[Purpose, Words] = {
    "warm start": Words("Warm start from", "Warm-started from", "The warm start from"),
    "vocabulary change": Words(
        "Vocabulary change of", "Changed the vocabulary of", "The vocabulary change of"
    ),
}


@frozen(eq=False)
class Cast:
    """A change of dtype between floating types, or a widening of integers."""

    source: torch.dtype
    target: torch.dtype
    lossy: bool

    def __str__(self) -> str:
        change = f"{dtype_name(self.source)} -> {dtype_name(self.target)}"
        return change + (" (lossy)" if self.lossy else "")


@frozen
class RowAccount:
    """What became of the rows of a remapped variable; up to `left`, and `vacant`, they add up.

    It is true if there are rows: `NO_ROWS` stands for those of a variable that is not remapped.
    """

    total: int  # rows of the new variable along its axis
    copied: int  # from the old row of the same entry
    oov_copied: int  # OOV rows from old OOV rows
    initialised: int  # entries without an old row, filled by the backup initializer
    oov_initialised: int  # OOV rows, filled by the backup initializer
    left: int  # rows without an old row that stay as the model had them ("keep")
    dropped: int  # old entries that the new vocabulary does not have
    old_unused: int  # old rows beyond the old vocabulary
    # New entries whose rows stay as the model had them ("keep"): a part of `left`.
    entries_left: int = 0
    returned: int = 0  # from older checkpoints, of entries that are back
    vacant: int = 0  # rows of no entry (gaps, padding, a mask), filled by the initializer
    vacant_copied: int = 0  # rows of no entry (a mask) among those that are copied or back
    # Of `copied` and `oov_copied`: to a row of another number. No part of what is compared.
    moved: int = field(default=0, compare=False)

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """What became of the rows, new and dropped ones, for a bar."""
        return (
            ("in place", self.copied + self.oov_copied - self.moved),
            ("moved", self.moved),
            ("new", self.initialised),
            ("oov new", self.oov_initialised),
            ("vacant", self.vacant),
            ("left as they are", self.left),
            ("dropped", self.dropped + self.old_unused),
            ("back from older checkpoints", self.returned),
        )

    @property
    def entries(self) -> int:
        """New entries, with and without an old row; OOV rows and rows of no entry are none."""
        return self.entries_found + self.initialised + self.entries_left

    @property
    def entries_found(self) -> int:
        """Those of them that have an old row, here or in an older checkpoint."""
        return self.copied + self.returned - self.vacant_copied

    def __bool__(self) -> bool:
        return any((self.total, self.dropped, self.old_unused))

    def __str__(self) -> str:
        return self.sentence(_WORDS)

    def sentence(self, words: Mapping[str, str], *, where: bool = False) -> str:
        """The counts that are not 0, the new rows' before the old ones'.

        Args:
            words: What is said of each field.
            where: Whether it says how many of the copied rows come to lie elsewhere.
        """
        told = {name: f"{getattr(self, name):,} {said}" for name, said in words.items()}
        if where:
            copied = self.copied + self.oov_copied
            moved = {0: "none", copied: "all"}.get(self.moved, f"{self.moved:,}")
            told["oov_copied" if self.oov_copied else "copied"] += f" ({moved} moved)"
        new, old = _NEW_ROWS, _OLD_ROWS
        lists = [", ".join(told[n] for n in names if getattr(self, n)) for names in (new, old)]
        return "; ".join(filter(None, lists))


_WORDS = {
    "copied": "copied",
    "returned": "back from older checkpoints",
    "oov_copied": "oov copied",
    "initialised": "initialised",
    "oov_initialised": "oov initialised",
    "vacant": "without an entry",
    "left": "left as they are",
    "dropped": "dropped",
    "old_unused": "old rows unused",
}
_SHORT_WORDS = _WORDS | {
    "returned": "back",
    "initialised": "new",
    "oov_initialised": "oov new",
    "vacant": "vacant",
    "left": "left",
    "old_unused": "unused",
}
_OLD_ROWS = ("dropped", "old_unused")
_NEW_ROWS = tuple(name for name in _WORDS if name not in _OLD_ROWS)
NO_ROWS = RowAccount(0, 0, 0, 0, 0, 0, 0, 0)


@frozen(eq=False)
class AxisChange:
    """What happens along one axis of a variable."""

    vocab: AnyVocabInfo
    remapping: Remapping
    axis: int  # of the variable, counted from 0
    fill: Fill | None  # what rows without an old one get; None: there are none
    old_size: int  # of the old tensor along the axis, in torch's layout


@frozen(eq=False)
class PlanItem:
    """What happens to one variable."""

    variable: Variable
    state: State
    reason: str  # how the source was found, or why the variable is kept
    sources: tuple[TensorSpec, ...] = ()  # what the layout takes
    owner: Owner | None = None  # under whose name the sources were found
    copies: tuple[TensorSpec, ...] = ()  # of the same values, under the variable's other names
    layout: Layout = IDENTITY
    part: int = 0  # which of the layout's results becomes the variable
    cast: Cast | None = None
    scale: float = 1.0  # a slot's values are multiplied by it
    # Of a remapped variable what happens along each axis that changes, in the settings' order.
    # A cell that is new along more than one is filled by the first of them that is none of
    # `tws.init`; what these make is as wide as the old rows, so it reaches only where all other
    # axes have an old row.
    changes: tuple[AxisChange, ...] = ()
    patches: tuple[PlanItem, ...] = ()  # rows that are back, each of an older checkpoint
    is_inferred: bool = False  # from names that are not the variable's own, or a suggestion
    is_layout_presumed: bool = False  # which the file leaves open

    @property
    def is_by_hook(self) -> bool:
        """Whether a load hook of the model makes the variable's name of its key."""
        return self.reason == BY_HOOK

    @property
    def name(self) -> str:
        return self.variable.name

    @property
    def first(self) -> AxisChange | None:
        """What happens along the first axis that changes."""
        return self.changes[0] if self.changes else None

    @property
    def further(self) -> tuple[AxisChange, ...]:
        """What happens along the others."""
        return self.changes[1:]

    @property
    def vocab(self) -> AnyVocabInfo | None:
        return self.first.vocab if self.first else None

    @property
    def remapping(self) -> Remapping | None:
        return self.first.remapping if self.first else None

    @property
    def axis(self) -> int:
        return self.first.axis if self.first else 0

    @property
    def fill(self) -> Fill | None:
        return self.first.fill if self.first else None

    @property
    def old_size(self) -> int:
        return self.first.old_size if self.first else 0

    @property
    def fills(self) -> tuple[Fill, ...]:
        """What rows without an old one get, of all axes."""
        return tuple(change.fill for change in self.changes if change.fill is not None)

    def along(self, change: AxisChange) -> PlanItem:
        """The same, seen along one of its axes: the others are behind it."""
        if change.axis == self.axis:
            return self
        others = tuple(other for other in self.changes if other.axis != change.axis)
        return replace(self, changes=(change, *others))

    @property
    def old_rows_unused(self) -> int:
        """Rows of the old tensor beyond those that its vocabulary describes."""
        remapping = self.remapping
        known = remapping.num_old if remapping else self.old_size
        return max(0, self.old_size - known)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of what is read for it."""
        return tuple([spec.key for spec in self.sources])  # a generator takes twice as long

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that the variable is made of, in memory."""
        return sum(spec.nbytes for spec in self.sources)

    @property
    def shape_change(self) -> str:
        """`[5, 2]`, or `[4, 2] -> [5, 2]` where the old tensor's shape differs."""
        new = "no shape yet" if self.variable.is_lazy else _shape(self.variable.shape)
        old = " + ".join(_shape(spec.shape) for spec in self.sources) or new
        return new if old == new else f"{old} -> {new}"

    @property
    def change(self) -> str:
        """Layout, dtype and scale, where they change."""
        layout = self.layout.name if self.layout is not IDENTITY else ""
        scale = f"x {self.scale:g}" if self.scale != 1 else ""
        return ", ".join(part for part in (layout, scale, str(self.cast or "")) if part)

    @property
    def fallback(self) -> tuple[tuple[Any, Any], ...]:
        """Older checkpoints, and their vocabularies, for rows of entries that are back."""
        if self.remapping is None or not isinstance(self.vocab, VocabInfo):
            return ()
        return tuple(self.vocab.fallback)

    @property
    def rows(self) -> RowAccount | None:
        """What becomes of the rows of a remapped variable."""
        remapping = self.remapping
        if remapping is None:
            return None
        oov_without = remapping.num_oov - remapping.num_oov_copied
        keeps = isinstance(self.fill, Keep)
        older = [patch.remapping for patch in self.patches if patch.remapping is not None]
        back, vacant_back = (
            sum(getattr(one, name) for one in older)
            for name in ("num_present", "num_vacant_copied")
        )
        copied = remapping.num_present + remapping.num_vacant_copied
        vacant_copied = remapping.num_vacant_copied + vacant_back
        return RowAccount(
            total=len(remapping.rows),
            copied=copied,
            oov_copied=remapping.num_oov_copied,
            returned=back + vacant_back,
            initialised=0 if keeps else remapping.num_new - back,
            oov_initialised=0 if keeps else oov_without,
            vacant=0 if keeps else remapping.num_vacant - vacant_copied,
            vacant_copied=vacant_copied,
            entries_left=remapping.num_new - back if keeps else 0,
            left=remapping.num_without_old_row - back - vacant_back if keeps else 0,
            dropped=remapping.num_dropped,
            old_unused=self.old_rows_unused,
            moved=copied + remapping.num_oov_copied - count_in_place(remapping.rows),
        )

    @property
    def further_rows(self) -> tuple[tuple[int, RowAccount], ...]:
        """What becomes of the rows along further axes, each with its axis."""
        found = ((change.axis, self.along(change).rows) for change in self.further)
        return tuple((axis, rows) for axis, rows in found if rows is not None)

    def to_dict(self) -> dict[str, Any]:
        """What happens to the variable, as plain values."""
        return {
            "name": self.name,
            "names": list(self.variable.names),
            "kind": self.variable.kind,
            "state": self.state,
            "reason": self.reason,
            "is_inferred": self.is_inferred,
            "keys": list(self.keys),
            "shape": list(self.variable.shape),
            "old_shapes": [list(spec.shape) for spec in self.sources],
            "dtype": dtype_name(self.variable.tensor.dtype),
            "change": self.change,
            "rows": None if self.rows is None else asdict(self.rows),
            "new_rows": "" if self.fill is None else str(self.fill),
            "further_axes": [
                {"axis": change.axis, "rows": asdict(rows), "new_rows": str(change.fill or "")}
                for change, (_, rows) in zip(self.further, self.further_rows, strict=True)
            ],
        }


@frozen
class Audit:
    """Something to compare with the original program."""

    modules: tuple[str, ...]  # all those it is about, in the model's order
    problem: str  # what torch does, and what TensorFlow does by default
    change: str  # the line to change, where the original had TensorFlow's default

    def __str__(self) -> str:
        first, *others = self.modules
        more = f" and {plural(len(others), 'other layer')}" if others else ""
        return f"{first}{more}: {self.problem} {self.change}"


@frozen(eq=False, repr=False)
class WarmStartPlan(Shown):
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
    outlines: Mapping[Variable, Outline]  # what was planned for
    purpose: Purpose = "warm start"

    @property
    def inferred(self) -> tuple[str, ...]:
        """The variables whose tensors are not certain: `reason` of their items says what they are.

        A scope was skipped, a number taken for a name, a suggestion nobody has looked at, or the
        file leaves open how a tensor is laid out. Certain is what a rule of the user's says, what
        is called the same, and TensorFlow's names for the leaf in a layer of that type.
        """
        return tuple(
            item.name
            for item in self.items
            if any(one.is_inferred or one.is_layout_presumed for one in (item, *item.patches))
        )

    @property
    def bytes_to_read(self) -> int:
        """Bytes of the tensors that will be read, each key once."""
        used = [spec for part in parts_read(self.items) for spec in part.sources]
        return sum(spec.nbytes for spec in {spec.key: spec for spec in used}.values())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that `json.dumps` takes, with `version` and `totals`."""
        return {
            "version": VERSION,
            "kind": "plan",
            "purpose": self.purpose,
            "source": self.checkpoint.url,
            "format": self.checkpoint.format,
            "variables": [item.to_dict() for item in self.items],
            "totals": {
                **totals_of([(item.state, item.rows) for item in self.items]),
                "bytes_to_read": self.bytes_to_read,
                "unused_keys": len(self.unused_keys),
            },
            "inferred": list(self.inferred),
            "missing_keys": list(self.missing),
            "mismatched_keys": [[name, *map(list, shapes)] for name, *shapes in self.mismatched],
            "unused_keys": list(self.unused_keys),
            "notes": [asdict(note) for note in self.notes],
            "audits": [asdict(audit) for audit in self.audits],
            "seconds": self.seconds,
        }

    def _sheet(self) -> Sheet:
        from torch_warmstart.display import Sheet

        shown = self._shown_keys()
        states = count_states([item.state for item in self.items])
        return Sheet(
            f"{WORDS[self.purpose].planned} {self.checkpoint.url} ({self.checkpoint.format})",
            ("variable", "from", "shape", "change", "decision", "why"),
            tuple(_entry(item, shown) for item in self.items),
            f"{states}; {_bytes(self.bytes_to_read)} to read",
            aside=ASIDE,
            names=2,
            joined="shape",
            paths="from",
            reasons="why",
            state="decision",
            remarks=remarks(self.notes, self.audits),
            folds_endings=True,
        )

    def __str__(self) -> str:
        return self._sheet().as_text()

    def __copy__(self) -> WarmStartPlan:
        return self  # nothing in it can be changed

    def __deepcopy__(self, _memo: dict[int, Any]) -> WarmStartPlan:
        """Itself: a copy would have a model of its own, and fill that."""
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Pickled, it would come back with a model of its own, and fill that."""
        raise SettingsError(
            "A plan is for the very model and optimizer that it was made for: read back, a pickled "
            "one would fill copies of them. Make a plan where the model is, from the same "
            "settings; what it says is kept by plan.to_dict()."
        )

    def __repr__(self) -> str:
        states = count_states([item.state for item in self.items])
        return f"<WarmStartPlan from {printable(self.checkpoint.url)}: {states}>"

    def _shown_keys(self) -> dict[str, str]:
        """What each key is shown as: by what the tensor is called, if that is one tensor's."""
        keys = dict.fromkeys(key for item in self.items for key in item.keys)
        called = {key: bare_name(key) for key in keys}
        if any(self.checkpoint.name_kind(key) == "storage" for key in keys):
            called.update(_own_names(self.checkpoint, keys))
        return called


def taken_keys(items: Iterable[PlanItem]) -> dict[str, None]:
    """The keys of what becomes variables, each once, in their order."""
    return {key: None for item in items if item.state != "kept" for key in item.keys}


def parts_read(items: Iterable[PlanItem]) -> list[PlanItem]:
    """What of some items is made of something that is read: rows from older checkpoints too."""
    return [part for item in items if item.state != "kept" for part in (item, *item.patches)]


def _own_names(checkpoint: Checkpoint, keys: Collection[str]) -> dict[str, str]:
    """A name of its own for each key that has one, the longest: it says most."""
    found: dict[str, str] = {}
    for name, of in checkpoint.full_names().items():
        if len(of) == 1 and of[0] in keys and checkpoint.name_kind(name) == "own":
            found[of[0]] = max(found.get(of[0], ""), name, key=len)
    return found


def _entry(item: PlanItem, shown: Mapping[str, str]) -> Entry:
    key = " + ".join(shown[key] for key in item.keys)
    why = f"inferred: {item.reason}" if item.is_inferred else item.reason
    cells = (item.name, key, item.shape_change, item.change, item.state, why)
    further = [
        (axis, rows, change.fill)
        for change, (axis, rows) in zip(item.further, item.further_rows, strict=True)
    ]
    return entry(cells, item.reason, item.rows, item.fill, further)


ASIDE = "Not selected, left as they are"


def entry(
    cells: tuple[str, ...],
    reason: str,
    rows: RowAccount | None,
    fill: Fill | NewRowsAccount | None = None,
    further: Iterable[tuple[int, RowAccount, Fill | NewRowsAccount | None]] = (),
) -> Entry:
    """A row of the table of a plan or a report, with a line for its own rows.

    Args:
        cells: The row's.
        reason: Why the variable is what it is.
        rows: What becomes of its rows, or became.
        fill: What its new rows get, or who made them.
        further: The same along further axes.
    """
    from torch_warmstart.display import Entry

    if not rows:
        return Entry(cells, is_aside=reason == NOT_SELECTED)
    accounts = [("rows", rows, fill)]
    accounts += [(f"along axis {axis}", its, filled) for axis, its, filled in further]
    told, short = (
        "; ".join(f"{what}: {_told(its, filled, words)}" for what, its, filled in accounts)
        for words in (_WORDS, _SHORT_WORDS)
    )
    return Entry(cells, told, short, bar=rows.parts)


def _told(rows: RowAccount, fill: Fill | NewRowsAccount | None, words: Mapping[str, str]) -> str:
    # Keep is said by the account.
    fresh = "" if fill in (None, Keep(), UNLESS_SAID) else f"; new rows: {fill}"
    return rows.sentence(words, where=True) + fresh


def remarks(notes: Iterable[Finding], audits: Iterable[Audit]) -> tuple[str, ...]:
    """What follows the totals, a line each."""
    from torch_warmstart.display import told

    return (*told(notes), *(f"Compare: {audit}" for audit in audits))


def totals_of(accounts: Collection[tuple[State, RowAccount | None]]) -> dict[str, Any]:
    """How many variables are in each state, and what became of all remapped rows."""
    states = [state for state, _ in accounts]
    found = [asdict(rows) for _, rows in accounts if rows]
    summed = {name: sum(rows[name] for rows in found) for name in (found[0] if found else ())}
    return {
        "variables": len(states),
        "states": {state: states.count(state) for state in STATES},
        "rows": summed,
    }


def count_states(states: list[State]) -> str:
    """`5 variables: 1 remapped, 4 renamed`."""
    counts = {state: states.count(state) for state in STATES}
    listed = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    return f"{plural(len(states), 'variable')}: {listed}"


def _shape(shape: tuple[int, ...]) -> str:
    return "scalar" if not shape else f"[{', '.join(str(size) for size in shape)}]"


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
