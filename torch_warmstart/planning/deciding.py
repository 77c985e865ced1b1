"""What happens to each variable: pure decisions, from what is asked and what was found.

A decision is an item of the plan or a problem, never both and never an effect. A slot's follow in
`planning.slots`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.errors import (
    Finding,
    MissingTensorError,
    SettingsError,
    StorageError,
    VocabularyError,
    nearest_are,
)
from torch_warmstart.layouts import IDENTITY
from torch_warmstart.layouts.tensorflow import absent_in_tf, is_uncounted_in_tf
from torch_warmstart.model import Shape, Variable, has_no_address, why_unwritable
from torch_warmstart.model.sharding import is_sharded, why_not_in_boxes
from torch_warmstart.names import Source
from torch_warmstart.new_rows import Fill, Initialised, fill_of_slot, fill_of_variable
from torch_warmstart.planning.axes import check_cells, check_fallback, seen_shape
from torch_warmstart.planning.fitting import (
    ProblemError,
    check_new_rows,
    check_old_rows,
    check_other_axes,
    check_parts,
    check_readable,
    check_shape,
    check_share_found,
    choose_cast,
    choose_layout,
    vocab_axes,
)
from torch_warmstart.planning.locating import Located, Location
from torch_warmstart.planning.plan import (
    LAYER_FINDS_IT,
    LAYER_HAS_NONE,
    NO_COUNTERPART,
    NOT_SELECTED,
    SHARES_MEMORY,
    AxisChange,
    Cast,
    PlanItem,
    State,
)
from torch_warmstart.planning.rows import OldVocabularies, Remappings, Taken, new_padding_rows
from torch_warmstart.planning.wishes import Wish
from torch_warmstart.settings import AnyVocabInfo, VocabInfo, asks_for_entries, takes_new_rows
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies import Remapping

_MISSING_HINT = (
    "A variable that is not in the checkpoint: name its key in var_name_to_prev_var_name "
    "(suggest_names() proposes keys), leave it out of vars_to_warm_start, or keep what the model "
    "has with on_missing='keep'."
)
_FOUND_HINT = (
    "Its VocabInfo says by min_found that a part of its entries is found: name its key in "
    "var_name_to_prev_var_name (suggest_names() proposes keys), or leave it out of "
    "vars_to_warm_start; without min_found, on_missing='keep' keeps what the model has."
)
_SLOT_HINT = (
    "An optimizer's slot that is not in the checkpoint: name its key in var_name_to_prev_var_name, "
    "leave it out by a list in vars_to_warm_start (a str brings all), or keep what `optimizer` has "
    "with on_missing='keep'."
)


@frozen(eq=False)
class Decision:
    """What happens to one variable, or why nothing can."""

    item: PlanItem  # "kept", where there is a problem
    problem: Finding | None = None
    is_missing: bool = False  # the checkpoint does not have it
    mismatch: tuple[str, Shape, Shape] | None = None  # kept for it: name, old, new shape
    # Of a slot that is taken: how torch's optimizer goes on differently.
    remarks: tuple[Finding, ...] = ()
    # Of a slot that is kept: why the state of its parameter cannot be taken without it.
    breaks_state: str | None = None
    is_open: bool = False  # because of a problem, its own or one that is said elsewhere


def decide_each(
    wishes: Iterable[Wish], decide: Callable[[Wish], Decision]
) -> dict[Variable, Decision]:
    """A decision on each variable; what keeps one from being made is its problem."""
    return {wish.variable: _decided(wish, decide) for wish in wishes}


def _decided(wish: Wish, decide: Callable[[Wish], Decision]) -> Decision:
    if not wish.is_selected:
        return Decision(PlanItem(wish.variable, "kept", NOT_SELECTED))
    try:
        return decide(wish)
    except ProblemError as problem:
        return undecided(wish, problem.finding)
    except (SettingsError, VocabularyError, MissingTensorError) as error:
        return undecided(wish, Finding(error.code, "error", wish.variable.name, str(error)))


def undecided(wish: Wish, problem: Finding | None = None) -> Decision:
    """No decision because of a problem; None: one that is said elsewhere."""
    return Decision(PlanItem(wish.variable, "kept", ""), problem, is_open=True)


def decide_variable(
    wish: Wish, located: Located, idle: Container[Variable], remappings: Remappings
) -> Decision:
    """What happens to a parameter or buffer.

    Args:
        wish: What is asked of it.
        located: Where all of them are.
        idle: Variables that a rule is for which finds none of them: said once is enough.
        remappings: Those of the vocabularies.

    Raises ProblemError, or another of our errors, with what is wrong.
    """
    variable = wish.variable
    if variable in idle:
        return undecided(wish)
    _check_target(variable)
    location = where(wish, located)
    if location.memory_of:
        names = " and ".join(other.name for other in location.memory_of)
        return Decision(PlanItem(variable, "kept", f"{SHARES_MEMORY} {names}"))
    if location.source is None:
        return decide_missing(wish, located, explanation=location.explanation)
    check_writable(variable)
    return decide_found(wish, location.source, location.how, remappings)


def where(wish: Wish, located: Located) -> Location:
    """Where a variable comes from; raises what keeps that from being known."""
    location = located.of_variable[wish.variable]
    if location.error is not None and not _may_miss(wish, location.error):
        raise location.error
    return location


def _may_miss(wish: Wish, error: SettingsError | MissingTensorError) -> bool:
    """Whether it is no problem that a rule for many variables finds nothing for this one."""
    if not isinstance(error, MissingTensorError) or wish.rename is None:
        return False
    owner = wish.rename.owner
    is_expected = wish.may_be_missing or is_uncounted_in_tf(owner.module, owner.leaf)
    return is_expected and not wish.rename.value.is_exact


def _check_target(variable: Variable) -> None:
    if variable.is_lazy:
        text = f"{variable.name} has no shape yet: run a batch through the model first."
        raise ProblemError("lazy-parameter", variable, text)


def check_writable(variable: Variable) -> None:
    """Raises ProblemError if a variable that is in the checkpoint cannot be filled in place."""
    why = why_not_in_boxes(variable.tensor) if is_sharded(variable.tensor) else None
    if why is not None:
        text = f"{variable.name} {why}: warm-start the model before it is distributed in that way."
        raise ProblemError("sharded-parameter", variable, text)
    why = why_unwritable(variable.local_tensors)
    if why is not None:
        raise ProblemError(
            "unwritable-tensor",
            variable,
            f"{variable.name} {why}, so it cannot be filled in place. Leave it out of "
            "vars_to_warm_start, or give the model a plain tensor first (tensor.clone()).",
        )


def _check_rows_writable(variable: Variable) -> None:
    """Raises ProblemError if rows of a variable cannot be written one by one."""
    kind = next((type(t).__name__ for t in variable.local_tensors if has_no_address(t)), None)
    if kind is not None:
        raise ProblemError(
            "unwritable-tensor",
            variable,
            f"{variable.name} is a {kind}, which only its own class can write to, and not row by "
            "row: move its rows while it is a plain tensor, and make it one of these afterwards.",
        )


# -- not there -------------------------------------------------------------------------------------


def decide_missing(
    wish: Wish, located: Located, reason: str = "", explanation: str = ""
) -> Decision:
    """A variable that the checkpoint does not have: kept, if it may be.

    Args:
        wish: What is asked of it.
        located: Where the others are.
        reason: Why it can be kept in any case; or "".
        explanation: Why it was not found, if that is known.
    """
    variable = wish.variable
    may_miss = "not in the checkpoint" if wish.may_be_missing else ""
    reason = _why_there_is_none(variable, located) or reason or may_miss
    if reason:
        return Decision(PlanItem(variable, "kept", reason), is_missing=True)
    hint = _MISSING_HINT if variable.slot is None else _SLOT_HINT
    if any(map(asks_for_entries, wish.infos)):
        hint = _FOUND_HINT
    if not explanation:
        near = nearest_are(located.free(located.finder.nearest(variable)))
        explanation = f"{' = '.join(variable.names)} is not in the checkpoint.{near}"
    raise ProblemError("not-in-checkpoint", variable, explanation, hint)


def _why_there_is_none(variable: Variable, located: Located) -> str:
    owner = variable.owners[0]
    if is_uncounted_in_tf(owner.module, owner.leaf):
        conventions = located.finder.conventions
        return NO_COUNTERPART if conventions.has_own_layers else LAYER_FINDS_IT
    if _is_made_without(variable, located):
        return f"{LAYER_HAS_NONE}: {absent_in_tf(owner.module, owner.leaf):g}"
    return ""


def _is_made_without(variable: Variable, located: Located) -> bool:
    """Whether a norm of TensorFlow's has no such tensor (`scale=False`), and torch's does nothing.

    Its other tensors are there, and what the model holds is what a layer without it computes.
    """
    owner = variable.owners[0]
    value = absent_in_tf(owner.module, owner.leaf)
    has_own_layers = located.finder.conventions.has_own_layers
    if value is None or not has_own_layers or variable.slot is not None:
        return False
    siblings = (v for v in located.in_module(owner.module) if v is not variable)
    is_there = any(located.source(sibling) is not None for sibling in siblings)
    if variable.tensor.is_meta:  # its module's reset_parameters will make it so
        return is_there
    return is_there and all(bool((local == value).all()) for local in variable.local_tensors)


# -- there -----------------------------------------------------------------------------------------


def decide_found(wish: Wish, source: Source, how: str, remappings: Remappings) -> Decision:
    """A variable whose tensors are known; raises ProblemError if they do not fit."""
    variable = wish.variable
    source = choose_layout(variable, source, wish.layout)
    axes = vocab_axes(variable, wish.infos)
    if not wish.infos:
        _check_no_ids(variable, source, remappings.old)
    try:
        check_readable(variable, source)
        if wish.infos:
            check_other_axes(variable, source, wish.infos, axes)
        else:
            check_shape(variable, source)
        cast = choose_cast(variable, source)
    except ProblemError:
        if not wish.may_misfit:
            raise
        why = "shape or dtype does not fit"
        item = PlanItem(variable, "kept", why, source.specs, source.owner)
        return Decision(item, mismatch=(variable.name, source.specs[0].shape, variable.shape))
    if wish.infos:
        return Decision(remapped_item(variable, source, wish.infos, how, remappings))
    return Decision(_item(variable, source, how, _state(source, cast), cast))


def _item(
    variable: Variable, source: Source, how: str, state: State, cast: Cast | None, **more: Any
) -> PlanItem:
    form = source.form
    found = (source.specs, source.owner, source.copies)
    taken = (variable, state, how, *found, form.layout, form.part, cast)
    return PlanItem(
        *taken, is_inferred=source.is_inferred, is_layout_presumed=form.is_presumed, **more
    )


def _state(source: Source, cast: Cast | None) -> State:
    if source.form.layout is not IDENTITY or cast is not None:
        return "converted"
    same = source.specs[0].key.replace("/", ".") == source.owner.name.replace("/", ".")
    return "copied" if same else "renamed"


def remapped_item(
    variable: Variable,
    source: Source,
    infos: Sequence[AnyVocabInfo],
    how: str,
    remappings: Remappings,
    *,
    parameter: Source | None = None,
    having: torch.Tensor | None = None,
) -> PlanItem:
    """The item of a variable whose rows move; raises ProblemError if they cannot.

    `parameter` is what a slot's parameter is made of. `having`, bool, are the rows along axis 0
    that may have an old one; None: all.
    """
    check_readable(variable, source)
    _check_rows_writable(variable)
    axes = vocab_axes(variable, infos)
    old_sizes = check_other_axes(variable, source, infos, axes)
    cast = choose_cast(variable, source)
    taken = _keys(source), () if parameter is None else _keys(parameter)
    found = []
    for info, axis, size in zip(infos, axes, old_sizes, strict=True):
        remapping = _remapping(variable, info, axis, size, remappings=remappings, taken=taken)
        if having is not None and axis == 0 and len(remapping.rows) == len(having):
            remapping = remapping.where(having)
        found.append(AxisChange(info, remapping, axis, None, size))
    for change in found:
        check_share_found(variable, change.vocab, change.remapping)
        check_parts(variable, change.vocab, change.axis, change.old_size)
        check_new_rows(variable, change.vocab, change.remapping, change.axis, change.old_size)
        check_old_rows(variable, source, change.remapping, change.axis, change.old_size)
    _check_ids_are_said(variable, source, found, remappings.old)
    check_fallback(variable, infos)
    changes = tuple(
        replace(change, fill=_fill(variable, change, found, remappings, taken)) for change in found
    )
    check_cells(variable, changes)
    return _item(variable, source, how, "remapped", cast, changes=changes)


def _remapping(
    variable: Variable,
    info: AnyVocabInfo,
    axis: int,
    old_size: int,
    *,
    remappings: Remappings,
    taken: Taken,
) -> Remapping:
    try:
        return remappings.of(info, variable, axis, old_size, taken)
    except (VocabularyError, StorageError) as error:
        raise ProblemError(VocabularyError.code, variable, f"{variable.name}: {error}") from error


def _keys(source: Source) -> tuple[str, ...]:
    return tuple(spec.key for spec in source.specs)


def _check_no_ids(variable: Variable, source: Source, old: OldVocabularies) -> None:
    """Rows of a table that keeps its ids lie as these do, which a position does not tell."""
    keys = _keys(source)
    try:
        old.check_no_part(keys)
    except VocabularyError as error:
        raise ProblemError("table-by-position", variable, f"{variable.name}: {error}") from error
    table = old.table_of(keys)
    if table is not None:
        raise ProblemError(
            "table-by-position",
            variable,
            f"{variable.name} is made of {table.values!r}, a table whose rows are those of the ids "
            "that it keeps, in their order. Say which id is which row of the model: "
            f"var_name_to_vocab_info={{{variable.name!r}: VocabInfo(new_vocab)}}.",
        )


def _check_ids_are_said(
    variable: Variable, source: Source, changes: Sequence[AxisChange], old: OldVocabularies
) -> None:
    """The same where only other axes change, or the rows go by position."""
    if not any(change.axis == 0 and isinstance(change.vocab, VocabInfo) for change in changes):
        _check_no_ids(variable, source, old)


def _fill(
    variable: Variable,
    change: AxisChange,
    changes: Sequence[AxisChange],
    remappings: Remappings,
    taken: Taken,
) -> Fill | None:
    """What fills the new rows of an axis, of all that change."""
    if not change.remapping.num_without_old_row:
        return None
    info = change.vocab
    initializer = info.backup_initializer
    padding = new_padding_rows(variable, change.remapping, change.axis)
    if callable(initializer) and takes_new_rows(initializer):
        return remappings.initialising.plan(
            variable,
            initializer,
            info.generator,
            vocabularies=remappings.vocabularies(info, change.axis, taken),
            remapping=change.remapping,
            axis=change.axis,
            old_size=change.old_size,
            shape=seen_shape(variable.shape, change.axis, changes),
            padding=padding,
        )
    slot = variable.slot
    fill = fill_of_variable(info) if slot is None else fill_of_slot(info, slot.start)
    return replace(fill, padding=padding) if isinstance(fill, Initialised) else fill
