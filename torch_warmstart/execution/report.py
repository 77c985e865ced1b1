"""The report: what became of every variable and of every row. Frozen, without their values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from torch_warmstart.display import VERSION, Shown
from torch_warmstart.dtypes import as_python, dtype_name
from torch_warmstart.errors import (
    Finding,
    SettingsError,
    WarmStartError,
    is_number,
    is_whole,
    listed,
    plural,
    printable,
)
from torch_warmstart.model import Variable, overlapping, share_elements
from torch_warmstart.model.sharding import is_sharded
from torch_warmstart.planning import (
    ASIDE,
    NEVER_TAKEN,
    NO_ROWS,
    SHARES_MEMORY,
    WORDS,
    Audit,
    PlanItem,
    Purpose,
    RowAccount,
    State,
    WarmStartPlan,
    count_states,
    entry,
    remarks,
    taken_keys,
    totals_of,
)
from torch_warmstart.settings import VocabInfo, too_few_found
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.display import Entry, Sheet
    from torch_warmstart.execution.loading import Outcome
    from torch_warmstart.new_rows import NewRowsAccount

_NOBODY: Mapping[tuple[Variable, int], NewRowsAccount] = {}


@frozen
class AxisAccount:
    """What became of a variable's rows along a further axis."""

    axis: int
    rows: RowAccount
    made_by: NewRowsAccount | None  # where initialisers of tws.init made new rows
    is_by_entry: bool  # whether they go by the entries of vocabularies
    # Of a SegmentInfo its features that have vocabularies: entries that were found, of how many.
    segments: tuple[tuple[str, int, int], ...] = ()

    @property
    def new_rows(self) -> NewRowsAccount:
        """Who made the new rows; nobody, and false, but where initialisers of tws.init did."""
        return _new_rows_of(self)


@frozen
class VariableAccount:
    """What became of one variable."""

    name: str
    names: tuple[str, ...]  # all of them, if it is tied
    kind: str  # "parameter", "buffer" or "slot"
    state: State
    reason: str
    keys: tuple[str, ...]  # in the checkpoint; several where a layout joins tensors
    shape: tuple[int, ...]
    old_shapes: tuple[tuple[int, ...], ...]  # in the checkpoint
    dtype: str
    change: str  # layout and dtype, where they changed
    rows: RowAccount  # all zeros, and false, unless the variable is remapped
    made_by: NewRowsAccount | None = None  # where initialisers of tws.init made new rows
    is_by_entry: bool = False  # whether `rows` go by the entries of vocabularies
    further: tuple[AxisAccount, ...] = ()  # what became of the rows along further axes
    # Of a SegmentInfo its features that have vocabularies: entries that were found, of how many.
    segments: tuple[tuple[str, int, int], ...] = ()

    @property
    def key(self) -> str | None:
        """The key in the checkpoint, `a + b` where a layout joins tensors; None without one."""
        return " + ".join(self.keys) or None

    @property
    def new_rows(self) -> NewRowsAccount:
        """Who made the new rows; nobody, and false, but where initialisers of tws.init did."""
        return _new_rows_of(self)


def _new_rows_of(account: VariableAccount | AxisAccount) -> NewRowsAccount:
    if account.made_by is not None:
        return account.made_by
    from torch_warmstart.new_rows import NewRowsAccount

    return NewRowsAccount(())


@frozen(repr=False)
class WarmStartReport(Shown):
    """What a warm start did.

    Unpacks as torch's own result does: `missing, unexpected = warm_start(...)`.
    """

    missing_keys: tuple[str, ...]  # selected variables that the checkpoint does not have
    unexpected_keys: tuple[str, ...]  # keys of the checkpoint that no variable took
    mismatched_keys: tuple[
        tuple[str, tuple[int, ...], tuple[int, ...]], ...
    ]  # name, old, new shape
    variables: tuple[VariableAccount, ...]
    notes: tuple[Finding, ...]
    audits: tuple[Audit, ...]  # what weights alone do not carry over: to be compared by hand
    source: str  # the checkpoint
    bytes_read: int
    seconds: float  # planning included
    purpose: Purpose = "warm start"

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter((self.missing_keys, self.unexpected_keys))

    def __getitem__(self, name: str) -> VariableAccount:
        """The account of a variable, by any of its names."""
        for account in self.variables:
            if name in account.names:
                return account
        raise KeyError(name)

    def count(self, state: State) -> int:
        """How many variables are in a state."""
        return sum(account.state == state for account in self.variables)

    def check(self, *, min_found: float = 0.0, max_kept: int | None = None) -> WarmStartReport:
        """The gate of a job that nobody watches: raises if a start took less than it should.

        Args:
            min_found: Which part of each new vocabulary must have been in the old one, or in that
                of a fallback, from 0 to 1, those of features in a SegmentInfo too. Slots repeat
                their variable and are not looked at.
            max_kept: How many selected variables may have stayed as they were. What the checkpoint
                cannot have, such as a count of batches in TensorFlow's, is not counted.

        Returns:
            The report itself.

        Raises:
            WarmStartError: with each variable that fails, its numbers, and what to look at. The
                model has been warm-started all the same.
            SettingsError: a limit is none.

        Example:
            >>> report = tws.warm_start(model, settings).check(min_found=0.9, max_kept=0)
        """
        min_found, max_kept = as_python(min_found), as_python(max_kept)
        is_part = is_number(min_found) and 0 <= min_found <= 1
        is_count = max_kept is None or (is_whole(max_kept) and max_kept >= 0)
        if not (is_part and is_count):
            raise SettingsError(
                "min_found is a part, from 0 to 1, and max_kept a count, not "
                f"{min_found!r} and {max_kept!r}."
            )
        failed = [*_found_too_few(self.variables, min_found), *_kept_too_many(self, max_kept)]
        if failed:
            lines = "\n".join(f"  {number}. {line}" for number, line in enumerate(failed, 1))
            what = f"{WORDS[self.purpose].as_subject} {self.source}"
            raise WarmStartError(
                f"{what} was carried out, but does not pass its check:"
                f"\n{lines}\nDo not train on from this model before that is explained."
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that `json.dumps` takes, with `version` and `totals`."""
        accounts = [(account.state, account.rows) for account in self.variables]
        totals = {
            **totals_of(accounts),
            "bytes_read": self.bytes_read,
            "unexpected_keys": len(self.unexpected_keys),
        }
        plain = asdict(replace(self, variables=()))
        made = {"version": VERSION, "kind": "report", "totals": totals, **plain}
        return {**made, "variables": tuple(self._records())}

    def _records(self) -> list[dict[str, Any]]:
        return [_plain(account) for account in self.variables]

    @property
    def summary(self) -> str:
        """One line: from where, how many variables and rows, what was not used."""
        counts = count_states([account.state for account in self.variables])
        return f"{WORDS[self.purpose].done} {self.source}: {counts}{self._totals()}"

    def __str__(self) -> str:
        return self._sheet().as_text()

    def __repr__(self) -> str:
        counts = count_states([account.state for account in self.variables])
        return f"<WarmStartReport from {printable(self.source)}: {counts}>"

    def _sheet(self) -> Sheet:
        from torch_warmstart.display import Sheet

        counts = count_states([account.state for account in self.variables])
        return Sheet(
            f"{WORDS[self.purpose].done} {self.source} in {self.seconds:.2f} s",
            ("variable", "from", "change", "state", "why"),
            tuple(map(_entry, self.variables)),
            f"{counts}{self._totals()}",
            aside=ASIDE,
            names=2,
            paths="from",
            reasons="why",
            state="state",
            remarks=remarks(self.notes, self.audits),
            folds_endings=True,
        )

    def _totals(self) -> str:
        """Of rows, and of what was not used of a checkpoint."""
        unused = self._unused() if self.purpose == "warm start" else ""
        return "".join(f"; {total}" for total in (self._row_totals(), unused) if total)

    def _unused(self) -> str:
        from torch_warmstart.layouts.tensorflow import is_slot

        slots, count = sum(map(is_slot, self.unexpected_keys)), len(self.unexpected_keys)
        verb = "was" if count == 1 else "were"
        unused = f"{plural(count, 'key')} of the checkpoint {verb} not used"
        return unused + (f", {slots:,} of them optimizers' slots" if slots else "")

    def _row_totals(self) -> str:
        accounts = [rows for account in self.variables for rows in _accounts(account)]
        if not accounts:
            return ""
        copied = sum(rows.copied + rows.oov_copied for rows in accounts)
        fresh = sum(rows.initialised + rows.oov_initialised + rows.vacant for rows in accounts)
        left, back = sum(rows.left for rows in accounts), sum(rows.returned for rows in accounts)
        total = sum(rows.total for rows in accounts)
        parts = f"{copied:,} copied, " + (f"{back:,} back, " if back else "")
        parts += f"{fresh:,} initialised" + (f", {left:,} left" if left else "")
        return f"{total:,} remapped rows: {parts}"


def _accounts(account: VariableAccount) -> list[RowAccount]:
    """Of all axes."""
    return [rows for rows in (account.rows, *(its.rows for its in account.further)) if rows]


def _entry(account: VariableAccount) -> Entry:
    cells = (account.name, account.key or "", account.change, account.state, account.reason)
    further = [(its.axis, its.rows, its.made_by) for its in account.further]
    return entry(cells, account.reason, account.rows, account.made_by, further)


def _found_too_few(accounts: Iterable[VariableAccount], min_found: float) -> Iterator[str]:
    for account, where, found, entries in _by_entry(accounts):
        problem = too_few_found(found, entries, min_found, "had an old row")
        if problem:
            whose = " + ".join(account.keys)
            yield f"{account.name}{where}: {problem} Is it the vocabulary of {whose}?"


def _by_entry(
    accounts: Iterable[VariableAccount],
) -> Iterator[tuple[VariableAccount, str, int, int]]:
    """Of what goes by entries how many were found, of how many.

    With the axis where it is a further one, and the feature of a SegmentInfo.
    """
    for account in accounts:
        if account.kind == "slot" or account.state == "kept":
            continue
        further = ((f", axis {its.axis}", its) for its in account.further)
        axes: list[tuple[str, VariableAccount | AxisAccount]] = [("", account), *further]
        for where, its in axes:
            if its.is_by_entry:
                yield account, where, its.rows.entries_found, its.rows.entries
            for feature, found, entries in its.segments:
                yield account, f"{where}, feature {feature!r}", found, entries


def _kept_too_many(report: WarmStartReport, max_kept: int | None) -> Iterator[str]:
    all_kept = (account for account in report.variables if account.state == "kept")
    kept = [account for account in all_kept if not account.reason.startswith(NEVER_TAKEN)]
    if max_kept is not None and len(kept) > max_kept:
        named = listed(f"{account.name} ({account.reason})" for account in kept)
        yield (
            f"{plural(len(kept), 'variable')} stayed as the model had them, and max_kept="
            f"{max_kept} allows {max_kept}: {named}."
        )


def _plain(account: VariableAccount) -> dict[str, Any]:
    further = tuple({**_answered(its), "axis": its.axis} for its in account.further)
    return {**_answered(account), "further": further}


def _answered(account: VariableAccount | AxisAccount) -> dict[str, Any]:
    """As plain values, with who made new rows, and not with how."""
    answered = account.made_by and {"answered": account.made_by.answered}
    bare: Any = replace(account, made_by=None)
    if isinstance(bare, VariableAccount):
        bare = replace(bare, further=())
    rows = asdict(account.rows) if account.rows else None
    plain = {**asdict(bare), "rows": rows, "new_rows": answered}
    del plain["made_by"]
    return plain


def account_for(
    item: PlanItem, new_rows: Mapping[tuple[Variable, int], NewRowsAccount] = _NOBODY
) -> VariableAccount:
    """What a plan's item amounts to once it has been carried out.

    `new_rows` says who made new rows, by variable and axis.
    """
    variable = item.variable
    further = tuple(
        AxisAccount(
            axis,
            rows,
            new_rows.get((variable, axis)),
            isinstance(c.vocab, VocabInfo),
            c.remapping.segments,
        )
        for c, (axis, rows) in zip(item.further, item.further_rows, strict=True)
    )
    return VariableAccount(
        name=variable.name,
        names=variable.names,
        kind=variable.kind,
        state=item.state,
        reason=item.reason,
        keys=item.keys,
        shape=variable.shape,
        old_shapes=tuple(spec.shape for spec in item.sources),
        dtype=dtype_name(variable.tensor.dtype),
        change=item.change,
        rows=item.rows or NO_ROWS,
        made_by=new_rows.get((variable, item.axis)) if item.state == "remapped" else None,
        is_by_entry=isinstance(item.vocab, VocabInfo),
        further=further,
        segments=() if item.remapping is None else item.remapping.segments,
    )


def make_report(plan: WarmStartPlan, outcome: Outcome, *, seconds: float) -> WarmStartReport:
    """The report of a plan that has been carried out.

    Args:
        plan: What was to be done.
        outcome: What was done instead, by the model's own loading.
        seconds: How long it took, planning included.
    """
    items = _as_others_wrote([outcome.items.get(i.variable, i) for i in plan.items])
    given = {item.name for item in items if item.state != "kept"}
    taken = taken_keys(items)
    planned = taken_keys(plan.items)
    return WarmStartReport(
        missing_keys=tuple(name for name in plan.missing if name not in given),
        unexpected_keys=(*plan.unused_keys, *sorted(planned.keys() - taken.keys())),
        mismatched_keys=plan.mismatched,
        variables=tuple(account_for(item, outcome.new_rows) for item in items),
        notes=(*plan.notes, *outcome.notes),
        audits=plan.audits,
        source=plan.checkpoint.url,
        bytes_read=_bytes_here(plan),
        seconds=seconds,
        purpose=plan.purpose,
    )


def _bytes_here(plan: WarmStartPlan) -> int:
    """Bytes of the tensors that have been read, each key once: of sharded ones this rank's part."""
    found: dict[str, int] = {}
    for item in plan.items:
        if item.state != "kept":
            for spec in item.sources:
                found[spec.key] = max(found.get(spec.key, 0), _part_here(item, spec.nbytes))
    return sum(found.values())


def _part_here(item: PlanItem, nbytes: int) -> int:
    if not is_sharded(item.variable.tensor):
        return nbytes
    whole = math.prod(item.variable.shape)
    here = sum(box.numel for box in item.variable.boxes)
    return nbytes if here == whole else nbytes * here // whole


def _as_others_wrote(items: list[PlanItem]) -> list[PlanItem]:
    """As `items`, but what lies on the memory of a variable that was written is not kept."""
    found = list(items)
    if all(item.state != "kept" for item in items):
        return found
    here = [(at, local) for at, item in enumerate(items) for local in item.variable.local_tensors]
    for group in overlapping([local for _, local in here]):
        members = [here[place] for place in group]
        written = [(items[at], local) for at, local in members if items[at].state != "kept"]
        for at, local in members:
            mine = items[at]
            if mine.state != "kept":
                continue
            others = [other for other, its in written if share_elements(local, its)]
            if others:
                names = " and ".join(dict.fromkeys(other.name for other in others))
                found[at] = replace(
                    mine,
                    state=others[0].state,
                    reason=f"{SHARES_MEMORY} {names}",
                    sources=tuple(spec for other in others for spec in other.sources),
                )
    return found
