"""An assignment map, of a checkpoint's names to a model's variables, as settings of a warm start.

The form of `tf.compat.v1.train.init_from_checkpoint`: tensors to variables, scopes to scopes. What
becomes of it is the selected variables and their names; finding these is the planner's.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from torch_warmstart.errors import Finding, PlanError, SettingsError
from torch_warmstart.formats import Checkpoint
from torch_warmstart.model import Variable, VariablesByName, canonical_name, model_variables
from torch_warmstart.planning.plan import WarmStartPlan
from torch_warmstart.planning.planner import make_plan
from torch_warmstart.planning.renames import read_renames
from torch_warmstart.settings import NameRules, WarmStartSettings, canonical_scope, is_scope
from torch_warmstart.values import frozen

AssignmentMap = Mapping[str, str | torch.Tensor] | Iterable[tuple[str, str | torch.Tensor]]


@frozen
class Entry:
    """One entry of an assignment map."""

    source: str  # a key of the checkpoint, or a scope
    target: str | torch.Tensor  # a variable, or a scope

    def __str__(self) -> str:
        if isinstance(self.target, torch.Tensor):
            return f"{{{self.source!r}: <tensor of shape {list(self.target.shape)}>}}"
        return f"{{{self.source!r}: {self.target!r}}}"


def read_map(assignment_map: AssignmentMap) -> list[Entry]:
    """The entries of a map, each of a tensor to a variable or of a scope to a scope.

    Raises SettingsError if the map is malformed.
    """
    pairs = _pairs(assignment_map)
    if not pairs:
        raise SettingsError("assignment_map is empty, which assigns nothing.")
    entries = [Entry(source, target) for source, target in pairs]
    for entry in entries:
        _check_entry(entry)
    return entries


def _pairs(assignment_map: object) -> list[tuple[Any, Any]]:
    if isinstance(assignment_map, Mapping):
        return list(assignment_map.items())
    if isinstance(assignment_map, Iterable) and not isinstance(assignment_map, str | bytes):
        pairs = list(assignment_map)
        if all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            return pairs
    raise SettingsError(
        "assignment_map is a mapping or a list of pairs, from names in the checkpoint to those of "
        f"the model; not {reprlib.repr(assignment_map)}."
    )


def _check_entry(entry: Entry) -> None:
    source, target = entry.source, entry.target
    if not _is_name(source) or not (_is_name(target) or isinstance(target, torch.Tensor)):
        raise SettingsError(
            f"assignment_map: {{{source!r}: {reprlib.repr(target)}}} is no entry. One goes from a "
            "name in the checkpoint to a variable's name, a parameter or a buffer."
        )
    if is_scope(source) != (isinstance(target, str) and is_scope(target)):
        one, other = ("first", "second") if is_scope(source) else ("second", "first")
        raise SettingsError(
            f"assignment_map: in {entry} the {one} is a scope and the {other} is not. A scope "
            "of the checkpoint is assigned to one of the model, both with a slash at the end "
            "({'old/': 'new/'}; '/' is the root), and a tensor to a variable."
        )


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def plan_assignment(
    model: torch.nn.Module, entries: Sequence[Entry], checkpoint: Checkpoint, *, verify: bool
) -> WarmStartPlan:
    """The plan for the variables of a map, and no others; PlanError with every problem."""
    variables = model_variables(model)
    targets, problems = _targets(entries, variables)
    scopes = [key for key in targets if isinstance(key, str) and is_scope(key)]
    around = {
        v: [s for s in scopes if any(name.startswith(s) for name in v.names)] for v in variables
    }
    selected = [v for v in variables if v in targets or around[v]]
    for scope in scopes:  # of which more specific entries leave nothing: it need not be there
        taken = [
            v in targets or any(s != scope and s.startswith(scope) for s in around[v])
            for v in selected
            if scope in around[v]
        ]
        if taken and all(taken):
            del targets[scope]
    names = {name: entry.source for name, entry in targets.values()}
    rules = NameRules(names, origin="assignment_map")
    if not selected:  # nor can settings select nothing; but what is wrong with the names is known
        problems += read_renames(rules, variables, frozenset())[1]
    else:
        tensors = [variable.tensor for variable in selected]
        settings = WarmStartSettings(checkpoint, tensors, None, rules, verify=verify)
        try:
            plan = make_plan(model, settings, checkpoint)
        except PlanError as error:
            if not problems:
                raise
            problems += error.problems
    if problems:
        raise PlanError.of("The assignment_map", problems)
    return plan


def _targets(
    entries: Sequence[Entry], variables: Sequence[Variable]
) -> tuple[dict[Variable | str, tuple[str, Entry]], list[Finding]]:
    """Each target's name and entry, by what `_find` makes of it; and problems of the map alone."""
    targets: dict[Variable | str, tuple[str, Entry]] = {}
    problems = []
    by_name = VariablesByName(variables)
    for entry in entries:
        found = _find(entry.target, variables, by_name)
        if found is None:
            text = (
                f"assignment_map: {entry}: the model has no such parameter or persistent buffer (a "
                "copy or a view is another tensor)."
            )
            problems.append(Finding("unknown-variable", "error", str(entry), text))
            continue
        key, name = found
        _, first = targets.setdefault(key, (name, entry))
        if canonical_name(first.source) != canonical_name(entry.source):
            kind = "scopes" if is_scope(entry.source) else "tensors"
            text = f"assignment_map: {name!r} is assigned different {kind}: {first} and {entry}."
            problems.append(Finding("entry-twice", "error", name, text))
    return targets, problems


def _find(
    target: str | torch.Tensor, variables: Sequence[Variable], by_name: VariablesByName
) -> tuple[Variable | str, str] | None:
    """What a target is, and its name: a variable, or what names in a scope begin with."""
    if isinstance(target, torch.Tensor):
        return next(((v, v.name) for v in variables if v.tensor is target), None)
    if is_scope(target):
        return canonical_scope(target), target
    found = by_name.find(target)
    return (found[0], found[1].name) if found else (target, target)  # the planner will say so
