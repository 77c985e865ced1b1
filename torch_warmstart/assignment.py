"""An assignment map, of a checkpoint's names to a model's variables, as a key for each variable.

The form of `tf.compat.v1.train.init_from_checkpoint`: tensors to variables, scopes to scopes.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from torch_warmstart.errors import PlanError, SettingsError, did_you_mean, plural
from torch_warmstart.formats.base import Checkpoint
from torch_warmstart.tf_layers import is_uncounted_in_tf, tf_forms
from torch_warmstart.variables import Owner, Variable, canonical_name, find_variable

AssignmentMap = Mapping[str, str | torch.Tensor] | Iterable[tuple[str, str | torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an assignment map."""

    source: str  # a key of the checkpoint, or a scope
    target: str | torch.Tensor  # a variable, or a scope

    @property
    def is_scope(self) -> bool:
        return _is_scope(self.source)

    @property
    def scope(self) -> str:
        """The beginning of the names in the model's scope: "new.", or "" for the root."""
        assert isinstance(self.target, str)
        return _beginning(canonical_name(self.target))

    def __str__(self) -> str:
        if isinstance(self.target, torch.Tensor):
            return f"{self.source!r}: <tensor of shape {list(self.target.shape)}>"
        return f"{self.source!r}: {self.target!r}"


@dataclass(frozen=True, slots=True)
class Claim:
    """What an entry means for one variable: its key in the checkpoint, or why there is none."""

    entry: Entry
    variable: Variable
    owner: Owner
    key: str | None = None
    problem: str = ""

    def yields_to(self, other: Claim) -> bool:
        """An inner scope is more specific than one around it, a variable's own entry than any."""
        if not self.entry.is_scope or not other.entry.is_scope:
            return self.entry.is_scope and not other.entry.is_scope
        outer, inner = self.entry.scope, other.entry.scope
        return inner != outer and inner.startswith(outer)


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
    if entry.is_scope != (isinstance(target, str) and _is_scope(target)):
        one, other = ("first", "second") if entry.is_scope else ("second", "first")
        raise SettingsError(
            f"assignment_map: in {{{entry}}} the {one} is a scope and the {other} is not. A scope "
            "of the checkpoint is assigned to one of the model, both with a slash at the end "
            "({'old/': 'new/'}; '/' is the root), and a tensor to a variable."
        )


def assign(
    entries: Sequence[Entry], variables: Sequence[Variable], checkpoint: Checkpoint
) -> list[Claim]:
    """The claim that counts for each variable of the map; PlanError with every problem."""
    claims: dict[int, list[Claim]] = {}
    problems = []
    for entry in entries:
        found = (_claim_scope if entry.is_scope else _claim_one)(entry, variables, checkpoint)
        if not found:
            problems.append(_matches_nothing(entry, variables))
        for claim in found:
            claims.setdefault(id(claim.variable), []).append(claim)
    chosen = []
    for rivals in claims.values():
        valid = [claim for claim in rivals if not any(claim.yields_to(rival) for rival in rivals)]
        chosen.append(valid[0])
        problems += [claim.problem for claim in valid if claim.problem]
        if len({claim.key for claim in valid}) > 1 and not any(claim.problem for claim in valid):
            both = " and by ".join(f"{{{claim.entry}}}" for claim in valid)
            problems.append(f"{valid[0].owner.name} is assigned different tensors: by {both}.")
    if problems:
        count = plural(len(problems), "problem")
        raise PlanError(f"The assignment_map has {count}; nothing was changed:", problems)
    return chosen


def _claim_one(entry: Entry, variables: Sequence[Variable], checkpoint: Checkpoint) -> list[Claim]:
    target = entry.target
    if isinstance(target, torch.Tensor):
        found = next(((v, v.owners[0]) for v in variables if v.tensor is target), None)
    else:
        found = find_variable(variables, target)
    if found is None:
        return []
    return [_with_key(Claim(entry, *found), [entry.source], checkpoint)]


def _claim_scope(
    entry: Entry, variables: Sequence[Variable], checkpoint: Checkpoint
) -> list[Claim]:
    claims = []
    for variable in variables:
        names = {
            owner: _names_in_scope(entry, owner, checkpoint)
            for owner in variable.owners  # of a tied variable, any that is in the scope
            if owner.name.startswith(entry.scope)
        }
        if not names:
            continue
        found = [owner for owner, called in names.items() if _keys(called, checkpoint)]
        claim = Claim(entry, variable, (found or list(names))[0])
        if found or checkpoint.family != "tensorflow" or not _is_uncounted(claim.owner):
            claim = _with_key(claim, [n for called in names.values() for n in called], checkpoint)
        claims.append(claim)
    return claims


def _names_in_scope(entry: Entry, owner: Owner, checkpoint: Checkpoint) -> list[str]:
    """What a variable of the model's scope may be called in the checkpoint's, likeliest first.

    This is all that scopes come down to: names for `var_name_to_prev_var_name`.
    """
    below, _, leaf = owner.name.removeprefix(entry.scope).rpartition(".")
    leaves = [leaf]
    if checkpoint.family == "tensorflow":  # where a form needs several tensors, no key is enough
        forms = [form for form in tf_forms(owner.module, leaf) if len(form.names) == 1]
        leaves = [name for form in forms for name in form.names[0] if name != leaf] + [leaf]
    begin = _beginning(entry.source)
    names = [begin + (f"{below}.{leaf}" if below else leaf).replace(".", "/") for leaf in leaves]
    in_torch = checkpoint.family == "torch"
    return [name.replace("/", ".") for name in names] if in_torch else names


def _keys(names: Sequence[str], checkpoint: Checkpoint) -> list[str]:
    """The keys of the different tensors that names stand for."""
    found: dict[object, str] = {}
    for name in names:
        for spelling in _spellings(name):
            keys = (spelling,) if spelling in checkpoint else checkpoint.keys_of(spelling)
            for spec in map(checkpoint.spec, keys):
                found.setdefault(spec.key if spec.storage is None else spec.storage, spec.key)
            if keys:
                break
    return list(found.values())


def _spellings(name: str) -> dict[str, None]:
    """A name as it is, and as it may have been meant."""
    bare = name.removesuffix(":0")
    return dict.fromkeys((name, bare, bare.replace(".", "/"), bare.replace("/", "."), f"{bare}:0"))


def _with_key(claim: Claim, names: Sequence[str], checkpoint: Checkpoint) -> Claim:
    """A claim by the one key that is found under some names, or one that says what is wrong."""
    keys = _keys(names, checkpoint)
    if len(keys) == 1:
        return replace(claim, key=keys[0])
    if keys:
        problem = f"several tensors answer: {' and '.join(map(repr, keys))}. Assign one by its key."
    else:
        near = did_you_mean(names[0], [*checkpoint, *checkpoint.full_names()])
        problem = f"{checkpoint.url} has no tensor {' or '.join(map(repr, names))}.{near}"
    return replace(claim, problem=f"{{{claim.entry}}}: for {claim.owner.name}, {problem}")


def _matches_nothing(entry: Entry, variables: Sequence[Variable]) -> str:
    """Why an entry is for no variable."""
    problem = f"{{{entry}}}: the model has no"
    names = [name for variable in variables for name in variable.names]
    if isinstance(entry.target, torch.Tensor):
        return (
            f"{problem} such parameter or persistent buffer (a copy or a view is another tensor)."
        )
    if not entry.is_scope:
        return f"{problem} variable {entry.target!r}.{did_you_mean(entry.target, names)}"
    scopes = {name[: at + 1] for name in names for at, char in enumerate(name) if char == "."}
    near = did_you_mean(entry.scope, sorted(scope.replace(".", "/") for scope in scopes))
    return f"{problem} variables in {entry.target!r}.{near}"


def _is_uncounted(owner: Owner) -> bool:
    return is_uncounted_in_tf(owner.module, owner.leaf)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _is_scope(name: str) -> bool:
    return name.endswith(("/", "."))


def _beginning(scope: str) -> str:
    return "" if scope in ("/", ".") else scope
